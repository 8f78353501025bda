"""A small real server of chat completions: OpenAI's protocol over HTTP, on 127.0.0.1; what it says is said by a real
model, built in code. How servers differ, and how they fail, is its `manner`."""

import json
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

from aas.images import as_pixels
from aas.lmms.base import LMM
from aas.lmms.prepared import AskOptions

Refusal = tuple[int, Any]  # status, and what the server says


@dataclass
class Answering:
    """`manner`: called with each request before it is answered; a Refusal, or None. `lists`: names of its models; with
    none its list fails, as that of `transformers serve` does where nothing was downloaded."""

    lmm: LMM
    gives_tokens: bool = False
    manner: Callable[[dict[str, Any]], Refusal | None] = lambda asked: None
    lists: tuple[str, ...] = ("tiny",)
    says: str | None = None  # instead of the model
    seen: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    turn: Any = field(default_factory=Lock)
    address: str = ""

    def answer(self, asked: dict[str, Any]) -> Refusal:
        refusal = self.manner(asked)
        if refusal is not None:
            return refusal
        if self.says is not None:
            return 200, {"choices": [{"message": {"role": "assistant", "content": self.says}}]}
        image, question = asked["messages"][0]["content"]
        pixels = as_pixels(b64decode(image["image_url"]["url"].partition("base64,")[2]))
        options = AskOptions(asked["max_tokens"])
        with self.turn:
            token_ids = self.lmm.ask(pixels, question["text"], options=options)[0].token_ids
        text = self.lmm.tokenizer.decode(token_ids, skip_special_tokens=True)
        given = {"token_ids": list(token_ids)} if self.gives_tokens and asked.get("return_token_ids") else {}
        return 200, {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, **given}]}


class _Handler(BaseHTTPRequestHandler):
    server: Any
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        lists = self.server.answering.lists
        models = {"object": "list", "data": [{"id": name} for name in lists]}
        self._say(*(200, models) if lists else (500, "Internal Server Error"))

    def do_POST(self) -> None:
        answering = self.server.answering
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.counting:
            answering.seen.append(asked)
            answering.keys.append(self.headers.get("Authorization"))
            answering.at_once += 1
            answering.most_at_once = max(answering.most_at_once, answering.at_once)
        try:
            self._say(*answering.answer(asked) if self.path == "/v1/chat/completions" else (404, "Not Found"))
        finally:
            with self.server.counting:
                answering.at_once -= 1

    def _say(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status in (301, 302):
            self.send_header("Location", "http://127.0.0.1:9/v1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


class _Server(ThreadingHTTPServer):
    answering: Answering

    def __init__(self, answering: Answering):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answering, self.counting = answering, Lock()

    def handle_error(self, *_: object) -> None:
        return  # who asked may be gone


@contextmanager
def running(answering: Answering) -> Iterator[Answering]:
    """It answers at `answering.address`."""
    server = _Server(answering)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    answering.address = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield answering
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
