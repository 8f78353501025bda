"""LoRAs in the authors' release format, against peft: the same weights, or one line that says why not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

pytest.importorskip("peft")
from peft import LoraConfig, PeftModel, get_peft_model

from difflmm.lora import with_lora

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def llm() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2)
    )


def released(folder: Path, **settings: Any) -> dict[str, Tensor]:
    """A trained LoRA in `folder`; the weights of the model with it, by peft."""
    config = LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": LINEAR, "task_type": "CAUSAL_LM"} | settings)
    wrapped = get_peft_model(llm(), config)
    generator = torch.Generator().manual_seed(1)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn(parameter.shape, generator=generator) * 0.05
    wrapped.save_pretrained(folder)
    torch.save({"base_model.model.model.mm_projector.0.bias": torch.ones(3)}, folder / "non_lora_trainables.bin")
    return {name: weight.clone() for name, weight in wrapped.merge_and_unload().state_dict().items()}


def change(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rename(folder: Path, before: str, now: str) -> None:
    path = folder / "adapter_model.safetensors"
    weights = {name.replace(before, now): weight.clone() for name, weight in load_file(path).items()}
    save_file(weights, path, {"format": "pt"})


def assert_merged(folder: Path, expected: dict[str, Tensor]) -> None:
    base = llm().state_dict()
    found = with_lora(base, folder, torch.float32)
    torch.testing.assert_close(found.pop("model.mm_projector.0.bias"), torch.ones(3))
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-6)
    assert any(not torch.equal(found[name], base[name]) for name in base)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "orthogonal"},
        {"rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.up_proj": 6}},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 9, "layers.0.self_attn.v_proj": 1}},
        {"layers_to_transform": [0, 2]},
        {"layers_to_transform": 1, "layers_pattern": "layers"},
        {"layers_to_transform": 0},
        {"target_modules": r"model\.layers\.[01]\..*(q|v)_proj"},
        {"target_modules": "all-linear"},
        {"exclude_modules": ["up_proj", "layers.1.self_attn.q_proj"]},
        {"target_modules": ["model.layers.2.self_attn.q_proj"]},
    ],
    ids=lambda settings: "-".join(settings) or "plain",
)
def test_the_weights_are_pefts(tmp_path, settings):
    assert_merged(tmp_path, released(tmp_path, **settings))


@pytest.mark.parametrize("lacks", ["lora_alpha", "target_modules", "r", "peft_type", "bias", "init_lora_weights"])
@pytest.mark.parametrize("as_null", [True, False])
def test_a_setting_that_has_a_default_may_be_left_out(tmp_path, lacks, as_null):
    expected = released(tmp_path, r=8, lora_alpha=8)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    settings[lacks] = None
    if not as_null:
        del settings[lacks]
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    assert_merged(tmp_path, expected)


@pytest.mark.parametrize(
    "now",
    ["base_model.model.model.model.layers.", "module.base_model.model.model.layers.", "model.layers.",
     "base_model.model.model.language_model.layers.", "base_model.model.language_model.model.layers."],
)  # fmt: skip
def test_names_with_other_beginnings(tmp_path, now):
    expected = released(tmp_path)
    rename(tmp_path, "base_model.model.model.layers.", now)
    assert_merged(tmp_path, expected)


@pytest.mark.parametrize("began", ["pissa", "olora", "pissa_niter_4", "corda", "loftq", "lora_ga", "of the future"])
def test_a_base_that_was_changed_is_refused(tmp_path, began):
    released(tmp_path, init_lora_weights=began if began in ("pissa", "olora") else True)
    change(tmp_path, init_lora_weights=began)
    with pytest.raises(ValueError, match=rf"begun with {began}, which changed its base.*weight_conversion.*--base"):
        with_lora(llm().state_dict(), tmp_path, torch.float32)


@pytest.mark.parametrize("began", ["pissa", "olora"])
def test_what_peft_converts_is_merged(tmp_path, began):
    """As the error says: the conversion holds what was trained, over the base as it was."""
    wrapped = get_peft_model(llm(), LoraConfig(r=4, lora_alpha=6, target_modules=LINEAR, init_lora_weights=began))
    wrapped.peft_config["default"].init_lora_weights = True
    wrapped.save_pretrained(tmp_path / "before")
    wrapped.peft_config["default"].init_lora_weights = began
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data += 0.01
    wrapped.save_pretrained(tmp_path / "out", path_initial_model_for_weight_conversion=str(tmp_path / "before"))
    torch.save({"mm_projector.0.bias": torch.ones(3)}, tmp_path / "out/non_lora_trainables.bin")
    merged = with_lora(llm().state_dict(), tmp_path / "out", torch.float32)
    for name, weight in wrapped.merge_and_unload().state_dict().items():
        torch.testing.assert_close(merged[name], weight, rtol=0, atol=1e-5)
    again = PeftModel.from_pretrained(llm(), tmp_path / "out").merge_and_unload().state_dict()
    torch.testing.assert_close(merged["model.layers.0.mlp.up_proj.weight"], again["model.layers.0.mlp.up_proj.weight"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"use_dora": True}, "use_dora is not supported: merge it where it was trained"),
        ({"lora_bias": True}, "lora_bias is not supported"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias all"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
        ({"of_the_future": {"on": True}}, "of_the_future"),
        ({"peft_type": "LOHA"}, "peft_type LOHA"),
        ({"r": 3}, "its settings give model.layers.0.* rank 3, it has 4"),
        ({"rank_pattern": {"q_proj": 3}}, "rank 3, it has 4"),
        ({"lora_alpha": "6"}, "lora_alpha '6' is not a number"),
        ({"alpha_pattern": {"q_proj": "x"}}, "lora_alpha 'x' is not a number"),
        ({"target_modules": "(q_proj"}, "is not a pattern"),
        ({"layers_to_transform": None}, "14 weights are missing"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_that_are_not_those_of_the_weights(tmp_path, changes, told):
    released(tmp_path, layers_to_transform=[0] if "layers_to_transform" in changes else None)
    change(tmp_path, **changes)
    with pytest.raises(ValueError, match=told) as error:
        with_lora(llm().state_dict(), tmp_path, torch.float32)
    assert "\n" not in str(error.value)
