"""How many answers are written at once: what one takes, by the model's config, and what is free."""

from pathlib import Path
from typing import get_args

import torch
from transformers import PreTrainedConfig

from aas import capture
from aas.capture import Selection
from aas.choices import Keep

SHARE = 0.6  # of the free memory: the rest is for reading prompts, and for what else runs there
LISTED = Path("/proc/meminfo")


def bytes_of_answer(
    config: PreTrainedConfig, dtype: torch.dtype, capacity: int, n_columns: int, selection: Selection
) -> int:
    """Of one answer in a slot of `capacity` keys: keys and values, stashed queries, scores of the next token, and its
    maps over `n_columns` image tokens. `config`: of the language model."""
    n_layers, n_heads = config.num_hidden_layers, config.num_attention_heads
    keys_and_values = bytes_of_keys_and_values(config, dtype, capacity)
    queries = n_layers * n_heads * _head_dim(config) * capture.STASHED_STEPS * dtype.itemsize
    n_maps = dict(zip(get_args(Keep), (1, n_layers, n_layers * n_heads), strict=True))[selection.keep]
    return keys_and_values + queries + 16 * config.vocab_size + 4 * n_maps * capacity * n_columns


def bytes_of_keys_and_values(config: PreTrainedConfig, dtype: torch.dtype, n_tokens: int) -> int:
    """Of one sequence, in all layers. `config`: of the language model."""
    n_kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return 2 * config.num_hidden_layers * n_kv_heads * _head_dim(config) * n_tokens * dtype.itemsize


def _head_dim(config: PreTrainedConfig) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def free_bytes(device: torch.device) -> int | None:
    """Memory that can be had on a GPU, or on a Linux machine for its CPU; None where nobody says."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "cpu" and LISTED.exists():
        lines = (line.split() for line in LISTED.read_text().splitlines())
        return next((1024 * int(words[1]) for words in lines if words[0] == "MemAvailable:"), None)
    return None


def answers_that_fit(bytes_each: int, n_free: int | None, most: int) -> int:
    """At least 1, at most `most`."""
    return most if n_free is None else max(1, min(most, int(SHARE * n_free) // bytes_each))
