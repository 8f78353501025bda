"""A question about several images at once, for the families whose chat template takes them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import Tensor

from aas.lmms.prepared import Prepared
from aas.loading import in_short, is_ours

if TYPE_CHECKING:
    from aas.lmms.base import LMM

Shown = tuple[str, np.ndarray]  # words about an image, and the image, uint8 [H, W, 3] RGB


def inputs_of(lmm: "LMM", shown: Sequence[Shown], question: str) -> dict[str, Tensor]:
    """The prompt of several images, each behind its words, and one question: a batch of one, on the CPU.

    CaptureError where they do not fit the model's context.
    """
    asked = _messages([(words, Image.fromarray(image)) for words, image in shown], question)
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    inputs = dict(lmm.processor.apply_chat_template(asked, **options))
    lmm.check_fits(Prepared(question, inputs, ()))
    return inputs


def check_takes_two(lmm: "LMM") -> None:
    """ValueError, which says why, for a model that cannot be shown two images in one question."""
    from aas.lmms.base import LMM

    if type(lmm).inputs is not LMM.inputs:
        raise ValueError(f"{lmm.name} takes one image: its family makes prompts without a chat template.")
    lengths = [len(_rendered(lmm, n_images)) for n_images in range(3)]
    if not 0 < lengths[1] - lengths[0] == lengths[2] - lengths[1]:
        raise ValueError(f"{lmm.name} takes one image: its chat template has no place for a second one.")
    grey = np.full((64, 96, 3), 127, np.uint8)
    try:
        inputs_of(lmm, [("", grey), ("", grey[:, :64])], "What is it?")
    except Exception as error:  # the processor's own
        if is_ours(error):
            raise
        raise ValueError(
            f"{lmm.name} takes one image: its processor makes no prompt of two ({in_short(error)})."
        ) from error


def _rendered(lmm: "LMM", n_images: int) -> str:
    """The prompt's words with a mark in the place of each image."""
    asked = _messages([("", None)] * n_images, "What is it?")
    return lmm.processor.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)


def _messages(shown: Sequence[tuple[str, Any]], question: str) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for words, image in shown:
        parts += [{"type": "text", "text": words}] if words else []
        parts.append({"type": "image"} if image is None else {"type": "image", "image": image})
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]
