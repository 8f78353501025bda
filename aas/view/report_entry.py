"""What the viewer is told of one photograph, as plain JSON types: what stands in the page, what it loads when seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from aas.choices import ConfidenceKind, Merge
from aas.maps import DEFAULT
from aas.maps.merge import pointing_maps
from aas.records import Answer, AttentionMaps, GroundedPhrase, View
from aas.text import harmless
from aas.view.colours import PALETTE, dark_ink, dark_tint, hex_of, light_ink, light_tint
from aas.view.panel import CONFIDENCE_NAMES, not_shown
from aas.view.report_pictures import map_bytes, mask_runs, photo_uri, thumb_uri
from aas.view.scaling import PIXELATED_BELOW_PX, shown_point, shown_size_hw
from aas.view.sharing import Thing, thing_of_phrases, things
from aas.view.text import pieces_of

LONGEST_SIDE_PX = 960
SizeHW = tuple[int, int]


@dataclass(frozen=True)
class Maps:
    """Maps of one source over `view`: float32 [phrases, h, w], and, where they are known, [tokens, h, w].

    `points_xy`: of each phrase the pixel where this source points, where sources differ; `notes`: what is said of each.
    Then each source's picture has its own point, these words, and the outline of the phrase's mask.
    """

    name: str
    view: View
    of_phrases: np.ndarray
    of_tokens: np.ndarray | None = None
    points_xy: Sequence[tuple[int, int]] | None = None
    notes: Sequence[str] = ()


def maps_of(
    attention: AttentionMaps,
    tokens: Sequence[Sequence[int]],
    counted: Sequence[int] | None,
    merge: Merge = "mean",
    pointing: np.ndarray | None = None,
) -> tuple[Maps, ...]:
    """Of each source that there are maps of, as it points. None where layers are kept apart.

    `tokens` of each phrase; `counted`: see `pointing_maps`; `pointing` [phrases, h, w]: the first source's maps of
    phrases, where they are known. Where a phrase's tokens are not, the other sources have none.
    """
    if attention.maps.ndim != 3:
        return ()
    found = []
    sources = attention.sources if all(tokens) else attention.sources[:1]
    for source in sources:
        maps, of_phrases = pointing_maps(attention.of(source), [of for of in tokens if of], merge, counted)
        stacked = np.array(of_phrases, np.float32).reshape(-1, *attention.view.size_hw)
        name = "attention" if sources == (DEFAULT,) else source
        found.append(Maps(name, attention.view, stacked, maps))
    if pointing is not None:
        found[0] = replace(found[0], of_phrases=pointing)
    return tuple(found)


def confidence_figures(kind: ConfidenceKind | None, confidences: Sequence[float]) -> dict[str, Sequence[float]]:
    """As `Panel.figures` takes them, by a name that says what they are; none where there are none."""
    return {} if kind is None else {CONFIDENCE_NAMES[kind]: confidences}


@dataclass(frozen=True)
class Panel:
    """One answer about a photograph: what was found, by one run or another, or what is true.

    `left_out`: phrases that were given no mask on purpose. `shown`: which phrases share a mask, and their colours;
    None: as their masks say. `figures`: of each phrase further numbers, by name. `is_found`: whether it has scores and
    points; the truth has none.
    """

    answer: Answer
    phrases: Sequence[GroundedPhrase]
    title: str = ""
    left_out: Sequence[str] = ()
    maps: Sequence[Maps] = ()
    shown: Sequence[Thing] | None = None
    figures: Mapping[str, Sequence[float]] = field(default_factory=dict)
    is_found: bool = True


@dataclass(frozen=True)
class Entry:
    """One photograph. `summary` stands in the page, `details` (picture, masks, maps) are read when it is looked at."""

    summary: dict[str, Any]
    details: dict[str, Any]


def entry(
    name: str,
    image: np.ndarray,
    panels: Sequence[Panel],
    figures: Mapping[str, float] | None = None,
    links: Mapping[str, str] | None = None,
    longest_side_px: int = LONGEST_SIDE_PX,
) -> Entry:
    """One photograph for the viewer.

    `image`: uint8 [H, W, 3] RGB; `figures`: numbers of the whole photograph, to be sorted by; `links`: words and where
    they lead, percent-encoded. Photograph and masks are told with a long side of `longest_side_px` at most. Any text is
    allowed in names, questions, answers and phrases.
    """
    size_hw = shown_size_hw((image.shape[0], image.shape[1]), 1, longest_side_px)
    told = [panel_entry(panel, image.shape[:2], size_hw) for panel in panels]
    summary = {
        "name": harmless(name),
        "size": list(size_hw),
        "pixelated": max(size_hw) < PIXELATED_BELOW_PX,
        "thumb": thumb_uri(image),
        "figures": dict(figures or {}),
        "links": [[harmless(words), to] for words, to in (links or {}).items()],
        "panels": [one.summary for one in told],
    }
    return Entry(summary, {"photo": photo_uri(image, size_hw), "panels": [one.details for one in told]})


def panel_entry(panel: Panel, image_hw: SizeHW, size_hw: SizeHW) -> Entry:
    """One answer, without its photograph of `image_hw` pixels, which is shown with `size_hw`."""
    shown = things(panel.phrases) if panel.shown is None else panel.shown
    return Entry(_told(panel, shown, image_hw, size_hw), _drawn(panel, shown, image_hw, size_hw))


def _told(panel: Panel, shown: Sequence[Thing], image_hw: SizeHW, size_hw: SizeHW) -> dict[str, Any]:
    thing_of = thing_of_phrases(shown)
    scores = {"score": [one.score for one in panel.phrases]} if panel.is_found else {}
    figures = {name: [round(float(value), 4) for value in row] for name, row in (scores | dict(panel.figures)).items()}
    own = [_own(maps, image_hw, size_hw) for maps in panel.maps if maps.points_xy is not None]
    return {
        "title": harmless(panel.title),
        "question": harmless(panel.answer.question),
        "pieces": _answer_pieces(panel.answer, panel.phrases),
        "phrases": [
            {
                "text": harmless(one.text),
                "thing": thing_of[i].colour,
                "points": _points(one, image_hw, size_hw) if panel.is_found else [],
                "figures": {name: row[i] for name, row in figures.items()},
            }
            for i, one in enumerate(panel.phrases)
        ],
        "things": [{"thing": thing.colour, "phrases": list(thing.phrases)} for thing in shown],
        "remark": harmless(not_shown(panel.left_out)),
        "sources": [harmless(maps.name) for maps in panel.maps],
        **({"own": own} if own else {}),
    }


def _own(maps: Maps, image_hw: SizeHW, size_hw: SizeHW) -> dict[str, Any]:
    """The points and notes of one source, phrase by phrase."""
    points = [{"kind": "peak own", "at": _at(point_xy, image_hw, size_hw)} for point_xy in maps.points_xy or ()]
    return {"points": points, "notes": [harmless(note) for note in maps.notes]}


def _drawn(panel: Panel, shown: Sequence[Thing], image_hw: SizeHW, size_hw: SizeHW) -> dict[str, Any]:
    return {
        "masks": [
            {"thing": thing.colour, "runs": mask_runs(panel.phrases[thing.phrases[0]].mask, size_hw)} for thing in shown
        ],
        "tokens": _token_spans(panel.answer),
        "maps": [_map(maps, image_hw) for maps in panel.maps],
    }


def _map(maps: Maps, image_hw: SizeHW) -> dict[str, Any]:
    """`box`: left, top, width and height as shares of the photograph; what sticks out of it is clipped by the page."""
    height, width = image_hw
    x0, y0, x1, y1 = maps.view.box_xyxy
    box = [x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height]
    of_tokens = None if maps.of_tokens is None or not len(maps.of_tokens) else map_bytes(maps.of_tokens)
    return {
        "box": [round(value, 5) for value in box],
        "phrases": map_bytes(maps.of_phrases) if len(maps.of_phrases) else None,
        "tokens": of_tokens,
    }


def _points(phrase: GroundedPhrase, image_hw: SizeHW, size_hw: SizeHW) -> list[dict[str, Any]]:
    """The points of a phrase as shares of the photograph, the peak last: it lies over the others."""
    places: list[dict[str, Any]] = []
    for i, (point_xy, label) in enumerate(phrase.prompt_points):
        kind = "peak" if i == 0 else "further" if label == 1 else "not"
        places.insert(0, {"kind": kind, "at": _at(point_xy, image_hw, size_hw)})
    return places


def _at(point_xy: tuple[int, int], image_hw: SizeHW, size_hw: SizeHW) -> list[float]:
    """A pixel as shares of the photograph."""
    x, y = shown_point(point_xy, image_hw, size_hw)
    return [round(x / size_hw[1], 5), round(y / size_hw[0], 5)]


def _answer_pieces(answer: Answer, phrases: Sequence[GroundedPhrase]) -> list[list[Any]]:
    """The answer's characters with the phrase that each belongs to, or None; a phrase that longer or equal spans left
    none stands behind. Without an answer nothing."""
    if not answer.text:
        return []
    pieces = [[piece.text, piece.phrase] for piece in pieces_of(answer.text, phrases)]
    left = set(range(len(phrases))) - {phrase for _, phrase in pieces}
    return pieces + [part for i in sorted(left) for part in ([" ", None], [harmless(phrases[i].text), i])]


def _token_spans(answer: Answer) -> list[list[int]]:
    """Which characters each token writes: of the harmless answer, counted as JavaScript does."""
    widths = [len(harmless(character).encode("utf-16-le")) // 2 for character in answer.text]
    ends = np.cumsum([0, *widths])
    return [[int(ends[start]), int(ends[end])] for start, end in answer.token_spans]


def palette_css() -> str:
    """Colours as classes: style attributes would need a weaker content security policy."""
    return "\n".join(
        f".aas .c{index}{{--c:{hex_of(colour)};--light-ink:{hex_of(light_ink(colour))};"
        f"--light-tint:{hex_of(light_tint(colour))};--dark-tint:{hex_of(dark_tint(colour))};"
        f"--dark-ink:{hex_of(dark_ink(colour))}}}"
        for index, colour in enumerate(PALETTE)
    )
