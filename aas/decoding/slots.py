"""The keys and values of many answers at once: a slot for each, of one buffer that stays where it is.

transformers' own StaticCache writes the keys of all sequences at one position, so that they must start together. Here
each slot has its own length: an answer that ends leaves, and another begins in its slot. On a GPU the buffers never
move and no shape depends on an answer: a decode step can be recorded once and replayed.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedConfig
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

ROOM = 64  # keys by which buffers grow


class Unsuited(Exception):
    """The model cannot be run this way; nothing has been done yet."""


class Slots:
    """`n_slots` answers, each with at most `capacity` keys. Of a pass, the first `size` slots run, and attention looks
    at the first `used` keys of each; `length` int64 [n_slots]: keys that each slot has. `grows`: buffers are as large
    as is needed, and move, as no recorded step allows.

    `cache`: what the model takes as `past_key_values` in a step of one token for each slot.
    """

    def __init__(self, n_layers: int, n_slots: int, capacity: int, device: torch.device, grows: bool = False):
        self.n_slots, self.capacity = n_slots, capacity
        self.size, self.used = 0, 0
        self.grows = grows
        self.room = 0 if grows else capacity  # keys that the buffers hold, more than anybody needs
        self.length = torch.zeros(n_slots, dtype=torch.int64, device=device)
        self.place = self.length  # where a step's keys go
        self.layers = [_Layer(self) for _ in range(n_layers)]
        self.cache = Cache(layers=self.layers)

    @property
    def n_bytes(self) -> int:
        """Of all keys and values."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers if layer.is_initialized)

    def entering(self, slots: Sequence[int], lengths: Sequence[int]) -> Cache:
        """What the model takes as `past_key_values` in the one pass over some prompts, padded on the left, of so many
        tokens: they go into these slots."""
        self.room = max(self.room, *lengths)
        return Cache(layers=[_Entering(layer, slots, lengths) for layer in self.layers])

    def move(self, source: int, target: int) -> None:
        """What is in one slot goes into another."""
        n_keys = self.used
        for layer in self.layers:
            if layer.is_initialized:
                layer.keys[target, :, :n_keys] = layer.keys[source, :, :n_keys]
                layer.values[target, :, :n_keys] = layer.values[source, :, :n_keys]
        self.length[target] = self.length[source]

    def look_at(self, n_keys: int) -> None:
        """Attention looks at so many keys of each slot. The buffers hold more, or all of `capacity`."""
        self.used = n_keys
        if self.grows and n_keys >= self.room:
            self.room = n_keys + ROOM

    def visible(self) -> Tensor:
        """Bool [size, used]: the keys that the queries of this step see, their own among them."""
        # A slot that nobody needs any more goes on behind the last key of all others.
        self.place = self.length[: self.size].clamp(max=self.room - 1)
        return torch.arange(self.used, device=self.length.device) <= self.length[: self.size, None]

    def advance(self) -> None:
        """Each slot has one more key."""
        self.length.add_(1)


class _Layer(CacheLayerMixin):
    """One layer's keys and values, [n_slots, H_kv, room, D], unwritten ones zero."""

    keys: Tensor
    values: Tensor
    is_initialized: bool
    is_compileable = True
    is_sliding = False

    def __init__(self, slots: Slots):
        super().__init__()
        self.slots = slots

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        n_old = self.keys.shape[2] if self.is_initialized else 0
        if n_old >= self.slots.room:
            return
        buffers = []
        for old, some in ((self.keys, key_states), (self.values, value_states)):
            new = some.new_zeros(self.slots.n_slots, some.shape[1], self.slots.room, some.shape[3])
            if n_old:
                new[:, :, :n_old] = old
            buffers.append(new)
        self.keys, self.values = buffers
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """The keys of one token for each of the first slots, behind those that it has."""
        self.lazy_initialization(key_states, value_states)
        size, used = self.slots.size, self.slots.used
        place = self.slots.place[:, None, None, None]
        for buffer, states in ((self.keys, key_states), (self.values, value_states)):
            buffer[:size].scatter_(2, place.expand(states.shape), states)
        return self.keys[:size, :, :used], self.values[:size, :, :used]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.slots.used, 0

    def get_seq_length(self) -> int:
        return self.slots.used

    def get_max_length(self) -> int:
        return self.slots.capacity


class _Entering(CacheLayerMixin):
    """Of one layer, while the model reads prompts: an empty cache whose keys lie in their slots afterwards, without
    their padding."""

    is_sliding = False

    def __init__(self, layer: _Layer, slots: Sequence[int], lengths: Sequence[int]):
        super().__init__()
        self.layer, self.slots, self.lengths = layer, slots, lengths
        self.n_seen = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.layer.lazy_initialization(key_states, value_states)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self.lazy_initialization(key_states, value_states)
        for buffer, states in ((self.layer.keys, key_states), (self.layer.values, value_states)):
            for slot, length, one in zip(self.slots, self.lengths, states, strict=True):
                buffer[slot, :, :length] = one[:, -length:]
        self.n_seen = key_states.shape[2]
        return key_states, value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_seq_length(self) -> int:
        return self.n_seen

    def get_max_length(self) -> int:
        return -1


def keeps_all_keys(config: PreTrainedConfig) -> bool:
    """Whether every layer of a model attends to all keys before it, so that a slot can hold them: no sliding or chunked
    window, no linear attention, no encoder."""
    layers = DynamicCache(config=config).layers
    return not config.is_encoder_decoder and bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
