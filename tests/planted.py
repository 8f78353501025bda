"""Six scenes, each a coloured shape, and what a model that attends to it would show of its phrases: two maps that know
where the shape is, the others noise."""

import torch
from torch import Tensor

from aas.geometry import cells_of_mask, padded_view
from aas.heads.features import HeadShape, PhraseFeatures
from aas.heads.highres import N_EYES

SHAPE = HeadShape(n_layers=3, n_heads=2, hidden_size=16, input_side=32)
GRID = (8, 8)
SCENES = [
    ((32, 24), (4, 6, 18, 20)),
    ((24, 32), (12, 2, 28, 16)),
    ((32, 32), (0, 0, 14, 32)),
    ((32, 32), (8, 18, 28, 30)),
    ((24, 32), (2, 10, 30, 20)),
    ((32, 24), (2, 4, 14, 30)),
]


def truth(index: int) -> Tensor:
    """bool [1, H, W]."""
    size_hw, (x0, y0, x1, y1) = SCENES[index]
    mask = torch.zeros(1, *size_hw, dtype=torch.bool)
    mask[:, y0:y1, x0:x1] = True
    return mask


def features(index: int, shape: HeadShape = SHAPE, n_phrases: int = 1, eyes: bool = True) -> PhraseFeatures:
    """Of one scene; all of its phrases mean the shape, with different words."""
    random = torch.Generator().manual_seed(index)
    image_hw, view = SCENES[index][0], padded_view(GRID, SCENES[index][0])
    inside, outside = cells_of_mask(truth(index)[0].numpy(), view)
    planted = torch.from_numpy(inside / (inside + outside).clip(1e-9)).float()
    attention = torch.rand(n_phrases, shape.n_channels, *GRID, generator=random) * 0.1
    attention[:, :2] += planted
    n_tokens = [1 + i % 2 for i in range(n_phrases)]
    states = tuple(torch.randn(shape.n_layers, n, shape.hidden_size, generator=random) for n in n_tokens)
    side = shape.input_side
    pixels = torch.randn(3, side, side, generator=random) * 0.1
    to_pixels = torch.nn.functional.interpolate(planted[None, None], (side, side), mode="nearest")[0]
    more = {"eyes": torch.randn(N_EYES, shape.hidden_size, *GRID, generator=random), "pixels": pixels + to_pixels}
    return PhraseFeatures(attention / 3, states, view, image_hw, **(more if eyes else {}))
