"""What heads are trained with, as F-LMM and HG-LMM are."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from aas.heads.features import MaskLogits


def mask_loss(stages: Sequence[MaskLogits], truth: Tensor, image_hw: tuple[int, int]) -> Tensor:
    """Of one photograph's phrases, a scalar: cross-entropy and Dice of each of a head's logits, all of weight 1, summed
    over these and averaged over the phrases.

    `truth` bool [P, H, W] over the photograph of `image_hw` pixels, P > 0, at its size or a smaller one: it is compared
    where it is, and never resized. Dice = 1 - (2 sum(p t) + 1) / (sum p + sum t + 1), so that an empty mask has one.
    """
    wanted = truth.float()
    total = wanted.new_zeros(())
    for stage in stages:
        logits = stage.on_image(image_hw, (truth.shape[1], truth.shape[2]))
        given, area = logits.sigmoid(), wanted.sum((1, 2))
        dice = 1 - (2 * (given * wanted).sum((1, 2)) + 1) / (given.sum((1, 2)) + area + 1)
        total = total + F.binary_cross_entropy_with_logits(logits, wanted) + dice.mean()
    return total


@torch.no_grad()
def mask_ious(logits: MaskLogits, truth: Tensor, image_hw: tuple[int, int]) -> Tensor:
    """float32 [P], at the size of `truth` bool [P, H, W]; two empty masks are the same: 1."""
    masks = logits.on_image(image_hw, (truth.shape[1], truth.shape[2])) > 0
    common, union = (masks & truth).sum((1, 2)), (masks | truth).sum((1, 2))
    return torch.where(union > 0, common / union.clamp(min=1), 1.0)
