"""What the attention to each image token does to the answer's logit."""

import torch
from torch import Tensor

from aas.captured import Captured, Needs
from aas.maps.source import Source, choice_of


class Attribution(Source):
    """The derivative of the answer's logit by each attention weight, read behind each layer (DEX-AR, arXiv 2603.06302).

    g[l, h, t, j] = d(w_y(t) . n(x_l[q(t)])) / d A[l, h, q(t), j] = V[l, kv(h), j] . e[l, h, t], with e the derivative
    by what head h brings, exact. `attribution`: M = sum_l,h a relu(g), a[l, h, t] = relu(max of relu(g) over the image
    - max over the text). `attribution:attention`: M = sum_l,h A relu(g). `attribution:signed`: M = sum_l,h A g, what
    each image token adds to the logit.
    """

    minus_token_mean = True

    def __init__(self, argument: str = ""):
        self.way = choice_of(argument, "dex-ar", "attention", "signed")

    def needs(self, n_layers: int, n_heads: int) -> Needs:
        return Needs(None if self.way == "dex-ar" else "heads", values=True, derivatives=True)

    def __call__(self, captured: Captured) -> Tensor:
        return torch.stack([self._of_layer(captured, layer) for layer in captured.derivatives]).sum(0)

    def _of_layer(self, captured: Captured, layer: int) -> Tensor:
        by_weight = derivative_by_weights(captured, layer)
        to_image = by_weight[..., captured.columns]
        if self.way == "signed":
            return (captured.attention[layer] * to_image).sum(0)
        to_image = to_image.relu()
        if self.way == "attention":
            return (captured.attention[layer] * to_image).sum(0)
        return (_margin(by_weight, captured).relu()[..., None] * to_image).sum(0)


def image_margins(captured: Captured) -> Tensor:
    """Float32 [T], DEX-AR's weight of each answer token: the largest over layers and heads of what one image token
    could do to its logit, less what one token of the text could."""
    by_layer = (_margin(derivative_by_weights(captured, layer), captured) for layer in captured.derivatives)
    return torch.stack(list(by_layer)).amax((0, 1))


def _margin(by_weight: Tensor, captured: Captured) -> Tensor:
    """[H, T]: max of relu(g) over the image - max over the text that the query sees; of g [H, T, S]."""
    positive, places = by_weight.relu(), torch.arange(by_weight.shape[-1])
    is_text = captured.is_text[: len(places)] & (places <= captured.rows[:, None])
    return positive[..., captured.columns].amax(-1) - positive.masked_fill(~is_text, 0.0).amax(-1)


def derivative_by_weights(captured: Captured, layer: int) -> Tensor:
    """Float32 [H, T, S or S - 1]: of the logit of answer token t by the attention weight of head h on each column."""
    by_head, values = captured.derivatives[layer].float(), captured.values[layer].float()
    grouped = by_head.unflatten(0, (len(values), -1))  # heads that share values
    return torch.einsum("kgtd,ksd->kgts", grouped, values).flatten(0, 1).cpu()
