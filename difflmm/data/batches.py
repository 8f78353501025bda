"""Which rows come together, in which order, and how they become one batch."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from difflmm.data.tokens import IGNORE


class Collator:
    """Items of `Conversations` to a batch, padded on the right to its longest row: `input_ids`, `labels` and
    `attention_mask`, int64 [B, longest]; what comes of images is stacked [images, …], in the order of the rows.

    `pad_id`: any will do, it is masked. `dtype`: of pixels and features, the frozen towers'.
    """

    def __init__(self, pad_id: int, dtype: torch.dtype):
        self.pad_id, self.dtype = pad_id, dtype

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = {
            name: torch.nn.utils.rnn.pad_sequence([item[name] for item in items], True, padding)
            for name, padding in (("input_ids", self.pad_id), ("labels", IGNORE))
        }
        lengths = torch.tensor([len(item["input_ids"]) for item in items])
        batch["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        for name in sorted({name for item in items for name in item} - batch.keys()):
            stacked = torch.stack([item[name] for item in items if name in item])
            batch[name] = stacked.to(self.dtype) if stacked.is_floating_point() else stacked
        return batch


class EpochSampler(Sampler[int]):
    """A new order in each epoch, the same whenever the epoch is begun (again): by lengths of about `batch_size` rows,
    if there is one, as LengthGroupedSampler has it."""

    def __init__(self, lengths: list[int], batch_size: int | None, seed: int):
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Whose order comes next, from 0; the Trainer says so."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        if self.batch_size is None:
            return iter(torch.randperm(len(self.lengths), generator=generator).tolist())
        return iter(get_length_grouped_indices(self.lengths, self.batch_size, generator=generator))
