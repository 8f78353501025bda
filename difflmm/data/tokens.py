"""Rows to token ids and labels. The loss is of the answers alone, their end included."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LlavaProcessor

from difflmm.data.rows import Row
from difflmm.processor import IMAGE_TOKEN

IGNORE = -100  # a label that counts for nothing


@dataclass(frozen=True)
class Tokens:
    """`input_ids` and `labels`, int64 [length]; labels are IGNORE where no loss is wanted."""

    input_ids: Tensor
    labels: Tensor

    @property
    def n_answer(self) -> int:
        """Tokens that count; the first of a row is never predicted."""
        return int((self.labels[1:] != IGNORE).sum())


class RowTokenizer:
    """Rows to tokens, by the chat template, or `plain`: image, answer, line break, as LLaVA's first stage has it.

    `n_cells`: tokens of an image. `max_length`: what is longer is cut off.
    """

    def __init__(self, processor: LlavaProcessor, n_cells: int, max_length: int, plain: bool):
        self.processor, self.n_cells, self.max_length, self.plain = processor, n_cells, max_length, plain
        self.image_id = processor.image_token_id

    def __call__(self, rows: Sequence[Row]) -> list[Tokens]:
        texts, spans = zip(*[self._plain(row) if self.plain else self._chat(row) for row in rows], strict=True)
        encoded = self.processor.tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)
        return [
            self._tokens(np.array(ids), np.array(offsets)[:, 0], answers)
            for ids, offsets, answers in zip(encoded["input_ids"], encoded["offset_mapping"], spans, strict=True)
        ]

    def _plain(self, row: Row) -> tuple[str, list[tuple[int, int]]]:
        before = f"{self.processor.tokenizer.bos_token or ''}{IMAGE_TOKEN}"
        text = f"{before}{row.texts[1]}\n"
        return text, [(len(before), len(text))]

    def _chat(self, row: Row) -> tuple[str, list[tuple[int, int]]]:
        """The conversation and the characters of its answers, half-open, from behind "ASSISTANT:" to the end token."""
        messages: list[dict[str, Any]] = []
        spans = []
        for i, text in enumerate(row.texts):
            content: list[dict[str, str]] = [{"type": "text", "text": text}]
            if i == 0 and row.image:
                content.insert(0, {"type": "image"})
            messages.append({"role": "assistant" if i % 2 else "user", "content": content})
            if i % 2:
                prompt = self.processor.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=False)
                spans.append((len(prompt), len(self.processor.apply_chat_template(messages, tokenize=False))))
        return self.processor.apply_chat_template(messages, tokenize=False), spans

    def _tokens(self, ids: np.ndarray, starts: np.ndarray, answers: Iterable[tuple[int, int]]) -> Tokens:
        """`starts`: the first character of each token; where that lies tells whether it is the answer's."""
        is_answer = np.zeros(len(ids), bool)
        for start, end in answers:
            is_answer |= (starts >= start) & (starts < end)
        n_times = np.where(ids == self.image_id, self.n_cells, 1)
        labels = np.where(is_answer, ids, IGNORE)
        ids, labels = (np.repeat(of, n_times)[: self.max_length] for of in (ids, labels))
        return Tokens(torch.from_numpy(ids), torch.from_numpy(labels))
