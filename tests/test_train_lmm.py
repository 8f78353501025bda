"""How the embedded LMM is trained: packing changes nothing, words and quarters are where they should be."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("tflite")
from caption_data import Photo, augmented, clean_caption, concept_of, find_concepts, load_photos, mirrored, word_target
from caption_questions import questions_of
from lmm_batches import IGNORE, QUARTERS, PhotoBatches, Told, Words, batch_of, pack
from lmm_decoder import cut_decoder, cut_vocabulary
from lmm_losses import (
    attention_loss,
    by_quarter,
    cells_of,
    quarter_mask,
    smoothed,
    text_forward,
    word_loss,
)
from lmm_model import AFTER, BEFORE, GRID, IMAGE, N_CELLS, QUESTIONS, SIDE, build_model, build_processor
from lmm_own_answers import OwnBatches
from split import kept_out
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from train_lmm import Run
from training import run_phase
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from aas.lmms.llava import Llava
from aas.phrases.parser import load_pipeline

CAPTIONS = ["A dog on a bench.", "Two dogs sit near the old red bench."]


PROMPTS = [BEFORE + AFTER.format(question) for question in (*QUESTIONS, "Describe the top left.", "What is it?")]


@pytest.fixture(scope="module")
def pretrained() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A small decoder with a byte-level vocabulary, as SmolLM2's but for its size."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unused>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [*CAPTIONS, "The cat sleeps on the left.", "Nobody needs constitutional antidisestablishmentarianism."]
    tokenizer.train_from_iterator((texts + PROMPTS) * 5, trainer)
    specials = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **specials)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
        pad_token_id=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():  # far from uniform, so that a wrong mask or position shows
        for parameter in model.parameters():
            parameter.mul_(4) if parameter.ndim > 1 else None
    return model, fast


@pytest.fixture(scope="module")
def cut(pretrained):
    """The decoder with the words of the captions and two of its layers."""
    model, tokenizer = pretrained
    cut_tokenizer, ids = cut_vocabulary(tokenizer, CAPTIONS + PROMPTS, IMAGE, n_first=270)
    return cut_decoder(copy.deepcopy(model), ids, [0, 3]), cut_tokenizer, ids


@pytest.fixture(scope="module")
def words(cut) -> Words:
    return Words(["dog", "bench", "cat"], cut[1])


@pytest.fixture(scope="module")
def model(cut):
    decoder, tokenizer, _ = cut
    return build_model(decoder, tokenizer, "mobilenet_v2").eval()


def test_a_smaller_vocabulary_writes_the_same_with_the_same_embeddings(pretrained, cut):
    model, tokenizer = pretrained
    small, small_tokenizer, old_ids = cut
    assert len(small_tokenizer) == len(old_ids) < len(tokenizer)
    for text in CAPTIONS + PROMPTS:
        ids = small_tokenizer.encode(text)
        assert [old_ids[i] for i in ids] == tokenizer.encode(text)
        assert small_tokenizer.decode(ids) == text
    unseen = "Constitutional cats: 猫!"
    assert small_tokenizer.decode(small_tokenizer.encode(unseen)) == unseen
    assert small_tokenizer.convert_tokens_to_ids(IMAGE) == len(old_ids) - 1
    rows = model.get_input_embeddings().weight[torch.tensor(old_ids)]
    assert torch.equal(small.get_input_embeddings().weight, rows)
    assert small.lm_head.weight is small.get_input_embeddings().weight


@torch.no_grad()
def test_layers_that_stay_compute_what_they_did(pretrained):
    model, tokenizer = pretrained
    _, ids = cut_vocabulary(tokenizer, CAPTIONS, IMAGE)
    all_of_it = cut_decoder(copy.deepcopy(model), ids, range(4))
    two = cut_decoder(copy.deepcopy(model), ids, [0, 3])
    few = torch.tensor([[5, 9, 20, 31]])
    before = torch.tensor([[ids[i] for i in few[0]]])
    torch.testing.assert_close(all_of_it.model(few).last_hidden_state, model.model(before).last_hidden_state)
    by_hand = copy.deepcopy(model)
    by_hand.model.layers[1] = by_hand.model.layers[2] = Skip()
    torch.testing.assert_close(
        two.model(few).last_hidden_state, by_hand.model(before, use_cache=False).last_hidden_state
    )


class Skip(torch.nn.Module):
    def forward(self, hidden_states, *args, **kwargs):
        return hidden_states


def test_packed_answers_are_as_if_alone(words, model):
    """Maps of questions and answers packed behind one image equal aas' own replay of each."""
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    lmm = Llava(model, build_processor(words.tokenizer), "tiny")
    asked = ("Describe the image.", "What is it?")
    inputs = lmm.inputs(image, asked[0])
    replays = [lmm.ask(image, *one)[1].maps for one in zip(asked, CAPTIONS, strict=True)]

    model.set_attn_implementation({"text_config": "aas_recorded"})
    told = [Told(question, caption) for question, caption in zip(asked, CAPTIONS, strict=True)]
    batch = batch_of([(image, told, np.zeros((4, 3), np.float32))], words, 0)
    torch.testing.assert_close(batch.pixels, inputs["pixel_values"], atol=0.01, rtol=0)
    with torch.no_grad():
        _, maps = text_forward(model, batch, cells_of(model, batch.pixels))
    for k, replay in enumerate(replays, start=1):
        ours = maps[0, (batch.segment[0] == k) & batch.answer[0]].numpy().reshape(replay.shape)
        np.testing.assert_allclose(ours, replay, atol=1e-6)


def test_words_know_their_tokens(words):
    ids, concepts = words.encode("Two dogs on a bench.")
    spelled = {
        concept: words.tokenizer.decode([i for i, c in zip(ids, concepts, strict=True) if c == concept]).strip()
        for concept in set(concepts) - {-1}
    }
    assert spelled == {0: "dogs", 1: "bench"}


def test_labels_follow_their_inputs(words):
    row = pack([Told(QUESTIONS[0], CAPTIONS[0])], words)
    answer = [i for i, label in enumerate(row["labels"]) if label != IGNORE]
    assert [row["ids"][i] for i in answer[1:]] == [row["labels"][i] for i in answer[:-1]]
    assert row["labels"][-1] == words.tokenizer.eos_token_id
    assert answer == [i for i, is_answer in enumerate(row["answer"]) if is_answer]
    before = row["segment"].count(0)
    assert row["position"] == [*range(before), *range(before + N_CELLS, len(row["ids"]) + N_CELLS)]


def test_captions_are_mirrored_and_words_reduced():
    assert mirrored("The cat on the left, Right of it a dog") == "The cat on the right, Left of it a dog"
    assert [concept_of(w) for w in ("Dogs", "women", "bus", "grass", "people")] == [
        "dog", "woman", "bus", "grass", "person",
    ]  # fmt: skip
    assert clean_caption("  a DOG\n runs . ") == "A DOG runs."


def photo(i: int, caption: str) -> Photo:
    return Photo(i, np.full((64, 64, 3), i * 50, np.uint8), (caption,), ())


def test_mosaics_keep_captions_in_their_quarter(words):
    photos = [photo(i, caption) for i, caption in enumerate(["A dog.", "A bench.", "A cat.", "Two dogs."])]
    batch = PhotoBatches(photos, words, n_mosaics=1, n_single=0, seed=0)(0)
    cells = quarter_mask()
    for t in torch.nonzero(batch.concepts[0] >= 0)[:, 0]:
        quarter, concept = batch.quarter[0, t], batch.concepts[0, t]
        question = f"Describe the {QUARTERS[quarter]}."
        asked = words.tokenizer.decode(batch.ids[0, (batch.segment[0] == batch.segment[0, t]) & ~batch.answer[0]])
        assert question in asked
        assert batch.targets[0, quarter, concept] > 0
    assert cells[:4].sum(0).eq(1).all() and cells[4].all()
    marked = torch.zeros(1, N_CELLS, 1)
    marked[0, GRID - 1] = 1  # the top right cell
    assert by_quarter(marked).sum((0, 2, 3)).tolist() == [0, 1, 0, 0]


def test_losses_prefer_the_right_place(words):
    photos = [photo(i, "A dog.") for i in range(4)]
    batch = PhotoBatches(photos, words, n_mosaics=0, n_single=1, seed=0)(0)
    lens = torch.zeros(1, N_CELLS, 3)
    lens[0, :20, 0] = 1
    assert word_loss(lens, batch.targets, 0, 16.0) < word_loss(lens.flip(2), batch.targets, 0, 16.0)
    there = torch.zeros(1, batch.ids.shape[1], N_CELLS)
    there[..., :20] = 1 / 20
    elsewhere = there.flip(2)
    assert attention_loss(there, lens, batch, 2.0) < attention_loss(elsewhere, lens, batch, 2.0)


def test_smoothing_prefers_a_patch_to_a_lone_cell():
    lens = torch.zeros(1, GRID, GRID, 2)
    lens[0, 1, 1, 0] = 1.2
    lens[0, 8:11, 9:12, 0] = 1
    smooth = smoothed(lens.flatten(1, 2))
    assert divmod(int(smooth[0, :, 0].argmax()), GRID) == (9, 10)
    assert smooth[..., 1].eq(0).all()
    assert torch.allclose(smoothed(torch.ones(1, N_CELLS, 2)), torch.ones(1, N_CELLS, 2))


def test_own_answers_point_but_are_not_imitated(words):
    """The decoder learns to write from captions alone; words of its own answer have a place and no label."""
    photos = [photo(i, "A dog.") for i in range(4)]
    batch = OwnBatches(photos, ["Two cats on a bench."] * 4, words, n_photos=2, seed=0)(0)
    own, cat = batch.segment == 2, words.index["cat"]
    assert batch.labels[own].eq(IGNORE).all() and (batch.labels[(batch.segment == 1) & batch.answer] != IGNORE).all()
    assert (batch.concepts[own] == cat).any() and not (batch.concepts[~own] == cat).any()
    maps = torch.full((*batch.ids.shape, N_CELLS), 1 / N_CELLS, requires_grad=True)
    lens = torch.zeros(2, N_CELLS, 3)
    lens[:, :20, cat] = 1
    attention_loss(maps, smoothed(lens), batch, 2.0).backward()
    rows = maps.grad[batch.concepts == cat]
    assert (rows[:, :20].mean() < rows[:, 60:].mean()).all()  # descent moves the words' attention there


def test_a_phase_leaves_alone_what_it_did_not_train(tmp_path):
    """The decoder of the language phase comes into a model that has learned words, and its words stay."""

    class Small(Run):
        def __init__(self, seed):
            torch.manual_seed(seed)
            self.args = SimpleNamespace(work=tmp_path, device="cpu")
            self.modules = {name: torch.nn.Linear(3, 2) for name in ("tower", "projector", "decoder")}
            self.table = torch.nn.Parameter(torch.randn(5, 2))

        parts = property(lambda self: self.modules)

    words, language, both = (Small(seed) for seed in range(3))
    words.save("after_words", ("tower", "projector"))
    language.save("after_language", ("decoder",))
    for name in ("after_words", "after_language"):
        both.load(name)
    assert torch.equal(both.table, words.table)
    for name, of in (("tower", words), ("projector", words), ("decoder", language)):
        assert torch.equal(both.modules[name].weight, of.modules[name].weight)


def test_a_stopped_phase_goes_on_to_the_same_weights(tmp_path):
    def trained(folder, stops):
        torch.manual_seed(0)
        layer = torch.nn.Linear(4, 3)
        inputs = torch.randn(20, 5, 4, generator=torch.Generator().manual_seed(1))
        for n_steps in stops:
            layer = copy.deepcopy(layer) if n_steps == stops[0] else torch.nn.Linear(4, 3)

            def batches(step, last=n_steps):
                if step == last:
                    raise KeyboardInterrupt
                return inputs[step]

            def losses(batch, layer=layer):
                return {"square": torch.dropout(layer(batch), 0.5, True).square().mean()}

            groups = [(list(layer.parameters()), 1e-2)]
            try:
                run_phase("one", 20, groups, batches, losses, dict, folder, every=4, decay=0.9)
            except KeyboardInterrupt:
                continue
        return torch.cat([p.detach().flatten() for p in layer.parameters()])

    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    assert torch.equal(trained(tmp_path / "whole", [20]), trained(tmp_path / "stopped", [6, 13, 20]))


def test_batches_depend_on_the_step_alone(words):
    photos = [photo(i, "A dog.") for i in range(4)]
    first, again = (PhotoBatches(photos, words, n_mosaics=1, n_single=2, seed=3) for _ in range(2))
    [first(step) for step in range(3)]
    assert torch.equal(first(3).pixels, again(3).pixels) and torch.equal(first(3).ids, again(3).ids)
    assert not torch.equal(first(3).pixels, first(4).pixels)


def test_augmented_pictures_stay_pictures():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
    sizes = {augmented(pixels, 32, rng)[0].shape for _ in range(20)}
    assert sizes == {(32, 32, 3)}


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A man riding a red bike.", {("What color is the bike?", "Red."), ("What is the man riding?", "A red bike.")}),
        ("A cake sitting on a table.", {("What is on the table?", "A cake."), ("Where is the cake?", "On a table.")}),
        ("Three dogs are running.", {("How many dogs are there?", "Three.")}),
        ("There is nothing.", set()),
    ],
)
def test_captions_answer_short_questions(caption, expected):
    found = set(questions_of(load_pipeline("embedded")(caption)))
    assert expected <= found if expected else not found


def test_no_kept_out_photograph_is_trained_on(shared_dir):
    choose, figures = kept_out(shared_dir / "data")
    train, chosen = load_photos(shared_dir / "data")
    seen = {p.image_id for p in train}
    assert len(choose) == len(figures) == 75 and not set(choose) & set(figures)
    assert not seen & set(choose + figures)
    assert {p.image_id for p in chosen} == set(choose)
    concepts = find_concepts(train)
    assert {"person", "dog", "table"} <= set(concepts)
    assert abs(word_target(train[0], concepts).sum() - 1) < 1e-5
