"""DiffLMM: a LoRA's scale, and the two learning rates of training."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("diffusers")
pytest.importorskip("peft")
from peft import PeftModel
from transformers import LlamaForCausalLM

from difflmm.checkpoint import load_checkpoint
from difflmm.new_models import new_difflmm
from difflmm.recipe import Recipe
from difflmm.synthetic import SIDE, write_models, write_pictures
from difflmm.train import train
from tests.tiny import difflmm as release


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, Path]:
    folder, base, _ = release.write_release(tmp_path_factory.mktemp("release"))
    return folder, base


@pytest.mark.parametrize(("use_rslora", "alpha"), [(False, 8), (False, 3), (True, 8), (True, 5)])
def test_a_lora_is_merged_as_peft_merges_it(written, use_rslora, alpha):
    """Rank 4: alpha / 4, of a rank-stabilised one alpha / 2."""
    folder, base = written
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"use_rslora": use_rslora, "lora_alpha": alpha}))
    llm = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged = PeftModel.from_pretrained(llm, folder).merge_and_unload().model.state_dict()
    ours = load_checkpoint(str(folder), str(base))[0].model.language_model.state_dict()
    for name, weight in merged.items():
        torch.testing.assert_close(ours[name][: len(weight)], weight, atol=1e-6, rtol=1e-6)


# ------------------------------------------------------------------------------------------ learning rates


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    write_models(folder)
    write_pictures(folder / "pictures", 8)
    return folder


def recipe(parts: Path, out: Path, **changes: object) -> Recipe:
    settings = {
        "llm": str(parts / "llm"), "diffusion": str(parts / "diffusion"), "clip": str(parts / "clip"),
        "encoder_options": {"resolution": SIDE}, "data": parts / "pictures/data.json", "images": parts / "pictures",
        "stage": 2, "max_length": 256, "batch_size": 4, "device_batch_size": 4, "workers": 0, "max_steps": 1,
        "lora_rank": 4, "lora_alpha": 8, "lora_dropout": 0.0, "precision": "float32", "log_steps": 1,
        "schedule": "constant_with_warmup", "warmup": 0.0, "keep_adapter": True, "max_grad_norm": 0.0,
    }  # fmt: skip
    return Recipe(out=out, **(settings | changes))


def projector_steps(parts: Path, out: Path) -> dict[str, float]:
    """The longest step of each weight of projector and captioner."""
    torch.manual_seed(42)  # the recipe's
    folders = (str(parts / name) for name in ("llm", "diffusion", "clip"))
    before = new_difflmm(*folders, resolution=SIDE)[0].state_dict()
    after = load_file(out / "model.safetensors")
    trained = {name for name in before if ".multi_modal_projector." in name or ".captioner." in name}
    assert len(trained) == 14
    return {name: float((after[name] - before[name]).abs().max()) for name in trained}


@pytest.mark.parametrize(("projector", "lora"), [(3e-4, 2e-3), (2e-3, 3e-4)])
def test_projector_and_lora_have_a_learning_rate_each(parts, tmp_path, projector, lora):
    """Adam's first step is as long as the learning rate, whatever the gradient. The halves B of a LoRA begin at 0."""
    out = train(recipe(parts, tmp_path / "out", projector_learning_rate=projector, lora_learning_rate=lora))
    adapter = load_file(out / "adapter/adapter_model.safetensors")
    halves = [half for name, half in adapter.items() if ".lora_B." in name]
    assert halves and all(float(half.abs().max()) == pytest.approx(lora, rel=0.02) for half in halves)
    for name, step in projector_steps(parts, out).items():
        assert step == pytest.approx(projector, rel=0.02), name


def test_the_projector_keeps_its_rate_where_there_is_no_lora(parts, tmp_path):
    rates = {"projector_learning_rate": 5e-4, "lora_learning_rate": 1.0}
    out = train(recipe(parts, tmp_path / "out", stage=1, **rates))
    assert all(step == pytest.approx(5e-4, rel=0.02) for step in projector_steps(parts, out).values())
