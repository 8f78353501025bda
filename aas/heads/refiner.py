"""SAM's prompt encoder and mask decoder, trained to redraw a head's coarse masks."""

from collections import defaultdict
from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.sam.modeling_sam import SamMaskDecoder

from aas.geometry import cell_centres, placed_view
from aas.heads.features import MaskLogits
from aas.records import View
from aas.segmenters.sam_records import SamEmbedding

# What one mask of a box and a mask never reaches: it would only decay, and distributed training wait for its gradients.
UNUSED = ("prompt_encoder.shared_embedding.", "prompt_encoder.point_embed.0.", "prompt_encoder.point_embed.1.",
          "prompt_encoder.not_a_point_embed.", "prompt_encoder.no_mask_embed.", "mask_decoder.iou_prediction_head.",
          *(f"mask_decoder.output_hypernetworks_mlps.{i}." for i in (1, 2, 3)))  # fmt: skip
OUTSIDE = -1.0  # the largest logit beyond the photograph, as F-LMM pads


class SamRefiner(nn.Module):
    """One mask of a phrase's coarse mask, the box around that, and its words, each of which is a prompt of its own
    (arXiv 2406.05821, section 3).

    Copies what it trains of `segmenter`, a model of transformers with SAM's parts; ValueError for one that has others.
    """

    positions: Tensor

    def __init__(self, segmenter: PreTrainedModel):
        super().__init__()
        if type(getattr(segmenter, "mask_decoder", None)) is not SamMaskDecoder:
            raise ValueError(
                f"{type(segmenter).__name__} has not SAM's mask decoder, which the head trains: take a SAM."
            )
        self.prompt_encoder = deepcopy(segmenter.prompt_encoder)
        self.mask_decoder = deepcopy(segmenter.mask_decoder)
        positions = segmenter.get_image_wide_positional_embeddings().detach()
        self.register_buffer("positions", positions, persistent=False)
        for name, parameter in self.named_parameters():
            parameter.requires_grad = not name.startswith(UNUSED)

    @property
    def width(self) -> int:
        """Of a prompt's token."""
        return self.prompt_encoder.hidden_size

    def forward(self, coarse: MaskLogits, words: Sequence[Tensor], embedding: SamEmbedding) -> MaskLogits:
        """The phrases of one photograph, at least one; of each its `words` [T, width]. The logits lie over SAM's square
        input."""
        side = 4 * self.prompt_encoder.image_embedding_size[0]
        boxes = torch.stack([_box_around(one, coarse.view, embedding) for one in coarse.values])
        masks = _in_frame(coarse, self._frame((side, side), embedding), embedding.size_hw)
        sparse, dense = self.prompt_encoder(None, None, boxes[:, None], masks[:, None])
        found: dict[int, Tensor] = {}
        # Nothing hides a token that would fill up a row: phrases of equally many go together.
        for some in _equally_long(words):
            tokens = torch.stack([words[i] for i in some])[:, None]
            logits = self._decoded(embedding.features[0], torch.cat([sparse[some], tokens], dim=2), dense[some])
            found |= dict(zip(some, logits, strict=True))
        values = torch.stack([found[i] for i in range(len(words))])
        return MaskLogits(values, self._frame((values.shape[1], values.shape[2]), embedding))

    def _decoded(self, features: Tensor, tokens: Tensor, dense: Tensor) -> Tensor:
        """Logits [n, h, w] of prompts, `tokens` [n, 1, T, C] and `dense` [n, C, h', w'], on one photograph."""
        n = len(tokens)
        image = features[None].expand(n, -1, -1, -1)
        positions = self.positions.expand(n, -1, -1, -1)
        logits, _ = self.mask_decoder(image, positions, tokens, dense, multimask_output=False)
        return logits[:, 0, 0]

    def _frame(self, grid_hw: tuple[int, int], embedding: SamEmbedding) -> View:
        """A grid over SAM's square input, at whose top left the photograph lies."""
        side = self.prompt_encoder.input_image_size
        return placed_view(grid_hw, embedding.size_hw, embedding.input_size_hw, (side, side))


def _in_frame(coarse: MaskLogits, frame: View, image_hw: tuple[int, int]) -> Tensor:
    """The logits [P, s, s] in SAM's frame; beyond the photograph the least of all, or -1 if that is less."""
    x, y = (centres.to(coarse.values.device) for centres in cell_centres(frame))
    inside = (y < image_hw[0])[:, None] & (x < image_hw[1])
    values = coarse.onto(frame)
    return torch.where(inside, values, values.detach().amin().clamp(max=OUTSIDE))


@torch.no_grad()
def _box_around(logits: Tensor, view: View, embedding: SamEmbedding) -> Tensor:
    """x0, y0, x1, y1 in pixels of SAM's input, float32 [4], of what is above 0 of `logits` [h, w] on the photograph;
    the whole photograph where nothing is."""
    height, width = embedding.size_hw
    mask = MaskLogits(logits[None], view).on_image(embedding.size_hw)[0] > 0
    rows, columns = mask.any(1).nonzero()[:, 0].tolist(), mask.any(0).nonzero()[:, 0].tolist()
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if rows else (0, 0, width, height)
    input_height, input_width = embedding.input_size_hw
    scale = torch.tensor([input_width / width, input_height / height] * 2)
    return (torch.tensor(box) * scale).to(logits.device)


def _equally_long(words: Sequence[Tensor]) -> list[list[int]]:
    groups: dict[int, list[int]] = defaultdict(list)
    for i, one in enumerate(words):
        groups[len(one)].append(i)
    return list(groups.values())
