"""How the embedded LMM is trained: packing changes nothing, words and quarters are where they should be."""

import numpy as np
import pytest
import torch

pytest.importorskip("tflite")
from caption_data import Photo, augmented, clean_caption, concept_of, find_concepts, load_photos, mirrored, word_target
from lmm_batches import IGNORE, PhotoBatches, Words, collate, pack, prompt_ids
from lmm_losses import (
    attention_loss,
    by_quarter,
    cells_of,
    keeping_loss,
    quarter_mask,
    smoothed,
    text_forward,
    word_loss,
)
from lmm_model import GRID, N_CELLS, QUESTIONS, SIDE, build_model, build_processor, train_tokenizer
from lmm_own_answers import OwnBatches
from split import kept_out

from aas.lmms.llava import Llava
from tests.conftest import shared

CAPTIONS = ["A dog on a bench.", "Two dogs sit near the old red bench."]


@pytest.fixture(scope="module")
def words() -> Words:
    tokenizer = train_tokenizer([*CAPTIONS, "The cat sleeps on the left."] * 5, 400)
    return Words(["dog", "bench", "cat"], tokenizer)


@pytest.fixture(scope="module")
def model(words):
    torch.manual_seed(0)
    model = build_model(words.tokenizer, width=64, layers=2).eval()
    with torch.no_grad():  # far from uniform, so that a wrong mask or position shows
        for parameter in model.model.language_model.parameters():
            parameter.mul_(4) if parameter.ndim > 1 else None
    return model


def test_packed_answers_are_as_if_alone(words, model):
    """Logits and maps of answers packed behind one image equal aas' own replay of each."""
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    lmm = Llava(model, build_processor(words.tokenizer), "tiny")
    inputs = lmm.inputs(image, QUESTIONS[0])
    replays = [lmm.ask(image, QUESTIONS[0], caption)[1].maps for caption in CAPTIONS]

    model.set_attn_implementation({"text_config": "aas_recorded"})
    row = pack([(caption, -1) for caption in CAPTIONS], words, QUESTIONS[0], False, with_image=True)
    batch = collate(
        [row],
        pixels=inputs["pixel_values"],
        image_at=len(prompt_ids(words.tokenizer, "")[0]),
        targets=None,
        n_mosaics=0,
    )
    with torch.no_grad():
        _, maps = text_forward(model, batch, cells_of(model, batch.pixels))
    for k, replay in enumerate(replays, start=1):
        ours = maps[0, batch.segment[0] == k].numpy().reshape(replay.shape)
        np.testing.assert_allclose(ours, replay, atol=1e-6)


def test_words_know_their_tokens(words):
    ids, concepts = words.encode("Two dogs on a bench.")
    spelled = {
        concept: words.tokenizer.decode([i for i, c in zip(ids, concepts, strict=True) if c == concept]).strip()
        for concept in set(concepts) - {-1}
    }
    assert spelled == {0: "dogs", 1: "bench"}


def test_labels_follow_their_inputs(words):
    row = pack([(CAPTIONS[0], -1)], words, QUESTIONS[0], False, with_image=False)
    answer = [i for i, label in enumerate(row["labels"]) if label != IGNORE]
    assert [row["ids"][i] for i in answer[1:]] == [row["labels"][i] for i in answer[:-1]]
    assert row["labels"][-1] == words.tokenizer.eos_token_id
    assert row["position"] == list(range(len(row["ids"])))


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
    batch = PhotoBatches(photos, words, n_mosaics=1, n_single=0, seed=0)()
    cells = quarter_mask()
    for t in torch.nonzero(batch.concepts[0] >= 0)[:, 0]:
        quarter, concept = batch.quarter[0, t], batch.concepts[0, t]
        assert batch.targets[0, quarter, concept] > 0
    assert cells[:4].sum(0).eq(1).all() and cells[4].all()
    marked = torch.zeros(1, N_CELLS, 1)
    marked[0, GRID - 1] = 1  # the top right cell
    assert by_quarter(marked).sum((0, 2, 3)).tolist() == [0, 1, 0, 0]


def test_losses_prefer_the_right_place(words):
    photos = [photo(i, "A dog.") for i in range(4)]
    batch = PhotoBatches(photos, words, n_mosaics=0, n_single=1, seed=0)()
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
    batch = OwnBatches(photos, ["Two cats on a bench."] * 4, words, n_photos=2, seed=0)()
    own, cat = batch.segment == 2, words.index["cat"]
    assert batch.labels[own].eq(IGNORE).all() and (batch.labels[batch.segment == 1] != IGNORE).all()
    assert (batch.concepts[own] == cat).any() and not (batch.concepts[~own] == cat).any()
    maps = torch.full((*batch.ids.shape, N_CELLS), 1 / N_CELLS, requires_grad=True)
    lens = torch.zeros(2, N_CELLS, 3)
    lens[:, :20, cat] = 1
    attention_loss(maps, smoothed(lens), batch, 2.0).backward()
    rows = maps.grad[batch.concepts == cat]
    assert (rows[:, :20].mean() < rows[:, 60:].mean()).all()  # descent moves the words' attention there


def test_language_is_kept_where_the_answers_are(words, model):
    photos = [photo(i, "A dog.") for i in range(4)]
    batch = OwnBatches(photos, ["Two cats on a bench."] * 4, words, n_photos=2, seed=0)()
    hidden = torch.randn(*batch.ids.shape, 64)
    before = model.lm_head(hidden[batch.segment > 0]).log_softmax(-1)
    assert abs(keeping_loss(model, hidden, before, batch)) < 1e-5
    assert keeping_loss(model, hidden.flip(-1), before, batch) > 0.1
    prompt_only = hidden.clone()
    prompt_only[batch.segment <= 0] = 0
    assert abs(keeping_loss(model, prompt_only, before, batch)) < 1e-5


def test_augmented_pictures_stay_pictures():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
    sizes = {augmented(pixels, 32, rng)[0].shape for _ in range(20)}
    assert sizes == {(32, 32, 3)}


@shared
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
