"""Words on pictures in any script: cut where the font changes, put in the order in which they are read, written."""

import functools
import itertools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw, features

from aas.view import faces
from aas.view.colours import RGB

# Without raqm (some builds of Pillow lack it) letters stand side by side: no Arabic joins, no Indic clusters.
SHAPES_TEXT = features.check("raqm")


@dataclass(frozen=True)
class Run:
    """Characters of one font and direction, in logical order. `rtl`: None where they have no direction of their own.

    `owner`: which of the texts of a line they are from.
    """

    text: str
    source: faces.Source
    rtl: bool | None
    owner: int = 0

    def width_px(self, size_px: int) -> float:
        """How far the run moves the pen."""
        return faces.loaded(self.source, size_px).getlength(self.text, direction=self.direction())

    def direction(self) -> str | None:
        """What Pillow is told, None for left to right."""
        return ("rtl" if self.rtl else "ltr") if SHAPES_TEXT else None


def clusters(text: str) -> list[str]:
    """Characters with their marks and with what a joiner or a virama ties to them: a line may break between them."""
    found: list[str] = []
    # A joiner without a letter before it joins nothing, and raqm stumbles over it.
    for character in text.lstrip("\u200c\u200d"):
        tied = _is_tied(character)
        if found and (tied or found[-1][-1] == "\u200d" or unicodedata.combining(found[-1][-1]) == 9):
            found[-1] += character
        else:
            found.append(character)
    return found


def is_rtl(text: str) -> bool:
    """Whether a text is read from the right: its first letter says so."""
    kinds = map(unicodedata.bidirectional, text)
    return next((kind != "L" for kind in kinds if kind in ("L", "R", "AL")), False)


def _direction(cluster: str) -> bool | None:
    kind = unicodedata.bidirectional(cluster[0])
    return True if kind in ("R", "AL", "AN") else False if kind in ("L", "EN") else None


def runs(text: str, owner: int = 0) -> list[Run]:
    """The text in its own order, cut where font or direction change."""
    found: list[Run] = []
    parts: list[str] = []
    for cluster in clusters(text):
        rtl = _direction(cluster)
        source = _kept(cluster, found) or faces.source_of(cluster)
        last = found[-1] if found else None
        if last and last.source == source and (rtl is None or rtl == last.rtl):
            parts[-1] += cluster
        else:
            found.append(Run("", source, rtl, owner))
            parts.append(cluster)
    whole = [replace(run, text=part) for run, part in zip(found, parts, strict=True)]
    return [part for run in whole for part in _without_tail(run)]


def _is_tied(character: str) -> bool:
    return unicodedata.category(character)[0] == "M" or faces.is_joiner(character)


def _without_tail(run: Run) -> list[Run]:
    """Signs at a run's end stand by themselves: which side they stand on is decided by what follows."""
    if run.rtl is None:
        return [run]
    end = next(i for i in range(len(run.text), 0, -1) if _direction(run.text[i - 1]) is not None)
    while end < len(run.text) and _is_tied(run.text[end]):
        end += 1
    tail = replace(run, text=run.text[end:], rtl=None)
    return [replace(run, text=run.text[:end]), tail] if tail.text else [run]


def _kept(cluster: str, found: Sequence[Run]) -> faces.Source | None:
    """The font before, for a space or a sign that it has too: words of one script stay one run."""
    if not found or unicodedata.category(cluster[0])[0] in "LN":
        return None
    source = found[-1].source
    return source if all(ord(c) in faces.coverage(source) for c in cluster) else None


def ordered(line: Sequence[Run], rtl: bool) -> list[Run]:
    """Runs from left to right as they are read in a line whose own direction is `rtl`; all get a direction.

    The Unicode bidirectional algorithm (UAX 9) on whole runs: N1 and N2 for signs between words, L2 for the order;
    digits count as letters from left to right. Inside a run raqm orders the characters.
    """
    known = _directions([run.rtl for run in line], rtl)
    levels = [1 if own else 2 if rtl else 0 for own in known]
    order = list(range(len(line)))
    for level in (2, 1):
        order = _turned(order, [levels[i] >= level for i in order])
    return [replace(line[i], rtl=known[i]) for i in order]


def _directions(own: Sequence[bool | None], rtl: bool) -> list[bool]:
    """Signs go with their neighbours where these agree, else with the line."""
    before = [rtl if start is None else start for start in _last_known(own)]
    after = [rtl if end is None else end for end in reversed(_last_known(own[::-1]))]
    return [one if one == other else rtl for one, other in zip(before, after, strict=True)]


def _last_known(own: Sequence[bool | None]) -> list[bool | None]:
    found: list[bool | None] = []
    for new in own:
        found.append(new if new is not None or not found else found[-1])
    return found


def _turned(order: Sequence[int], turns: Sequence[bool]) -> list[int]:
    """Each stretch of neighbours that turn, back to front."""
    stretches = itertools.groupby(zip(order, turns, strict=True), key=lambda one: one[1])
    found: list[int] = []
    for turns_now, stretch in stretches:
        indices = [index for index, _ in stretch]
        found += reversed(indices) if turns_now else indices
    return found


@dataclass(frozen=True)
class Placed:
    """A run on its line: from `x` on, `width_px` wide."""

    run: Run
    x: float
    width_px: float


def placed(texts: Sequence[str], size_px: int, rtl: bool) -> list[Placed]:
    """The texts of one line, one behind the other from x = 0, from left to right as they are read."""
    found, x = [], 0.0
    line = [run for owner, text in enumerate(texts) for run in runs(text, owner)]
    for run in ordered(line, rtl):
        found.append(Placed(run, x, run.width_px(size_px)))
        x += found[-1].width_px
    return found


@functools.lru_cache(maxsize=8192)
def width_px(text: str, size_px: int) -> float:
    """How far the text reaches, in letters of `size_px`."""
    line = placed([text], size_px, is_rtl(text))
    return line[-1].x + line[-1].width_px if line else 0.0


def write(picture: Image.Image, xy: tuple[float, float], text: str, size_px: int, ink: RGB, anchor: str = "lm") -> None:
    """The text with its left end ("lm"), middle ("mm") or right end ("rm") at x, the middle of its height at y."""
    x = xy[0] - {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]] * width_px(text, size_px)
    for part in placed([text], size_px, is_rtl(text)):
        write_run(picture, (x + part.x, xy[1]), part.run, size_px, ink)


def write_run(picture: Image.Image, xy: tuple[float, float], run: Run, size_px: int, ink: RGB) -> None:
    """One run from x on. All fonts stand on the baseline of the first, so that lines are even whatever they say."""
    ascent, descent = faces.loaded(faces.own_sources()[0], size_px).getmetrics()
    xy = xy[0], xy[1] + (ascent - descent) / 2
    font = faces.loaded(run.source, size_px)
    ImageDraw.Draw(picture).text(xy, run.text, font=font, fill=ink, anchor="ls", direction=run.direction())
