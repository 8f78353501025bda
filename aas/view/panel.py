"""The text beside a photograph: question, answer with coloured phrases, legend with scores."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

from aas.records import Answer, GroundedPhrase
from aas.text import harmless
from aas.view import shapes
from aas.view.colours import RGB, WHITE, colour_of, ink_on, light_ink, light_tint
from aas.view.text import Font, Piece, font_of, one_line, pieces_of, shortened, width_px, wrapped

INK: RGB = (0x1B, 0x1F, 0x24)
GREY: RGB = (0x6B, 0x72, 0x80)
# A panel grows in width, in heights of its letters, before it grows longer than the photograph.
_WIDTHS_EM = (21, 27, 34)
# All in heights of a letter ("em") of their own text.
_LINE_EM, _SMALL_LINE_EM, _LEGEND_ROW_EM, _MARGIN_EM = 1.62, 1.45, 1.85, 1.5
_NUMBER_EM, _SCORE_EM, _GAP_EM = 1.5, 2.2, 0.5
_SMALL = 0.82


def draw(
    answer: Answer, phrases: Sequence[GroundedPhrase], text_px: int, photo_wh: tuple[int, int], below: bool
) -> Image.Image:
    """RGB panel: as wide as the photograph when it stands `below`, else of the least width at which it is not longer.

    Nothing of the answer is cut: where no width suffices, the panel is longer than the photograph.
    """
    if below:
        return _draw_at(photo_wh[0], answer, phrases, text_px)
    for width_em in _WIDTHS_EM:
        picture = _draw_at(width_em * text_px, answer, phrases, text_px)
        if picture.height <= photo_wh[1]:
            break
    return picture


def _draw_at(panel_width_px: int, answer: Answer, phrases: Sequence[GroundedPhrase], text_px: int) -> Image.Image:
    margin, small_px = round(_MARGIN_EM * text_px), round(_SMALL * text_px)
    inner_px = panel_width_px - 2 * margin
    question = wrapped([Piece(harmless(answer.question).strip())], font_of(small_px), inner_px)
    lines = wrapped(pieces_of(answer.text, phrases), font_of(text_px), inner_px)
    n_columns = _legend_columns(phrases, small_px, inner_px)
    answer_top = margin + (len(question) * _SMALL_LINE_EM * small_px + 0.6 * text_px if any(question) else 0)
    legend_top = answer_top + len(lines) * _LINE_EM * text_px + 1.2 * text_px
    bottom = legend_top + -(-len(phrases) // n_columns) * _LEGEND_ROW_EM * small_px
    picture = Image.new("RGB", (panel_width_px, round(bottom + margin)), WHITE)
    _draw_lines(picture, question, (margin, margin), small_px, _SMALL_LINE_EM * small_px, GREY)
    _draw_lines(picture, lines, (margin, answer_top), text_px, _LINE_EM * text_px, INK)
    column_px = inner_px / n_columns
    for index, phrase in enumerate(phrases):
        row, column = divmod(index, n_columns)
        top_left_xy = (margin + column * column_px, legend_top + row * _LEGEND_ROW_EM * small_px)
        _draw_legend_item(picture, index, phrase, top_left_xy, small_px, column_px - 2 * small_px * (n_columns > 1))
    return picture


def _draw_lines(
    picture: Image.Image,
    lines: Sequence[Sequence[Piece]],
    top_left_xy: tuple[float, float],
    text_px: int,
    line_px: float,
    ink: RGB,
) -> None:
    """Phrases in their own colour on a pale box of it; the rest in `ink`."""
    font = font_of(text_px)
    for row, line in enumerate(lines):
        x, middle_y = top_left_xy[0], top_left_xy[1] + (row + 0.5) * line_px
        for piece in line:
            if piece.phrase is not None:
                half, side = 0.41 * line_px, 0.08 * text_px
                box = (x - side, middle_y - half, x + width_px(piece.text, font) + side, middle_y + half)
                shapes.paste_rounded(picture, box, 0.2 * text_px, light_tint(colour_of(piece.phrase)))
            colour = ink if piece.phrase is None else light_ink(colour_of(piece.phrase))
            _write(picture, (x, middle_y), piece.text, font, colour)
            x += width_px(piece.text, font)


def _legend_columns(phrases: Sequence[GroundedPhrase], small_px: int, inner_px: float) -> int:
    """As many columns as fit with the longest phrase uncut, one at least."""
    font = font_of(small_px)
    longest_px = max((width_px(one_line(phrase.text), font) for phrase in phrases), default=0)
    other_px = (_NUMBER_EM + _SCORE_EM + 2 * _GAP_EM + 2) * small_px
    return max(1, int(inner_px // (longest_px + other_px)))


def _draw_legend_item(
    picture: Image.Image,
    index: int,
    phrase: GroundedPhrase,
    top_left_xy: tuple[float, float],
    small_px: int,
    item_width_px: float,
) -> None:
    """The number on the phrase's colour, its words (cut when too long), its score."""
    x, y = top_left_xy
    font, colour = font_of(small_px), colour_of(index)
    chip_px, middle_y = _NUMBER_EM * small_px, y + _LEGEND_ROW_EM * small_px / 2
    chip = (x, middle_y - chip_px / 2, x + chip_px, middle_y + chip_px / 2)
    shapes.paste_rounded(picture, chip, 0.3 * small_px, colour)
    _write(picture, (x + chip_px / 2, middle_y), str(index + 1), font_of(small_px * 0.9), ink_on(colour), "mm")
    words_x = x + (_NUMBER_EM + _GAP_EM) * small_px
    limit_px = item_width_px - (_NUMBER_EM + _SCORE_EM + 2 * _GAP_EM) * small_px
    words = shortened(one_line(phrase.text), font, limit_px)
    _write(picture, (words_x, middle_y), words, font, INK)
    score_x = words_x + width_px(words, font) + _GAP_EM * small_px
    _write(picture, (score_x, middle_y), f"{phrase.score:.2f}", font, GREY)


def _write(picture: Image.Image, xy: tuple[float, float], text: str, font: Font, ink: RGB, anchor: str = "lm") -> None:
    # "m" in the middle of ascender and descender: one height for all, whatever letters the words have.
    ImageDraw.Draw(picture).text(xy, text, font=font, fill=ink, anchor=anchor)
