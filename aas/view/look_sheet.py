"""One picture of a visual chain of thought: the photograph with the thing that matters, the part that was looked at
once more, and what was asked, thought and answered."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw

from aas.records import Answer, GroundedPhrase, PixelBox, SecondLook
from aas.view import overlay, panel
from aas.view.colours import BLACK, WHITE
from aas.view.mask_sheet import side_by_side
from aas.view.scaling import shown_image, shown_size_hw
from aas.view.sharing import things
from aas.view.text import Piece

SHORTEST_PX, LONGEST_PX = 160, 640  # of the crop's long side


def draw(image: np.ndarray, thought: Answer, phrases: Sequence[GroundedPhrase], look: SecondLook) -> Image.Image:
    """RGB. `image`: uint8 [H, W, 3] RGB; masks bool [H, W], points and boxes in its pixels."""
    shown = things(phrases)
    photo = overlay.draw_photo(image, phrases, shown)
    columns = [("photograph", photo)]
    if look.crop_xyxy is not None:
        _frame(photo, look.crop_xyxy, image.shape[:2])
        columns.append(("looked at once more", _crop(image, look.crop_xyxy)))
    said = panel.content(thought, phrases, shown)
    gap = [Piece("\n\n")] if said.pieces else []
    said = replace(
        said, pieces=[*said.pieces, *gap, *panel.content(Answer("", f"→ {look.answer}", (), ()), [], []).pieces]
    )
    text = panel.draw(said, max(16, max(photo.size) // 55), photo.size, below=False)
    return side_by_side([*columns, ("thought and answer", text)])


def _crop(image: np.ndarray, box: PixelBox) -> Image.Image:
    x0, y0, x1, y1 = box
    part = image[y0:y1, x0:x1]
    return shown_image(part, shown_size_hw(part.shape[:2], SHORTEST_PX, LONGEST_PX)).convert("RGB")


def _frame(photo: Image.Image, box: PixelBox, image_hw: tuple[int, ...]) -> None:
    """Black and white, to be seen on anything."""
    scale = np.array([photo.width / image_hw[1], photo.height / image_hw[0]] * 2)
    x0, y0, x1, y1 = (np.array(box) * scale).round().astype(int).tolist()
    width = max(2, max(photo.size) // 300)
    pen = ImageDraw.Draw(photo)
    pen.rectangle((x0, y0, x1 - 1, y1 - 1), outline=BLACK, width=2 * width)
    pen.rectangle(
        (x0 + width // 2, y0 + width // 2, x1 - 1 - width // 2, y1 - 1 - width // 2), outline=WHITE, width=width
    )
