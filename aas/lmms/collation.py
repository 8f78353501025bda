"""Several prompts as one batch."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def sequence_keys(inputs: dict[str, Tensor]) -> list[str]:
    """The inputs that run along the sequence: those with its length as their second dimension."""
    length = inputs["input_ids"].shape[1]
    along = ("mask", "token_type_ids", "input_ids")
    return [k for k, v in inputs.items() if v.ndim >= 2 and v.shape[1] == length and k.endswith(along)]


def collate(
    samples: Sequence[dict[str, Tensor]], pad_values: dict[str, int], pads_left: bool = True
) -> dict[str, Tensor]:
    """One batch of several batches of one: sequences padded on the left (or right), images concatenated (padded at the
    end where their sizes differ), all with zeros unless `pad_values` says otherwise."""
    along = {key for sample in samples for key in sequence_keys(sample)}
    batch = {}
    for key in samples[0]:
        values = [sample[key] for sample in samples]
        sizes = [max(v.shape[d] for v in values) for d in range(1, values[0].ndim)]
        padded = []
        for value in values:
            amounts: list[int] = []  # of the last dimension first, as F.pad wants them
            for d in range(value.ndim - 1, 0, -1):
                missing = sizes[d - 1] - value.shape[d]
                amounts += [missing, 0] if d == 1 and key in along and pads_left else [0, missing]
            padded.append(F.pad(value, amounts, value=pad_values.get(key, 0)))
        batch[key] = torch.cat(padded)
    return batch
