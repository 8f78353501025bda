"""Worker processes that make what the models need, in the order that it is asked for."""

import os
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

FEW_IMAGES = 8  # for fewer, starting processes takes longer than they save
MOST_WORKERS = 8


def half_the_cores() -> int:
    """The other half is the model's."""
    return (os.cpu_count() or 2) // 2


def n_workers(asked: int | None, n_images: int, default: int) -> int:
    """How many processes to start: what was `asked` for, else `default` within bounds; 0 is none."""
    if asked is not None:
        return asked
    return 0 if n_images < FEW_IMAGES or not hasattr(os, "fork") else min(MOST_WORKERS, max(1, default))


def unchanged(entry: Any) -> Any:
    return entry


def in_workers(dataset: Dataset, n: int, packed: Callable[[Any], Any] = unchanged) -> Iterator[Any]:
    """The dataset's entries in order, each made and `packed` by one of `n` processes; with none, made here as it is."""
    if n == 0:
        yield from (dataset[i] for i in range(len(dataset)))  # type: ignore[arg-type]
        return
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # they are forked
    collate: Any = packed  # of one entry, since nothing is batched here
    yield from DataLoader(dataset, batch_size=None, num_workers=n, collate_fn=collate, multiprocessing_context="fork")
