"""The data set: rows with an answer, each with its tokens and what the encoder takes of its image."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from difflmm.data.features import FeatureCache
from difflmm.data.images import noise_seed, read_image
from difflmm.data.rows import Row, Skipped
from difflmm.data.tokens import RowTokenizer

CHUNK = 1000  # rows that are tokenized together


class Conversations(Dataset):
    """What a model is trained on, as dictionaries: `input_ids` and `labels`, int64 [length]; of rows with an image,
    also its `pixel_values` (see `pixels`) and `noise_seeds`, int64 [], or what `features` keeps of it.

    `digests`: each image's SHA-256. `seed`: of all noise. `lengths`: tokens of each row. Rows without an answer in
    their tokens are in `skipped`.
    """

    def __init__(
        self,
        rows: list[Row],
        tokenize: RowTokenizer,
        digests: dict[Path, str],
        seed: int,
        features: FeatureCache | None = None,
        needs_noise: bool = True,
    ):
        self.tokenize, self.digests, self.seed = tokenize, digests, seed
        self.features, self.needs_noise = features, needs_noise
        self.rows: list[Row] = []
        self.lengths: list[int] = []
        self.skipped: list[Skipped] = []
        self.no_answer = f"no answer within the first {tokenize.max_length} tokens (max_length)"
        for start in tqdm(range(0, len(rows), CHUNK), "Reading conversations", leave=False):
            self._take(rows[start : start + CHUNK])

    def _take(self, rows: list[Row]) -> None:
        for row, tokens in zip(rows, self.tokenize(rows), strict=True):
            if tokens.n_answer:
                self.rows.append(row)
                self.lengths.append(len(tokens.input_ids))
            else:
                self.skipped.append(Skipped(row.index, row.id, self.no_answer))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        row = self.rows[i]
        tokens = self.tokenize([row])[0]
        item: dict[str, Any] = {"input_ids": tokens.input_ids, "labels": tokens.labels}
        return item if row.image is None else item | self._image(row.image)

    def pixels(self, path: Path) -> Tensor:
        """Of an image, as the encoder takes them: float32 [3, side, side]. Raises ImageError if it cannot be read."""
        return self.tokenize.processor.image_processor(read_image(path), return_tensors="pt")["pixel_values"][0]

    def _image(self, path: Path) -> dict[str, Tensor]:
        digest = self.digests[path]
        seed = noise_seed(digest, self.seed)
        if self.features is not None:
            return self.features.read(digest, seed)
        return {"pixel_values": self.pixels(path)} | ({"noise_seeds": torch.tensor(seed)} if self.needs_noise else {})
