"""What a head makes of a photograph, beside what is true of it."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from aas.geometry import deepest_xy
from aas.heads.head import MaskHead
from aas.heads.losses import mask_ious
from aas.images import as_pixels
from aas.records import GroundedPhrase, Phrase
from aas.training.cache import Example, taught
from aas.training.data import Lesson
from aas.view import mask_sheet, overlay
from aas.view.sharing import Thing

LONG_SIDE_PX = 640  # of each of the two


@torch.no_grad()
def painted(head: MaskHead, lesson: Lesson, example: Example) -> Image.Image:
    """RGB: the photograph with its true masks, and with the head's best ones in the same colours."""
    photograph, image_hw = lesson.read(), example.features.image_hw
    was_training = head.training
    logits = head.eval()([example.to(next(head.parameters()).device).features])[0][-1]
    head.train(was_training)
    iou = mask_ious(logits, example.truth.to(logits.values.device), image_hw).mean()
    predicted = (logits.on_image(image_hw) > 0).cpu().numpy()
    words, pixels = [one.phrase for one in taught(photograph)], as_pixels(photograph.source)
    columns = {"truth": example.truth.numpy(), f"prediction, mean IoU {iou:.2f}": predicted}
    return mask_sheet.side_by_side([(title, _photo(pixels, words, masks)) for title, masks in columns.items()])


def _photo(pixels: np.ndarray, words: Sequence[str], masks: np.ndarray) -> Image.Image:
    """Masks bool [P, H, W]; one without a pixel is not shown."""
    nothing = np.zeros((1, 1), np.float32)
    phrases = [
        GroundedPhrase(Phrase(text, (0, 0), (0, 0), ()), nothing, deepest_xy(mask), mask, 1.0)
        for text, mask in zip(words, masks, strict=True)
    ]
    photo = overlay.draw_photo(pixels, phrases, [Thing((i,), i) for i, mask in enumerate(masks) if mask.any()])
    photo.thumbnail((LONG_SIDE_PX, LONG_SIDE_PX))
    return photo
