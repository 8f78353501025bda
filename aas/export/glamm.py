"""Captions with marked-up phrases and a mask for each, as GLaMM is trained on them (GranD-f)."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from aas.export.exporter import Exporter
from aas.export.names import ClassNames
from aas.export.photograph import Found, Photograph, span_in
from aas.export.writing import write_json

MARK = re.compile(r"<(?=/?p>)|\[(?=SEG\])", re.IGNORECASE)  # where a caption's own text could be taken for a mark


@dataclass(frozen=True, kw_only=True)
class Glamm(Exporter):
    """GLaMM's captions: grounded_captions.json in GranD-f's layout, with `<p> A dog </p> [SEG]` in each; images/."""

    examples: ClassVar = ("run --out glamm",)

    def write(self, photographs: Iterable[Photograph], names: ClassNames) -> list[str]:
        """See `Exporter`."""
        entries = []
        for photograph in photographs:
            photograph.put(self.out / "images", self.link)
            entries.append(entry(photograph) | {"file_name": photograph.file_name})
        write_json(self.out / "grounded_captions.json", entries)
        return []


def entry(photograph: Photograph) -> dict[str, Any]:
    """One photograph: `marked_caption`, whose k-th [SEG] has `masks[k]`, and GranD-f's `groundings`: phrase -> its
    characters in the caption and its masks."""
    (height, width), placed = photograph.size_hw, _placed(photograph)
    groundings: dict[str, Any] = {}
    for span, one in placed:
        of_phrase = groundings.setdefault(one.phrase, {"token_positives": list(span), "rle_masks": []})
        of_phrase["rle_masks"].append(one.mask)
    return {
        "file_name": photograph.own_name,
        "image_id": photograph.id,
        "height": height,
        "width": width,
        "caption": photograph.caption,
        "groundings": groundings,
        "marked_caption": _marked(photograph.caption, [span for span, _ in placed]),
        "masks": [one.mask for _, one in placed],
    }


def _placed(photograph: Photograph) -> list[tuple[tuple[int, int], Found]]:
    """The phrases that stand in the caption, in its order; of two that share characters the first."""
    spans = [(span_in(photograph.caption, one), one) for one in photograph.found]
    placed: list[tuple[tuple[int, int], Found]] = []
    for span, one in sorted(((span, one) for span, one in spans if span), key=lambda pair: pair[0]):
        if not placed or span[0] >= placed[-1][0][1]:
            placed.append((span, one))
    return placed


def _marked(caption: str, spans: Sequence[tuple[int, int]]) -> str:
    """With `<p> … </p> [SEG]` around the spans; marks that the caption has itself are broken by a space."""
    pieces, at = [], 0
    for start, end in spans:
        pieces += [_text(caption[at:start]), f"<p> {_text(caption[start:end]).strip()} </p> [SEG]"]
        at = end
    return "".join([*pieces, _text(caption[at:])])


def _text(caption: str) -> str:
    return MARK.sub(lambda found: f"{found[0]} ", caption)
