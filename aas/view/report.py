"""report.html: one file that opens from disk without network, made of one fragment per photograph."""

import base64
import hashlib
import html
import importlib.resources
import io
import string
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from aas.records import Answer, GroundedPhrase, View
from aas.store.atomic import write_text
from aas.text import harmless
from aas.view.colours import BLACK, PALETTE, colour_of, dark_ink, dark_tint, hex_of, light_ink, light_tint
from aas.view.scaling import PIXELATED_BELOW_PX, inner_edge, shown_image, shown_mask, shown_point, shown_size_hw
from aas.view.text import pieces_of

LONGEST_SIDE_PX = 960
_FILL_ALPHA, _EDGE_ALPHA = 105, 245
_JPEG_QUALITY = 78
_WIDE_FROM, _TALL_BELOW = 1.9, 0.85
# The grid is interpolated as the point was found (bicubic) to about this size; the browser does the rest.
_HEAT_SIDE_PX = 96
_HEAT_LEVELS = 48
_HEAT_RGB = ((8, 6, 30), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191))
_HEAT_ALPHA = (120, 150, 185, 205, 220)


def entry(name: str, image: np.ndarray, answer: Answer, phrases: Sequence[GroundedPhrase], view: View) -> str:
    """HTML of one grounding, for `render_report`.

    `image`: uint8 [H, W, 3] RGB; `view`: the grid of the phrases' maps and the rectangle of the image, in its pixels,
    that it covers. Photograph and masks are embedded with a long side of 960 pixels at most. Any text is allowed in
    `name`, question and answer.
    """
    image_hw = (image.shape[0], image.shape[1])
    size_hw = shown_size_hw(image_hw, 1, LONGEST_SIDE_PX)
    return _template("entry.html").substitute(
        shape=_shape(size_hw),
        name=_escaped(name),
        width=size_hw[1],
        height=size_hw[0],
        photo=_photo_uri(image, size_hw),
        rest=_rest_uri(phrases, size_hw),
        masks="".join(_mask_tag(i, phrases[i].mask, size_hw) for i in _largest_first(phrases)),
        heats="".join(_heat_tag(i, phrase.map, view, image_hw, size_hw) for i, phrase in enumerate(phrases)),
        points="".join(_point_tag(i, phrase.point_xy, image_hw, size_hw) for i, phrase in enumerate(phrases)),
        question=_escaped(answer.question),
        answer=_answer_html(answer, phrases),
        legend="".join(_legend_tag(i, phrase) for i, phrase in enumerate(phrases)),
    )


def render_report(
    fragments: Iterable[str], title: str, notice: str = "", failures: Sequence[tuple[str, str]] = ()
) -> str:
    """The whole page. `fragments` come from `entry`; `failures` are names of photographs and what went wrong."""
    entries = list(fragments)
    style, script = _asset("report.css") + _palette_css(), _asset("report.js")
    return _template("report.html").substitute(
        title=_escaped(title),
        notice=f'<p class="notice">{_escaped(notice)}</p>' if notice else "",
        count=_count(len(entries), len(failures)),
        style=style,
        style_hash=_csp_hash(style),
        script=script,
        script_hash=_csp_hash(script),
        entries="\n".join(entries),
        failures=_failures_html(failures),
    )


def write_report(
    path: Path, fragments: Iterable[str], title: str, notice: str = "", failures: Sequence[tuple[str, str]] = ()
) -> None:
    """Writes `render_report(...)` to `path`, which is either the old file or the whole new one at any moment."""
    write_text(path, render_report(fragments, title, notice, failures))


def _asset(name: str) -> str:
    return importlib.resources.files("aas.view").joinpath("assets", name).read_text(encoding="utf-8")


def _template(name: str) -> string.Template:
    return string.Template(_asset(name))


def _escaped(text: str) -> str:
    return html.escape(harmless(text), quote=True)


def _csp_hash(inline: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(inline.encode("utf-8")).digest()).decode("ascii")


def _uri(picture: Image.Image, kind: str, **options: object) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, optimize=True, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _shape(size_hw: tuple[int, int]) -> str:
    """The CSS classes of a photograph's form."""
    aspect = size_hw[1] / size_hw[0]
    form = "wide" if aspect > _WIDE_FROM else "tall" if aspect < _TALL_BELOW else "common"
    return form + (" pixelated" if max(size_hw) < PIXELATED_BELOW_PX else "")


def _photo_uri(image: np.ndarray, size_hw: tuple[int, int]) -> str:
    picture = shown_image(image, size_hw).convert("RGB")
    if max(size_hw) < PIXELATED_BELOW_PX:
        return _uri(picture, "PNG")
    return _uri(picture, "JPEG", quality=_JPEG_QUALITY, progressive=True)


def _largest_first(phrases: Sequence[GroundedPhrase]) -> list[int]:
    return sorted(range(len(phrases)), key=lambda i: -np.count_nonzero(phrases[i].mask))


def _inside_and_edge(mask: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """bool [H, W] -> uint8 [h, w]: 0 outside, 1 inside, 2 the part of the inside that is the outline."""
    inside = shown_mask(mask, size_hw) >= 0.5
    edge = inner_edge(inside.astype(np.float32), 0 if max(size_hw) < PIXELATED_BELOW_PX else 2) > 0
    return inside.astype(np.uint8) + edge


def _mask_tag(index: int, mask: np.ndarray, size_hw: tuple[int, int]) -> str:
    """A picture of 2 bits per pixel: outside, inside and edge, in the phrase's colour."""
    picture = Image.fromarray(_inside_and_edge(mask, size_hw))
    picture.putpalette([*colour_of(index)] * 3)
    uri = _uri(picture, "PNG", bits=2, transparency=bytes((0, _FILL_ALPHA, _EDGE_ALPHA)))
    return f'<image class="mask" data-i="{index}" width="{size_hw[1]}" height="{size_hw[0]}" href="{uri}"/>'


def _rest_uri(phrases: Sequence[GroundedPhrase], size_hw: tuple[int, int]) -> str:
    """All masks in one picture, the smallest on top: tints that add up would hide both photograph and colours."""
    levels = np.zeros(size_hw, np.uint8)
    for index in _largest_first(phrases):
        part = _inside_and_edge(phrases[index].mask, size_hw)
        levels = np.where(part > 0, part + 2 * (index % len(PALETTE)), levels).astype(np.uint8)
    picture = Image.fromarray(levels)
    picture.putpalette([*BLACK, *(channel for colour in PALETTE for channel in colour * 2)])
    return _uri(picture, "PNG", transparency=bytes((0, *(_FILL_ALPHA, _EDGE_ALPHA) * len(PALETTE))))


def _heat_tag(index: int, grid_map: np.ndarray, view: View, image_hw: tuple[int, int], size_hw: tuple[int, int]) -> str:
    """The attention map at its view's rectangle; what sticks out of the photograph is clipped by the page."""
    scale_x, scale_y = size_hw[1] / image_hw[1], size_hw[0] / image_hw[0]
    x0, y0, x1, y1 = view.box_xyxy
    place = f'x="{x0 * scale_x:.2f}" y="{y0 * scale_y:.2f}"'
    size = f'width="{(x1 - x0) * scale_x:.2f}" height="{(y1 - y0) * scale_y:.2f}"'
    return (
        f'<image class="heat" data-i="{index}" {place} {size} preserveAspectRatio="none" href="{_heat_uri(grid_map)}"/>'
    )


def _heat_uri(grid_map: np.ndarray) -> str:
    grid = np.nan_to_num(np.asarray(grid_map, np.float32))
    height, width = grid.shape
    factor = max(1, _HEAT_SIDE_PX // max(height, width))
    smooth = Image.fromarray(grid).resize((width * factor, height * factor), Image.Resampling.BICUBIC)
    low, high = float(grid.min()), float(grid.max())
    shares = (np.asarray(smooth) - low) / max(high - low, 1e-12)
    levels = (shares.clip(0, 1) * (_HEAT_LEVELS - 1)).round().astype(np.uint8)
    picture = Image.fromarray(levels)
    stops, ramp = np.linspace(0, 1, len(_HEAT_RGB)), np.linspace(0, 1, _HEAT_LEVELS)
    channels = [np.interp(ramp, stops, values) for values in (*zip(*_HEAT_RGB, strict=True), _HEAT_ALPHA)]
    picture.putpalette(np.stack(channels[:3], axis=1).round().astype(np.uint8).ravel().tolist())
    return _uri(picture, "PNG", transparency=channels[3].round().astype(np.uint8).tobytes())


def _point_tag(index: int, point_xy: tuple[int, int], image_hw: tuple[int, int], size_hw: tuple[int, int]) -> str:
    """Lines of no length with round ends: discs that keep their size on the screen whatever the photograph's."""
    x, y = shown_point(point_xy, image_hw, size_hw)
    discs = "".join(f'<path class="{part}" d="M{x:.1f} {y:.1f}h0.01"/>' for part in ("rim", "ring", "dot"))
    return f'<g class="point {_colour_class(index)}" data-i="{index}">{discs}</g>'


def _answer_html(answer: Answer, phrases: Sequence[GroundedPhrase]) -> str:
    """One button per phrase: its first piece, or behind the answer when longer or equal spans left it none."""
    parts, with_button = [], set()
    for piece in pieces_of(answer.text, phrases):
        if piece.phrase is None:
            parts.append(_escaped(piece.text))
        elif piece.phrase in with_button:
            parts.append(_phrase_tag("span", piece.phrase, piece.text))
        else:
            with_button.add(piece.phrase)
            parts.append(_phrase_tag("button", piece.phrase, piece.text))
    hidden = [_phrase_tag("button", i, p.text) for i, p in enumerate(phrases) if i not in with_button]
    return "".join(parts) + "".join(f" {tag}" for tag in hidden)


def _phrase_tag(tag: str, index: int, text: str) -> str:
    extra = ' type="button" aria-pressed="false"' if tag == "button" else ""
    return f'<{tag} class="phrase {_colour_class(index)}" data-i="{index}"{extra}>{_escaped(text)}</{tag}>'


def _legend_tag(index: int, phrase: GroundedPhrase) -> str:
    words, score = _escaped(phrase.text), f"{phrase.score:.2f}"
    swatch = '<i class="swatch"></i>'
    item = f'{swatch}<span class="term">{words}</span><span class="score">{score}</span>'
    return f'<li class="{_colour_class(index)}" data-i="{index}">{item}</li>'


def _colour_class(index: int) -> str:
    return f"c{index % len(PALETTE)}"


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


def _failures_html(failures: Sequence[tuple[str, str]]) -> str:
    if not failures:
        return ""
    items = "".join(f"<li><b>{_escaped(name)}</b> {_escaped(error)}</li>" for name, error in failures)
    return f'<section class="failures"><h2>Not grounded</h2><ul>{items}</ul></section>'
