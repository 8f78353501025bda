"""peft adapters: the weights of the model in memory when it was saved, or one line that says why not."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("peft")
from peft import LoraConfig, PromptTuningConfig, get_peft_model

from aas.lmms import load_lmm
from tests import tiny

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
LLM = r"model\.language_model\..*\.(q_proj|v_proj|up_proj)"


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    found = {name: tmp_path_factory.mktemp(name) for name in ("llava", "qwen2_vl", "gemma3", "mllama")}
    for name, folder in found.items():
        lmm = tiny.family(name)
        tiny.saved(lmm, folder)
    return found


def trained(folder: Path, adapter: Path, **settings: Any) -> dict[str, torch.Tensor]:
    """The weights of the model with a trained adapter, merged in memory by peft; the adapter itself into `adapter`."""
    torch.manual_seed(0)
    config = LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": ATTENTION} | settings)
    wrapped = get_peft_model(load_lmm(str(folder)).model, config)
    generator = torch.Generator().manual_seed(0)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:  # stands for training
            parameter.data += torch.randn(parameter.shape, generator=generator) * 0.02
    wrapped.save_pretrained(adapter)
    return {name: weight.clone() for name, weight in wrapped.merge_and_unload().state_dict().items()}


def assert_merged(folder: Path, adapter: Path, expected: dict[str, torch.Tensor]) -> None:
    lmm = load_lmm(str(folder), adapter=str(adapter))
    assert lmm.loaded_as == "", "its weights are no longer the folder's"
    found = lmm.model.state_dict()
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-6)


def refused(folder: Path, adapter: Path) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        load_lmm(str(folder), adapter=str(adapter))
    assert "\n" not in str(error.value) and str(adapter) in str(error.value)
    return str(error.value)


def change(adapter: Path, **changes: object) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rename(adapter: Path, new_name: Callable[[str], str]) -> None:
    path = adapter / "adapter_model.safetensors"
    weights = load_file(path)
    renamed = {new_name(name): weight.clone() for name, weight in weights.items()}
    assert renamed.keys() != weights.keys()
    save_file(renamed, path, {"format": "pt"})


# ------------------------------------------------------------------------------------------------------ what it says

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "eva": {"init_lora_weights": "eva"},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "ranks": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}},
    "modules-to-save": {"modules_to_save": ["multi_modal_projector", "lm_head"]},
    "bias": {"target_modules": ["q_proj", "fc1"], "bias": "lora_only"},
    "lora-bias": {"target_modules": r".*vision_tower.*\.q_proj", "lora_bias": True},
    "tokens": {"trainable_token_indices": [3, 5]},
    "one-layer": {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
    "embeddings": {"target_modules": ["embed_tokens", "up_proj"]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_are_those_that_were_trained(folders, tmp_path, kind):
    expected = trained(folders["llava"], tmp_path / "a", **{"target_modules": LLM} | KINDS[kind])
    assert_merged(folders["llava"], tmp_path / "a", expected)


@pytest.mark.parametrize("began", ["pissa_niter_4", "corda", "loftq", "lora_ga"])
def test_a_base_that_was_changed_by_chance_or_by_data_is_refused(folders, tmp_path, began):
    trained(folders["llava"], tmp_path / "a", init_lora_weights="pissa_niter_4" if began == "pissa_niter_4" else True)
    change(tmp_path / "a", init_lora_weights=began)
    told = refused(folders["llava"], tmp_path / "a")
    assert f"was begun with {began}, which changed its base" in told
    assert "path_initial_model_for_weight_conversion" in told


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"alora_invocation_tokens": [3]}, "cannot be merged (alora_invocation_tokens)"),
        ({"layer_replication": [[0, 1], [0, 2]]}, "cannot be merged (layer_replication)"),
        ({"of_the_future": True}, "does not know its of_the_future: upgrade peft"),
        ({"peft_type": "NONE"}, "no adapter of type 'NONE'"),
        ({"target_modules": ["q_proj", "gate_proj"]}, "weights differ"),
        ({"target_modules": ["nothing"]}, "nothing"),
        ({"r": 3}, "size mismatch"),
        ({"r": "4"}, "its settings are damaged"),
        ({"modules_to_save": ["lm_head"]}, "it lacks"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_an_adapter_cannot_be(folders, tmp_path, changes, told):
    trained(folders["llava"], tmp_path / "a")
    change(tmp_path / "a", **changes)
    assert told in refused(folders["llava"], tmp_path / "a")


def test_prompts_are_refused(folders, tmp_path):
    model = load_lmm(str(folders["llava"])).model
    get_peft_model(model, PromptTuningConfig(num_virtual_tokens=3, token_dim=64, num_layers=2, num_attention_heads=4,
                                             task_type="CAUSAL_LM")).save_pretrained(tmp_path / "a")  # fmt: skip
    assert "puts tokens before the prompt" in refused(folders["llava"], tmp_path / "a")


def test_settings_are_looked_at_before_the_weights_of_the_model(folders, tmp_path):
    trained(folders["llava"], tmp_path / "a")
    change(tmp_path / "a", init_lora_weights="corda")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text((folders["llava"] / "config.json").read_text())
    assert "corda" in refused(broken, tmp_path / "a")
    (tmp_path / "a/adapter_config.json").write_text("{")
    assert "no adapter_config.json that can be read" in refused(broken, tmp_path / "a")


@pytest.mark.parametrize(
    "lacks", ["lora_alpha", "r", "target_modules", "peft_type", "task_type", "bias", "init_lora_weights"]
)
def test_a_setting_that_has_a_default_may_be_left_out(folders, tmp_path, lacks):
    expected = trained(folders["llava"], tmp_path / "a", r=8, lora_alpha=8)  # peft's
    path = tmp_path / "a/adapter_config.json"
    settings = json.loads(path.read_text())
    del settings[lacks]
    path.write_text(json.dumps(settings))
    assert_merged(folders["llava"], tmp_path / "a", expected)


# ------------------------------------------------------------------------------------------------------ former names


def of_llava(name: str) -> str:
    """Before transformers 4.52."""
    name = name.replace("base_model.model.model.language_model.", "base_model.model.language_model.model.")
    name = name.replace("base_model.model.lm_head", "base_model.model.language_model.lm_head")
    name = name.replace("vision_tower.encoder", "vision_tower.vision_model.encoder")
    return re.sub(r"^base_model\.model\.model\.(vision_tower|multi_modal_projector)", r"base_model.model.\1", name)


def of_qwen(name: str) -> str:
    name = name.replace("base_model.model.model.language_model.", "base_model.model.model.")
    return name.replace("base_model.model.model.visual.", "base_model.model.visual.")


@pytest.mark.parametrize(
    ("family", "former", "settings"),
    [
        ("llava", of_llava, {}),
        ("llava", of_llava, {"use_dora": True}),
        ("llava", of_llava, {"init_lora_weights": "pissa"}),
        ("llava", of_llava, {"modules_to_save": ["multi_modal_projector", "lm_head"]}),
        ("llava", of_llava, {"target_modules": "all-linear"}),
        ("llava", of_llava, {"target_modules": ["embed_tokens", "q_proj"]}),
        ("llava", of_llava, {"target_modules": ["q_proj", "fc1"], "bias": "lora_only"}),
        ("llava", of_llava, {"layers_to_transform": [0], "layers_pattern": "layers"}),
        ("llava", of_llava, {"alpha_pattern": {"q_proj": 2}, "trainable_token_indices": [3, 5]}),
        ("qwen2_vl", of_qwen, {}),
        ("qwen2_vl", of_qwen, {"modules_to_save": ["merger"]}),
        ("gemma3", of_llava, {}),
        ("mllama", of_llava, {}),
    ],
)
def test_former_names(folders, tmp_path, family, former, settings):
    expected = trained(folders[family], tmp_path / "a", **settings)
    rename(tmp_path / "a", former)
    assert_merged(folders[family], tmp_path / "a", expected)


Q0, V1 = "model.language_model.layers.0.self_attn.q_proj", "model.language_model.layers.1.self_attn.v_proj"


@pytest.mark.parametrize(
    ("today", "former"),
    [
        ({"target_modules": LLM}, {"target_modules": LLM.replace(r"model\.language_model", r"language_model\.model")}),
        ({"target_modules": [Q0, V1]}, {"target_modules": [f"language_model.{Q0.replace('language_model.', '')}",
                                                           f"language_model.{V1.replace('language_model.', '')}"]}),
        ({"alpha_pattern": {Q0: 2}}, {"alpha_pattern": {f"language_model.{Q0.replace('language_model.', '')}": 2}}),
        ({"modules_to_save": ["lm_head"]}, {"modules_to_save": ["language_model.lm_head"]}),
    ],
    ids=["pattern", "list", "alpha", "saved"],
)  # fmt: skip
def test_former_names_in_the_settings(folders, tmp_path, today, former):
    expected = trained(folders["llava"], tmp_path / "a", **today)
    rename(tmp_path / "a", of_llava)
    change(tmp_path / "a", **former)
    assert_merged(folders["llava"], tmp_path / "a", expected)


def test_a_former_pattern_that_names_nothing_today_is_refused(folders, tmp_path):
    trained(folders["llava"], tmp_path / "a")
    rename(tmp_path / "a", of_llava)
    change(tmp_path / "a", alpha_pattern={r"language_model.model.layers.\d.self_attn.q_proj": 2})
    assert "alpha_pattern" in refused(folders["llava"], tmp_path / "a")


@pytest.mark.parametrize(
    "written",
    [
        lambda name: name.removeprefix("base_model.model."),
        lambda name: f"module.{name}",
        lambda name: name.replace("base_model.model.", "base_model.model._orig_mod."),
        lambda name: name.replace(".weight", ".default.weight"),
        lambda name: of_llava(name).replace(".weight", ".default.weight"),
    ],
    ids=["no-prefix", "module", "compiled", "default", "former-default"],
)
def test_what_wrappers_add_to_names(folders, tmp_path, written):
    expected = trained(folders["llava"], tmp_path / "a")
    rename(tmp_path / "a", written)
    assert_merged(folders["llava"], tmp_path / "a", expected)


def test_names_that_are_nobodys_are_refused(folders, tmp_path):
    trained(folders["llava"], tmp_path / "a")
    rename(tmp_path / "a", lambda name: name.replace(".layers.1.", ".layers.7."))
    assert "weights differ" in refused(folders["llava"], tmp_path / "a")
