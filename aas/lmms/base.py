"""What every LMM family offers, and what they share: a Hugging Face model that is asked, and watched."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from aas import capture
from aas.phrases.alignment import decode_with_spans
from aas.records import Answer, AttentionMaps, View


class LMM(ABC):
    """A large multimodal model. A family says in `view` where its image tokens lie on the image."""

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, name: str):
        self.model, self.processor, self.name = model.eval(), processor, name
        self.tokenizer = processor.tokenizer
        capture.prepare(self.model)

    @abstractmethod
    def view(self, inputs: dict[str, Tensor], image_hw: tuple[int, int]) -> View:
        """The grid of one image's tokens, for inputs that the processor made of an image of `image_hw` pixels."""

    def columns(self, inputs: dict[str, Tensor]) -> Tensor:
        """Positions of the image tokens in the prompt, row-major, int64 [1, h * w]."""
        found = (inputs["input_ids"] == self.model.config.image_token_id).nonzero()[:, 1]
        return found[None]

    def inputs(self, image: np.ndarray, question: str) -> dict[str, Tensor]:
        """The prompt of one image (uint8 [H, W, 3] RGB) and one question, on the model's device."""
        content = [{"type": "image", "image": Image.fromarray(image)}, {"type": "text", "text": question}]
        inputs = self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self.model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        return dict(inputs)

    def answer_ids(self, answer: str) -> Tensor:
        """Tokens of a given answer as the model would have written it behind the prompt, end token included."""
        first = self.tokenizer.tokenize("a")[0]
        # Byte-level tokenizers write the space in front of a word, SentencePiece adds it by itself.
        text = answer if first.startswith("▁") else f" {answer}"
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return torch.tensor([[*ids, self.tokenizer.eos_token_id]])

    def ask(
        self,
        image: np.ndarray,
        question: str,
        answer: str | None = None,
        *,
        max_new_tokens: int | None = None,
        heads: Sequence[int] | None = None,
    ) -> tuple[Answer, AttentionMaps]:
        """The model's answer (greedy), or the given one by teacher forcing, and one map per answer token.

        Without `max_new_tokens` the model's own limit holds, or 512.
        """
        inputs = self.inputs(image, question)
        columns = self.columns(inputs)
        if answer is None:
            longest = max_new_tokens or self.model.generation_config.max_new_tokens or 512
            token_ids, maps = capture.generate(
                self.model, inputs, columns, heads, max_new_tokens=longest, do_sample=False
            )
        else:
            token_ids = self.answer_ids(answer)
            maps = capture.replay(self.model, inputs, token_ids, columns, heads)
        text, spans = decode_with_spans(self.tokenizer, token_ids[0].tolist())
        view = self.view(inputs, image.shape[:2])
        grid = maps[0].unflatten(1, view.size_hw).numpy()
        return Answer(question, text, tuple(token_ids[0].tolist()), tuple(spans)), AttentionMaps(grid, view)
