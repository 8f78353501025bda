"""The page and its server: gradio carries uploads, the queue, and wishes to `Service`; the page is assets/app.js."""

import importlib.resources
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported: nothing is told to anybody

import gradio as gr
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aas.serve.models import Models
from aas.serve.options import Serve
from aas.serve.ports import HOST, free_port
from aas.serve.service import Service
from aas.serve.waiting import MAX_WAITING
from aas.stages.ground import be_quiet_about_loading
from aas.store.atomic import check_writable
from aas.view.report import viewer_assets

FONTS = ["system-ui", "sans-serif"]
# Whatever a library might want: the browser asks no other server.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'"
)

# gradio knows the events of a page by their quoted names in its script.
BRIDGE = """
const io = { server, upload, watch, props, ask: (wish) => trigger('ask', wish), stop: () => trigger('stop') };
"""


def serve(options: Serve) -> int:
    """Load the first choice's models, print the address, and serve until Ctrl-C; returns the exit code.

    Raises ValueError or OSError, before that, for what cannot be loaded or listened to.
    """
    check_writable(options.out)
    models = Models(options)
    models.check()
    if "embedded" in options.model:
        be_quiet_about_loading()
    models.grounder(models.first)
    with tempfile.TemporaryDirectory(prefix="aas-serve-") as uploads:
        app, addresses = launched(options, Service(models, Path(uploads), options.out))
        print(*addresses, sep="\n", flush=True)
        try:
            Event().wait()
        finally:
            app.close(verbose=False)
    return 0


def launched(options: Serve, service: Service) -> tuple[gr.Blocks, list[str]]:
    """The app, which listens, and its addresses."""
    port = free_port(options.port)
    os.environ["GRADIO_TEMP_DIR"] = str(service.uploads)
    app = built(service, options)
    app.queue(max_size=MAX_WAITING, default_concurrency_limit=1, api_open=False)
    _, address, public = app.launch(
        server_name=HOST,
        server_port=port,
        share=options.share,
        prevent_thread_lock=True,
        quiet=True,
        footer_links=[],
        max_file_size=options.max_megabytes * 1_000_000,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        run_history=False,
        theme=gr.themes.Base(font=FONTS, font_mono=["monospace"]),
        app_kwargs={"middleware": [Middleware(OnlyHere)], "docs_url": None, "redoc_url": None},
    )
    if options.share and not public:
        app.close(verbose=False)
        raise ValueError("No public address could be had: see above, or leave --share out.")
    return app, [address, *([public] if public else [])]


def built(service: Service, options: Serve) -> gr.Blocks:
    """The page: one component, whose script is ours."""
    told: dict[str, Any] = {"choices": service.models.choices, "n_colours": viewer_assets().n_colours}
    told["max_bytes"] = options.max_megabytes * 1_000_000
    script = f"{viewer_assets().script}\n{_asset('app.js')}\nAasApp.start(element, {json.dumps(told)}, io);"
    functions = [_wished(service, name) for name in ("begin", "take", "place", "correct", "save", "download")]
    with gr.Blocks(title="aas", analytics_enabled=False, fill_width=True) as app:
        page = gr.HTML(
            value=None,
            html_template='<div class="aas served"></div>',
            js_on_load=f"{BRIDGE}\n{script}",
            apply_default_css=False,
            server_functions=functions,
            head=f"<style>{viewer_assets().style}\n{_asset('app.css')}</style>",
        )

        def ask(event: gr.EventData) -> Iterator[dict[str, Any]]:
            wish = event._data if isinstance(event._data, dict) else {}
            for state in service.ask(wish):
                yield state | {"number": wish.get("number")}

        # "multiple": a question that follows a stop at once would be dropped; the page itself asks one at a time.
        answering = page.ask(
            ask, inputs=None, outputs=page, show_progress="hidden", api_visibility="private", trigger_mode="multiple"
        )
        page.stop(None, cancels=[answering])
    return app


def _wished(service: Service, name: str) -> Any:
    method = getattr(service, name)

    def wished(wish: Any) -> dict[str, Any]:
        return method(wish)

    wished.__name__ = name
    return wished


class OnlyHere:
    """The policy on every answer of the server."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, with_policy)


def _asset(name: str) -> str:
    return importlib.resources.files("aas.serve").joinpath("assets", name).read_text(encoding="utf-8")
