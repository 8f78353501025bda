"""Prompts of many photographs through one decoder: SAM's takes few at a time, and on a GPU each call costs as much."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from aas.segmenters.sam_records import SamEmbedding

PROMPTS_PER_DECODE = 32  # one decoder batch; SAM's takes about 35 MB per prompt
Prompts = dict[str, Tensor]  # arguments of the model's call, each [N, ...]
Masks = tuple[Tensor, Tensor]  # logits [N, K, h, w] and scores [N, K]
Decode = Callable[[Sequence[Tensor], Prompts], Masks]  # features [B, ...], prompts [B, P, ...] -> of B P prompts


def decoded(decode: Decode, embeddings: Sequence[SamEmbedding], prompts: Sequence[Prompts]) -> list[Masks]:
    """Of each photograph the masks of its prompts. ValueError for prompts that do not fit each other."""
    counts = [_number(given) for given in prompts]
    found: list[Masks] = [(torch.zeros(0, 3, 1, 1), torch.zeros(0, 3))] * len(prompts)
    for members in _of_one_kind(prompts, counts):
        joined = {name: torch.cat([prompts[i][name] for i in members]) for name in prompts[members[0]]}
        of = [i for i in members for _ in range(counts[i])]
        parts = [slice(start, start + PROMPTS_PER_DECODE) for start in range(0, len(of), PROMPTS_PER_DECODE)]
        several = [_part(decode, embeddings, of[p], {name: every[p] for name, every in joined.items()}) for p in parts]
        logits, scores = (torch.cat(columns) for columns in zip(*several, strict=True))
        sizes = [counts[i] for i in members]
        for i, *one in zip(members, logits.split(sizes), scores.split(sizes), strict=True):
            found[i] = (one[0], one[1])
    return found


def _of_one_kind(prompts: Sequence[Prompts], counts: Sequence[int]) -> Iterator[list[int]]:
    """The photographs whose prompts have the same parts, and equally many points; not those without prompts."""
    kinds: dict[object, list[int]] = {}
    for i, given in enumerate(prompts):
        if counts[i]:
            kinds.setdefault(tuple((name, part.shape[1:]) for name, part in given.items()), []).append(i)
    yield from kinds.values()


def _part(decode: Decode, embeddings: Sequence[SamEmbedding], of: Sequence[int], prompts: Prompts) -> Masks:
    """Prompts of photographs `of`, one each, in one call."""
    if len(set(of)) == 1:
        features = [feature[None] for feature in embeddings[of[0]].features]
        if "input_masks" not in prompts:  # n prompts on one image
            return decode(features, {name: prompt[None] for name, prompt in prompts.items()})
        # transformers takes one mask per image: the image n times, one prompt each
        features = [feature.expand(len(of), *feature.shape[1:]) for feature in features]
    else:
        features = [torch.stack(one) for one in zip(*(embeddings[i].features for i in of), strict=True)]
    return decode(features, {name: prompt[:, None] for name, prompt in prompts.items()})


def _number(prompts: Prompts) -> int:
    counts = {len(prompt) for prompt in prompts.values()}
    if not counts:
        raise ValueError("masks() needs points_xy, boxes_xyxy or mask_logits.")
    if len(counts) > 1:
        raise ValueError(f"masks() needs equally many prompts of each kind, not {sorted(counts)}.")
    return counts.pop()
