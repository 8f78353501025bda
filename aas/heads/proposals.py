"""A head that chooses among masks which the segmenter proposes, by what the LMM saw of a phrase and how its words look.

It draws nothing, so that little is trained: some hundred photographs suffice, where a U-Net learns them by heart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from aas.geometry import stretched_view
from aas.heads.features import HeadShape, MaskLogits, PhraseFeatures
from aas.heads.head import MaskHead, TextMixing
from aas.records import View
from aas.segmenters.proposals import Proposals, pairwise_ious

N_SIZES = 3  # masks of a point
CERTAINTY = 1e-4
SHARPNESS = 0.1  # of IoU: masks so much worse than the best are wanted a third as much
# What it costs a pair of phrases to have the same mask, in the scores' unit. Of 0, 1 and 2, on the photographs for
# choosing: 37, 5 and 2 % of an answer's pairs share a mask, and mask IoU is .408, .408, .385.
SHARING = 1.0
ROUNDING = 1e-4


@dataclass(frozen=True)
class Choice(MaskLogits):
    """The masks that were chosen, and the `scores` [P, K] of all."""

    scores: Tensor


class ProposalHead(MaskHead):
    """Chooses among masks that the segmenter proposes, by maps, by the words, and by how the segmenter sees things.

    score = a . evidence + E(thing) . W(words) / sqrt(width), the highest is taken.

    `evidence`: how each source's map lies on the mask, and the mask's own score, size and place. `thing`: the
    segmenter's embedding, the mean over the mask. `width`: in which things and words meet; `dropout`: of both, in
    training. `segmenter`: the model that proposes, none of whose weights is trained.
    """

    kind = "proposals"
    redraws = True
    chooses = True
    sources = ("mean", "cosine")

    def __init__(
        self, shape: HeadShape, width: int = 32, dropout: float = 0.5, segmenter: PreTrainedModel | None = None
    ):
        super().__init__(shape)
        if segmenter is None:
            raise ValueError("This head chooses among masks of a segmenter: name one.")
        self.width, self.dropout = width, dropout
        self.text = TextMixing(shape, width)
        self.thing = nn.Linear(segmenter.prompt_encoder.hidden_size, width)
        self.evidence = nn.Linear(2 * len(self.sources) + 5 + N_SIZES, 1)

    def settings(self) -> dict[str, Any]:
        return {"width": self.width, "dropout": self.dropout}

    @property
    def of_segmenter(self) -> bool:
        return True

    def logits(self, images: Sequence[PhraseFeatures]) -> Tensor:
        """Where the thing is expected: the proposals, as likely as their scores say, on the grid of the maps."""
        return torch.cat([self._expected(one) for one in images])

    def refined(self, image: PhraseFeatures, coarse: MaskLogits) -> list[MaskLogits]:
        """The proposal of the highest score of each phrase, where phrases that name other things want others."""
        found, scores = _proposals(image), self.scores(image)
        return [Choice(found.logits[chosen_apart(scores, found, image.names)].float(), found.view, scores)]

    def loss(self, image: PhraseFeatures, stages: Sequence[MaskLogits], truth: Tensor) -> Tensor:
        """Cross-entropy of the scores with the proposals' IoU, made a distribution, and twice the IoU that is expected.
        Masks are compared where the proposals are."""
        chosen = stages[-1]
        assert isinstance(chosen, Choice)
        ious = _ious(_proposals(image), truth, image.image_hw)
        wanted, given = (ious / SHARPNESS).softmax(1), chosen.scores.float().log_softmax(1)
        return -(wanted * given).sum(1).mean() - 2 * (given.exp() * ious).sum(1).mean()

    def scores(self, image: PhraseFeatures) -> Tensor:
        """float [P, K] of each phrase's proposals."""
        found = _proposals(image)
        if image.maps is None or image.embedding is None:
            raise ValueError("The head looks at maps and at the segmenter's embedding; neither was kept.")
        cells = self._cells(image)
        embedding = image.embedding.features[0]
        factor = found.logits.shape[1] // embedding.shape[1]
        soft = F.avg_pool2d((found.logits > 0).float()[:, None], factor)[:, 0]
        things = soft.flatten(1) @ embedding.flatten(1).T / soft.sum((1, 2)).clamp(min=1e-6)[:, None]
        things = self.thing(self._dropped(F.layer_norm(things, things.shape[1:])))
        # The last token has read the others, and is mostly of the noun.
        words = torch.stack([states[:, -1] for states in image.states], dim=1)
        (said,) = self.text([self._dropped(F.layer_norm(words, words.shape[2:]))])
        evidence = self.evidence(_evidence(image.maps, cells, found))[..., 0]
        return evidence + said @ things.T / self.width**0.5

    def _expected(self, image: PhraseFeatures) -> Tensor:
        if not len(image.attention):
            return image.attention.new_zeros(0, *image.view.size_hw)
        inside = torch.einsum("pk,khw->phw", self.scores(image).softmax(1), self._cells(image))
        return torch.logit(inside, CERTAINTY)

    def _cells(self, image: PhraseFeatures) -> Tensor:
        """How much of each cell of the maps' grid a proposal covers, [K, h, w]."""
        found = _proposals(image)
        size_h, size_w = found.logits.shape[1:]
        factor = max(1, size_h // (2 * max(image.view.size_hw)))
        soft = F.avg_pool2d((found.logits > 0).float()[:, None], factor)[:, 0]
        view = View((size_h // factor, size_w // factor), found.view.box_xyxy)
        return MaskLogits(soft, view).onto(image.view).clamp(0, 1)

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


@torch.no_grad()
def chosen_apart(scores: Tensor, found: Proposals, names: Sequence[str] | None) -> Tensor:
    """int64 [P]: which proposal each phrase gets, by `scores` [P, K].

    The sum of the scores less `SHARING` times the IoU of every two phrases of different `names` cannot be raised, by
    more than rounding, with another proposal for one phrase alone. Without names: the highest scores.
    """
    best = scores.argmax(1)
    if names is None:
        return best
    others = torch.tensor([[one != other for other in names] for one in names], device=scores.device)
    ious = pairwise_ious(found.logits > 0, found.logits > 0)
    before = None
    while before is None or not torch.equal(best, before):  # every change raises the sum: it comes to an end
        before = best.clone()
        for i, row in enumerate(scores):
            worth = row - SHARING * ious[best[others[i]]].sum(0)
            if worth.max() > worth[best[i]] + ROUNDING:
                best[i] = worth.argmax()
    return best


def _proposals(image: PhraseFeatures) -> Proposals:
    if image.proposals is None:
        raise ValueError("The head chooses among a segmenter's proposals, which were not kept.")
    return image.proposals


@torch.no_grad()
def _ious(found: Proposals, truth: Tensor, image_hw: tuple[int, int]) -> Tensor:
    """Of masks bool [P, H, W] over the photograph with each proposal, float32 [P, K]."""
    over = stretched_view((truth.shape[1], truth.shape[2]), image_hw)
    return pairwise_ious(MaskLogits(truth.float(), over).onto(found.view) > 0.5, found.logits > 0)


def _evidence(maps: Tensor, cells: Tensor, found: Proposals) -> Tensor:
    """Of maps [P, S, h, w] and masks [K, h, w] on their grid: [P, K, 2 S + 5 + N_SIZES], each of about unit size.

    Of each map, standardised over its cells: its correlation with the mask, and its mean inside.
    """
    flat = maps.flatten(2)
    flat = (flat - flat.mean(2, keepdim=True)) / flat.std(2, keepdim=True).clamp(min=1e-12)
    masks = cells.flatten(1)
    inside = flat @ masks.T / masks.sum(1).clamp(min=1e-6)
    residual = masks - masks.mean(1, keepdim=True)
    alike = flat @ residual.T / residual.norm(dim=1).clamp(min=1e-6) / flat.shape[2] ** 0.5
    n, height, width = cells.shape
    area = masks.mean(1)
    y, x = ((torch.arange(side, device=cells.device) + 0.5) / side - 0.5 for side in (height, width))
    total = masks.sum(1).clamp(min=1e-6)
    places = [(cells.sum(2) @ y) / total, (cells.sum(1) @ x) / total]
    own = torch.stack(
        [5 * found.scores, area.clamp(min=1e-4).log() / 2, 3 * area, *(3 * place for place in places)], dim=1
    )
    own = torch.cat([own, F.one_hot(found.sizes, N_SIZES).to(own)], dim=1)
    return torch.cat([(5 * alike).movedim(1, 2), inside.movedim(1, 2), own.expand(len(maps), n, -1)], dim=2)
