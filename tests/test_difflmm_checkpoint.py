"""DiffLMM's checkpoints: the authors' LoRA release, ours, new ones; and `difflmm convert` and `info`."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import LlamaForCausalLM
from typer.testing import CliRunner

import difflmm.checkpoint
import difflmm.towers
from aas.lmms import load_lmm
from aas.lmms.prepared import AskOptions
from difflmm.checkpoint import load_checkpoint
from difflmm.cli import app
from difflmm.model import DiffLMMForConditionalGeneration
from difflmm.new_models import new_difflmm, new_llava
from tests import tiny
from tests.test_llava_original import change_json, cut, load_file
from tests.tiny import difflmm as release
from tests.tiny.llava_original import write_json

QUESTION = "Describe the image in detail."


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, Path, DiffLMMForConditionalGeneration]:
    """The LoRA folder, its base, and what they are together."""
    return release.write_release(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def converted(written, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("converted") / "difflmm"
    code, output = run("convert", written[0], out, "--base", written[1])
    assert code == 0, output
    return out


@pytest.fixture
def copied(written, tmp_path) -> tuple[Path, Path]:
    """A release of one's own, to spoil."""
    shutil.copytree(written[0].parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / written[0].name, tmp_path / written[1].name


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    return result.exit_code, result.stdout if result.exit_code == 0 else result.stderr


# ---- what is loaded ----------------------------------------------------------------------------------------------


def test_every_weight_of_the_release_has_its_place(written):
    folder, base, twin = written
    model, _ = load_checkpoint(str(folder), str(base))
    state, expected = model.state_dict(), twin.state_dict()
    assert state.keys() == expected.keys() and type(model) is DiffLMMForConditionalGeneration
    for name, weight in expected.items():
        longer = state[name][len(weight) :] if state[name].shape != weight.shape else weight[:0]
        assert not longer.any(), "the image's row"
        torch.testing.assert_close(state[name][: len(weight)], weight, atol=1e-5, rtol=0)  # LoRA merged by peft


def test_answers_equal_those_of_the_unmerged_lora(written):
    folder, base, twin = written
    model, _ = load_checkpoint(str(folder), str(base))
    llm = LlamaForCausalLM(twin.config.text_config).eval()
    llm.load_state_dict(load_file(base / "model.safetensors"))
    unmerged = copy.deepcopy(twin)
    unmerged.model.language_model = PeftModel.from_pretrained(llm, folder).base_model.model.model
    assert any("lora_A" in name for name in unmerged.state_dict())

    image = model.config.image_token_id
    ids = torch.tensor([[1, 50, 60, *[image] * 64, 70, 80]])
    pixels = torch.rand(1, 3, 128, 128) * 2 - 1
    with torch.no_grad():
        ours = model(input_ids=ids, pixel_values=pixels).logits[..., :400]
        ids = ids.masked_fill(ids == image, twin.config.image_token_id)
        theirs = unmerged(input_ids=ids, pixel_values=pixels).logits
    torch.testing.assert_close(ours, theirs, atol=1e-5 * float(theirs.abs().max()), rtol=0)


def test_convert_loses_nothing(written, converted):
    folder, base, _ = written
    lmm, again = load_lmm(str(folder), base=str(base)), load_lmm(str(converted))
    assert lmm.model.config.vision_config.to_dict() == again.model.config.vision_config.to_dict()
    assert lmm.model.generation_config == again.model.generation_config
    for name, weight in lmm.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name]), name
    for size_hw in [(60, 90), (90, 41)]:
        one, two = (which.prepare(tiny.a_photo(size_hw), QUESTION) for which in (lmm, again))
        assert one.grids[0].view == two.grids[0].view
        for key, value in one.inputs.items():
            assert torch.equal(value, two.inputs[key]), key
    options = AskOptions(6, seed=5)
    (answer, maps), (second, second_maps) = lmm.run([one], options)[0], again.run([two], options)[0]
    assert answer == second
    np.testing.assert_allclose(maps.maps, second_maps.maps, atol=1e-5 * maps.maps.max(), rtol=0)
    other = again.run([two], AskOptions(6, seed=6))[0][1]
    assert other.maps.shape != maps.maps.shape or np.abs(other.maps - maps.maps).max() > 1e-6, "the seed is used"


def test_without_an_implicit_caption_the_prompt_is_empty(copied, monkeypatch):
    """The text encoder's answer to the empty prompt is in the checkpoint; the text encoder is not."""
    folder, base = copied
    change_json(folder / "config.json", mm_vision_sd_implicit_caption=False)
    beside = torch.load(folder / "non_lora_trainables.bin", weights_only=True)
    torch.save({k: v for k, v in beside.items() if "clip_p" not in k}, folder / "non_lora_trainables.bin")
    model, _ = load_checkpoint(str(folder), str(base))
    ids = torch.tensor([[98] + [99] * 76])
    expected = release.text_encoder()(ids).last_hidden_state[0]
    torch.testing.assert_close(model.model.vision_tower.null_caption.data, expected, atol=1e-6, rtol=0)
    shutil.rmtree(folder.parent / "sd/text_encoder")
    with pytest.raises(FileNotFoundError, match=r"text_encoder has no config.json"):
        load_checkpoint(str(folder), str(base))


def test_towers_of_old_diffusers(copied):
    """Their files end with .bin, and the VAE's attention has other names."""
    folder, base = copied
    vae = folder.parent / "sd/vae"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = load_file(vae / "diffusion_pytorch_model.safetensors")
    for new, name in old.items():
        weights = {k.replace(f"attentions.0.{new}.", f"attentions.0.{name}."): v for k, v in weights.items()}
    torch.save(weights, vae / "diffusion_pytorch_model.bin")
    (vae / "diffusion_pytorch_model.safetensors").unlink()
    expected = {k: v for k, v in release.vae().state_dict().items() if k.startswith("encoder.")}
    model, _ = load_checkpoint(str(folder), str(base))
    for name, weight in expected.items():
        assert torch.equal(model.model.vision_tower.vae.state_dict()[name], weight)


def test_the_released_statistics(written):
    """The authors' weights were trained with CLIP's mean and deviation; a new model sees [-1, 1]."""
    folder, base, _ = written
    root = folder.parent
    _, processor = load_checkpoint(str(folder), str(base))
    assert processor.image_processor.image_mean == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    _, processor = new_difflmm(str(base), str(root / "sd"), str(root / "clip"), resolution=128)
    pixels = processor.image_processor(np.full((50, 80, 3), 255, np.uint8), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 128, 128) and (pixels[..., 64, 64] == 1).all()
    torch.testing.assert_close(pixels[0, :, 0, 0], torch.full((3,), 127 / 127.5 - 1))


def test_new_models(written):
    folder, base, twin = written
    root = folder.parent
    torch.manual_seed(0)
    model, processor = new_difflmm(str(base), str(root / "sd"), str(root / "clip"), resolution=128, up_block=1)
    plain, plain_processor = new_llava(str(base), str(root / "clip"))
    for built in (model, plain):
        assert all(torch.isfinite(p).all() for p in built.parameters())
        language = built.model.language_model.state_dict()
        assert torch.equal(language["layers.0.mlp.up_proj.weight"], load_file(base / "model.safetensors")[
            "model.layers.0.mlp.up_proj.weight"])  # fmt: skip
    projector, captioner = model.model.multi_modal_projector, model.model.vision_tower.captioner
    assert not projector.positions.any() and not captioner.positions.any()
    assert 0.01 < captioner.linear_1.weight.std() < 0.03
    assert torch.equal(model.model.vision_tower.unet.conv_in.weight, twin.model.vision_tower.unet.conv_in.weight)
    chat = [{"role": "user", "content": [{"type": "image", "image": tiny.a_photo()}, {"type": "text", "text": "A?"}]}]
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    for built, maker in ((model, processor), (plain, plain_processor)):
        inputs = maker.apply_chat_template(chat, **options)
        assert (inputs["input_ids"] == built.config.image_token_id).sum() == built.config.image_seq_length == 64
        assert built.generate(**inputs, max_new_tokens=3, do_sample=False).shape[1] > inputs["input_ids"].shape[1]


def test_conversations(converted):
    _, processor = load_checkpoint(str(converted))
    chat = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": "A dog."},
        {"role": "user", "content": "Where?"},
    ]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    assert text.endswith("USER: <image>\nWhat is it? ASSISTANT: A dog.</s>USER: Where? ASSISTANT:")
    assert text.startswith("<s>A chat between a curious human")


# ---- the command -------------------------------------------------------------------------------------------------


def test_info(converted, written):
    code, output = run("info", converted, "--json")
    found = json.loads(output)
    twin = written[2]
    assert code == 0 and found["grid_hw"] == [8, 8] and found["image_tokens"] == 64 and found["patch_px"] == 16
    n_unet = sum(p.numel() for p in twin.model.vision_tower.unet.parameters())
    assert found["parts"]["vision_tower.unet"] == {"parameters": n_unet, "bytes": 4 * n_unet}
    assert found["image_cache_bytes"] == 2 * 3 * 2 * 16 * 4 * 64
    code, output = run("info", written[0], "--base", written[1], "--dtype", "bfloat16")
    assert code == 0 and "difflmm in bfloat16" in output and "8 x 8 tokens of 16 pixels" in output


def test_help_has_panels_and_errors_have_none(written, tmp_path):
    code, output = run("convert", "--help")
    assert code == 0 and "╭─ Options" in output and "difflmm convert difflmm-lora/" in output
    code, output = run("convert", written[0], tmp_path / "out", "--dtype", "int8")
    assert code == 2 and "╭" not in output and "is not one of 'auto', 'float32', 'bfloat16', 'float16'" in output


def test_convert_errors(written, converted, tmp_path, monkeypatch):
    folder, base, _ = written
    code, output = run("convert", folder, tmp_path / "out")
    assert code == 2 and "with --base" in output and output.count("\n") == 1
    code, output = run("convert", folder, converted, "--base", base)
    assert code == 2 and "is there already" in output
    assert run("convert", folder, tmp_path / "out", "--base", base, "--dtype", "int8")[0] == 2
    code, output = run("convert", converted, tmp_path / "out", "--base", base)
    assert code == 2 and "leave --base out" in output

    def interrupted(*arguments, **options):
        raise ValueError("interrupted")

    monkeypatch.setattr(difflmm.checkpoint.LlavaProcessor, "save_pretrained", interrupted)
    assert run("convert", folder, tmp_path / "out", "--base", base)[0] == 2
    assert list(tmp_path.iterdir()) == [], "nothing that looks like a checkpoint is left"


# ---- what is wrong with a checkpoint -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mm_vision_tower": "../nowhere"}, "No vision tower '../nowhere'"),
        ({"mm_vision_tower": "../clip"}, "unet has no config.json"),
        ({"mm_vision_sd_clip": "../sd"}, "sd has no config.json"),
        ({"mm_vision_sd_clip": "../llm"}, "'llama', not a CLIP"),
        ({"mm_vision_sd_clip": None}, "need a CLIP vision tower"),
        ({"mm_vision_resolution": 200}, "resolution 200 is not a multiple of 64"),
        ({"mm_vision_resolution": 192}, "mm_vision_sd_pe is 64, but the encoder makes 144"),
        ({"mm_vision_select_layer": 7}, "up_block 7"),
        ({"mm_vision_sd_pe": None}, "2 have no place: model.mm_projector.clip_pe, model.mm_projector.vt_pe"),
        ({"mm_vision_sd_concat_clip": False}, r"linear.0.weight is \[64, 40\], its config.json says \[64, 16\]"),
        ({"hidden_size": 32}, r"hidden_size 64, the LoRA .* with 32"),
    ],
)
def test_configs_that_do_not_fit(copied, changes, message):
    folder, base = copied
    change_json(folder / "config.json", **changes)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_checkpoint(str(folder), str(base))


@pytest.mark.parametrize(
    ("file", "key"),
    [("config.json", "mm_vision_resolution"), ("config.json", "hidden_size")],
)
def test_configs_that_lack_a_value(copied, file, key):
    folder, base = copied
    settings = json.loads((folder / file).read_text())
    del settings[key]
    write_json(folder / file, settings)
    message = f"{key} 64, the LoRA" if key == "hidden_size" else f"{file} lacks {key}: get the file again"
    with pytest.raises(ValueError, match=message):
        load_checkpoint(str(folder), str(base))


def test_a_base_of_another_shape(copied):
    folder, base = copied
    weights = load_file(base / "model.safetensors")
    name = "model.layers.1.self_attn.k_proj.weight"
    save_file(weights | {name: torch.zeros(16, 64)}, base / "model.safetensors")
    with pytest.raises(
        ValueError, match=r"does not fit its base: .*k_proj.weight is \[16, 64\], the LoRA's \[32, 64\]"
    ):
        load_checkpoint(str(folder), str(base))
    write_json(base / "config.json", json.loads((base / "config.json").read_text()) | {"num_attention_heads": 8})
    with pytest.raises(ValueError, match="num_attention_heads 8"):
        load_checkpoint(str(folder), str(base))


def test_every_key_is_used(copied):
    folder, base = copied
    beside = torch.load(folder / "non_lora_trainables.bin", weights_only=True)
    name = "base_model.model.model.mm_projector.vt_pe"
    torch.save(beside | {f"{name}_2": torch.zeros(1)}, folder / "non_lora_trainables.bin")
    with pytest.raises(ValueError, match=r"1 have no place: model.mm_projector.vt_pe_2"):
        load_checkpoint(str(folder), str(base))
    torch.save({k: v for k, v in beside.items() if k != name}, folder / "non_lora_trainables.bin")
    with pytest.raises(ValueError, match=r"1 weights are missing: model.mm_projector.vt_pe"):
        load_checkpoint(str(folder), str(base))


def test_damaged_towers(copied):
    folder, base = copied
    unet = folder.parent / "sd/unet/diffusion_pytorch_model.safetensors"
    whole = load_file(unet)
    save_file({k: v for k, v in whole.items() if k != "conv_in.weight"}, unet, {"format": "pt"})
    with pytest.raises(ValueError, match=r"(?s)sd/unet.*conv_in.weight"):
        load_checkpoint(str(folder), str(base))
    cut(unet)
    with pytest.raises(ValueError, match="sd/unet cannot be loaded, get it again"):
        load_checkpoint(str(folder), str(base))


def test_our_own_format_is_strict_too(converted, tmp_path):
    shutil.copytree(converted, tmp_path / "copy")
    weights = load_file(tmp_path / "copy/model.safetensors")
    del weights["model.vision_tower.captioner.linear_1.weight"]
    save_file(weights | {"odd": torch.zeros(1)}, tmp_path / "copy/model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"1 weights are missing: .*captioner.linear_1.weight; 1 have no place: odd"):
        load_checkpoint(str(tmp_path / "copy"))
    cut(tmp_path / "copy/model.safetensors")
    with pytest.raises(ValueError, match="damaged or cut off"):
        load_checkpoint(str(tmp_path / "copy"))


def test_without_diffusers(written, converted, monkeypatch):
    monkeypatch.setattr(difflmm.towers, "find_spec", lambda name: None)
    for model, base in ((written[0], str(written[1])), (converted, None)):
        with pytest.raises(ValueError, match=r'needs diffusers: pip install "attend-and-segment\[difflmm\]"'):
            load_lmm(str(model), base=base)
