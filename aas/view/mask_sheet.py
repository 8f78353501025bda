"""Masks of a run: one picture per image (photograph, ground truth, prediction, words), and a contact sheet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from aas.records import Answer, GroundedPhrase
from aas.view import overlay, panel
from aas.view.colours import BLACK, WHITE
from aas.view.scaling import shown_image
from aas.view.sharing import Thing
from aas.view.text import one_line, shortened
from aas.view.writing import write

GAP_PX, TITLE_PX = 10, 18
NAME_PX = round(TITLE_PX * 0.8)
THUMBNAIL_PX, MAX_PER_ROW = 360, 5
REMARK = "First the segmenter's score; IoU: with the true mask that fits best."


@dataclass(frozen=True)
class Truth:
    """The true masks of an image, each a thing by itself: in the colour of the predicted thing that it is paired with,
    or in one of its own. `best_ious`: of each predicted thing, with the true mask that fits it best."""

    phrases: Sequence[GroundedPhrase]
    things: Sequence[Thing]
    best_ious: Sequence[float]


def draw(
    image: np.ndarray,
    answer: Answer,
    predicted: Sequence[GroundedPhrase],
    shown: Sequence[Thing],
    truth: Truth | None = None,
) -> Image.Image:
    """RGB: the photograph, its ground truth where there is one, the prediction, and the answer with its legend.

    `image` uint8 [H, W, 3] RGB; masks in its pixels; `shown`: which predicted phrases are one thing.
    """
    prediction = overlay.draw_photo(image, predicted, shown)
    photo = shown_image(image, (prediction.height, prediction.width)).convert("RGB")
    columns = [("photograph", photo)]
    said = panel.content(answer, predicted, shown)
    if truth is not None:
        columns.append(("ground truth", overlay.draw_photo(image, truth.phrases, truth.things)))
        said = replace(said, rows=_rows(said.rows, shown, truth), remark=REMARK if shown else "")
    columns.append(("prediction", prediction))
    text = panel.draw(said, max(16, max(prediction.size) // 55), prediction.size, below=False)
    return side_by_side([*columns, ("answer", text)])


def _rows(rows: Sequence[panel.Row], shown: Sequence[Thing], truth: Truth) -> list[panel.Row]:
    """The prediction's rows with their IoU, then what only the truth has."""
    known = {thing.colour for thing in shown}
    found = [replace(row, note=f"{row.note}  IoU {iou:.2f}") for row, iou in zip(rows, truth.best_ious, strict=True)]
    missed = [thing for thing in truth.things if thing.colour not in known]
    return found + [
        panel.Row(thing.colour, one_line(thing.words(truth.phrases)), "only in the ground truth") for thing in missed
    ]


def side_by_side(columns: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Pictures in one row, each below its title."""
    width = sum(picture.width + GAP_PX for _, picture in columns) + GAP_PX
    height = max(picture.height for _, picture in columns) + 2 * GAP_PX + TITLE_PX
    row, x = Image.new("RGB", (width, height), WHITE), GAP_PX
    for title, picture in columns:
        write(row, (x, GAP_PX + TITLE_PX // 2), title, NAME_PX, BLACK)
        row.paste(picture, (x, GAP_PX + TITLE_PX))
        x += picture.width + GAP_PX
    return row


def thumbnail(image: np.ndarray, predicted: Sequence[GroundedPhrase], name: str) -> Image.Image:
    """One cell of a contact sheet: the prediction, and the image's name."""
    picture = overlay.draw_photo(image, predicted)
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    cell = Image.new("RGB", (THUMBNAIL_PX, THUMBNAIL_PX + TITLE_PX), WHITE)
    cell.paste(picture, ((THUMBNAIL_PX - picture.width) // 2, TITLE_PX + (THUMBNAIL_PX - picture.height) // 2))
    words = shortened(one_line(name), NAME_PX, THUMBNAIL_PX)
    write(cell, (THUMBNAIL_PX // 2, TITLE_PX // 2), words, NAME_PX, BLACK, "mm")
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
