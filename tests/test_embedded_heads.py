"""What mask heads learn from on the embedded LMM, and how they are compared."""

from pathlib import Path

import numpy as np
import pytest
from head_data import Scene, cropped, listed, views
from head_figures import FREE, Case, mean, table
from train_heads import KINDS

from aas.training.recipe import Recipe


def scene() -> Scene:
    """Two things that the pixels show, and one that is too small to be named."""
    things = {name: np.zeros((40, 60), bool) for name in ("dog", "orange", "fly")}
    things["dog"][5:25, 3:30], things["orange"][10:30, 40:58], things["fly"][0, 0] = True, True, True
    pixels = np.stack([things["dog"], things["orange"], things["fly"]], axis=2).astype(np.uint8)
    return Scene(1, pixels, things, ("The dog is left of an orange.",))


def test_a_list_names_things_in_sight_where_it_says():
    texts = set()
    for seed in range(20):
        text, found = listed(scene(), np.random.default_rng(seed))
        texts.add(text)
        assert [text[slice(*span)].lower() for span, _ in found] == [
            {"dog": "a dog", "orange": "an orange"}[name] for _, name in found
        ]
    assert texts == {"A dog.", "An orange.", "A dog and an orange.", "An orange and a dog."}
    assert listed(Scene(1, scene().pixels, {}, ()), np.random.default_rng(0)) == ("", [])


def test_a_list_stands_behind_a_caption_that_is_learned_from():
    def reader(caption: str, view: Scene) -> list[tuple[tuple[int, int], str]]:
        return [((4, 7), "dog")]

    ((_, _, chosen, found),) = views(scene(), 1, reader)
    assert chosen == scene().captions[0] and found == [((4, 7), "dog")]
    ((_, _, text, found),) = views(scene(), 1, reader, with_lists=True)
    assert text.startswith(f"{chosen} ") and len(found) > 1
    assert all(text[slice(*span)].lower().endswith(name) for span, name in found)


def test_crops_keep_masks_on_their_things():
    sides = set()
    for seed in range(20):
        one = cropped(scene(), np.random.default_rng(seed))
        assert one.pixels.shape[0] * one.pixels.shape[1] >= 0.5 * 40 * 60
        for i, name in enumerate(("dog", "orange")):
            if name in one.things:
                assert np.array_equal(one.things[name], one.pixels[..., i] > 0)
        sides |= {one.captions[0]}
    assert sides == {"The dog is left of an orange.", "The dog is right of an orange."}


def test_gains_are_paired():
    """Photographs differ much, and the head is better by 0.1 in each of them."""
    cases = [Case(i, "a dog", 0.1 + 0.1 * i, {FREE: i / 10, "head": i / 10 + 0.1}) for i in range(8)]
    gain = mean(cases, lambda case: case.iou["head"] - case.iou[FREE])
    assert gain["mean"] == pytest.approx(0.1) == pytest.approx(gain["low"]) and gain["photographs"] == 8
    assert "| head | 0.450 [" in table(cases) and "| 0.100 [0.100, 0.100] |" in table(cases)


@pytest.mark.parametrize("kind", KINDS)
def test_the_recipes_of_the_embedded_lmm_are_whole(kind):
    recipe = Recipe.read(Path(__file__).parent.parent / f"recipes/heads/{kind}-embedded.yaml")
    assert recipe.head == kind and recipe.model == "embedded"
