"""Models that the caller loaded: watched while they are asked, and afterwards as they were."""

import copy

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from aas import capture, registry
from aas.capture import CaptureError, Selection
from aas.devices import torch_device
from aas.lmms import load_lmm
from aas.lmms.checks import compare_with_eager, first_keys
from aas.lmms.prepared import AskOptions
from tests import tiny
from tests.tiny.llava import llava

QUESTION = "What is it?"
FAMILIES = ("llava", "gemma3", "qwen2_5_vl", "paligemma2", "florence2", "mllama", "chameleon")
IMPLEMENTATIONS = ("sdpa", "eager")


def mine(family: str, implementation: str = "sdpa") -> tuple[PreTrainedModel, object]:
    """A model and a processor as a caller has them; `sdpa`: where transformers takes it by itself."""
    lmm = tiny.family(family)
    model = copy.deepcopy(lmm.model)
    if implementation != "sdpa":
        model.set_attn_implementation(implementation)
    return model, lmm.processor


def state(model: PreTrainedModel) -> dict[str, object]:
    """All that asking could change, besides weights and buffers."""
    configs = capture._configs(model.config)
    return {
        "implementations": [config._attn_implementation for config in configs],
        "configs": [config.to_dict() for config in configs],
        "generation": model.generation_config.to_dict(),
        "training": [module.training for module in model.modules()],
        "hooks": [hooks(module) for module in model.modules()],
        "gradients": [parameter.requires_grad for parameter in model.parameters()],
    }


def hooks(module: nn.Module) -> list[object]:
    """Those that transformers installs by itself, at the first call that wants hidden states, left out."""
    all_hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values(), vars(module).get("forward")]
    return [hook for hook in all_hooks if not getattr(hook, "__module__", "").startswith("transformers.")]


@torch.no_grad()
def outputs(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Logits, attentions and an answer: what the caller gets of the model."""
    forward = dict(inputs)
    if model.config.is_encoder_decoder:
        forward["decoder_input_ids"] = torch.tensor([[2, 5, 6]])
    torch.manual_seed(0)  # of the dropout, in training
    out = model(**forward, output_attentions=True)
    attentions = [layer for layer in out.get("attentions") or out.get("cross_attentions") or () if layer is not None]
    was_training = model.training
    answer = model.eval().generate(**inputs, max_new_tokens=5, do_sample=False)
    model.train(was_training)
    return [out.logits, *attentions, answer]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_is_afterwards_as_it_was(family, implementation):
    model, processor = mine(family, implementation)
    model.train()
    model.get_input_embeddings().eval()  # some of a model may be frozen
    model.get_input_embeddings().requires_grad_(False)
    inputs = tiny.family(family).prepare(tiny.a_photo(), QUESTION).inputs
    before, state_before = outputs(model, inputs), state(model)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    lmm = load_lmm(model, processor=processor)
    assert lmm.model is model
    answer, _ = lmm.ask(tiny.a_photo(), QUESTION, options=AskOptions(4))
    lmm.ask(tiny.a_photo(), QUESTION, answer.text)
    first_keys(lmm, lmm.prepare(tiny.a_photo(), QUESTION))
    assert state(model) == state_before
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, buffers[name]) and not buffer.is_inference()
    after = outputs(model, inputs)
    assert len(after) == len(before) and (implementation == "sdpa" or len(before) > 3)
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_loaded_model_gives_the_maps_of_its_family(family, implementation):
    lmm = load_lmm(*mine(family, implementation)[:1], processor=tiny.family(family).processor)
    assert type(lmm) is type(tiny.family(family))
    lmm.model.train()  # dropout or not, an answer is the model's own
    options = AskOptions(4, selection=Selection(keep="heads"))
    (answer, maps), (expected, known) = (
        one.ask(tiny.a_photo(), QUESTION, options=options) for one in (lmm, tiny.family(family))
    )
    assert answer == expected
    tolerance = 0 if implementation == "sdpa" else 1e-5 * known.maps.max()  # the encoder too runs eager then
    np.testing.assert_allclose(maps.maps, known.maps, rtol=0, atol=tolerance)
    assert compare_with_eager(lmm, tiny.a_photo(), QUESTION, 4).difference <= 2e-5


def test_a_model_is_as_it_was_after_an_error():
    model, processor = llava()
    lmm = load_lmm(model.train(), processor=processor)
    before = state(model)
    with torch.no_grad():
        model.model.language_model.layers[1].self_attn.q_proj.weight.fill_(float("inf"))
    with pytest.raises(CaptureError):
        lmm.ask(tiny.a_photo(), QUESTION, "a dog")
    model.model.vision_tower.forward = None
    with pytest.raises(TypeError):
        lmm.ask(tiny.a_photo(), QUESTION)
    del model.model.vision_tower.forward
    assert state(model) == before


def test_a_model_can_still_be_trained():
    """Asked in a callback: its mode is that of training, and what it computed on the way is no tensor of inference."""
    model, processor = llava()
    model.config.text_config.max_position_embeddings = 16  # shorter than a prompt: the frequencies are computed anew
    model.config.text_config.rope_parameters = {"rope_type": "dynamic", "factor": 64.0, "rope_theta": 1e4}
    model = type(model)(model.config)
    model.config.text_config.max_position_embeddings = 512
    lmm = load_lmm(model.train(), processor=processor)
    lmm.ask(tiny.a_photo(), QUESTION, options=AskOptions(2))
    assert not any(buffer.is_inference() for buffer in model.buffers())
    inputs = lmm.prepare(tiny.a_photo(), QUESTION).inputs
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert all(parameter.grad is not None for parameter in model.model.language_model.parameters())


def test_generation_settings_of_the_caller_do_not_matter():
    model, processor = llava()
    expected, maps = load_lmm(model, processor=processor).ask(tiny.a_photo(), QUESTION, options=AskOptions(4))
    model.config.text_config.use_cache = model.config.use_cache = False  # as trainers set it
    model.set_attn_implementation("eager")
    settings = {
        "use_cache": False, "return_dict_in_generate": True, "output_attentions": True, "output_scores": True,
        "num_beams": 2, "num_return_sequences": 2, "do_sample": True, "temperature": 3.0,
    }  # fmt: skip
    model.generation_config.update(**settings)
    model.config.output_attentions = True
    answer, again = load_lmm(model, processor=processor).ask(tiny.a_photo(), QUESTION, options=AskOptions(4))
    assert answer == expected
    np.testing.assert_allclose(again.maps, maps.maps, rtol=0, atol=1e-5 * maps.maps.max())  # an encoder that runs eager
    assert settings.items() <= model.generation_config.to_dict().items()


def test_a_model_inside_a_peft_wrapper():
    model, processor = llava()
    torch.manual_seed(0)
    settings = LoraConfig(r=2, target_modules=r".*language_model.*q_proj", init_lora_weights=False)
    wrapped = get_peft_model(copy.deepcopy(model), settings)
    answer, maps = load_lmm(wrapped, processor=processor).ask(tiny.a_photo(), QUESTION, options=AskOptions(4))
    merged = load_lmm(copy.deepcopy(wrapped).merge_and_unload(), processor=processor)
    expected, known = merged.ask(tiny.a_photo(), QUESTION, options=AskOptions(4))
    assert answer == expected
    np.testing.assert_allclose(maps.maps, known.maps, rtol=0, atol=1e-6)
    _, plain = load_lmm(model, processor=processor).ask(tiny.a_photo(), QUESTION, answer.text)
    assert np.abs(plain.maps[0] - maps.maps[0]).max() > 1e-3, "the adapter counts"
    prompted = get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2, **PROMPTED))
    with pytest.raises(ValueError, match="learns prompts"):
        load_lmm(prompted, processor=processor)


PROMPTED = {"token_dim": 64, "num_transformer_submodules": 1, "num_attention_heads": 4, "num_layers": 3}


def test_the_processor_is_found_where_the_model_came_from(tmp_path):
    model, processor = llava()
    with pytest.raises(ValueError, match=r"not loaded from a folder.*pass processor="):
        load_lmm(model)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"processor is not found .*pass processor="):
        load_lmm(loaded)
    processor.save_pretrained(tmp_path)
    lmm = load_lmm(loaded)
    assert lmm.name == str(tmp_path)
    assert lmm.ask(tiny.a_photo(), QUESTION, "a dog")[0] == load_lmm(tmp_path).ask(tiny.a_photo(), QUESTION, "a dog")[0]
    with pytest.raises(ValueError, match=r"AutoProcessor.*not a \w*Tokeniz"):
        load_lmm(loaded, processor=processor.tokenizer)


@pytest.mark.parametrize(
    "given",
    [{"device": "cpu"}, {"dtype": torch.float16}, {"dtype": "float32"}, {"quantize": "4bit"}, {"adapter": "a"},
     {"base": "b"}, {"device_map": "auto"}],
    ids=lambda given: next(iter(given)),
)  # fmt: skip
def test_what_is_for_loading_is_refused_beside_a_loaded_model(given):
    model, processor = llava()
    for loaded in (model, load_lmm(model, processor=processor)):
        with pytest.raises(ValueError, match=f"{next(iter(given))}= .*loaded already"):
            load_lmm(loaded, **given, **({"processor": processor} if loaded is model else {}))


def test_what_is_no_model(monkeypatch):
    model, processor = llava()
    lmm = load_lmm(model, processor=processor)
    assert load_lmm(lmm) is lmm
    with pytest.raises(ValueError, match=r"processor= .*loaded already"):
        load_lmm(lmm, processor=processor)
    with pytest.raises(ValueError, match="processor= goes with a loaded model"):
        load_lmm("embedded", processor=processor)
    with pytest.raises(ValueError, match=r"not a DataParallel .*the model inside"):
        load_lmm(nn.DataParallel(model), processor=processor)
    with pytest.raises(ValueError, match="LlavaModel writes no answers"):
        load_lmm(model.model, processor=processor)
    monkeypatch.setitem(registry.LMM_REFUSED, "llava", "nothing is in its place")
    with pytest.raises(ValueError, match="'llava' are refused: nothing is in its place"):
        load_lmm(model, processor=processor)


def test_a_declared_grid_is_checked_of_a_loaded_model():
    model, processor = mine("exaone4_5")
    lmm = load_lmm(model, processor=processor)
    assert type(lmm) is type(tiny.family("exaone4_5"))
    wrong = copy.copy(processor)
    wrong.image_processor = tiny.family("gemma3").processor.image_processor
    with pytest.raises(ValueError, match="Gemma3ImageProcessor is not one whose layout is known"):
        load_lmm(model, processor=wrong)


def test_the_tower_decides_of_a_loaded_model():
    model, processor = mine("pixtral")
    assert type(load_lmm(model, processor=processor)) is type(tiny.family("pixtral"))


def test_devices():
    assert torch_device("cpu") == torch_device(torch.device("cpu")) == torch.device("cpu")
    for name in ("banana", "cuda:99", torch.device("cuda:99"), "meta", "", "mps:7"):
        with pytest.raises(ValueError, match=r"^No device '.*' on this machine. There are: cpu"):
            load_lmm("no such model", name)


def test_a_device_map():
    expected, known = load_lmm("embedded", "cpu").ask(tiny.a_photo(), QUESTION, options=AskOptions(4))
    for device_map in ({"": "cpu"}, "cpu", {"": torch.device("cpu")}):
        lmm = load_lmm("embedded", device_map=device_map)
        answer, maps = lmm.ask(tiny.a_photo(), QUESTION, options=AskOptions(4))
        assert answer == expected and lmm.device == torch.device("cpu")
        np.testing.assert_array_equal(maps.maps, known.maps)
    with pytest.raises(ValueError, match="give one of them"):
        load_lmm("embedded", "cpu", device_map="auto")
    with pytest.raises(ValueError, match="No device 'banana'"):
        load_lmm("embedded", device_map={"model": "cpu", "lm_head": "banana"})


def test_a_model_whose_weights_are_offloaded():
    model, processor = llava()
    expected, known = load_lmm(copy.deepcopy(model), processor=processor).ask(tiny.a_photo(), QUESTION, "a dog")
    cpu_offload(model, torch.device("cpu"))
    assert model.device.type == "meta"
    answer, maps = load_lmm(model, processor=processor).ask(tiny.a_photo(), QUESTION, "a dog")
    assert answer == expected
    np.testing.assert_array_equal(maps.maps, known.maps)
    load_lmm(model, processor=processor).ask(tiny.a_photo(), QUESTION, options=AskOptions(2))


def test_a_device_map_needs_accelerate(monkeypatch):
    monkeypatch.setattr("aas.lmms.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="device_map= needs accelerate: pip install accelerate"):
        load_lmm("embedded", device_map="auto")


def test_a_dtype_of_torch():
    lmm = load_lmm(copy.deepcopy(tiny.family("llava").model).to(torch.bfloat16), processor=llava()[1])
    assert lmm.model.dtype == torch.bfloat16
    assert lmm.ask(tiny.a_photo(), QUESTION, "a dog")[1].maps.dtype == np.float32
