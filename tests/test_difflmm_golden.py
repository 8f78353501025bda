"""DiffLMM in the authors' LoRA release format: the authors' own tokens and maps."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from aas import load_attention
from aas.capture import Selection
from aas.cli import app
from aas.images import read_image
from aas.lmms import load_lmm
from aas.lmms.base import LMM
from aas.lmms.prepared import AskOptions
from difflmm.cli import app as difflmm_app

QUESTION = "Describe the image in detail."
NAME = "difflmm-llava-tiny-lora"
NOISE_SEED = 1234


@pytest.fixture(scope="module")
def golden_lmm(shared_dir) -> LMM:
    models = shared_dir / "golden/models"
    return load_lmm(str(models / NAME), dtype="float32", base=str(models / "vicuna-tiny"))


def golden(shared_dir: Path, heads: str, name: str) -> tuple[list[int], np.ndarray]:
    with np.load(shared_dir / f"golden/attn/{NAME}/{heads}/{name}.npz") as stored:
        return stored["token_ids"].tolist(), stored["maps"]


@pytest.mark.parametrize(("heads", "selected"), [("all-heads", None), ("head-minus-2", (-2,))])
def test_tokens_and_maps_are_the_authors_in_any_batch(golden_lmm, shared_dir, heads, selected):
    names = ("dog", "truck")
    batch = [golden_lmm.prepare(read_image(shared_dir / f"golden/images/{n}.jpg"), QUESTION) for n in names]
    options = AskOptions(120, selection=Selection(heads=selected), seed=NOISE_SEED)
    answers = json.loads((shared_dir / f"golden/attn/{NAME}/answers.json").read_text())
    for split in ([batch], [[one] for one in batch]):
        results = [result for part in split for result in golden_lmm.run(part, options)]
        for name, (answer, maps) in zip(names, results, strict=True):
            token_ids, expected = golden(shared_dir, heads, name)
            assert list(answer.token_ids) == token_ids
            assert answer.text.strip() == answers[name]
            assert np.abs(maps.maps - expected).max() <= 1e-6


def test_the_commands(shared_dir, tmp_path):
    """`aas infer-attn --seed`, on the release and on what `difflmm convert` makes of it; doctor and ground on that."""
    golden_dir = shared_dir / "golden"
    source, base = golden_dir / "models" / NAME, golden_dir / "models/vicuna-tiny"
    run(difflmm_app, "convert", source, tmp_path / "converted", "--base", base)
    for model, more in ((source, ["--base", base]), (tmp_path / "converted", [])):
        out = tmp_path / f"run-{len(more)}"
        images = ["--images", golden_dir / "images", "--out", out, "--seed", NOISE_SEED, "--max-new-tokens", 120]
        run(app, "infer-attn", "--model", model, *images, *more)
        for name in ("dog", "truck"):
            token_ids, expected = golden(shared_dir, "all-heads", name)
            item = load_attention(out / f"{name}.jpg.safetensors")
            assert list(item.answer.token_ids) == token_ids
            assert np.abs(item.attention.maps - expected).max() <= 1e-6
    report = json.loads(run(app, "doctor", tmp_path / "converted", "--json"))["model"]
    assert report["supported"] and report["family"] == "DiffLMM"
    photo = golden_dir / "images/dog.jpg"
    (line,) = run(app, "ground", photo, "--model", tmp_path / "converted", "--out", tmp_path, "--json").splitlines()
    assert "dog" in " ".join(json.loads(line)["phrases"])


def run(command, *arguments: object) -> str:
    result = CliRunner().invoke(command, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result.stdout
