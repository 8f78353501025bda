"""How alike two phrases are: cosines of a text encoder's mean-pooled last hidden states."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from aas.loading import in_short
from aas.model_files import check_settings
from aas.paths import model_source

MAX_TOKENS = 512
BATCH_TOKENS = 1024


class TextEncoder:
    """An encoder (`bert-base-uncased`, a Hugging Face id or a folder); each phrase is embedded once."""

    def __init__(self, model_id: str):
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()  # of loading, which takes a second
        source, revision = model_source(model_id, "text-encoder")
        check_settings(Path(source))
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
            self._model = AutoModel.from_pretrained(source, revision=revision, dtype="float32").eval()
        except Exception as error:  # OSError, ValueError, ImportError, …: by what the folder holds
            raise FileNotFoundError(
                f"No text encoder {model_id!r} here: give a folder or a Hugging Face id that is in the cache or can be "
                f"downloaded with --text-encoder. ({in_short(error)})"
            ) from error
        positions = getattr(self._model.config, "max_position_embeddings", MAX_TOKENS)
        self._max_tokens = min(MAX_TOKENS, positions)
        self._known: dict[str, np.ndarray] = {}

    def embed(self, phrases: Iterable[str]) -> None:
        """Embed those that are not known yet, in batches of like length."""
        new = sorted({phrase for phrase in phrases if phrase not in self._known})
        if not new:
            return
        ids = self._tokenizer(new, max_length=self._max_tokens, truncation=True)["input_ids"]
        order = sorted(range(len(new)), key=lambda i: len(ids[i]))
        for batch in _batches(order, [len(row) for row in ids]):
            vectors = self._pooled([ids[i] for i in batch])
            self._known |= {new[i]: vector for i, vector in zip(batch, vectors, strict=True)}

    def _pooled(self, ids: list[list[int]]) -> np.ndarray:
        """float32 [phrases, width], of length 1: the mean over all tokens, the special ones among them."""
        import torch

        inputs = self._tokenizer.pad({"input_ids": ids}, return_tensors="pt")
        with torch.inference_mode():
            hidden = self._model(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1)
        means = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
        return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), np.finfo(np.float32).tiny)

    def cosines(self, rows: Sequence[str], columns: Sequence[str]) -> np.ndarray:
        """float32 [rows, columns]."""
        self.embed([*rows, *columns])
        if not rows or not columns:
            return np.zeros((len(rows), len(columns)), np.float32)
        first, second = (np.stack([self._known[phrase] for phrase in phrases]) for phrases in (rows, columns))
        return first @ second.T


def _batches(order: list[int], lengths: list[int]) -> Iterable[list[int]]:
    """Runs of `order`, which goes from short to long, of at most BATCH_TOKENS with padding."""
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) + 1) * lengths[i] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
