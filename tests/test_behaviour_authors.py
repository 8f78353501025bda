"""Items of the method's authors (.pth), through the commands: where their maps lie on the photograph."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from aas.cli import app
from aas.records import Answer, AttentionMaps, View
from aas.store.attention import AttentionItem, write_item
from tests import tiny


def well(*arguments: object) -> None:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, (result.output, result.exception)


def their_item(folder: Path, maps: np.ndarray) -> None:
    """Of the answer "a dog", behind a beginning-of-sequence token."""
    tokenizer = tiny.byte_level_tokenizer()
    tokenizer.save_pretrained(folder / "tokenizer")
    ids = tokenizer.encode("a dog", add_special_tokens=False)
    (folder / "theirs").mkdir()
    content = {"attentions": torch.from_numpy(maps), "sequences": torch.tensor([[1, *ids]]), "answer": "a dog"}
    torch.save(content, folder / "theirs/photo.pth")


@pytest.mark.parametrize(
    ("size_hw", "padded"),
    [((60, 120), (0.0, -30.0, 120.0, 90.0)), ((120, 60), (-30.0, 0.0, 90.0, 120.0))],
    ids=["wide", "tall"],
)
def test_a_sheet_shows_the_authors_maps_on_the_padded_square(tmp_path, size_hw, padded):
    """The very picture of an item of ours that says so in numbers, not of one that says the image was stretched."""
    tokenizer = tiny.byte_level_tokenizer()
    ids = tokenizer.encode("a dog", add_special_tokens=False)
    maps = np.random.default_rng(0).random((len(ids), 6, 6)).astype(np.float32) ** 4
    their_item(tmp_path, maps)
    (tmp_path / "photos").mkdir()
    Image.fromarray(tiny.a_photo(size_hw)).save(tmp_path / "photos/photo", format="PNG")  # as their item is named
    ends = np.cumsum([len(tokenizer.decode([token])) for token in ids]).tolist()
    answer = Answer("", "a dog", tuple(ids), tuple(zip([0, *ends], ends, strict=False)))
    for name, box_xyxy in (("padded", padded), ("stretched", (0.0, 0.0, float(size_hw[1]), float(size_hw[0])))):
        item = AttentionItem("photo", size_hw, answer, AttentionMaps(maps, View((6, 6), box_xyxy)))
        write_item(tmp_path / name / "photo.safetensors", item)
    pictures = []
    for name in ("theirs", "padded", "stretched"):
        more = ("--tokenizer", tmp_path / "tokenizer") if name == "theirs" else ()
        out = tmp_path / f"sheet of {name}"
        well("show", "attn", tmp_path / name, "--images", tmp_path / "photos", "--out", out, *more)
        (path,) = out.iterdir()
        pictures.append(np.asarray(Image.open(path)))
    theirs, ours, other = pictures
    np.testing.assert_array_equal(theirs, ours)
    assert theirs.shape != other.shape or (theirs != other).any()


@pytest.mark.parametrize(("fit", "rows"), [("pad", (30, 50)), ("stretch", (30, 40)), (None, (30, 50))])
def test_segment_places_the_authors_maps_as_it_is_told(tmp_path, fit, rows):
    """Cells of 20 x 20 pixels in the padded square, which begins at y = -30; of 20 x 10 in the photograph itself."""
    n_tokens = len(tiny.byte_level_tokenizer().encode("a dog", add_special_tokens=False))
    maps = np.zeros((n_tokens, 6, 6), np.float32)
    maps[1:, 3, 2] = 1
    their_item(tmp_path, maps)
    (tmp_path / "photos").mkdir()
    Image.fromarray(tiny.a_photo((60, 120))).save(tmp_path / "photos/photo.png")
    well("segment", "gcg", "--attn", tmp_path / "theirs", "--images", tmp_path / "photos", "--out", tmp_path / "out",
         "--tokenizer", tmp_path / "tokenizer", *(["--fit", fit] if fit else []))  # fmt: skip
    item = json.loads((tmp_path / "out/photo.json").read_text())
    ((x, y),) = item["points"]
    assert item["phrases"] == ["a dog"]
    assert abs(x - 50) <= 1 and abs(y - sum(rows) / 2) <= 1
