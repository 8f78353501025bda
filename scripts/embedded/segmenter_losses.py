"""What the embedded segmenter is trained by: masks, their edges, scores, and what is seen where."""

import torch
import torch.nn.functional as F
from segmenter_data import IGNORE, N_CLASSES, NOT_A_THING
from torch import Tensor

N_THING_CLASSES = 80
DICE, FOCAL = 1.0, 10.0
LAST, GROUP = 2, 1


def mask_loss(logits: Tensor, target: Tensor, balance: float) -> Tensor:
    """Dice and pixel loss of `logits` [..., h, w] against `target` in [0, 1]; one value per mask.

    The pixel loss goes from a cross-entropy where inside and outside weigh the same (`balance` 1) to SAM's focal
    loss (0). With focal loss from the start a new decoder learns to draw nothing, since things cover a few percent
    of the picture, and stays there (IoU 0.000 after 200 steps); with balanced loss to the end masks are too large.
    """
    p = logits.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    loss = DICE * (1 - (2 * (p * target).sum((-2, -1)) + 1) / (p.sum((-2, -1)) + target.sum((-2, -1)) + 1))
    if balance < 1:
        loss = loss + (1 - balance) * FOCAL * (cross_entropy * (p - target).square()).mean((-2, -1))
    if balance > 0:
        inside = (cross_entropy * target).sum((-2, -1)) / target.sum((-2, -1)).clamp(min=1)
        outside = (cross_entropy * (1 - target)).sum((-2, -1)) / (1 - target).sum((-2, -1)).clamp(min=1)
        loss = loss + balance * 0.5 * (inside + outside)
    return loss


def edge_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of `logits` [n, h, w] within three cells of the edge of `target` in [0, 1], one value a mask.

    Elsewhere nothing is at stake for an edge, and a mask's area would drown it.
    """
    inner, outer = -F.max_pool2d(-target, 7, 1, 3), F.max_pool2d(target, 7, 1, 3)
    near = (outer > 0.5) & (inner < 0.5)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (cross_entropy * near).sum((-2, -1)) / near.sum((-2, -1)).clamp(min=1)


def iou(logits: Tensor, target: Tensor) -> Tensor:
    a, b = logits > 0, target > 0.5
    return (a & b).sum((-2, -1)) / (a | b).sum((-2, -1)).clamp(min=1)


def three_mask_loss(
    logits: Tensor, scores: Tensor, whole: Tensor, group: Tensor, is_complete: Tensor, balance: float
) -> Tensor:
    """`logits` [B, K, 3, h, w], `scores` [B, K, 3], targets [B, K, h, w], `is_complete` [B].

    The last mask may be the clicked instance or all of its category, whichever it is nearer to: one click does not say
    which ("the sheep"). The first leans to the instance, the middle one is all of the category; it learns nothing where
    only some of the category's things are known.
    """
    known = is_complete[:, None]
    of_instance = mask_loss(logits, whole[:, :, None].expand_as(logits), balance)
    of_group = mask_loss(logits[:, :, GROUP:], group[:, :, None].expand_as(logits[:, :, GROUP:]), balance)
    nearer = torch.minimum(of_instance[..., LAST], of_group[..., -1])
    either = torch.where(known > 0, nearer, of_instance[..., LAST])
    loss = either + 0.3 * of_instance.amin(-1) + 0.3 * of_instance[..., 0] + 0.3 * known * of_group[..., 0]
    with torch.no_grad():
        true_iou = torch.maximum(iou(logits, whole[:, :, None]), iou(logits, group[:, :, None]))
        # What the middle mask would be worth is not known where the category's other things are not.
        judged = torch.ones_like(scores)
        judged[:, :, GROUP] = known
    return loss.mean() + ((scores - true_iou).square() * judged).mean()


def semantic_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy; where only "not a thing" is known, of the probability of all stuff classes and void together."""
    log_p = logits.float().log_softmax(1)
    log_not_a_thing = log_p[:, N_THING_CLASSES:].logsumexp(1)
    known = target < N_CLASSES
    picked = log_p.gather(1, target.clamp(max=N_CLASSES - 1)[:, None])[:, 0]
    loss = -(torch.where(known, picked, log_not_a_thing)) * (target != IGNORE)
    # Most of a photograph is background: it counts less.
    weight = torch.where(target == NOT_A_THING, 0.3, 1.0) * (target != IGNORE)
    return (loss * weight).sum() / weight.sum().clamp(min=1)
