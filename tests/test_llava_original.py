"""LLaVA-1.5 checkpoints in their authors' format: the authors' own figures, and transformers' LLaVA as the measure."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import load_file as mapped_file
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, LlavaForConditionalGeneration
from typer.testing import CliRunner

from aas.capture import Selection
from aas.cli import app
from aas.images import read_image
from aas.lmms import load_lmm
from aas.lmms.checks import plant_squares
from aas.lmms.difflmm import LlavaOriginal
from aas.lmms.prepared import AskOptions
from tests import tiny
from tests.tiny import llava_original as release

QUESTION = "Describe the image in detail."
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)


# ---- the authors' own figures ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden_lmm(shared_dir) -> LlavaOriginal:
    return load_lmm(str(shared_dir / "golden/models/llava-tiny"), dtype="float32")


def golden(shared_dir: Path, heads: str, name: str) -> tuple[list[int], np.ndarray]:
    with np.load(shared_dir / f"golden/attn/llava-tiny/{heads}/{name}.npz") as stored:
        return stored["token_ids"].tolist(), stored["maps"]


@pytest.mark.parametrize("name", ["dog", "truck"])
@pytest.mark.parametrize(("heads", "selected"), [("all-heads", None), ("head-minus-2", (-2,))])
def test_tokens_and_maps_are_the_authors(golden_lmm, shared_dir, name, heads, selected):
    image = read_image(shared_dir / f"golden/images/{name}.jpg")
    answer, maps = golden_lmm.ask(image, QUESTION, options=AskOptions(120, selection=Selection(heads=selected)))
    token_ids, expected = golden(shared_dir, heads, name)
    assert list(answer.token_ids) == token_ids
    assert answer.text == json.loads((shared_dir / "golden/attn/llava-tiny/answers.json").read_text())[name]
    assert np.abs(maps.maps - expected).max() <= 1e-5


def test_a_batch_has_the_authors_maps_too(golden_lmm, shared_dir):
    names = ("dog", "truck")
    batch = [golden_lmm.prepare(read_image(shared_dir / f"golden/images/{n}.jpg"), QUESTION) for n in names]
    for name, (answer, maps) in zip(names, golden_lmm.run(batch, AskOptions(120)), strict=True):
        token_ids, expected = golden(shared_dir, "all-heads", name)
        assert list(answer.token_ids) == token_ids
        assert np.abs(maps.maps - expected).max() <= 1e-5


# ---- the same as transformers' LLaVA -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def twin() -> LlavaForConditionalGeneration:
    return release.model()


@pytest.fixture(scope="module")
def whole(tmp_path_factory, twin) -> Path:
    return release.write_whole(tmp_path_factory.mktemp("whole"), twin)


@pytest.fixture
def copied(whole, tmp_path) -> Path:
    """A release of one's own, to spoil."""
    shutil.copytree(whole.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / whole.name


def assert_same_as(lmm: LlavaOriginal, twin: LlavaForConditionalGeneration, image_hw: tuple[int, int] = (60, 90)):
    """Generated tokens and eager attention of transformers' LLaVA, whose image token has another id."""
    one = lmm.prepare(tiny.a_photo(image_hw), QUESTION)
    ((answer, maps),) = lmm.run([one], AskOptions(12))
    prompt = one.inputs["input_ids"]
    prompt = prompt.masked_fill(prompt == lmm.model.config.image_token_id, twin.config.image_token_id)
    inputs = {"attention_mask": one.inputs["attention_mask"], "pixel_values": one.inputs["pixel_values"]}
    sequence = twin.generate(input_ids=prompt, **inputs, max_new_tokens=12, do_sample=False)
    assert tuple(sequence[0, prompt.shape[1] :].tolist()) == answer.token_ids and len(answer.token_ids) > 1
    twin.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = twin(input_ids=sequence, pixel_values=inputs["pixel_values"], output_attentions=True).attentions
    rows = torch.stack(attentions)[:, 0].mean((0, 1))[prompt.shape[1] - 1 : -1]
    expected = rows[:, one.grids[0].positions].reshape(maps.maps.shape).numpy()
    assert np.abs(maps.maps - expected).max() <= 1e-5 * np.abs(expected).max()


def test_a_release_equals_transformers_llava(whole, twin):
    lmm = load_lmm(str(whole))
    assert isinstance(lmm, LlavaOriginal)
    assert lmm.model.config.image_token_id == twin.config.text_config.vocab_size, "behind the vocabulary"
    assert_same_as(lmm, twin)


@pytest.mark.parametrize("layer", [-1, -3, 1])
def test_the_layer_of_the_tower_is_the_configs(copied, layer):
    change_json(copied / "config.json", mm_vision_select_layer=layer)
    other = release.model()
    other.config.vision_feature_layer = layer
    assert_same_as(load_lmm(str(copied)), other)


def test_generation_settings_are_followed(copied, twin, monkeypatch):
    (copied / "generation_config.json").write_text(json.dumps({"repetition_penalty": 3.0, "temperature": 0.9}))
    lmm = load_lmm(str(copied))
    plain = twin.generation_config.repetition_penalty
    assert lmm.model.generation_config.suppress_tokens == [lmm.model.config.image_token_id]
    monkeypatch.setattr(twin.generation_config, "repetition_penalty", 3.0)
    assert_same_as(lmm, twin)
    monkeypatch.setattr(twin.generation_config, "repetition_penalty", plain)
    with pytest.raises(AssertionError):
        assert_same_as(lmm, twin)


def test_old_shards_and_a_smaller_tokenizer(tmp_path, twin):
    folder = release.write_whole(tmp_path, twin, vocab_size=330)
    release.write_shards(folder)
    lmm = load_lmm(str(folder))
    assert lmm.model.config.image_token_id == 330
    assert lmm.model.config.text_config.vocab_size == twin.config.text_config.vocab_size
    assert_same_as(lmm, twin, (90, 41))


def test_a_batch_equals_its_singles(whole):
    lmm = load_lmm(str(whole))
    batch = [
        lmm.prepare(tiny.a_photo(hw), q) for hw, q in [((60, 90), QUESTION), ((90, 41), "Who?"), ((64, 64), "Why")]
    ]
    for one, (answer, maps) in zip(batch, lmm.run(batch, AskOptions(8)), strict=True):
        ((alone, maps_alone),) = lmm.run([one], AskOptions(8))
        assert answer == alone
        assert np.abs(maps.maps - maps_alone.maps).max() <= 1e-5 * maps_alone.maps.max()


@pytest.mark.parametrize("aspect", ["pad", None])
@pytest.mark.parametrize("size_hw", [(64, 64), (60, 130), (150, 71)], ids=["square", "wide", "tall"])
def test_planted_squares_are_where_the_geometry_says(copied, aspect, size_hw):
    change_json(copied / "config.json", image_aspect_ratio=aspect)
    (found,) = plant_squares(load_lmm(str(copied)), size_hw)
    assert found.separation >= 0.98


@pytest.mark.parametrize("size_hw", [(60, 90), (91, 40), (70, 70)])
def test_pixels(whole, size_hw):
    """Padded to a square with the mean colour, centred; then Pillow's bicubic resize and CLIP's normalisation."""
    photo = tiny.a_photo(size_hw)
    height, width = size_hw
    side = max(size_hw)
    square = Image.new("RGB", (side, side), (122, 116, 104))
    square.paste(Image.fromarray(photo), ((side - width) // 2, (side - height) // 2))
    resized = np.asarray(square.resize((70, 70), Image.Resampling.BICUBIC), np.float64) / 255
    expected = (resized - release.CLIP_MEAN) / release.CLIP_STD
    pixels = load_lmm(str(whole)).inputs(photo, "What?")["pixel_values"]
    torch.testing.assert_close(pixels[0].permute(1, 2, 0).double().numpy(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "question", [QUESTION, " two  spaces ", "日本語 🙂\n\nWhat's   up?\t", "", "Is it {a} dog? café", "naïve▁x"]
)
def test_prompt_ids_are_those_of_sentencepiece(whole, question):
    """The authors' slow tokenizer is SentencePiece, for each piece of the prompt on its own, and BOS once."""
    lmm = load_lmm(str(whole))
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(whole / "tokenizer.model"))
    ids = lmm.inputs(tiny.a_photo(), question)["input_ids"][0].tolist()
    image = [lmm.model.config.image_token_id] * 25
    after = f"\n{question} ASSISTANT:"
    assert ids == [1, *pieces.encode(f"{SYSTEM} USER: "), *image, *pieces.encode(after)]
    assert lmm.tokenizer.encode(question, add_special_tokens=False) == pieces.encode(question)


# ---- LoRA --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lora(tmp_path_factory, twin) -> tuple[Path, Path, LlavaForConditionalGeneration]:
    """A LoRA release, the folder of its base LLM, and transformers' LLaVA with the LoRA merged by peft."""
    root = tmp_path_factory.mktemp("lora")
    folder, base = root / "llava-lora", root / "llm"
    base.mkdir()
    release.write_tower(root / "tower", twin)
    release.write_json(base / "config.json", release.text_config(twin) | {"model_type": "llama"})
    release.write_tokenizer(base, twin.config.text_config.vocab_size)
    save_file(release.llm_weights(twin), base / "model.safetensors")

    llm = LlamaForCausalLM(LlamaConfig(**release.text_config(twin)))
    llm.load_state_dict(release.llm_weights(twin))
    torch.manual_seed(1)
    settings = LoraConfig(r=4, lora_alpha=6, target_modules=ATTENTION, init_lora_weights=False, task_type="CAUSAL_LM")
    trained = get_peft_model(llm, settings)
    trained.save_pretrained(folder)
    release.write_json(folder / "config.json", release.config(twin))
    beside = {f"base_model.model.{name}": tensor for name, tensor in release.projector_weights(twin).items()}
    torch.save(beside, folder / "non_lora_trainables.bin")

    merged = release.model()
    both = trained.merge_and_unload()
    merged.model.language_model.load_state_dict(both.model.state_dict())
    merged.lm_head.load_state_dict(both.lm_head.state_dict())
    return folder, base, merged


@pytest.fixture
def copied_lora(lora, tmp_path) -> tuple[Path, Path]:
    folder, base, _ = lora
    shutil.copytree(folder.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / folder.name, tmp_path / base.name


def test_lora_is_merged(lora, twin):
    folder, base, merged = lora
    assert not torch.equal(merged.model.language_model.layers[0].mlp.up_proj.weight,
                           twin.model.language_model.layers[0].mlp.up_proj.weight)  # fmt: skip
    assert_same_as(load_lmm(str(folder), base=str(base)), merged)


def test_lora_as_bin(copied_lora, lora):
    folder, base = copied_lora
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    assert_same_as(load_lmm(str(folder), base=str(base)), lora[2])


def test_ground_takes_the_base(lora, tmp_path):
    Image.fromarray(tiny.a_photo()).save(tmp_path / "photo.png")
    arguments = ["ground", tmp_path / "photo.png", "--model", lora[0], "--out", tmp_path / "out", "--answer", "a dog"]
    result = CliRunner().invoke(app, [*map(str, arguments), "--base", str(lora[1])])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out/photo.json").read_text())["phrases"] == ["a dog"]
    result = CliRunner().invoke(app, [*map(str, arguments), "--out", str(tmp_path / "without")])
    assert result.exit_code == 2 and "with --base" in result.stderr


def test_lora_errors(copied_lora, tmp_path, twin):
    folder, base = copied_lora
    with pytest.raises(ValueError, match="with --base"):
        load_lmm(str(folder))
    with pytest.raises(FileNotFoundError, match="No base LLM"):
        load_lmm(str(folder), base=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="not a LLaMA"):
        load_lmm(str(folder), base=str(tmp_path / "tower"))

    change_json(base / "config.json", hidden_size=32)
    with pytest.raises(ValueError, match=r"hidden_size 32.*with 64"):
        load_lmm(str(folder), base=str(base))
    change_json(base / "config.json", hidden_size=64)

    halves = load_file(folder / "adapter_model.safetensors")
    key = "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"
    for changed, message in [
        ({k: v for k, v in halves.items() if k != key}, r"1 weights are missing: model.layers.1.mlp.up_proj.weight"),
        ({k: v for k, v in halves.items() if ".layers.1.mlp.up_proj." not in k}, "1 weights are missing"),
        (halves | {key.replace(".1.", ".9."): halves[key].clone()}, "1 have no place"),
        (halves | {key: torch.zeros(4, 32)}, r"does not fit its base.*up_proj.*--base"),
    ]:
        save_file(changed, folder / "adapter_model.safetensors")
        with pytest.raises(ValueError, match=message):
            load_lmm(str(folder), base=str(base))
    save_file(halves, folder / "adapter_model.safetensors")

    change_json(folder / "adapter_config.json", use_dora=True)
    with pytest.raises(ValueError, match="use_dora"):
        load_lmm(str(folder), base=str(base))
    (folder / "non_lora_trainables.bin").unlink()
    change_json(folder / "adapter_config.json", use_dora=False)
    with pytest.raises(FileNotFoundError, match="non_lora_trainables"):
        load_lmm(str(folder), base=str(base))


# ---- what is wrong with a checkpoint -----------------------------------------------------------------------------


def load_file(path: Path) -> dict[str, torch.Tensor]:
    """In memory: the file may be overwritten."""
    return {name: tensor.clone() for name, tensor in mapped_file(path).items()}


def change_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mm_projector_type": "linear"}, "mm_projector_type 'linear'"),
        ({"image_aspect_ratio": "anyres"}, "image_aspect_ratio 'anyres'"),
        ({"mm_vision_select_feature": "cls_patch"}, "mm_vision_select_feature"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end"),
        ({"mm_vision_select_layer": 4}, "mm_vision_select_layer 4 is none of the 3 layers"),
        ({"mm_vision_select_layer": [-2, -3]}, r"mm_vision_select_layer \[-2, -3\] is none"),
        ({"mm_vision_tower": "../no-tower"}, "No vision tower '../no-tower'"),
        ({"mm_vision_tower": "../llava"}, "vision tower ../llava is a 'llava_llama', not a CLIP"),
        ({"intermediate_size": 96}, r"down_proj.weight is \[64, 128\].*\[64, 96\]"),
        ({"num_hidden_layers": 4}, "9 weights are missing: model.layers.3."),
        ({"num_hidden_layers": 2}, "9 have no place: model.layers.2."),
    ],
)
def test_configs_that_are_not_llava_1_5(copied, changes, message):
    change_json(copied / "config.json", **changes)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_lmm(str(copied))


def test_broken_releases(copied):
    with pytest.raises(ValueError, match="leave --base out"):
        load_lmm(str(copied), base=str(copied))
    weights = load_file(copied / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "mm_projector.0" not in k}, copied / "model.safetensors")
    with pytest.raises(ValueError, match=r"2 weights are missing: model.mm_projector.0.bias"):
        load_lmm(str(copied))
    save_file(weights | {"model.odd": torch.zeros(1)}, copied / "model.safetensors")
    with pytest.raises(ValueError, match=r"1 have no place: model.odd"):
        load_lmm(str(copied))
    save_file(weights, copied / "model.safetensors")
    (copied / "tokenizer.model").rename(copied / "away")
    with pytest.raises(FileNotFoundError, match="has no tokenizer"):
        load_lmm(str(copied))
    (copied / "away").rename(copied / "tokenizer.model")
    cut(copied.parent / "tower/model.safetensors")
    with pytest.raises(ValueError, match=r"tower/model.safetensors is damaged or cut off"):
        load_lmm(str(copied))


def broken_folder_cases(folder: Path) -> None:
    """A folder with `model.safetensors`, of any family: each way to break it, and its message."""
    name = folder / "model.safetensors"
    good = name.read_bytes()
    cut(name)
    with pytest.raises(ValueError, match=r"model.safetensors is damaged or cut off"):
        load_lmm(str(folder))
    name.write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ValueError, match=r"is a pointer of Git LFS.*git lfs pull"):
        load_lmm(str(folder))
    name.unlink()
    with pytest.raises(FileNotFoundError, match="has no weights"):
        load_lmm(str(folder))
    (folder / "pytorch_model.bin").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ValueError, match=r"pytorch_model.bin is damaged or cut off"):
        load_lmm(str(folder))
    index = folder / "model.safetensors.index.json"
    release.write_json(index, {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}})
    (folder / "model-1-of-2.safetensors").write_bytes(good)
    with pytest.raises(FileNotFoundError, match=r"1 of 2 weight files are missing \(model-2-of-2"):
        load_lmm(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json is damaged, it is not JSON"):
        load_lmm(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no config.json"):
        load_lmm(str(folder))


def test_broken_files(copied):
    broken_folder_cases(copied)


# ---- load_lmm on transformers' format ----------------------------------------------------------------------------


@pytest.fixture
def plain(tmp_path) -> Path:
    return tiny.saved(tiny.family("llava"), tmp_path / "plain")


def test_broken_files_in_transformers_format(plain):
    broken_folder_cases(plain)


def test_missing_weights_are_not_made_up(plain):
    weights = load_file(plain / "model.safetensors")
    del weights["lm_head.weight" if "lm_head.weight" in weights else "language_model.lm_head.weight"]
    save_file(weights, plain / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 of the model's weights, the first is lm_head.weight"):
        load_lmm(str(plain))
    change_json(plain / "config.json", model_type="unheard_of")
    with pytest.raises(ValueError, match=r"'unheard_of': .*Families: .*llava_llama"):
        load_lmm(str(plain))


def test_adapter(plain, tmp_path):
    model = tiny.family("llava").model
    torch.manual_seed(2)
    settings = LoraConfig(r=4, target_modules=r".*language_model.*\.(q_proj|down_proj)", init_lora_weights=False)
    copy = LlavaForConditionalGeneration.from_pretrained(plain)
    trained = get_peft_model(copy, settings)
    trained.save_pretrained(tmp_path / "adapter")
    expected = trained.merge_and_unload().state_dict()
    merged = load_lmm(str(plain), adapter=str(tmp_path / "adapter")).model
    assert type(merged) is LlavaForConditionalGeneration
    for name, tensor in merged.state_dict().items():
        torch.testing.assert_close(tensor, expected[name])
        changed = ".language_model." in name and name.endswith(("q_proj.weight", "down_proj.weight"))
        assert torch.equal(tensor, model.state_dict()[name]) != changed

    halves = load_file(tmp_path / "adapter/adapter_model.safetensors")
    halves |= {name.replace("layers.0", "layers.7"): halves.pop(name) for name in list(halves) if "layers.0" in name}
    save_file(halves, tmp_path / "adapter/adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="does not fit the model"):
        load_lmm(str(plain), adapter=str(tmp_path / "adapter"))
    with pytest.raises(ValueError, match=r"adapter_config.json"):
        load_lmm(str(plain), adapter=str(plain))


def test_precision(plain):
    assert load_lmm(str(plain)).model.dtype == torch.float32, "auto, on a CPU"
    for dtype in ("bfloat16", "float16"):
        lmm = load_lmm(str(plain), dtype=dtype)
        assert lmm.model.dtype == getattr(torch, dtype)
        _, maps = lmm.ask(tiny.a_photo(), QUESTION, options=AskOptions(3))
        assert maps.maps.dtype == np.float32
    assert load_lmm("embedded", dtype="bfloat16").model.dtype == torch.float32
    with pytest.raises(ValueError, match="Known: auto, bfloat16"):
        load_lmm(str(plain), dtype="int3")


def test_options_that_cannot_work(plain, monkeypatch):
    with pytest.raises(ValueError, match="LLaVA's own format"):
        load_lmm(str(plain), base=str(plain))
    with pytest.raises(ValueError, match="Known: 4bit, 8bit"):
        load_lmm(str(plain), quantize="3bit")
    with pytest.raises(ValueError, match="give one of them"):
        load_lmm(str(plain), quantize="4bit", adapter="a")
    monkeypatch.setattr("aas.lmms.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install bitsandbytes"):
        load_lmm(str(plain), quantize="4bit")
    with pytest.raises(ValueError, match=r"needs peft: pip install \"attend-and-segment\[train\]\""):
        load_lmm(str(plain), adapter="a")
