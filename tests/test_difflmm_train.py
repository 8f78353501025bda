"""Training: what is learned of which tokens, which weights move, and that a break leaves no trace."""

import json
import shutil
import sys
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

pytest.importorskip("diffusers")
pytest.importorskip("peft")
from accelerate.state import AcceleratorState
from peft import PeftModel
from PIL import Image
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from transformers import LlavaProcessor
from typer.testing import CliRunner

import difflmm.train.arguments
from difflmm.chat import Chat, converse
from difflmm.checkpoint import load_checkpoint
from difflmm.data.batches import EpochSampler
from difflmm.data.images import check_images
from difflmm.data.rows import Row, read_rows
from difflmm.data.tokens import IGNORE, RowTokenizer
from difflmm.new_models import new_difflmm
from difflmm.processor import make_processor, square_image_processor, tokenizer_with_image
from difflmm.recipe import Recipe, read_recipe
from difflmm.synthetic import QUESTION, SIDE, write_models, write_pictures
from difflmm.train import train
from difflmm.train.adapter import starting_model, with_adapter
from difflmm.train.arguments import training_arguments
from tests.command import Forked
from tests.tiny.llava_original import write_tokenizer

RECIPES = Path(__file__).parent.parent / "recipes"
N_CELLS = 16
TEXTS = ("What is in the picture?", "A red square.", "Where?", " On the left.", "Sure?", "Yes,\nquite.")


@pytest.fixture(scope="session")
def parts(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    write_models(folder)
    data = write_pictures(folder / "pictures", 12)
    rows = json.loads(data.read_text())
    turns = [("human", "Hello"), ("gpt", "Hello to you, whoever you are."), ("human", "And?"), ("gpt", "Nothing.")]
    words = {"id": "words", "conversations": [{"from": who, "value": text} for who, text in turns]}
    (folder / "data.json").write_text(json.dumps([*rows[:7], words, *rows[7:]]))
    return folder


def recipe(parts: Path, out: Path, **changes) -> Recipe:
    settings = {"llm": str(parts / "llm"), "diffusion": str(parts / "diffusion"), "clip": str(parts / "clip")}
    settings |= {"encoder_options": {"resolution": SIDE}, "data": parts / "data.json", "images": parts / "pictures"}
    settings |= {"stage": 2, "max_length": 256, "batch_size": 4, "device_batch_size": 4, "workers": 0, "max_steps": 2}
    settings |= {"projector_learning_rate": 1e-3, "lora_learning_rate": 1e-3, "lora_rank": 4, "lora_alpha": 8}
    settings |= {"precision": "float32", "log_steps": 1}
    settings = {name: value for name, value in (settings | changes).items() if value is not None}
    return Recipe(out=out, **settings)


def log(out: Path) -> list[dict[str, float]]:
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [entry for entry in entries if "loss" in entry]


# ------------------------------------------------------------------------------------------------------- tokens


@pytest.fixture(params=["byte-level", "sentencepiece"])
def processor(request, parts, tmp_path) -> LlavaProcessor:
    folder = parts / "llm"
    if request.param == "sentencepiece":
        folder = tmp_path
        write_tokenizer(folder, 350)
    return make_processor(tokenizer_with_image(folder), square_image_processor(SIDE), 16, has_cls=False)


@pytest.mark.parametrize("has_image", [True, False])
def test_loss_is_of_the_answers_alone(processor, has_image):
    """Held against what the processor makes of each question's prompt, and of the conversation up to each answer."""
    row = Row(0, "0", Path("image.png") if has_image else None, TEXTS)
    tokens = RowTokenizer(processor, N_CELLS, 1000, plain=False)([row])[0]
    images = Image.new("RGB", (SIDE, SIDE)) if has_image else None

    def ids(n_texts: int) -> list[int]:
        messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(TEXTS[:n_texts])]
        if has_image:
            messages[0]["content"] = [{"type": "image"}, {"type": "text", "text": TEXTS[0]}]
        text = processor.apply_chat_template(messages, add_generation_prompt=n_texts % 2 == 1, tokenize=False)
        return processor(images=images, text=text, add_special_tokens=False)["input_ids"][0]

    expected = [IGNORE] * len(ids(6))
    for n_texts in (2, 4, 6):
        start, end = len(ids(n_texts - 1)), len(ids(n_texts))
        expected[start:end] = ids(6)[start:end]
        assert ids(6)[end - 1] == processor.tokenizer.eos_token_id
    assert tokens.input_ids.tolist() == ids(6)
    assert tokens.labels.tolist() == expected
    assert tokens.input_ids.tolist().count(processor.image_token_id) == N_CELLS * has_image


def test_plain_template_is_image_then_caption(processor):
    """As LLaVA's first stage: the loss is of the caption and its line break."""
    tokens = RowTokenizer(processor, N_CELLS, 1000, plain=True)([Row(0, "0", Path("x.png"), ("", "A red square."))])[0]
    caption = processor.tokenizer("A red square.\n", add_special_tokens=False)["input_ids"]
    image = [processor.tokenizer.bos_token_id] + [processor.image_token_id] * N_CELLS
    assert tokens.input_ids.tolist() == image + caption
    assert tokens.labels.tolist() == [IGNORE] * len(image) + caption


# --------------------------------------------------------------------------------------------------------- rows


def test_rows_that_cannot_be_used_are_skipped_and_told(parts, tmp_path):
    good = json.loads((parts / "data.json").read_text())[:5]
    question, answer = {"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A square."}
    (tmp_path / "cut.png").write_bytes((parts / "pictures/0000.png").read_bytes()[:100])
    shutil.copy(parts / "pictures/0000.png", tmp_path)
    bad = {
        "no conversations": {"image": "0000.png"},
        "no answer": {"image": "0000.png", "conversations": [question]},
        "two questions": {"image": "0000.png", "conversations": [question, question, answer]},
        "empty": {"image": "0000.png", "conversations": [question, {"from": "gpt", "value": " "}]},
        "who": {"image": "0000.png", "conversations": [question, {"from": "dog", "value": "x"}]},
        "no place": {"image": "0000.png", "conversations": [{"from": "human", "value": "What?"}, answer]},
        "no image": {"conversations": [question, answer]},
        "missing": {"image": "none.png", "conversations": [question, answer]},
        "broken": {"image": "cut.png", "conversations": [question, answer]},
    }
    rows = [{"id": name, **row} for name, row in bad.items()]
    rows += [row | {"image": str((parts / "pictures" / row["image"]).resolve())} for row in good] + ["nonsense"]
    (tmp_path / "data.json").write_text(json.dumps(rows))
    out = train(recipe(parts, tmp_path / "out", data=tmp_path / "data.json", images=tmp_path, max_steps=1))
    skipped = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    assert {each["id"] for each in skipped} == {*bad, str(len(rows) - 1)}
    assert "no such file" in next(each["error"] for each in skipped if each["id"] == "missing")
    assert "cut off" in next(each["error"] for each in skipped if each["id"] == "broken")

    (tmp_path / "data.json").write_text(json.dumps(rows[: len(bad)]))
    with pytest.raises(ValueError, match=r"no row can be used.*no such file"):
        train(recipe(parts, tmp_path / "none", data=tmp_path / "data.json", images=tmp_path))
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_rows(tmp_path / "other.json", None, False)
    (tmp_path / "data.json").write_text("{}")
    with pytest.raises(ValueError, match="not a list of conversations"):
        read_rows(tmp_path / "data.json", None, False)


def test_an_answer_before_the_first_question_is_left_out(tmp_path):
    turns = [("gpt", "Hi."), ("human", "Who?"), ("gpt", "Me.")]
    row = {"conversations": [{"from": who, "value": text} for who, text in turns]}
    (tmp_path / "data.json").write_text(json.dumps([row]))
    rows, skipped = read_rows(tmp_path / "data.json", None, False)
    assert [row.texts for row in rows] == [("Who?", "Me.")] and not skipped
    assert (
        read_rows(tmp_path / "data.json", None, True)[1][0].error == "the plain template takes an image and one answer"
    )
    assert check_images(rows, 1) == (rows, [], {})


def test_answers_beyond_the_longest_length_are_told(parts, tmp_path):
    rows = json.loads((parts / "data.json").read_text())[:4]
    rows[0]["conversations"][0]["value"] += " Really?" * 100
    (tmp_path / "data.json").write_text(json.dumps(rows))
    out = train(recipe(parts, tmp_path / "out", data=tmp_path / "data.json", max_steps=1))
    assert "no answer within the first 256 tokens" in (out / "skipped.jsonl").read_text()
    with pytest.raises(ValueError, match="an image alone takes 16"):
        train(recipe(parts, tmp_path / "short", max_length=20))


@pytest.mark.parametrize("batch_size", [None, 4])
def test_every_epoch_has_its_own_order(batch_size):
    sampler = EpochSampler([i % 7 for i in range(50)], batch_size, seed=3)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    sampler.set_epoch(0)
    assert sorted(first) == sorted(second) == list(range(50)) and first != second and list(sampler) == first


# ------------------------------------------------------------------------------------------------------ recipes


def test_wrong_recipes_are_told(parts, tmp_path):
    def told(*changes: str) -> str:
        with pytest.raises((ValueError, FileNotFoundError)) as caught:
            read_recipe(RECIPES / "tiny.yaml", changes)
        return str(caught.value)

    assert "unknown lorarank" in told("lorarank=4") and "lora_rank" in told("lorarank=4")
    assert "stage" in told("stage=3") and "batch_size" in told("batch_size=many")
    assert "encoder_options" in told("encoder_options={resolutio: 64}") and "warmup" in told("warmup=3")
    assert "key=value" in told("batch_size") and "not YAML" in told("out=[")
    assert "give one of" in told("model=somewhere") and "no diffusion" in told("encoder=clip", "features=x")
    assert "give data" in told("synthetic=false", "model=somewhere") and "synthetic has data" in told("data=x.json")
    assert "needs diffusion" in told("synthetic=false", "data=x.json", "llm=y")
    with pytest.raises(FileNotFoundError, match=r"no such recipe\. These ship: .*recipes/tiny.yaml"):
        read_recipe(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match="not a multiple"):
        train(recipe(parts, tmp_path / "out", batch_size=6))


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_are_whole(path, tmp_path):
    read = read_recipe(path)
    (tmp_path / "again.yaml").write_text(read.to_yaml())
    assert read_recipe(tmp_path / "again.yaml") == read


def test_a_recipe_that_ships_is_found_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_recipe(Path("recipes/tiny.yaml")) == read_recipe(RECIPES / "tiny.yaml")
    with pytest.raises(FileNotFoundError, match="no such recipe"):
        read_recipe(Path("tiny.yaml"))
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/tiny.yaml").write_text("out: mine\nstage: 1\nsynthetic: true\n")
    assert read_recipe(Path("recipes/tiny.yaml")).out == Path("mine")


def test_a_missing_library_is_told(monkeypatch):
    from difflmm.cli import app

    monkeypatch.setitem(sys.modules, "peft", None)
    for name in [name for name in sys.modules if name.startswith("difflmm.train")]:
        monkeypatch.delitem(sys.modules, name)
    result = CliRunner().invoke(app, ["train", "--config", str(RECIPES / "tiny.yaml")])
    assert result.exit_code == 2
    assert result.stderr == 'difflmm: needs peft: pip install "attend-and-segment[difflmm]"\n'


def test_wrong_settings_of_deepspeed_are_told(parts, tmp_path, monkeypatch):
    def told(text: str) -> str:
        (tmp_path / "zero.json").write_text(text)
        with pytest.raises(ValueError) as caught:
            training_arguments(recipe(parts, tmp_path / "out", deepspeed=tmp_path / "zero.json"))
        return str(caught.value)

    assert told("{}") == "deepspeed: pip install deepspeed"
    monkeypatch.setattr(difflmm.train.arguments, "find_spec", lambda name: name)
    assert "zero.json is not JSON" in told("{")
    assert "take stage 2" in told('{"zero_optimization": {"stage": 3}}')


# ----------------------------------------------------------------------------------------------- what is trained


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(("stage", "encoder"), [(1, "diffusion"), (2, "diffusion"), (1, "clip"), (2, "clip")])
def test_only_the_intended_weights_move(parts, tmp_path, stage, encoder):
    changes = {"diffusion": None, "encoder_options": None} if encoder == "clip" else {}
    plan = recipe(parts, tmp_path / "out", stage=stage, encoder=encoder, max_steps=3, **changes)
    torch.manual_seed(plan.seed)
    model, _ = starting_model(plan, torch.float32)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    linear = {f"layers.{i}.{part}.weight" for i in range(2) for part in (
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
        "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
    )}  # fmt: skip
    trained = {n for n in before if ".multi_modal_projector." in n or n.startswith("model.vision_tower.captioner.")}
    assert len(trained) == (14 if encoder == "diffusion" else 4)
    if stage == 2:
        trained |= {f"model.language_model.{name}" for name in linear}

    after = load_file(train(plan) / "model.safetensors")
    assert changed(before, after) == trained


def test_trained_weights_have_gradients_in_float32(parts, tmp_path):
    """Of a model in bfloat16; the others have none."""
    plan = recipe(parts, tmp_path / "out")
    model, _ = starting_model(plan, torch.bfloat16)
    adapted = with_adapter(model, plan)
    trained = {name for name, of in adapted.named_parameters() if of.requires_grad}
    assert all((".lora_" in n) != (".modules_to_save." in n) for n in trained) and len(trained) == 14 + 2 * 14
    assert {of.dtype for name, of in adapted.named_parameters() if name in trained} == {torch.float32}
    assert {of.dtype for name, of in adapted.named_parameters() if name not in trained} == {torch.bfloat16}


def test_merged_equals_unmerged(parts, tmp_path):
    """The logits, computed in float64, so that what differs is what the merged float32 weights lost."""
    out = train(recipe(parts, tmp_path / "out", max_steps=5, keep_adapter=True))
    base, processor = new_difflmm(*(str(parts / of) for of in ("llm", "diffusion", "clip")), resolution=SIDE)
    adapted = PeftModel.from_pretrained(base, out / "adapter").double().eval()
    merged = load_checkpoint(str(out))[0].double().eval()
    text = processor.apply_chat_template([{"role": "user", "content": [{"type": "image"}]}], tokenize=False)
    inputs = processor(images=Image.open(parts / "pictures/0003.png"), text=text, return_tensors="pt")
    inputs = dict(inputs) | {"pixel_values": inputs["pixel_values"].double()}
    with torch.no_grad():
        torch.testing.assert_close(merged(**inputs).logits, adapted(**inputs).logits, rtol=0, atol=1e-5)


def test_resumed_training_is_the_same_bit_for_bit(parts, tmp_path):
    """Broken off in the middle of the second epoch, while a checkpoint was written; with dropout, text-only rows and
    two batches to a step."""
    plan = {"max_steps": 6, "save_steps": 4, "keep_checkpoints": 2, "device_batch_size": 2, "lora_dropout": 0.2}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(recipe(parts, whole, **plan))
    shutil.copytree(whole / "checkpoints/checkpoint-4", broken / "checkpoints/checkpoint-4")
    shutil.copytree(whole / "checkpoints/checkpoint-4", broken / "checkpoints/checkpoint-5")
    (broken / "checkpoints/checkpoint-5/trainer_state.json").write_text("{")
    train(recipe(parts, broken, **plan))
    assert log(whole) == log(broken) and len(log(whole)) == 6
    assert not changed(load_file(whole / "model.safetensors"), load_file(broken / "model.safetensors"))

    with pytest.raises(ValueError, match="finished model"):
        train(recipe(parts, whole, **plan))
    (broken / "config.json").unlink()
    with pytest.raises(ValueError, match="made by another recipe"):
        train(recipe(parts, broken, **plan | {"max_steps": 7}))


def one_of_two(*words: str) -> None:
    """What `torchrun` starts, which has no state of trainings before."""
    from difflmm.cli import app

    AcceleratorState._reset_state(reset_partial_state=True)
    app(words)


def torchrun(n_processes: int, *words: str) -> None:
    """`torchrun --standalone -m difflmm.cli`, whose processes are forked from here and import nothing anew."""
    plan = LaunchConfig(1, 1, n_processes, rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="fork")
    elastic_launch(plan, one_of_two)(*words)


def test_two_processes_learn_as_one(parts, tmp_path):
    """By torchrun: the same rows, the same steps, features made by both."""
    plan = {"max_steps": 3, "lora_dropout": 0}
    together = recipe(parts, tmp_path / "two", device_batch_size=2, features=tmp_path / "features", **plan)
    (tmp_path / "two.yaml").write_text(together.to_yaml())
    with Forked(partial(torchrun, 2, "train", "--config", str(tmp_path / "two.yaml"))) as launcher:
        code, stdout, stderr = launcher.ended(300)
    assert code == 0, stderr
    assert stdout.split() == [str(tmp_path / "two")]
    train(recipe(parts, tmp_path / "one", **plan))
    losses = [[entry["loss"] for entry in log(tmp_path / name)] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert len(list((tmp_path / "features").rglob("*.safetensors"))) == 12


def test_no_pickle_but_tensors(parts, tmp_path):
    out = train(recipe(parts, tmp_path / "out"))
    left = {file.name for file in out.rglob("*") if file.suffix in (".bin", ".pt", ".pth", ".pkl")}
    assert left == {"optimizer.pt", "scheduler.pt", "rng_state.pth"}


def test_kept_features_change_nothing(parts, tmp_path):
    """Nor does it matter who made them, and in which batches."""
    cache = tmp_path / "features"
    train(recipe(parts, tmp_path / "plain", stage=1, max_steps=4))
    train(recipe(parts, tmp_path / "kept", stage=1, max_steps=4, features=cache))
    files = {file: file.stat().st_mtime_ns for file in cache.rglob("*") if file.is_file()}
    assert len(files) == 12 and all(file.suffix == ".safetensors" for file in files)
    train(recipe(parts, tmp_path / "again", stage=1, max_steps=4, features=cache, device_batch_size=2))
    assert files == {file: file.stat().st_mtime_ns for file in cache.rglob("*") if file.is_file()}
    losses = [[entry["loss"] for entry in log(tmp_path / name)] for name in ("plain", "kept", "again")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and losses[0] == pytest.approx(losses[2], rel=1e-5)
    train(recipe(parts, tmp_path / "other", stage=1, max_steps=1, features=cache, seed=7))  # another noise
    assert len(list(cache.rglob("*.safetensors"))) == 24


def test_checkpointing_and_bfloat16(parts, tmp_path):
    """Recomputed activations give the same loss; bfloat16 a near one."""
    losses = {}
    for name, changes in {
        "plain": {},
        "checkpointing": {"gradient_checkpointing": True},
        "bfloat16": {"precision": "bfloat16"},
    }.items():
        out = train(recipe(parts, tmp_path / name, max_steps=3, lora_dropout=0, **changes))
        losses[name] = [entry["loss"] for entry in log(out)]
    assert losses["checkpointing"] == pytest.approx(losses["plain"], rel=1e-5)
    assert losses["bfloat16"] == pytest.approx(losses["plain"], rel=0.05)
    assert load_file(tmp_path / "bfloat16/model.safetensors")["lm_head.weight"].dtype == torch.bfloat16


# -------------------------------------------------------------------------------------------------- from the shell


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """By the shipped recipe, a third of it."""
    from difflmm.cli import app

    out = tmp_path_factory.mktemp("trained") / "tiny"
    settings = ["--set", f"out={out}", "--set", "max_steps=70"]
    result = CliRunner().invoke(app, ["train", "--config", str(RECIPES / "tiny.yaml"), *settings])
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(out)
    return out


def test_the_tiny_recipe_learns(trained):
    losses = [entry["loss"] for entry in log(trained)]
    assert losses[0] > 3 and losses[-1] < 0.2


def test_second_stage_begins_with_the_first(parts, trained, tmp_path):
    new = {"llm": None, "diffusion": None, "clip": None, "encoder_options": None}
    new |= {"data": parts / "pictures/data.json", "max_steps": 1}
    assert log(train(recipe(parts, tmp_path / "out", model=str(trained), **new)))[0]["loss"] < 0.5


def test_synthetic_training_goes_on(trained, tmp_path):
    """From its last checkpoint, as any other."""
    out = tmp_path / "again"
    shutil.copytree(trained, out)
    (out / "config.json").unlink()
    text = (out / "recipe.yaml").read_text().replace(str(trained), str(out))
    (out / "recipe.yaml").write_text(text)
    train(read_recipe(out / "recipe.yaml"))
    assert not changed(load_file(trained / "model.safetensors"), load_file(out / "model.safetensors"))


def test_chat_streams_remembers_and_starts_afresh(trained, capsys):
    model, processor = load_checkpoint(str(trained))
    chat = Chat(model.eval(), processor, max_new_tokens=20)
    picture = trained / "synthetic/pictures/0000.png"
    lines = f"/image {picture}\n{QUESTION}\nWhere?\n/image none.png\n/what\n"
    converse(chat, StringIO(lines))
    output = capsys.readouterr()
    assert len(chat.messages) == 4 and chat.messages[0]["content"][0] == {"type": "image"}
    first = chat.messages[1]["content"][0]["text"]
    assert output.out.startswith(f"{first}\n") and "square" in first
    assert "none.png: no such file" in output.err and "/image PATH" in output.err
    converse(chat, StringIO(f"/reset\n{QUESTION}\n/quit\nnever asked\n"))
    assert [message["role"] for message in chat.messages] == ["user", "assistant"]
    assert chat.messages[1]["content"][0]["text"] == first  # the same noise, the same answer


def test_chat_command_answers_a_pipe(trained):
    from difflmm.cli import app

    picture = trained / "synthetic/pictures/0000.png"
    arguments = ["chat", "--model", str(trained), "--device", "cpu", "--image", str(picture)]
    result = CliRunner().invoke(app, arguments, input=f"{QUESTION}\n")
    assert result.exit_code == 0, result.output
    assert "square" in result.stdout
    assert CliRunner().invoke(app, [*arguments[:-1], "none.png"]).exit_code == 2


def test_the_result_grounds_an_answer(trained):
    """Phrases of its own answer, their points in the picture."""
    import aas

    grounding = aas.Grounder(str(trained), device="cpu")(trained / "synthetic/pictures/0000.png", QUESTION)
    assert "square" in grounding.answer.text and any("square" in phrase.text for phrase in grounding.phrases)
    assert all(0 <= x < SIDE and 0 <= y < SIDE for x, y in (phrase.point_xy for phrase in grounding.phrases))
    assert all(phrase.mask.shape == (SIDE, SIDE) for phrase in grounding.phrases)
