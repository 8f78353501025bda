"""Florence-2: an encoder reads the image and the question, a decoder that attends to it across writes the answer."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from aas.choices import Alignment
from aas.lmms.base import LMM
from aas.lmms.fitted import fitted_view
from aas.lmms.grids import TokenGrid
from aas.phrases.given import plain_ids


class Florence2(LMM):
    """One view: the whole image. The keys are the encoder's: the image's mean, its grid row-major, then the question.

    The question is plain words or one of the model's tasks (`<DETAILED_CAPTION>`), which the processor turns into the
    words that it was trained with. Only the decoder's attention to the encoder counts.
    """

    cross_attention = True
    pads_left = False  # the encoder's positions are counted from its first token, padding included
    assumed_settings = {}  # all are read

    def records(self, module: nn.Module) -> bool:
        return bool(module.is_decoder and not module.is_causal)  # BART's one class is all three attentions

    def grids(self, inputs: dict[str, Tensor], image_hw: tuple[int, int]) -> list[TokenGrid]:
        vision = self.model.config.vision_config
        height, width = inputs["pixel_values"].shape[-2:]
        rows, columns = height, width
        for kernel, stride, padding in zip(vision.patch_size, vision.patch_stride, vision.patch_padding, strict=True):
            rows, columns = ((n + 2 * padding - kernel) // stride + 1 for n in (rows, columns))
        view = fitted_view(self.processor.image_processor, (rows, columns), image_hw, (height, width))
        return [TokenGrid(view, self.image_positions(inputs)[1:])]

    def inputs(self, image: np.ndarray, question: str) -> dict[str, Tensor]:
        return dict(self.processor(images=Image.fromarray(image), text=question, return_tensors="pt"))

    def answer_ids(self, answer: str, prompt_ids: Tensor) -> Tensor:
        """The decoder opens an answer with the token that begins a text, and puts no space before its first word."""
        ids = plain_ids(self.tokenizer, answer)
        return torch.tensor([self.tokenizer.bos_token_id, *ids, self.tokenizer.eos_token_id])

    def with_answer(self, inputs: dict[str, Tensor], answer_ids: Tensor) -> dict[str, Tensor]:
        start = torch.tensor([self.model.config.text_config.decoder_start_token_id])
        return dict(inputs, decoder_input_ids=torch.cat([start, answer_ids])[None])

    def answer_rows(self, inputs: dict[str, Tensor], answers: Sequence[Tensor], alignment: Alignment) -> Tensor:
        """Every decoder sequence begins with the same start token, which predicts the answer's first."""
        first = 0 if alignment == "predict" else 1
        return (first + torch.arange(max(map(len, answers)))).expand(len(answers), -1)

    def forward_arguments(self, inputs: dict[str, Tensor]) -> dict[str, Any]:
        return {"use_cache": False, "logits_to_keep": 1}
