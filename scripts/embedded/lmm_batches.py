"""Packed batches of augmented photographs with their captions, and which token belongs to which word."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import training
from caption_data import WORD, Photo, augmented, concept_of, mirrored, word_target
from lmm_model import AFTER, BEFORE, N_CELLS, QUESTIONS, SIDE, to_pixels
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

IGNORE = -100  # label of what is not predicted
QUARTERS = ("top left", "top right", "bottom left", "bottom right")


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

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        """Token ids of the text and its end, and for each token the concept of its word or -1."""
        encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        concept_at = np.full(len(text), -1)
        for match in WORD.finditer(text):
            concept_at[match.start() : match.end()] = self.index.get(concept_of(match.group()), -1)
        concepts = [int(concept_at[end - 1]) for _, end in encoding["offset_mapping"]]
        return encoding["input_ids"] + [self.tokenizer.eos_token_id], [*concepts, -1]


@dataclass(frozen=True)
class Told:
    """A question about a picture or, with `quarter` 0-3, about a quarter of it, and an answer.

    `is_label`: the answer is learned; otherwise its words only have places.
    """

    question: str
    answer: str
    quarter: int = -1
    is_label: bool = True


@dataclass
class Batch(training.Batch):
    """One packed batch: the beginning of a prompt and the image, then questions and answers that do not see each other.

    `ids`, `labels` (next token or IGNORE), `concepts` (of the next token, or -1), `quarter` (0-3, or -1 for the whole
    picture), `segment` (0 beginning, 1.. questions and answers, -1 padding), `position`: int64 [B, T], where T counts
    text only and the image's cells stand before text position `image_at`. `answer` bool [B, T]: rows that predict an
    answer's tokens. `targets` float [B, 4, n_concepts]; the first `n_mosaics` pictures are mosaics, the others have
    one target, repeated.
    """

    pixels: Tensor
    ids: Tensor
    labels: Tensor
    concepts: Tensor
    quarter: Tensor
    segment: Tensor
    position: Tensor
    answer: Tensor
    image_at: int
    targets: Tensor
    n_mosaics: int


def prompt_ids(tokenizer: PreTrainedTokenizerFast, question: str) -> tuple[list[int], list[int]]:
    """Before and after the image."""
    before, after = (tokenizer.encode(t, add_special_tokens=False) for t in (BEFORE, AFTER.format(question)))
    return before, after


def pack(told: Sequence[Told], words: Words) -> dict[str, list[int]]:
    """Text rows of one picture."""
    before, _ = prompt_ids(words.tokenizer, "")
    n = len(before)
    row = {"ids": [*before], "labels": [IGNORE] * n, "concepts": [-1] * n, "quarter": [-1] * n}
    row |= {"segment": [0] * n, "position": [*range(n)], "answer": [False] * n}
    for k, one in enumerate(told, start=1):
        _, question = prompt_ids(words.tokenizer, one.question)
        ids, concepts = words.encode(one.answer)
        n_before = len(question) - 1  # the question's last row predicts the answer's first token
        row["ids"] += question + ids[:-1]
        row["labels"] += [IGNORE] * n_before + (ids if one.is_label else [IGNORE] * len(ids))
        row["concepts"] += [-1] * n_before + concepts
        row["answer"] += [False] * n_before + [True] * len(ids)
        length = n_before + len(ids)
        row["quarter"] += [one.quarter] * length
        row["segment"] += [k] * length
        row["position"] += range(n + N_CELLS, n + N_CELLS + length)
    return row


def collate(rows: list[dict], **rest: Any) -> Batch:
    length = max(len(row["ids"]) for row in rows)
    fill = {"ids": 0, "labels": IGNORE, "concepts": -1, "quarter": -1, "segment": -1, "position": 0, "answer": False}
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

    def _next(self, captioned: bool) -> int:
        pool = self.pools[captioned]
        index = self.taken[captioned]
        self.taken[captioned] += 1
        return pool[training.shuffled(index, len(pool), self.seed, captioned)]

    def _told(self, photo: Photo, flipped: bool) -> list[Told]:
        """Up to five captions and five of its questions."""
        captions = [Told(str(self.rng.choice(QUESTIONS)), text) for text in self._some(photo.captions, 5)]
        asked = [Told(question, answer) for question, answer in self._some(photo.questions, 5)]
        return [replace(one, answer=mirrored(one.answer)) if flipped else one for one in captions + asked]

    def _some(self, items: Sequence[Any], n: int) -> list[Any]:
        return [items[i] for i in self.rng.permutation(len(items))[:n]]

    def _mosaic(self) -> tuple[np.ndarray, list[Told], np.ndarray]:
        picture = np.empty((SIDE, SIDE, 3), np.uint8)
        half, told, targets = SIDE // 2, [], []
        for quarter, place in enumerate(QUARTERS):
            i = self._next(captioned=False)
            y, x = divmod(quarter, 2)
            pixels, flipped = augmented(self.photos[i].pixels, half, self.rng)
            picture[y * half : (y + 1) * half, x * half : (x + 1) * half] = pixels
            for text in self._some(self.photos[i].captions, 1):
                told.append(Told(f"Describe the {place}.", mirrored(text) if flipped else text, quarter))
            targets.append(self.targets[i])
        return picture, told, np.stack(targets)

    def _single(self) -> tuple[np.ndarray, list[Told], np.ndarray]:
        i = self._next(captioned=True)
        picture, flipped = augmented(self.photos[i].pixels, SIDE, self.rng)
        return picture, self._told(self.photos[i], flipped), np.stack([self.targets[i]] * 4)

    def start(self, step: int) -> None:
        self.rng = np.random.default_rng([self.seed, step])
        self.taken = {pool: step * n for pool, n in self.per_step.items()}

    def __call__(self, step: int) -> Batch:
        self.start(step)
        samples = [self._mosaic() for _ in range(self.n_mosaics)] + [self._single() for _ in range(self.n_single)]
        return batch_of(samples, self.words, self.n_mosaics)


class TextBatches:
    """Batches by step of `n_rows` rows, each of `PER_ROW` questions with their answers and no picture."""

    PER_ROW = 5

    def __init__(self, told: Sequence[Told], words: Words, n_rows: int, seed: int):
        self.told, self.words, self.n_rows, self.seed = told, words, n_rows, seed

    def __call__(self, step: int) -> Batch:
        rng = np.random.default_rng([self.seed, step])
        rows = rng.integers(len(self.told), size=(self.n_rows, self.PER_ROW))
        return collate(
            [pack([self.told[i] for i in row], self.words) for row in rows],
            pixels=torch.empty(0),
            image_at=len(prompt_ids(self.words.tokenizer, "")[0]),
            targets=torch.empty(0),
            n_mosaics=0,
        )


def batch_of(samples: list[tuple[np.ndarray, list[Told], np.ndarray]], words: Words, n_mosaics: int) -> Batch:
    """Of (picture uint8 [SIDE, SIDE, 3], what is told of it, word targets float32 [4, n_concepts])."""
    return collate(
        [pack(told, words) for _, told, _ in samples],
        pixels=to_pixels(np.stack([picture for picture, _, _ in samples])),
        image_at=len(prompt_ids(words.tokenizer, "")[0]),
        targets=torch.from_numpy(np.stack([targets for _, _, targets in samples])),
        n_mosaics=n_mosaics,
    )
