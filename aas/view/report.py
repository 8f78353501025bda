"""report.html: photographs in the one viewer (assets/viewer.js), in a page that opens from disk without network."""

import base64
import functools
import hashlib
import html
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from aas.store.atomic import write_text
from aas.store.keys import quoted
from aas.text import harmless
from aas.view.colours import PALETTE
from aas.view.report_entry import Entry, palette_css

# Above, pictures, masks and maps go into files beside the page, which are read when they are looked at.
BESIDE_FROM_BYTES = 24_000_000


@dataclass(frozen=True)
class About:
    """What stands above the photographs. `facts`: names and values (model, command, …); `sort`: the order in which
    they stand at first: "" as given, "+NAME" or "-NAME" by a figure, the lowest or the highest first."""

    title: str
    facts: Sequence[tuple[str, str]] = ()
    notice: str = ""
    sort: str = ""


@dataclass
class Report:
    """A page that grows. `add` and `write` as often as it takes; at any moment the file is the old one or the new one.

    Small ones are one file; of large ones each photograph's details are a file of `NAME_files/`.
    """

    path: Path
    about: About
    beside_from_bytes: int = BESIDE_FROM_BYTES
    _summaries: dict[str, dict[str, Any]] = field(default_factory=dict)
    _details: dict[str, str] = field(default_factory=dict)
    _n_bytes: int = 0
    _is_beside: bool = False

    def add(self, key: str, entry: Entry) -> None:
        """A photograph, or one of this key anew; photographs stand by their keys."""
        self._summaries[key] = entry.summary
        self._details[key] = _json(entry.details)
        self._n_bytes += len(self._details[key])
        self._is_beside |= self._n_bytes > self.beside_from_bytes
        if self._is_beside:
            for one, details in self._details.items():
                write_text(self._file(one), f"AasViewer.receive({_json(one)},{details});\n")
            self._details.clear()

    def write(self, failures: Sequence[tuple[str, str]] = ()) -> None:
        """The page of all that was added. `failures`: names of photographs and what went wrong."""
        keys = sorted(self._summaries)
        blocks = [
            {"id": f"details-{i}", "text": Markup(self._details[key])}
            for i, key in enumerate(keys)
            if key in self._details
        ]
        entries = [self._summaries[key] | self._place(i, key) for i, key in enumerate(keys)]
        write_text(self.path, _rendered(self.about, entries, blocks, failures, beside=self._is_beside))

    def _file(self, key: str) -> Path:
        return self.path.parent / f"{self.path.stem}_files" / f"{quoted(key)}.js"

    def _place(self, i: int, key: str) -> dict[str, str]:
        if not self._is_beside:
            return {"block": f"details-{i}"}
        file = self._file(key)
        return {"key": key, "file": quote(f"{file.parent.name}/{file.name}")}


def embedded(entry: Entry, height_px: int) -> str:
    """One photograph as an element for a notebook: a frame of its own, which reaches nothing outside of itself."""
    whole = entry.summary | {"details": entry.details}
    page = _rendered(About(entry.summary["name"]), [whole], (), (), compact=True)
    return (
        f'<iframe srcdoc="{html.escape(page)}" sandbox="allow-scripts" title="Grounding" '
        f'style="width:100%;height:{height_px}px;border:0"></iframe>'
    )


@dataclass(frozen=True)
class ViewerAssets:
    """The viewer for another page than its own: what it does, how it looks, and how many colours things have."""

    script: str
    style: str
    n_colours: int


@functools.cache
def viewer_assets() -> ViewerAssets:
    """See there."""
    return ViewerAssets(_asset("viewer.js"), f"{_asset('viewer.css')}{palette_css()}", len(PALETTE))


def _rendered(
    about: About,
    entries: Sequence[Mapping[str, Any]],
    blocks: Sequence[Mapping[str, str]],
    failures: Sequence[tuple[str, str]],
    beside: bool = False,
    compact: bool = False,
) -> str:
    assets = viewer_assets()
    page = {"n_colours": assets.n_colours, "sort": about.sort, "entries": entries}
    return _template("report.html").render(
        title=about.title,
        facts=about.facts,
        notice=about.notice,
        count=_count(len(entries), len(failures)),
        has_photographs=bool(entries),
        has_phrases=any(panel["phrases"] for entry in entries for panel in entry["panels"]),
        style=Markup(assets.style),
        style_hash=_csp_hash(assets.style),
        script=Markup(assets.script),
        script_hash=_csp_hash(assets.script),
        beside=beside,
        compact=compact,
        blocks=blocks,
        page=Markup(_json(page)),
        failures=failures,
    )


def _json(value: Any) -> str:
    """JSON that ends no <script> and begins no comment in it."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _asset(name: str) -> str:
    return importlib.resources.files("aas.view").joinpath("assets", name).read_text(encoding="utf-8")


@functools.lru_cache(maxsize=1)
def _templates() -> jinja2.Environment:
    """What a template writes is `harmless` and escaped, unless it is `Markup`: our own style, script and data."""
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else harmless(str(value)),
    )


def _template(name: str) -> jinja2.Template:
    return _templates().get_template(name)


def _csp_hash(inline: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(inline.encode("utf-8")).digest()).decode("ascii")


def _count(n_entries: int, n_failures: int) -> str:
    done = f"{n_entries} photograph" + ("" if n_entries == 1 else "s")
    return f"{done}, {n_failures} failed" if n_failures else done
