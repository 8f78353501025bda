"""report.html: one file that opens from disk without network, made of one fragment per photograph."""

import base64
import functools
import hashlib
import importlib.resources
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from aas.records import Answer, GroundedPhrase, View
from aas.store.atomic import write_text
from aas.text import harmless
from aas.view.colours import PALETTE, dark_ink, dark_tint, hex_of, light_ink, light_tint
from aas.view.panel import not_shown
from aas.view.report_pictures import heat_uri, largest_first, mask_uri, photo_uri, rest_uri
from aas.view.scaling import PIXELATED_BELOW_PX, shown_point, shown_size_hw
from aas.view.sharing import Thing, thing_of_phrases, things
from aas.view.text import pieces_of

LONGEST_SIDE_PX = 960
_WIDE_FROM, _TALL_BELOW = 1.9, 0.85


def entry(
    name: str,
    image: np.ndarray,
    answer: Answer,
    phrases: Sequence[GroundedPhrase],
    view: View,
    left_out: Sequence[str] = (),
) -> str:
    """HTML of one grounding, for `render_report`.

    `image`: uint8 [H, W, 3] RGB; `view`: the grid of the phrases' maps and the rectangle of the image, in its pixels,
    that it covers; `left_out`: phrases that were given no mask on purpose. Photograph and masks are embedded with a
    long side of 960 pixels at most. Any text is allowed in `name`, question, answer and phrases.
    """
    image_hw = (image.shape[0], image.shape[1])
    size_hw = shown_size_hw(image_hw, 1, LONGEST_SIDE_PX)
    shown = things(phrases)
    thing_of = thing_of_phrases(shown)
    return _template("entry.html").render(
        shape=_shape(size_hw),
        name=name,
        width=size_hw[1],
        height=size_hw[0],
        photo=photo_uri(image, size_hw),
        rest=rest_uri(phrases, shown, size_hw),
        masks=[
            {"thing": thing.colour, "uri": mask_uri(thing, phrases, size_hw)} for thing in largest_first(phrases, shown)
        ],
        heats=[_names(thing_of[i]) | {"uri": heat_uri(one.map)} for i, one in enumerate(phrases)],
        heat_place=_heat_place(view, image_hw, size_hw),
        points=[_names(thing_of[i]) | {"places": _places(one, image_hw, size_hw)} for i, one in enumerate(phrases)],
        question=answer.question,
        pieces=_answer_pieces(answer, phrases, thing_of),
        legend=[_legend_row(thing, phrases) for thing in shown],
        remark=not_shown(left_out),
    )


def render_report(
    fragments: Iterable[str], title: str, notice: str = "", failures: Sequence[tuple[str, str]] = ()
) -> str:
    """The whole page. `fragments` come from `entry`; `failures` are names of photographs and what went wrong."""
    entries = [Markup(fragment) for fragment in fragments]
    style, script = _asset("report.css") + _palette_css(), _asset("report.js")
    return _template("report.html").render(
        title=title,
        notice=notice,
        count=_count(len(entries), len(failures)),
        style=Markup(style),
        style_hash=_csp_hash(style),
        script=Markup(script),
        script_hash=_csp_hash(script),
        entries=entries,
        failures=failures,
    )


def write_report(
    path: Path, fragments: Iterable[str], title: str, notice: str = "", failures: Sequence[tuple[str, str]] = ()
) -> None:
    """Writes `render_report(...)` to `path`, which is either the old file or the whole new one at any moment."""
    write_text(path, render_report(fragments, title, notice, failures))


def _asset(name: str) -> str:
    return importlib.resources.files("aas.view").joinpath("assets", name).read_text(encoding="utf-8")


@functools.lru_cache(maxsize=1)
def _templates() -> jinja2.Environment:
    """What a template writes is `harmless` and escaped, unless it is `Markup`: our own style, script and pictures."""
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


def _shape(size_hw: tuple[int, int]) -> str:
    """The CSS classes of a photograph's form."""
    aspect = size_hw[1] / size_hw[0]
    form = "wide" if aspect > _WIDE_FROM else "tall" if aspect < _TALL_BELOW else "common"
    return form + (" pixelated" if max(size_hw) < PIXELATED_BELOW_PX else "")


def _heat_place(view: View, image_hw: tuple[int, int], size_hw: tuple[int, int]) -> dict[str, str]:
    """The view's rectangle on the shown photograph; what sticks out of it is clipped by the page."""
    scale_x, scale_y = size_hw[1] / image_hw[1], size_hw[0] / image_hw[0]
    x0, y0, x1, y1 = view.box_xyxy
    place = {"x": x0 * scale_x, "y": y0 * scale_y, "width": (x1 - x0) * scale_x, "height": (y1 - y0) * scale_y}
    return {name: f"{value:.2f}" for name, value in place.items()}


def _places(phrase: GroundedPhrase, image_hw: tuple[int, int], size_hw: tuple[int, int]) -> list[dict[str, str]]:
    """The points of a phrase, the peak last: it lies over the others."""
    places: list[dict[str, str]] = []
    for i, (point_xy, label) in enumerate(phrase.prompt_points):
        x, y = shown_point(point_xy, image_hw, size_hw)
        kind = "peak" if i == 0 else "further" if label == 1 else "not"
        places.insert(0, {"kind": kind, "x": f"{x:.1f}", "y": f"{y:.1f}"})
    return places


def _answer_pieces(
    answer: Answer, phrases: Sequence[GroundedPhrase], thing_of: dict[int, Thing]
) -> list[dict[str, Any]]:
    """One button per phrase: its first piece, or behind the answer when longer or equal spans left it none."""
    parts: list[dict[str, Any]] = []
    with_button = set()
    for piece in pieces_of(answer.text, phrases):
        tag = "" if piece.phrase is None else "span" if piece.phrase in with_button else "button"
        parts.append({"tag": tag, "text": piece.text, "phrase": piece.phrase})
        with_button.add(piece.phrase)
    for i, phrase in enumerate(phrases):
        if i not in with_button:
            parts += [{"tag": "", "text": " "}, {"tag": "button", "text": phrase.text, "phrase": i}]
    return [part | (_names(thing_of[part["phrase"]]) if part["tag"] else {}) for part in parts]


def _legend_row(thing: Thing, phrases: Sequence[GroundedPhrase]) -> dict[str, Any]:
    terms = [{"phrase": i, "words": phrases[i].text} for i in thing.phrases]
    return {**_names(thing), "terms": terms, "score": f"{phrases[thing.phrases[0]].score:.2f}"}


def _names(thing: Thing) -> dict[str, Any]:
    """What a template says of a thing: its number on the page, and the class of its colour."""
    return {"thing": thing.colour, "colour": f"c{thing.colour % len(PALETTE)}"}


def _palette_css() -> str:
    """Colours as classes: style attributes would need a weaker content security policy."""
    return "\n".join(
        f".c{index}{{--c:{hex_of(colour)};--light-ink:{hex_of(light_ink(colour))};--light-tint:{hex_of(light_tint(colour))};"
        f"--dark-tint:{hex_of(dark_tint(colour))};--dark-ink:{hex_of(dark_ink(colour))}}}"
        for index, colour in enumerate(PALETTE)
    )


def _count(n_entries: int, n_failures: int) -> str:
    done = f"{n_entries} photograph" + ("" if n_entries == 1 else "s")
    return f"{done}, {n_failures} failed" if n_failures else done
