"""The method itself, through the commands: the points of `aas ground` and `aas segment` against eager attention."""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import AutoProcessor, LlavaForConditionalGeneration

import aas
from tests import tiny
from tests.command import done
from tests.tiny.llava import llava

QUESTION = "What is it?"
ANSWER = "Skateboarders and photographers watch a lighthouse behind the waterfront."
ROOTS = ("Skateboarders", "photographers", "lighthouse", "waterfront")  # of the phrases, several tokens each
SIZE_HW = (60, 90)
BOX_XYXY = (15, 0, 75, 60)  # CLIP's centre crop of it
MERGES = {"mean": np.mean, "max": np.max, "first": lambda maps, axis: maps[0]}
PRESETS = {"paper": (None, "mean"), "reference-2024": (-2, "mean"), "reference-2025": (None, "max")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A photograph, and a model whose heads look at different things."""
    root = tmp_path_factory.mktemp("method")
    model, processor = llava(n_kv_heads=4)
    model.save_pretrained(root / "model")
    processor.save_pretrained(root / "model")
    (root / "photos").mkdir()
    Image.fromarray(tiny.a_photo(SIZE_HW)).save(root / "photos/photo.png")
    return root


@dataclass(frozen=True)
class Eager:
    """transformers' own attention to the image, [layers, heads, tokens, 4, 4], and the characters of each token."""

    maps: np.ndarray
    spans: list[tuple[int, int]]
    ids: list[int]

    def tokens(self, word: str, text: str = ANSWER) -> list[int]:
        start = text.index(word)
        return [i for i, (a, b) in enumerate(self.spans) if max(a, start) < min(b, start + len(word))]

    def points(self, head: int | None, merge: str, minus_mean: bool = True) -> list[list[int]]:
        token_maps = self.maps.mean((0, 1)) if head is None else self.maps[:, head].mean(0)
        residual = token_maps - token_maps.mean(0) * minus_mean
        return [peak_xy(MERGES[merge](residual[self.tokens(word)], axis=0)) for word in ROOTS]


def peak_xy(grid_map: np.ndarray) -> list[int]:
    x0, y0, x1, y1 = BOX_XYXY
    square = torch.from_numpy(grid_map.astype(np.float32))[None, None]
    pixels = F.interpolate(square, size=(y1 - y0, x1 - x0), mode="bicubic", align_corners=False)[0, 0].numpy()
    y, x = np.unravel_index(pixels.argmax(), pixels.shape)
    return [x0 + int(x), y0 + int(y)]


def looked_at(folder: Path, ids: list[int] | None = None) -> Eager:
    """Of the answer's tokens `ids`, or of ANSWER's, its end token included."""
    model = LlavaForConditionalGeneration.from_pretrained(folder / "model", attn_implementation="eager").eval()
    processor = AutoProcessor.from_pretrained(folder / "model")
    tokenizer = processor.tokenizer
    ids = ids or [*tokenizer.encode(f" {ANSWER}", add_special_tokens=False), tokenizer.eos_token_id]
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=Image.open(folder / "photos/photo.png"), text=prompt, return_tensors="pt")
    n_prompt = inputs["input_ids"].shape[1]
    whole = torch.cat([inputs["input_ids"], torch.tensor([ids])], dim=1)
    with torch.no_grad():
        output = model(input_ids=whole, pixel_values=inputs["pixel_values"], output_attentions=True)
    columns = (whole[0] == tokenizer.image_token_id).nonzero()[:, 0]
    maps = torch.stack(output.attentions)[:, 0, :, n_prompt - 1 : -1][..., columns]
    pieces = ["" if token_id == tokenizer.eos_token_id else tokenizer.decode([token_id]) for token_id in ids]
    n_spaces = len("".join(pieces)) - len("".join(pieces).lstrip())
    ends = np.maximum(np.cumsum(list(map(len, pieces))) - n_spaces, 0).tolist()
    return Eager(maps.unflatten(-1, (4, 4)).numpy(), list(pairwise([0, *ends])), ids)


@pytest.fixture(scope="module")
def eager(folder) -> Eager:
    return looked_at(folder)


def test_what_is_expected_differs(eager):
    """Otherwise the tests below would see nothing: presets, merges, and the token mean."""
    assert all(len(eager.tokens(word)) > 1 for word in ROOTS)
    found = [eager.points(*arguments) for arguments in PRESETS.values()]
    found += [eager.points(None, "first"), eager.points(None, "mean", False), eager.points(None, "max", False)]
    assert all(one != other for i, one in enumerate(found) for other in found[:i]), found


def grounded(folder: Path, out: Path, *more: object) -> dict:
    photo = folder / "photos/photo.png"
    done("ground", photo, "--model", folder / "model", "--question", QUESTION, "--answer", ANSWER, "--out", out, *more)
    return json.loads((out / "photo.json").read_text())


@pytest.mark.parametrize("preset", PRESETS)
def test_ground_does_what_its_preset_says(folder, eager, tmp_path, preset):
    item = grounded(folder, tmp_path, "--preset", preset)
    assert [phrase.split()[-1] for phrase in item["phrases"]] == list(ROOTS)
    assert item["points"] == eager.points(*PRESETS[preset])


def test_the_default_preset_is_the_papers(folder, eager, tmp_path):
    assert grounded(folder, tmp_path)["points"] == eager.points(*PRESETS["paper"])


def test_phrase_maps_are_residuals(folder, eager):
    """Each phrase's map itself, not only its peak, in Python."""
    grounder = aas.Grounder(str(folder / "model"), preset="reference-2025")
    grounding = grounder(folder / "photos/photo.png", QUESTION, ANSWER)
    token_maps = eager.maps.mean((0, 1))
    residual = token_maps - token_maps.mean(0)
    for phrase, word in zip(grounding.phrases, ROOTS, strict=True):
        expected = residual[eager.tokens(word)].max(0)
        np.testing.assert_allclose(phrase.map, expected, atol=1e-5 * np.abs(token_maps).max())


# ------------------------------------------------------------------------------------------ in two commands


@pytest.fixture(scope="module")
def attn(folder) -> Path:
    (folder / "answers.jsonl").write_text(json.dumps({"image": "photo.png", "answer": ANSWER}))
    done("infer-attn", "--images", folder / "photos", "--model", folder / "model", "--question", QUESTION, "--answers",
        folder / "answers.jsonl", "--out", folder / "attn")  # fmt: skip
    return folder / "attn"


def segmented(folder: Path, attn: Path, out: Path, *more: object) -> dict:
    done("segment", "gcg", "--attn", attn, "--images", folder / "photos", "--out", out, *more)
    return json.loads((out / "photo.json").read_text())


@pytest.mark.parametrize(
    ("options", "merge"),
    [
        ([], "mean"),
        (["--preset", "paper"], "mean"),
        (["--preset", "reference-2025"], "max"),
        (["--merge", "max"], "max"),
        (["--merge", "first"], "first"),
        (["--preset", "reference-2025", "--merge", "mean"], "mean"),
    ],
)
def test_segment_merges_as_it_is_told(folder, attn, eager, tmp_path, options, merge):
    item = segmented(folder, attn, tmp_path, *options)
    assert item["token_indices"] == [eager.tokens(word) for word in ROOTS]
    assert item["points"] == eager.points(None, merge)


def test_one_head_of_each_layer(folder, eager, tmp_path):
    """2024's way in two commands: the head is chosen when attention is captured."""
    done("infer-attn", "--images", folder / "photos", "--model", folder / "model", "--question", QUESTION, "--answers",
        folder / "answers.jsonl", "--heads", "-2", "--out", tmp_path / "attn")  # fmt: skip
    item = segmented(folder, tmp_path / "attn", tmp_path / "masks")
    assert item["points"] == eager.points(-2, "mean")


def test_a_phrase_that_is_the_whole_answer_keeps_its_map(folder, eager, tmp_path):
    """Minus the mean of all its own tokens nothing but their differences would remain."""
    word = ROOTS[1]
    ids = [eager.ids[i] for i in eager.tokens(word)]  # no space in front, no end token
    (tmp_path / "answers.jsonl").write_text(json.dumps({"image": "photo.png", "answer": "", "token_ids": ids}))
    done("infer-attn", "--images", folder / "photos", "--model", folder / "model", "--question", QUESTION, "--answers",
        tmp_path / "answers.jsonl", "--out", tmp_path / "attn")  # fmt: skip
    item = segmented(folder, tmp_path / "attn", tmp_path / "masks", "--merge", "first")
    token_maps = looked_at(folder, ids).maps.mean((0, 1))
    raw, residual = peak_xy(token_maps[0]), peak_xy(token_maps[0] - token_maps.mean(0))
    assert item["phrases"] == [word] and raw != residual
    assert item["points"] == [raw]


@pytest.mark.parametrize("points", [1, 2, None])
def test_ground_takes_as_many_points_as_segment(folder, attn, tmp_path, points):
    """Both from the same maps to the same masks, by one point unless they are told."""
    item = grounded(folder, tmp_path / "ground", *(["--points", points] if points else []))
    same, other = (
        segmented(folder, attn, tmp_path / f"{n}", "--points", n) for n in (points or 1, 1 if points == 2 else 2)
    )
    assert item["points"] == same["points"] and item["pred_masks"] == same["pred_masks"] != other["pred_masks"]
    assert item["scores"] == pytest.approx(same["scores"], abs=1e-3)
