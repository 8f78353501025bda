"""DiffLMM in the authors' LoRA release format: the authors' own tokens and maps."""

import json
from pathlib import Path

import numpy as np
import pytest

from aas.capture import Selection
from aas.images import read_image
from aas.lmms import load_lmm
from aas.lmms.base import LMM, AskOptions
from tests.conftest import shared

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


@shared
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
