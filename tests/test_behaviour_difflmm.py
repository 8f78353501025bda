"""DiffLMM: a LoRA's scale, what each value of a recipe does to the weights, data and kept features."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from safetensors.torch import load_file

pytest.importorskip("diffusers")
pytest.importorskip("peft")
from peft import PeftModel
from PIL import Image
from transformers import LlamaForCausalLM

from difflmm.checkpoint import load_checkpoint
from difflmm.data.batches import Collator
from difflmm.data.features import fingerprint
from difflmm.data.images import read_image
from difflmm.data.tokens import IGNORE
from difflmm.encoder import DiffusionEncoder
from difflmm.new_models import new_difflmm
from difflmm.processor import tokenizer_with_image
from difflmm.recipe import Recipe
from difflmm.synthetic import SIDE, write_models, write_pictures
from difflmm.train import train
from tests import tiny
from tests.tiny import difflmm as release
from tests.tiny.llava_original import write_tokenizer


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


# ------------------------------------------------------------------------------------------ what else a recipe says


def test_weight_decay_shrinks_what_is_trained(parts, tmp_path):
    """AdamW: w (1 - rate * decay), and then Adam's step."""
    rate, decay = 1e-3, 20.0
    changes = {"stage": 1, "projector_learning_rate": rate, "weight_decay": decay}
    out = train(recipe(parts, tmp_path / "out", **changes))
    torch.manual_seed(42)
    before = new_difflmm(*(str(parts / name) for name in ("llm", "diffusion", "clip")), resolution=SIDE)[0].state_dict()
    after = load_file(out / "model.safetensors")
    for name in projector_steps(parts, out):
        moved = after[name] - before[name] * (1 - rate * decay)
        assert float(moved.abs().max()) == pytest.approx(rate, rel=0.02), name


def test_gradients_are_clipped(parts, tmp_path):
    """To next to nothing, against which Adam's epsilon of 1e-8 is large: no step is as long as the rate."""
    out = train(recipe(parts, tmp_path / "out", stage=1, projector_learning_rate=1e-3, max_grad_norm=1e-10))
    assert all(step < 2e-5 for step in projector_steps(parts, out).values())


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant_with_warmup"])
def test_the_rate_follows_its_schedule(parts, tmp_path, schedule):
    """Of 6 steps a third to warm up: the log says the rate of each step."""
    changes = {"stage": 1, "projector_learning_rate": 1e-3, "schedule": schedule, "warmup": 1 / 3, "max_steps": 6}
    out = train(recipe(parts, tmp_path / "out", **changes))
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    rates = [entry["learning_rate"] for entry in entries if "loss" in entry]
    shares = {
        "cosine": [0.5 * (1 + math.cos(math.pi * k / 4)) for k in range(4)],
        "linear": [1 - k / 4 for k in range(4)],
        "constant_with_warmup": [1, 1, 1, 1],
    }[schedule]
    assert rates == pytest.approx([1e-3 * share for share in (0, 0.5, *shares)], abs=1e-12)


def test_alpha_is_the_scale_of_what_the_lora_learns(parts, tmp_path):
    """The merged weights are W + alpha / rank * B A."""
    out = train(recipe(parts, tmp_path / "out", lora_alpha=36, lora_learning_rate=1e-2))
    torch.manual_seed(42)
    before = new_difflmm(*(str(parts / name) for name in ("llm", "diffusion", "clip")), resolution=SIDE)[0].state_dict()
    after, adapter = (load_file(out / name) for name in ("model.safetensors", "adapter/adapter_model.safetensors"))
    names = [name for name in adapter if ".lora_A." in name]
    for name in names:
        weight = name.removeprefix("base_model.model.").replace(".lora_A", "")
        change = 36 / 4 * adapter[name.replace(".lora_A.", ".lora_B.")] @ adapter[name]
        assert change.any()
        torch.testing.assert_close(after[weight] - before[weight], change, atol=1e-6, rtol=1e-4)
    assert len(names) == 14


def test_dropout_changes_what_is_learned(parts, tmp_path):
    """From the second step on: before it the LoRA says nothing."""
    losses = []
    for dropout in (0.0, 0.8):
        out = train(recipe(parts, tmp_path / f"{dropout}", lora_dropout=dropout, max_steps=2, lora_learning_rate=1e-2))
        entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        losses.append([entry["loss"] for entry in entries if "loss" in entry])
    (first, second), (same, other) = losses
    assert first == pytest.approx(same, rel=1e-5) and abs(second - other) > 1e-4 * second


# ------------------------------------------------------------------------------------------ data and features


def test_photographs_are_upright(tmp_path):
    upright = Image.fromarray(tiny.a_photo((40, 60)))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(np.asarray(read_image(tmp_path / "turned.png")), np.asarray(upright))


def test_a_batch_has_no_loss_of_its_padding():
    """Rows of unlike lengths: ignored labels, ids of padding, no attention to it; images in the order of the rows."""
    items = [
        {"input_ids": torch.tensor([1, 5, 6, 2]), "labels": torch.tensor([IGNORE, 5, 6, 2])},
        {
            "input_ids": torch.tensor([1, 7]),
            "labels": torch.tensor([IGNORE, 7]),
            "pixel_values": torch.full((3,), 0.25),
        },
        {"input_ids": torch.tensor([1]), "labels": torch.tensor([IGNORE]), "pixel_values": torch.full((3,), 0.5)},
    ]
    batch = Collator(9, torch.bfloat16)(items)
    assert batch["input_ids"].tolist() == [[1, 5, 6, 2], [1, 7, 9, 9], [1, 9, 9, 9]]
    assert batch["labels"].tolist() == [[IGNORE, 5, 6, 2], [IGNORE, 7, IGNORE, IGNORE], [IGNORE] * 4]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]
    assert batch["pixel_values"].dtype == torch.bfloat16 and batch["pixel_values"][:, 0].tolist() == [0.25, 0.5]


def test_kept_features_are_named_by_all_that_makes_them():
    """The same again has the same name; another precision, processor, time step, VAE or CLIP another one."""

    def name(processor: str = "{}", precision: str = "torch.float32", spoilt: str = "", **changes: object) -> str:
        torch.manual_seed(0)
        encoder = DiffusionEncoder(release.encoder_config(**changes))
        if spoilt:
            with torch.no_grad():
                next(getattr(encoder, spoilt).parameters()).flatten()[0] += 1e-3
        return fingerprint(encoder, processor, precision)

    others = [name('{"size": 1}'), name(precision="torch.bfloat16"), name(timestep=7), name(spoilt="vae")]
    others += [name(spoilt="clip"), name(ensemble_size=3)]
    assert name() == name() and len({name(), *others}) == 1 + len(others)
    assert name(spoilt="unet") == name(), "which is not in what is kept"


def test_tokens_are_those_of_sentencepiece(tmp_path):
    """The authors' tokenizer: every piece of text gets a space in front, also one that begins with a space."""
    write_tokenizer(tmp_path, 350)
    tokenizer = tokenizer_with_image(tmp_path)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    for text in ("A dog", " two  spaces ", "\nWhat's   up?", "café 🙂"):
        assert tokenizer.encode(text, add_special_tokens=False) == pieces.encode(text)
    ids = tokenizer.encode("A dog<image> A dog", add_special_tokens=False)
    image = tokenizer.convert_tokens_to_ids("<image>")
    assert ids == [*pieces.encode("A dog"), image, *pieces.encode(" A dog")] and image == len(tokenizer) - 1
