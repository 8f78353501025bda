"""The text beside a photograph: question, answer with coloured phrases, legend with scores."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from aas.choices import ConfidenceKind
from aas.records import Answer, GroundedPhrase
from aas.text import harmless
from aas.view import shapes
from aas.view.colours import RGB, WHITE, colour_of, ink_on, light_ink, light_tint
from aas.view.sharing import Thing, thing_of_phrases
from aas.view.text import Piece, one_line, pieces_of, shortened, wrapped
from aas.view.writing import is_rtl, placed, width_px, write, write_run

INK: RGB = (0x1B, 0x1F, 0x24)
GREY: RGB = (0x6B, 0x72, 0x80)
# A panel grows in width, in heights of its letters, before it grows longer than the photograph.
_WIDTHS_EM = (21, 27, 34)
# All in heights of a letter ("em") of their own text.
_LINE_EM, _SMALL_LINE_EM, _LEGEND_ROW_EM, _MARGIN_EM = 1.62, 1.45, 1.85, 1.5
_NUMBER_EM, _GAP_EM = 1.5, 0.5
_SMALL = 0.82

CONFIDENCE_NAMES: dict[ConfidenceKind, str] = {
    "calibrated": "confidence",
    "uncalibrated": "confidence (uncalibrated)",
    "token": "token probability",
}


@dataclass(frozen=True)
class Row:
    """One thing of the legend: its colour, which is its number less 1, what its phrases say, its score, and what stands
    below these."""

    colour: int
    words: str
    note: str
    below: str = ""


@dataclass(frozen=True)
class Content:
    """What a panel says. The `phrase` of a piece is here the colour of its thing."""

    question: str
    pieces: Sequence[Piece]
    rows: Sequence[Row]
    remark: str = ""


def content(
    answer: Answer,
    phrases: Sequence[GroundedPhrase],
    shown: Sequence[Thing],
    left_out: Sequence[str] = (),
    confidence: ConfidenceKind | None = None,
) -> Content:
    """Question, answer and a row for each thing; `left_out`: phrases that were given no mask on purpose; `confidence`:
    what that of the phrases is, None where they have none."""
    thing_of = thing_of_phrases(shown)
    pieces = [
        Piece(piece.text, None if piece.phrase is None else thing_of[piece.phrase].colour)
        for piece in pieces_of(answer.text, phrases)
    ]
    rows = [_row(thing, phrases, confidence) for thing in shown]
    return Content(harmless(answer.question).strip(), pieces, rows, not_shown(left_out))


def _row(thing: Thing, phrases: Sequence[GroundedPhrase], confidence: ConfidenceKind | None) -> Row:
    """With the score of its mask, and below how far the picture supports each of its phrases."""
    words, score = one_line(thing.words(phrases)), f"{phrases[thing.phrases[0]].score:.2f}"
    values = [f"{value:.2f}" for i in thing.phrases if (value := phrases[i].confidence) is not None]
    if confidence is None or not values:
        return Row(thing.colour, words, score)
    said = values[:1] if len(set(values)) == 1 else values
    return Row(thing.colour, words, score, f"{CONFIDENCE_NAMES[confidence]} {' · '.join(said)}")


def not_shown(left_out: Sequence[str]) -> str:
    """The line about phrases that were given no mask on purpose, each wording once; empty without any."""
    words = ", ".join(dict.fromkeys(map(one_line, left_out)))
    return f"Not shown on the picture: {words}" if words else ""


def draw(said: Content, text_px: int, photo_wh: tuple[int, int], below: bool) -> Image.Image:
    """RGB panel: as wide as the photograph when it stands `below`, else of the least width at which it is not longer.

    Nothing of the answer is cut: where no width suffices, the panel is longer than the photograph.
    """
    if below:
        return _draw_at(photo_wh[0], said, text_px)
    for width_em in _WIDTHS_EM:
        picture = _draw_at(width_em * text_px, said, text_px)
        if picture.height <= photo_wh[1]:
            break
    return picture


def _draw_at(panel_width_px: int, said: Content, text_px: int) -> Image.Image:
    margin, small_px = round(_MARGIN_EM * text_px), round(_SMALL * text_px)
    inner_px = panel_width_px - 2 * margin
    small = _Style(small_px, _SMALL_LINE_EM * small_px, GREY, inner_px)
    large = _Style(text_px, _LINE_EM * text_px, INK, inner_px)
    question, lines, remark = (
        small.lines([Piece(said.question)]),
        large.lines(said.pieces),
        small.lines([Piece(said.remark)]),
    )
    n_columns = _legend_columns(said.rows, small_px, inner_px)
    answer_top = margin + (len(question) * small.line_px + 0.6 * text_px if any(question) else 0)
    legend_top = answer_top + len(lines) * large.line_px + 1.2 * text_px
    remark_top = legend_top + -(-len(said.rows) // n_columns) * _row_em(said.rows) * small_px + 0.6 * text_px
    bottom = remark_top + (len(remark) * small.line_px if any(remark) else -0.6 * text_px)
    picture = Image.new("RGB", (panel_width_px, round(bottom + margin)), WHITE)
    small.draw(picture, question, (margin, margin))
    large.draw(picture, lines, (margin, answer_top))
    _draw_legend(picture, said.rows, (margin, legend_top), small_px, inner_px, n_columns)
    small.draw(picture, remark, (margin, remark_top))
    return picture


@dataclass(frozen=True)
class _Style:
    """How a text is set: the size of its letters, the height of its lines, its ink, its width."""

    text_px: int
    line_px: float
    ink: RGB
    width_px: float

    def lines(self, pieces: Sequence[Piece]) -> list[list[Piece]]:
        return wrapped(pieces, self.text_px, self.width_px)

    def draw(self, picture: Image.Image, lines: Sequence[Sequence[Piece]], top_left_xy: tuple[float, float]) -> None:
        """Phrases in their own colour on a pale box of it; the rest in the ink. Text from the right stands right."""
        rtl = is_rtl("".join(piece.text for line in lines for piece in line))
        for row, line in enumerate(lines):
            self._draw_line(picture, line, (top_left_xy[0], top_left_xy[1] + (row + 0.5) * self.line_px), rtl)

    def _draw_line(
        self, picture: Image.Image, line: Sequence[Piece], middle_left_xy: tuple[float, float], rtl: bool
    ) -> None:
        parts = placed([piece.text for piece in line], self.text_px, rtl)
        left, y = middle_left_xy
        if rtl and parts:
            left += self.width_px - parts[-1].x - parts[-1].width_px
        half, side = 0.41 * self.line_px, 0.08 * self.text_px
        for owner, group in itertools.groupby(parts, key=lambda part: part.run.owner):
            members, colour = list(group), line[owner].phrase
            if colour is not None:
                right = members[-1].x + members[-1].width_px
                box = (left + members[0].x - side, y - half, left + right + side, y + half)
                shapes.paste_rounded(picture, box, 0.2 * self.text_px, light_tint(colour_of(colour)))
            ink = self.ink if colour is None else light_ink(colour_of(colour))
            for part in members:
                write_run(picture, (left + part.x, y), part.run, self.text_px, ink)


def _legend_columns(rows: Sequence[Row], small_px: int, inner_px: float) -> int:
    """As many columns as fit with the longest row uncut, one at least."""
    widths = (
        (width_px(row.words, small_px) + width_px(row.note, small_px), width_px(row.below, small_px)) for row in rows
    )
    longest_px = max(itertools.chain.from_iterable(widths), default=0)
    other_px = (_NUMBER_EM + 2 * _GAP_EM + 2) * small_px
    return max(1, int(inner_px // (longest_px + other_px)))


def _row_em(rows: Sequence[Row]) -> float:
    """The height of each row, in heights of its letters."""
    return _LEGEND_ROW_EM + _SMALL_LINE_EM * any(row.below for row in rows)


def _draw_legend(
    picture: Image.Image,
    rows: Sequence[Row],
    top_left_xy: tuple[float, float],
    small_px: int,
    width_px: float,
    n_columns: int,
) -> None:
    column_px = width_px / n_columns
    for index, row in enumerate(rows):
        line, column = divmod(index, n_columns)
        xy = (top_left_xy[0] + column * column_px, top_left_xy[1] + line * _row_em(rows) * small_px)
        _draw_row(picture, row, xy, small_px, column_px - 2 * small_px * (n_columns > 1))


def _draw_row(
    picture: Image.Image, row: Row, top_left_xy: tuple[float, float], small_px: int, item_width_px: float
) -> None:
    """The number on the thing's colour, its words (cut when too long), its score, and what stands below."""
    x, y = top_left_xy
    chip_px, middle_y, colour = _NUMBER_EM * small_px, y + _LEGEND_ROW_EM * small_px / 2, colour_of(row.colour)
    chip = (x, middle_y - chip_px / 2, x + chip_px, middle_y + chip_px / 2)
    shapes.paste_rounded(picture, chip, 0.3 * small_px, colour)
    write(picture, (x + chip_px / 2, middle_y), str(row.colour + 1), round(small_px * 0.9), ink_on(colour), "mm")
    words_x = x + (_NUMBER_EM + _GAP_EM) * small_px
    limit_px = item_width_px - (_NUMBER_EM + 2 * _GAP_EM) * small_px - width_px(row.note, small_px)
    words = shortened(row.words, small_px, limit_px)
    write(picture, (words_x, middle_y), words, small_px, INK)
    note_x = words_x + width_px(words, small_px) + _GAP_EM * small_px
    write(picture, (note_x, middle_y), row.note, small_px, GREY)
    if row.below:
        below = shortened(row.below, small_px, item_width_px - (_NUMBER_EM + _GAP_EM) * small_px)
        write(picture, (words_x, middle_y + 0.9 * _SMALL_LINE_EM * small_px), below, small_px, GREY)
