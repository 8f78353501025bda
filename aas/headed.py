"""The masks of an answer's phrases by a trained head, instead of by prompts to a segmenter."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aas.choices import HEAD_THRESHOLD
from aas.heads.features import MaskLogits
from aas.heads.named import head_path
from aas.heads.stored import load_head, read_head_file
from aas.lmms.base import LMM
from aas.lmms.phrase_features import phrase_features
from aas.lmms.prepared import Prepared
from aas.lmms.sources import origin_of
from aas.pointing.masks import PhraseMasks
from aas.pointing.phrases import Pointed
from aas.records import Answer, Phrase, View
from aas.segmenters.base import ImageEmbedding, Segmenter
from aas.segmenters.proposals import proposals
from aas.segmenters.sam_family import SamFamily
from aas.segmenters.sam_records import SamEmbedding
from aas.store.origin import Origin

WITH_ADAPTER = "--head was trained on the model as it is, and --adapter makes another one of it: leave one of them out."


class HeadMasks:
    """A head by its name, beside the LMM and the segmenter that it was trained on; ValueError or OSError where they are
    others."""

    def __init__(
        self,
        name: str | Path,
        lmm: LMM,
        segmenter: Segmenter,
        segmenter_name: object,
        threshold: float = HEAD_THRESHOLD,
    ):
        """`name`: as `aas.heads.named.head_path` takes it; `threshold`: a pixel's probability above which it belongs to
        a mask."""
        if not 0 < threshold < 1:
            raise ValueError(f"The threshold of a head is a probability above 0 and below 1, not {threshold}.")
        path = head_path(name)
        said, model = read_head_file(path), getattr(segmenter, "model", None)
        there = None
        if said.segmenter is not None and model is not None:
            name = segmenter_name if isinstance(segmenter_name, str) else model.name_or_path
            there = Origin.of(name, "segmenter", getattr(model.config, "_commit_hash", None))
        self.head = load_head(path, origin_of(lmm), model, there).to(lmm.device)
        if self.head.chooses and threshold != HEAD_THRESHOLD:
            raise ValueError(f"--head-threshold {threshold}: this head chooses whole masks; leave the threshold out.")
        self.lmm, self.segmenter, self.least_logit = lmm, segmenter, math.log(threshold / (1 - threshold))

    @torch.no_grad()
    def __call__(
        self, prepared: Prepared, answer: Answer, phrases: Sequence[Phrase], embedding: ImageEmbedding
    ) -> list[PhraseMasks]:
        """A mask for each phrase, of all of its tokens; its score is the mean probability of the mask's pixels."""
        told = replace(prepared, answer_ids=torch.tensor(answer.token_ids))
        spans = [phrase.span for phrase in phrases]
        hw = embedding.size_hw
        head = self.head
        (features,) = phrase_features(self.lmm, head.shape, [told], [spans], [hw], head.needs_eyes, head.sources)
        names = tuple(phrase.root_in(answer.text).lower() for phrase in phrases)
        features = replace(features, names=names)
        if isinstance(embedding, SamEmbedding):
            features = replace(features, embedding=embedding)
            if head.chooses and isinstance(self.segmenter, SamFamily):
                features = replace(features, proposals=proposals(self.segmenter, embedding))
        logits = self.head([features.to(self.lmm.device)])[0][-1]
        # One after another: at the photograph's size all of them may not fit into memory.
        return [self._mask(one[None], logits.view, embedding) for one in logits.values]

    def _mask(self, logits: Tensor, view: View, embedding: ImageEmbedding) -> PhraseMasks:
        """Of logits [1, h, w] over `view`; one of the segmenter's own as it draws it itself."""
        if self.head.chooses and isinstance(self.segmenter, SamFamily) and isinstance(embedding, SamEmbedding):
            return PhraseMasks(self.segmenter.drawn(logits.float(), embedding), _certainty(logits, logits > 0))
        large = MaskLogits(logits, view).on_image(embedding.size_hw)
        mask = large > self.least_logit
        return PhraseMasks(mask.cpu().numpy(), _certainty(large, mask))

    def of_each(
        self, asked: Iterable[tuple[Prepared | None, Answer, Sequence[Pointed], ImageEmbedding | None]]
    ) -> Iterator[list[PhraseMasks]]:
        """As a call, for several photographs, in order; one without phrases need not be prepared or encoded."""
        for prepared, answer, pointed, embedding in asked:
            if not pointed:
                yield []
                continue
            assert prepared is not None and embedding is not None
            yield self(prepared, answer, [one.phrase for one in pointed], embedding)


def _certainty(logits: Tensor, mask: Tensor) -> np.ndarray:
    """float32 [1]: the mean probability of a mask's pixels, 0 of one without any."""
    mean = logits[mask].float().sigmoid().mean() if mask.any() else logits.new_zeros(())
    return mean[None].float().cpu().numpy()
