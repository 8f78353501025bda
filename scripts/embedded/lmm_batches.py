"""Packed batches of augmented photographs with their captions, and which token belongs to which word."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from caption_data import WORD, Photo, augmented, concept_of, mirrored, word_target
from lmm_model import AFTER, BEFORE, N_CELLS, QUESTIONS, SIDE, to_pixels
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

IGNORE = -100  # label of what is not predicted


class Words:
    """The concepts (content words) that the word and attention losses know."""

    def __init__(self, concepts: list[str], tokenizer: PreTrainedTokenizerFast):
        self.concepts = concepts
        self.index = {word: i for i, word in enumerate(concepts)}
        self.tokenizer = tokenizer
        ids = [tokenizer.encode(f" {word}", add_special_tokens=False) for word in concepts]
        self.token_ids = torch.tensor([t for word in ids for t in word])
        self.offsets = torch.tensor([0, *np.cumsum([len(word) for word in ids])[:-1]])

    def embeddings(self, table: Tensor) -> Tensor:
        """Mean of a word's token embeddings without the mean of all tokens', [n_concepts, width].

        A language model's embeddings share a large common part, which says nothing of a word.
        """
        return F.embedding_bag(self.token_ids, table, self.offsets, mode="mean") - table.mean(0)

    def encode(self, caption: str, lower: bool = False) -> tuple[list[int], list[int]]:
        """Token ids of the caption and its end, and for each token the concept of its word or -1."""
        text = caption.lower().rstrip(".") if lower else caption
        encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        concept_at = np.full(len(text), -1)
        for match in WORD.finditer(text):
            concept_at[match.start() : match.end()] = self.index.get(concept_of(match.group()), -1)
        concepts = [int(concept_at[end - 1]) for _, end in encoding["offset_mapping"]]
        return encoding["input_ids"] + [self.tokenizer.eos_token_id], [*concepts, -1]


@dataclass
class Batch:
    """One packed batch: a prompt with the image, then several answers that do not see each other.

    `ids`, `labels` (next token or IGNORE), `concepts` (of the next token, or -1), `quarter` (0-3, or -1 for the whole
    picture), `segment` (0 prompt, 1.. answers, -1 padding), `position`: int64 [B, T], where T counts text only and
    the image's cells stand before text position `image_at`. `targets` float [B, 4, n_concepts]; the first
    `n_mosaics` pictures are mosaics, the others have one target, repeated.
    """

    pixels: Tensor
    ids: Tensor
    labels: Tensor
    concepts: Tensor
    quarter: Tensor
    segment: Tensor
    position: Tensor
    image_at: int
    targets: Tensor
    n_mosaics: int


def prompt_ids(tokenizer: PreTrainedTokenizerFast, question: str) -> tuple[list[int], list[int]]:
    """Before and after the image."""
    before, after = BEFORE, AFTER.format(question)
    return tuple(tokenizer.encode(text, add_special_tokens=False) for text in (before, after))


def pack(answers: list[tuple[str, int]], words: Words, question: str, lower: bool, with_image: bool) -> dict:
    """Text rows of one picture; `answers` are (caption, quarter)."""
    before, after = prompt_ids(words.tokenizer, question)
    prompt = before + after
    n_prompt = len(prompt) + (N_CELLS if with_image else 0)
    after_at = len(before) + (N_CELLS if with_image else 0)
    row = {
        "ids": list(prompt),
        "labels": [IGNORE] * len(prompt),
        "concepts": [-1] * len(prompt),
        "quarter": [-1] * len(prompt),
        "segment": [0] * len(prompt),
        "position": [*range(len(before)), *range(after_at, n_prompt)],
    }
    for k, (caption, quarter) in enumerate(answers, start=1):
        ids, concepts = words.encode(caption, lower)
        # Every answer brings its own copy of the prompt's last token, whose row predicts the answer's first.
        inputs = [prompt[-1], *ids[:-1]]
        row["ids"] += inputs
        row["labels"] += ids
        row["concepts"] += concepts
        row["quarter"] += [quarter] * len(ids)
        row["segment"] += [k] * len(ids)
        row["position"] += range(n_prompt - 1, n_prompt - 1 + len(ids))
    # the shared prompt therefore ends one token earlier
    drop = len(prompt) - 1
    return {key: values[:drop] + values[drop + 1 :] for key, values in row.items()}


def collate(rows: list[dict], **rest: Any) -> Batch:
    length = max(len(row["ids"]) for row in rows)
    fill = {"ids": 0, "labels": IGNORE, "concepts": -1, "quarter": -1, "segment": -1, "position": 0}
    tensors: dict[str, Any] = {
        key: torch.tensor([row[key] + [value] * (length - len(row[key])) for row in rows])
        for key, value in fill.items()
    }
    return Batch(**tensors, **rest)


class PhotoBatches:
    """Batches of augmented photographs by step: `n_mosaics` mosaics of four and `n_single` single ones.

    A step's batch depends on `seed` and the step alone, so that a run which was stopped goes on with the same ones.
    """

    def __init__(self, photos: list[Photo], words: Words, n_mosaics: int, n_single: int, seed: int):
        self.words, self.n_mosaics, self.n_single = words, n_mosaics, n_single
        self.seed, self.rng = seed, np.random.default_rng(seed)
        self.photos = photos
        self.targets = np.stack([word_target(photo, words.concepts) for photo in photos])
        # photographs with captions, and all: every one once before any comes twice
        self.pools = {True: [i for i, photo in enumerate(photos) if photo.captions], False: list(range(len(photos)))}
        self.per_step = {True: n_single, False: 4 * n_mosaics}
        self.taken = {True: 0, False: 0}
        self.image_at = len(prompt_ids(words.tokenizer, "")[0])

    def _next(self, captioned: bool) -> int:
        pool = self.pools[captioned]
        epoch, at = divmod(self.taken[captioned], len(pool))
        self.taken[captioned] += 1
        return int(np.random.default_rng([self.seed, epoch, captioned]).permutation(pool)[at])

    def _captions(self, photo: Photo, flipped: bool, n: int) -> list[str]:
        chosen = self.rng.permutation(len(photo.captions))[:n]
        return [mirrored(photo.captions[i]) if flipped else photo.captions[i] for i in chosen]

    def _mosaic(self) -> tuple[np.ndarray, list[tuple[str, int]], np.ndarray]:
        picture = np.empty((SIDE, SIDE, 3), np.uint8)
        half, answers, targets = SIDE // 2, [], []
        for quarter in range(4):
            i = self._next(captioned=False)
            y, x = divmod(quarter, 2)
            pixels, flipped = augmented(self.photos[i].pixels, half, self.rng)
            picture[y * half : (y + 1) * half, x * half : (x + 1) * half] = pixels
            answers += [(caption, quarter) for caption in self._captions(self.photos[i], flipped, 1)]
            targets.append(self.targets[i])
        return picture, answers, np.stack(targets)

    def _single(self) -> tuple[np.ndarray, list[tuple[str, int]], np.ndarray]:
        i = self._next(captioned=True)
        picture, flipped = augmented(self.photos[i].pixels, SIDE, self.rng)
        answers = [(caption, -1) for caption in self._captions(self.photos[i], flipped, 5)]
        return picture, answers, np.stack([self.targets[i]] * 4)

    def start(self, step: int) -> None:
        self.rng = np.random.default_rng([self.seed, step])
        self.taken = {pool: step * n for pool, n in self.per_step.items()}

    def __call__(self, step: int) -> Batch:
        self.start(step)
        samples = [self._mosaic() for _ in range(self.n_mosaics)] + [self._single() for _ in range(self.n_single)]
        question = str(self.rng.choice(QUESTIONS))
        lower = bool(self.rng.random() < 0.15)
        return collate(
            [pack(answers, self.words, question, lower, with_image=True) for _, answers, _ in samples],
            pixels=to_pixels(np.stack([picture for picture, _, _ in samples])),
            image_at=self.image_at,
            targets=torch.from_numpy(np.stack([targets for _, _, targets in samples])),
            n_mosaics=self.n_mosaics,
        )
