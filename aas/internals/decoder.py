"""The parts of a model that map sources compute with."""

from dataclasses import dataclass
from typing import Self

from torch import Tensor, nn
from transformers import PreTrainedModel

from aas.capture import CaptureError


@dataclass(frozen=True)
class Decoder:
    """A language model's layers, the norm behind them, and the matrix that makes logits of what leaves it."""

    layers: nn.ModuleList
    norm: nn.Module
    head: nn.Module

    @classmethod
    def of(cls, model: PreTrainedModel) -> Self:
        """ValueError for a model that is built in another way."""
        decoder, head = model.get_decoder(), model.get_output_embeddings()
        layers, norm = getattr(decoder, "layers", None), getattr(decoder, "norm", None)
        if not layers or norm is None or head is None:
            raise ValueError(f"{type(model).__name__} has no stack of layers with a norm behind it.")
        return cls(layers, norm, head)

    def word_rows(self, token_ids: Tensor) -> Tensor:
        """The output matrix's rows of tokens, [..., D]; those of tokens that it does not have stand for nothing."""
        weight = self.head.weight
        assert isinstance(weight, Tensor)
        return weight.detach()[token_ids.to(weight.device).clamp(max=len(weight) - 1)]


def output_matrix(attention: nn.Module, n_heads: int) -> Tensor:
    """W_O of an attention module, [D, H, D_v]: what it makes of each head's output. ValueError where it has none."""
    weight = getattr(getattr(attention, "o_proj", None), "weight", None)
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        raise CaptureError(f"{type(attention).__name__} has no matrix o_proj of numbers: take the source values.")
    return weight.detach().unflatten(1, (n_heads, -1))
