"""Conversations in LLaVA's format to what a model is trained on.

`[{"id", "image", "conversations": [{"from": "human" | "gpt", "value": "<image>\\n…"}]}]`; without "image", a row is
text only. The loss is of the answers alone, their end included.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from tqdm import tqdm
from transformers import LlavaProcessor
from transformers.trainer_pt_utils import get_length_grouped_indices

from difflmm.features import FeatureCache
from difflmm.processor import IMAGE_TOKEN

IGNORE = -100  # a label that counts for nothing
CHUNK = 1000  # rows that are tokenized together


@dataclass(frozen=True)
class Row:
    """One conversation: questions and answers in turns, a question first; the image, if any, belongs to the first
    question. `at`: its place in the file, from 0."""

    at: int
    id: str
    image: Path | None
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Skipped:
    """A row that cannot be used, and why."""

    at: int
    id: str
    error: str


@dataclass(frozen=True)
class Tokens:
    """`input_ids` and `labels`, int64 [length]; labels are IGNORE where no loss is wanted."""

    input_ids: Tensor
    labels: Tensor

    @property
    def n_answer(self) -> int:
        """Tokens that count; the first of a row is never predicted."""
        return int((self.labels[1:] != IGNORE).sum())


# -------------------------------------------------------------------------------------------------------- rows


def read_rows(path: Path, images: Path | None, plain: bool) -> tuple[list[Row], list[Skipped]]:
    """The rows of a JSON file, `images` being the folder that their paths begin in, and those that are malformed.
    `plain`: as `Texts` has it. Raises FileNotFoundError or ValueError if the file is not such a list."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. data is a JSON list of conversations in LLaVA's format.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}).") from error
    if not isinstance(found, list):
        raise ValueError(f"{path} is not a list of conversations in LLaVA's format.")
    rows, skipped = [], []
    for at, content in enumerate(found):
        name = str(content.get("id", at)) if isinstance(content, dict) else str(at)
        try:
            rows.append(_row(at, name, content, images, plain))
        except ValueError as error:
            skipped.append(Skipped(at, name, str(error)))
    return rows, skipped


def _row(at: int, name: str, content: Any, images: Path | None, plain: bool) -> Row:
    if not isinstance(content, dict) or not isinstance(content.get("conversations"), list):
        raise ValueError("there is no list of conversations")
    texts = _texts(content["conversations"])
    n_places = texts[0].count(IMAGE_TOKEN)
    if any(IMAGE_TOKEN in text for text in texts[1:]) or n_places > 1:
        raise ValueError(f"{IMAGE_TOKEN} may stand once, in the first question")
    image = content.get("image")
    if image is not None and not isinstance(image, str):
        raise ValueError("the image is not a path")
    if bool(image) != bool(n_places):
        raise ValueError(f"there is {'no ' if image else ''}{IMAGE_TOKEN} for {'the' if image else 'no'} image")
    if plain and (not image or len(texts) != 2):
        raise ValueError("the plain template takes an image and one answer")
    question = texts[0].replace(IMAGE_TOKEN, "").strip()
    return Row(at, name, (images or Path()) / image if image else None, (question, *texts[1:]))


def _texts(turns: list[Any]) -> list[str]:
    """What is said, in turns; an answer before the first question is left out, as LLaVA does."""
    if not all(
        isinstance(t, dict) and t.get("from") in ("human", "gpt") and isinstance(t.get("value"), str) for t in turns
    ):
        raise ValueError('a turn is not {"from": "human" or "gpt", "value": text}')
    if turns and turns[0]["from"] == "gpt":
        turns = turns[1:]
    if not turns or [turn["from"] for turn in turns] != ["human", "gpt"] * (len(turns) // 2):
        raise ValueError("human and gpt do not take turns")
    if not all(turn["value"].strip() for turn in turns):
        raise ValueError("a turn is empty")
    return [turn["value"] for turn in turns]


# ------------------------------------------------------------------------------------------------------ images


class ImageError(ValueError):
    """The image cannot be used; the message names it."""


def read_image(path: Path) -> Image.Image:
    """Upright, RGB. Raises ImageError for what is missing, broken or cut off."""
    return _read(path, path)


def _read(path: Path, source: Any) -> Image.Image:
    """`source`: the file, or where its bytes are."""
    try:
        with Image.open(source) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: not an image, broken or cut off ({error})") from error


def check_images(
    rows: list[Row], n_threads: int, process: int = 0, n_processes: int = 1
) -> tuple[list[Row], list[Skipped], dict[Path, str]]:
    """Rows whose image can be read, the others, and the SHA-256 of each image. Every image is decoded once;
    where there are several processes, each of them looks at its share."""
    paths = list(dict.fromkeys(row.image for row in rows if row.image))
    with ThreadPoolExecutor(n_threads) as pool:
        share = paths[process::n_processes]
        looked_at = pool.map(_digest_or_error, share)
        told = tqdm(looked_at, "Looking at images", len(share), leave=False, disable=process > 0)
        found = list(zip(share, told, strict=True))
    results = dict(gather_object(found) if n_processes > 1 else found)
    errors = {path: error for path, (_, error) in results.items() if error}
    good = [row for row in rows if row.image not in errors]
    bad = [Skipped(row.at, row.id, errors[row.image]) for row in rows if row.image in errors]
    return good, bad, {path: digest for path, (digest, _) in results.items()}


def _digest_or_error(path: Path) -> tuple[str, str]:
    try:
        content = path.read_bytes()
        _read(path, BytesIO(content))
    except OSError as error:
        return "", f"{path}: {(error.strerror or str(error)).lower()}"
    except ImageError as error:
        return "", str(error)
    return hashlib.sha256(content).hexdigest(), ""


def noise_seed(digest: str, seed: int) -> int:
    """Of an image's noise: its own, whatever the image's name, the row or the process. 63 bits."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{digest}".encode()).digest()[:8]) >> 1


# ------------------------------------------------------------------------------------------------------ tokens


class Texts:
    """Rows to tokens, by the chat template, or `plain`: image, answer, line break, as LLaVA's first stage has it.

    `n_cells`: tokens of an image. `max_length`: what is longer is cut off.
    """

    def __init__(self, processor: LlavaProcessor, n_cells: int, max_length: int, plain: bool):
        self.processor, self.n_cells, self.max_length, self.plain = processor, n_cells, max_length, plain
        self.image_id = processor.image_token_id

    def __call__(self, rows: Sequence[Row]) -> list[Tokens]:
        texts, spans = zip(*[self._plain(row) if self.plain else self._chat(row) for row in rows], strict=True)
        encoded = self.processor.tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)
        return [
            self._tokens(np.array(ids), np.array(offsets)[:, 0], answers)
            for ids, offsets, answers in zip(encoded["input_ids"], encoded["offset_mapping"], spans, strict=True)
        ]

    def _plain(self, row: Row) -> tuple[str, list[tuple[int, int]]]:
        before = f"{self.processor.tokenizer.bos_token or ''}{IMAGE_TOKEN}"
        text = f"{before}{row.texts[1]}\n"
        return text, [(len(before), len(text))]

    def _chat(self, row: Row) -> tuple[str, list[tuple[int, int]]]:
        """The conversation and the characters of its answers, half-open, from behind "ASSISTANT:" to the end token."""
        messages: list[dict[str, Any]] = []
        spans = []
        for i, text in enumerate(row.texts):
            content: list[dict[str, str]] = [{"type": "text", "text": text}]
            if i == 0 and row.image:
                content.insert(0, {"type": "image"})
            messages.append({"role": "assistant" if i % 2 else "user", "content": content})
            if i % 2:
                prompt = self.processor.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=False)
                spans.append((len(prompt), len(self.processor.apply_chat_template(messages, tokenize=False))))
        return self.processor.apply_chat_template(messages, tokenize=False), spans

    def _tokens(self, ids: np.ndarray, starts: np.ndarray, answers: Iterable[tuple[int, int]]) -> Tokens:
        """`starts`: the first character of each token; where that lies tells whether it is the answer's."""
        is_answer = np.zeros(len(ids), bool)
        for start, end in answers:
            is_answer |= (starts >= start) & (starts < end)
        n_times = np.where(ids == self.image_id, self.n_cells, 1)
        labels = np.where(is_answer, ids, IGNORE)
        ids, labels = (np.repeat(of, n_times)[: self.max_length] for of in (ids, labels))
        return Tokens(torch.from_numpy(ids), torch.from_numpy(labels))


class Conversations(Dataset):
    """What a model is trained on: `input_ids` and `labels`; of rows with an image, its pixels and the seed of its
    noise too, or what `features` keeps of it."""

    def __init__(
        self,
        rows: list[Row],
        texts: Texts,
        digests: dict[Path, str],
        seed: int,
        features: FeatureCache | None = None,
        needs_noise: bool = True,
    ):
        self.texts, self.digests, self.seed = texts, digests, seed
        self.features, self.needs_noise = features, needs_noise
        self.rows, self.lengths = [], []
        self.skipped: list[Skipped] = []
        for start in tqdm(range(0, len(rows), CHUNK), "Reading conversations", leave=False):
            chunk = rows[start : start + CHUNK]
            for row, tokens in zip(chunk, texts(chunk), strict=True):
                if tokens.n_answer:
                    self.rows.append(row)
                    self.lengths.append(len(tokens.input_ids))
                else:
                    error = f"no answer within the first {texts.max_length} tokens (max_length)"
                    self.skipped.append(Skipped(row.at, row.id, error))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        row = self.rows[i]
        tokens = self.texts([row])[0]
        item: dict[str, Any] = {"input_ids": tokens.input_ids, "labels": tokens.labels}
        return item if row.image is None else item | self._image(row.image)

    def pixels(self, path: Path) -> Tensor:
        """[3, side, side], as the encoder takes them."""
        return self.texts.processor.image_processor(read_image(path), return_tensors="pt")["pixel_values"][0]

    def _image(self, path: Path) -> dict[str, Tensor]:
        digest = self.digests[path]
        seed = noise_seed(digest, self.seed)
        if self.features is not None:
            return self.features.read(digest, seed)
        return {"pixel_values": self.pixels(path)} | ({"noise_seeds": torch.tensor(seed)} if self.needs_noise else {})


class Collator:
    """Items to a batch: padded on the right to its longest row; images one after another, in the order of the rows.

    `dtype`: of pixels and features, the frozen towers'.
    """

    def __init__(self, pad_id: int, dtype: torch.dtype):
        self.pad_id, self.dtype = pad_id, dtype

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = {
            name: torch.nn.utils.rnn.pad_sequence([item[name] for item in items], True, padding)
            for name, padding in (("input_ids", self.pad_id), ("labels", IGNORE))
        }
        lengths = torch.tensor([len(item["input_ids"]) for item in items])
        batch["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        for name in sorted({name for item in items for name in item} - batch.keys()):
            stacked = torch.stack([item[name] for item in items if name in item])
            batch[name] = stacked.to(self.dtype) if stacked.is_floating_point() else stacked
        return batch


class EpochSampler(Sampler[int]):
    """A new order in each epoch, the same whenever the epoch is begun (again): by lengths of about `batch_size` rows,
    if there is one, as LengthGroupedSampler has it."""

    def __init__(self, lengths: list[int], batch_size: int | None, seed: int):
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Any:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        if self.batch_size is None:
            return iter(torch.randperm(len(self.lengths), generator=generator).tolist())
        return iter(get_length_grouped_indices(self.lengths, self.batch_size, generator=generator))


def summary(skipped: list[Skipped]) -> str:
    """The reasons, counted; without the names of files."""
    reasons = Counter(each.error.split(": ")[-1].split(" (")[0] for each in skipped)
    return ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
