"""`aas ground` with the embedded models, as a user runs it."""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from skimage import data
from typer.testing import CliRunner

import aas
from aas.cli import app
from aas.paths import embedded_dir
from aas.rle import of_mask
from tests.tiny.llava import llava


@pytest.fixture(scope="module")
def grounder() -> aas.Grounder:
    return aas.Grounder()


def run(*arguments: object):
    return CliRunner().invoke(app, ["ground", *map(str, arguments)])


def cat(path: Path, **options) -> Path:
    Image.fromarray(data.chelsea()).save(path, **options)
    return path


def check_item(path: Path, size_hw: tuple[int, int]) -> dict:
    item = json.loads(path.read_text())
    n = len(item["phrases"])
    assert n == len(item["pred_masks"]) == len(item["points"]) == len(item["scores"]) == len(item["spans"])
    for phrase, rle, (x, y), (start, end) in zip(
        item["phrases"], item["pred_masks"], item["points"], item["spans"], strict=True
    ):
        assert item["caption"][start:end] == phrase
        assert tuple(rle["size"]) == size_hw
        assert coco_mask.decode(rle).shape == size_hw
        assert 0 <= x < size_hw[1] and 0 <= y < size_hw[0]
    return item


# ---- the Python API --------------------------------------------------------------------------------


def test_grounder_answers_and_grounds(grounder):
    grounding = grounder(data.chelsea(), "Describe the image.")
    assert grounding.answer.text and grounding.phrases
    for phrase in grounding.phrases:
        assert grounding.answer.text[slice(*phrase.span)] == phrase.text
        assert phrase.mask.shape == grounding.image.shape[:2] and phrase.mask.dtype == bool
        assert phrase.map.shape == grounding.view.size_hw
        written = "".join(grounding.answer.text[slice(*grounding.answer.token_spans[i])] for i in phrase.token_indices)
        assert grounding.answer.text[slice(*phrase.phrase.root_span)] in written


def test_the_cat_is_found(grounder):
    """Chelsea fills the right two thirds of the picture; her face is at (230, 130)."""
    (phrase,) = grounder(data.chelsea(), answer="a cat").phrases
    assert phrase.text == "a cat"
    assert phrase.mask[130, 230] and phrase.mask.mean() > 0.2


def test_given_answer_keeps_its_words(grounder):
    grounding = grounder(data.astronaut(), answer="A Woman beside a 🚀 model, smiling!")
    assert grounding.answer.text == "A Woman beside a 🚀 model, smiling!"
    assert any("Woman" in phrase.text for phrase in grounding.phrases)


def test_answer_without_a_noun_phrase(grounder, tmp_path):
    grounding = grounder(data.coffee(), answer="yes")
    json_path, png_path = grounding.save(tmp_path)
    assert json.loads(json_path.read_text())["phrases"] == [phrase.text for phrase in grounding.phrases]
    assert Image.open(png_path).size[0] > 0


def test_replayed_answer_has_the_maps_of_the_generated_one(grounder):
    said, maps = grounder.lmm.ask(data.coffee(), "Describe the image.")
    _, again = grounder.lmm.ask(data.coffee(), "Describe the image.", said.text)
    assert np.abs(maps.maps - again.maps).max() <= 1e-5 * np.abs(maps.maps).max()


def test_embedded_capture_equals_eager_attention(grounder):
    """transformers' own attentions, one independent forward pass over prompt and answer."""
    lmm = grounder.lmm
    answer, maps = lmm.ask(data.coffee(), "Describe the image.")
    inputs = lmm.inputs(data.coffee(), "Describe the image.")
    columns = lmm.image_positions(inputs)
    n_prompt = inputs["input_ids"].shape[1]
    ids = torch.cat([inputs["input_ids"], torch.tensor([answer.token_ids])], dim=1)
    eager = copy.deepcopy(lmm.model)
    eager.set_attn_implementation({"text_config": "eager"})
    with torch.no_grad():
        attentions = eager(input_ids=ids, pixel_values=inputs["pixel_values"], output_attentions=True).attentions
    rows = torch.stack(attentions)[:, 0].mean((0, 1))[n_prompt - 1 : -1]
    expected = rows[:, columns].numpy().reshape(maps.maps.shape)
    assert np.abs(maps.maps - expected).max() <= 1e-5 * np.abs(expected).max()


def test_another_llava_from_a_folder(tmp_path):
    """A random CLIP-LLaVA saved as transformers saves it; its processor crops the centre."""
    model, processor = llava()
    model.save_pretrained(tmp_path / "llava")
    processor.save_pretrained(tmp_path / "llava")
    grounder = aas.Grounder(str(tmp_path / "llava"), max_new_tokens=8)
    grounding = grounder(data.chelsea(), answer="A dog and a cat")
    assert grounding.view.box_xyxy == pytest.approx((75, 0, 375, 300), abs=2)
    assert [phrase.text for phrase in grounding.phrases] == ["A dog", "a cat"]
    assert all(75 - 2 <= phrase.point_xy[0] <= 375 + 2 for phrase in grounding.phrases)
    assert len(grounder(data.chelsea()).answer.token_ids) <= 8


def test_run_lengths_round_trip():
    mask = np.random.default_rng(0).random((37, 53)) > 0.5
    assert (coco_mask.decode(of_mask(mask)).astype(bool) == mask).all()


def test_unknown_names_are_explained():
    with pytest.raises(ValueError, match="Known: paper"):
        aas.Grounder(preset="nonsense")
    with pytest.raises(FileNotFoundError, match="embedded"):
        aas.Grounder(phrases="no_such_pipeline")


# ---- the command -----------------------------------------------------------------------------------


def test_one_photo(tmp_path):
    photo = cat(tmp_path / "chelsea.jpg")
    result = run(photo, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    item = check_item(tmp_path / "out/chelsea.json", (300, 451))
    assert item["image_id"] == "chelsea" and item["caption"] in result.stdout
    assert Image.open(tmp_path / "out/chelsea.png").size[0] > 451
    html = (tmp_path / "out/report.html").read_text()
    assert not re.search(r"""(src|href)=["']?https?:""", html)
    assert "embedded model is small" in result.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["chelsea.json", "chelsea.png", "report.html"]


def test_json_lines_and_given_answer(tmp_path):
    photo = cat(tmp_path / "chelsea.jpg")
    result = run(photo, "--out", tmp_path / "out", "--answer", "a cat with whiskers", "--json")
    (line,) = result.stdout.splitlines()
    assert json.loads(line)["phrases"][0] == "a cat"


def test_folder_of_odd_images(tmp_path):
    """Every mode and name in one folder: the good ones are grounded, each bad one costs only itself."""
    photos = tmp_path / "my photos é"
    photos.mkdir()
    cat(photos / "same.jpg")
    cat(photos / "same.png")
    Image.fromarray(data.chelsea()).convert("L").save(photos / "grey.png")
    Image.fromarray(data.chelsea()).convert("CMYK").save(photos / "cmyk.jpg")
    Image.fromarray(data.chelsea()).convert("RGBA").save(photos / "alpha 日本.png")
    Image.fromarray(data.chelsea()[..., 0].astype(np.uint16) * 257).save(photos / "deep.png")
    frame = Image.fromarray(data.chelsea())
    frame.save(photos / "moving.gif", save_all=True, append_images=[frame.rotate(90)])
    frame.crop((0, 0, 3, 2)).save(photos / "tiny.png")
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "cut.jpg").write_bytes((photos / "same.jpg").read_bytes()[:9000])
    (photos / "text.jpg").write_text("hello")
    Image.new("1", (20_000, 6_000)).save(photos / "huge.png")
    result = run(photos, tmp_path / "missing.jpg", "--out", tmp_path / "out", "--answer", "a cat")
    assert result.exit_code == 3, result.output
    good = {"same.jpg", "same.png", "grey", "cmyk", "alpha 日本", "deep", "moving"}
    for name in good:
        check_item(tmp_path / f"out/{name}.json", (300, 451))
    check_item(tmp_path / "out/tiny.json", (2, 3))
    assert {p.stem for p in (tmp_path / "out").glob("*.json")} == good | {"tiny"}
    failed = [json.loads(line) for line in (tmp_path / "out/failed.jsonl").read_text().splitlines()]
    assert {Path(row["image"]).name for row in failed} == {
        "empty.jpg",
        "cut.jpg",
        "text.jpg",
        "huge.png",
        "missing.jpg",
    }
    assert all(len(row["error"]) > 20 for row in failed)


def test_subfolders_are_in_the_names(tmp_path):
    (tmp_path / "in/sub").mkdir(parents=True)
    cat(tmp_path / "in/100%.png")
    cat(tmp_path / "in/sub/a.png")
    assert run(tmp_path / "in", "--answer", "a cat", "--out", tmp_path / "out").exit_code == 0
    assert {path.name for path in (tmp_path / "out").glob("*.json")} == {"100%25.json", "sub%2Fa.json"}
    assert check_item(tmp_path / "out/sub%2Fa.json", (300, 451))["image_id"] == "sub%2Fa"


def test_masks_lie_on_the_upright_picture(tmp_path):
    upright = Image.fromarray(data.chelsea())
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    upright.save(tmp_path / "upright.png")
    run(tmp_path / "turned.png", tmp_path / "upright.png", "--answer", "a cat", "--out", tmp_path / "out")
    turned, straight = (check_item(tmp_path / f"out/{n}.json", (300, 451)) for n in ("turned", "upright"))
    assert turned["pred_masks"] == straight["pred_masks"] and turned["points"] == straight["points"]


def test_usage_errors(tmp_path):
    photo = cat(tmp_path / "a.png")
    for arguments, message in [
        ((photo, "--answer", " "), "--answer is empty"),
        ((photo, "--preset", "nope"), "Known: paper"),
        ((photo, "--out", tmp_path), "would overwrite an image"),
        ((tmp_path, "--out", tmp_path), "name another one"),
        ((photo, "--model", "no/such-model"), "No model"),
        ((photo, "--segmenter", str(tmp_path / "none")), "No segmenter"),
        ((photo, "--out", photo), "a.png"),
    ]:
        extra = () if "--out" in arguments else ("--out", tmp_path / "out")
        result = run(*arguments, *extra)
        assert result.exit_code == 2 and message in result.stderr, (arguments, result.output)
    assert run().exit_code == 2


def test_empty_folder(tmp_path):
    (tmp_path / "none").mkdir()
    result = run(tmp_path / "none", "--out", tmp_path / "out")
    assert result.exit_code == 3 and "no images in this folder" in result.stderr


def test_a_second_run_forgets_old_failures(tmp_path):
    photo = cat(tmp_path / "a.jpg")
    assert run(photo, tmp_path / "gone.jpg", "--out", tmp_path / "out", "--answer", "a cat").exit_code == 3
    assert (tmp_path / "out/failed.jsonl").exists()
    assert run(photo, "--out", tmp_path / "out", "--answer", "a cat").exit_code == 0
    assert not (tmp_path / "out/failed.jsonl").exists()


def test_works_offline_from_another_folder(tmp_path):
    """As a program of its own, with the network switched off for the hub."""
    photo = cat(tmp_path / "chelsea.jpg")
    code = "from aas.cli import app; app()"
    result = subprocess.run(
        [sys.executable, "-c", code, "ground", str(photo), "--answer", "a cat"],
        cwd=tmp_path, capture_output=True, text=True, env={"HF_HUB_OFFLINE": "1", "PATH": "", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "grounded/chelsea.json").exists()


def test_embedded_models_are_small_and_safe():
    root = embedded_dir("lmm").parent
    files = [path for path in root.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 60_000_000
    pickles = [b"\x80" + bytes([protocol]) for protocol in range(2, 6)]
    assert not [path for path in files if path.read_bytes()[:2] in pickles or path.suffix in (".pt", ".pth")]
