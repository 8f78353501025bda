"""What map sources need of a running model, and what was captured of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import get_args

from torch import Tensor

from aas.choices import Keep

MEAN = -1  # among layers: the mean of all of them


@dataclass(frozen=True)
class Needs:
    """What of a running model is kept; all else is never stored.

    `attention`: to the image, the mean, or by layers, or by heads, of `layers` and `heads` alone (None: of all).
    `values` of the keys, and `outputs`: the matrices W_O. `residuals`: layers whose incoming hidden states are wanted,
    `states`: those whose are wanted behind the final norm; the number of layers stands for what leaves the last one.
    `derivatives` of the answer's logits. `matrices`: layers whose whole attention is wanted, heads put together.
    `generic`: attention to the image of a question that asks for nothing in particular.
    """

    attention: Keep | None = None
    layers: frozenset[int] | None = None
    heads: frozenset[int] | None = None
    values: bool = False
    outputs: bool = False
    residuals: frozenset[int] = frozenset()
    states: frozenset[int] = frozenset()
    derivatives: bool = False
    matrices: frozenset[int] = frozenset()
    generic: bool = False

    def __or__(self, other: "Needs") -> "Needs":
        """What both need."""
        of_attention = [one for one in (self, other) if one.attention] or [self]
        keep = max((one.attention for one in of_attention), key=(None, *get_args(Keep)).index)
        found: dict[str, object] = {"attention": keep}
        for name in ("layers", "heads"):
            some = [getattr(one, name) for one in of_attention]
            found[name] = None if None in some else frozenset().union(*some)
        for name in (one.name for one in fields(self) if one.name not in found):
            found[name] = getattr(self, name) | getattr(other, name)
        return Needs(**found)  # type: ignore[arg-type]

    @property
    def hidden(self) -> frozenset[int]:
        """Layers whose incoming hidden states are looked at."""
        return self.residuals | self.states

    @property
    def sequence(self) -> bool:
        """Whether the image's tokens must be in the sequence that the layers pass on."""
        return bool(self.hidden or self.derivatives or self.matrices)

    @property
    def replay(self) -> bool:
        """Whether one pass over prompt and answer is needed, where each token's own pass would not do."""
        return bool(self.matrices)


@dataclass(frozen=True)
class Captured:
    """What was kept of one answer of T tokens, about an image of N; positions count prompt and answer, without padding.

    `token_ids` int64 [S]: of prompt and answer; `columns` int64 [N]: where the image's tokens are (of a model with
    cross-attention, among its keys), grid after grid, each of `grids_hw`; `is_text` bool [S]: no token of any view of
    the image; `words` int64: where the prompt's text is, special tokens left out; `answer` int64 [T]: where the
    answer's tokens are; `rows` int64 [T]: of the queries. `counted`: indices of the answer's tokens that are no
    reasoning, None for all.

    By layer: `attention` float32 [T, N], with `by_head` [H, T, N]; or the mean alone, under MEAN. `heads`: which, None
    for all. `values` [H_kv, S or S - 1, d]; `outputs` [D, H, d]; `residuals` and `states` [S or S - 1, D];
    `derivatives` [H, T, d]: of the logit w_y . n(x) of answer token t by what attention brings, x what leaves the
    layer, n the final norm; `matrices` float32 [S, S]. `word_rows` [S, D]: the rows of the output matrix.
    `generic` float32 [N]: the attention, mean over heads, of the row that would begin an answer to a generic question.
    """

    token_ids: Tensor
    columns: Tensor
    is_text: Tensor
    words: Tensor
    answer: Tensor
    rows: Tensor
    grids_hw: tuple[tuple[int, int], ...]
    counted: tuple[int, ...] | None = None
    attention: Mapping[int, Tensor] = field(default_factory=dict)
    by_head: bool = False
    heads: tuple[int, ...] | None = None
    values: Mapping[int, Tensor] = field(default_factory=dict)
    outputs: Mapping[int, Tensor] = field(default_factory=dict)
    residuals: Mapping[int, Tensor] = field(default_factory=dict)
    states: Mapping[int, Tensor] = field(default_factory=dict)
    derivatives: Mapping[int, Tensor] = field(default_factory=dict)
    matrices: Mapping[int, Tensor] = field(default_factory=dict)
    word_rows: Tensor | None = None
    generic: Mapping[int, Tensor] = field(default_factory=dict)

    def of_layer(self, layer: int) -> Tensor:
        """Attention float32 [T, N], the mean over a layer's heads."""
        kept = self._kept(layer)
        return kept.mean(0) if self.by_head else kept

    def of_head(self, layer: int, head: int) -> Tensor:
        """Attention float32 [T, N] of one head."""
        return self._kept(layer)[head if self.heads is None else self.heads.index(head)]

    def _kept(self, layer: int) -> Tensor:
        if layer not in self.attention:
            there = ", ".join(map(str, sorted(self.attention)))
            raise ValueError(
                f"Layer {layer} has no attention to the image that can be captured. Those that have: {there}."
            )
        return self.attention[layer]

    def mean(self) -> Tensor:
        """Attention float32 [T, N], the mean over layers and heads."""
        if MEAN in self.attention:
            return self.attention[MEAN]
        return sum(self.of_layer(layer) for layer in self.attention) / len(self.attention)  # type: ignore[return-value]
