"""Masks of a run: one picture per image (photograph, ground truth, prediction, words), and a contact sheet."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from aas.records import Answer, GroundedPhrase
from aas.view import overlay, panel
from aas.view.colours import BLACK, WHITE
from aas.view.scaling import shown_image
from aas.view.text import font_of, one_line, shortened

GAP_PX, TITLE_PX = 10, 18
THUMBNAIL_PX, MAX_PER_ROW = 360, 5


def draw(
    image: np.ndarray,
    answer: Answer,
    predicted: Sequence[GroundedPhrase],
    truth: Sequence[GroundedPhrase] | None = None,
) -> Image.Image:
    """RGB: the photograph, its ground truth where there is one, the prediction, and the answer with its legend.

    `image` uint8 [H, W, 3] RGB; masks in its pixels.
    """
    prediction = overlay.draw_photo(image, predicted)
    photo = shown_image(image, (prediction.height, prediction.width)).convert("RGB")
    columns = [("photograph", photo)]
    if truth is not None:
        columns.append(("ground truth", overlay.draw_photo(image, truth)))
    columns.append(("prediction", prediction))
    text = panel.draw(answer, predicted, max(16, max(prediction.size) // 55), prediction.size, below=False)
    return _row([*columns, ("answer", text)])


def _row(columns: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    width = sum(picture.width + GAP_PX for _, picture in columns) + GAP_PX
    height = max(picture.height for _, picture in columns) + 2 * GAP_PX + TITLE_PX
    row = Image.new("RGB", (width, height), WHITE)
    pen, x = ImageDraw.Draw(row), GAP_PX
    for title, picture in columns:
        pen.text((x, GAP_PX + TITLE_PX // 2), title, font=font_of(TITLE_PX * 0.8), fill=BLACK, anchor="lm")
        row.paste(picture, (x, GAP_PX + TITLE_PX))
        x += picture.width + GAP_PX
    return row


def thumbnail(image: np.ndarray, predicted: Sequence[GroundedPhrase], name: str) -> Image.Image:
    """One cell of a contact sheet: the prediction, and the image's name."""
    picture = overlay.draw_photo(image, predicted)
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    cell = Image.new("RGB", (THUMBNAIL_PX, THUMBNAIL_PX + TITLE_PX), WHITE)
    cell.paste(picture, ((THUMBNAIL_PX - picture.width) // 2, TITLE_PX + (THUMBNAIL_PX - picture.height) // 2))
    font = font_of(TITLE_PX * 0.8)
    words = shortened(one_line(name), font, THUMBNAIL_PX)
    ImageDraw.Draw(cell).text((THUMBNAIL_PX // 2, TITLE_PX // 2), words, font=font, fill=BLACK, anchor="mm")
    return cell


def contact_sheet(cells: Sequence[Image.Image]) -> Image.Image:
    """All cells, row by row."""
    per_row = min(MAX_PER_ROW, math.ceil(math.sqrt(len(cells))))
    width, height = cells[0].width + GAP_PX, cells[0].height + GAP_PX
    sheet = Image.new("RGB", (per_row * width + GAP_PX, math.ceil(len(cells) / per_row) * height + GAP_PX), WHITE)
    for i, cell in enumerate(cells):
        row, column = divmod(i, per_row)
        sheet.paste(cell, (GAP_PX + column * width, GAP_PX + row * height))
    return sheet
