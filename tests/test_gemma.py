"""What only Gemma 3 and PaliGemma do: caches that drop the image, soft-capped scores, crops of long images."""

import copy

import numpy as np
import pytest
import torch

from aas.capture import Selection
from aas.geometry import pan_and_scan_views
from aas.lmms.checks import plant_squares
from aas.lmms.grids import COMBINED
from aas.lmms.prepared import AskOptions
from tests import tiny
from tests.test_families import assert_same, eager_maps, prepared
from tests.tiny import gemma


@pytest.mark.parametrize("family", ["gemma3", "paligemma2"])
def test_the_cache_drops_image_tokens(family):
    lmm = getattr(gemma, family)()
    lmm.model.generation_config.eos_token_id = lmm.tokenizer.eos_token_id = None  # answers never end by themselves
    one = prepared(lmm)
    # More tokens than the queries that are stashed at once.
    ((answer, maps),) = lmm.run([one], AskOptions(70, selection=Selection(keep="layers")))
    assert len(answer.token_ids) == 70
    assert_same(maps.maps, eager_maps(lmm, one, answer.token_ids).mean(1))
    sliding, full = maps.maps[0], maps.maps[1]
    assert sliding[0, -1, -1] > 0 and not sliding[-1].any(), "the image was in the window, then it was not"
    assert full[-1].all()


def test_soft_capped_attention_gives_what_eager_gives():
    lmm = tiny.family("paligemma2")
    batch = [prepared(lmm, i) for i in range(4)]
    inputs, _ = lmm.collated([one.inputs for one in batch], [one.grids[0].positions for one in batch])
    eager, uncapped = copy.deepcopy(lmm.model), copy.deepcopy(lmm.model)
    eager.set_attn_implementation("eager")
    for layer in uncapped.model.language_model.layers:
        layer.self_attn.attn_logit_softcapping = None
    arguments = lmm.forward_arguments(inputs)
    with torch.no_grad():
        ours, theirs, other = (m(**inputs, **arguments).logits for m in (lmm.model, eager, uncapped))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert (ours - other).abs().max() > 0.1, "the cap matters"


@pytest.fixture
def cropping():
    lmm = gemma.gemma3()
    lmm.processor.images_kwargs = {
        **lmm.processor.images_kwargs, "do_pan_and_scan": True, "pan_and_scan_min_crop_size": 20,
    }  # fmt: skip
    return lmm


def test_crops_of_long_images_are_views(cropping):
    names = [[grid.view.name for grid in prepared(cropping, i).grids] for i in range(4)]
    assert [len(views) for views in names] == [3, 3, 1, 4]
    assert names[3] == ["image", "crop 1", "crop 2", "crop 3"]
    for size_hw in ((60, 130), (150, 70)):
        found = plant_squares(cropping, size_hw)
        assert len(found) == 3 and all(view.separation >= 0.98 for view in found), found


def test_a_batch_with_crops_equals_its_singles(cropping):
    batch = [prepared(cropping, i) for i in range(4)]
    options = AskOptions(4, view=COMBINED)
    for one, (answer, maps) in zip(batch, cropping.run(batch, options), strict=True):
        ((alone, maps_alone),) = cropping.run([one], options)
        assert answer == alone
        assert_same(maps.maps, maps_alone.maps)


def test_crops_are_those_of_the_processor():
    image_processor = gemma.gemma3().processor.image_processor
    random = np.random.default_rng(0)
    counts = set()
    for _ in range(300):
        height, width = (int(side) for side in random.integers(20, 400, 2))
        y, x = np.mgrid[:height, :width].astype(np.float32)
        crops = image_processor.pan_and_scan(np.stack([y, x]), 40, 4, 1.2)
        views = pan_and_scan_views((4, 4), (height, width), 40, 4, 1.2)
        expected = [(c[1].min(), c[0].min(), c[1].max() + 1, c[0].max() + 1) for c in crops]
        assert [view.box_xyxy for view in views] == expected
        counts.add(len(crops))
    assert counts == {0, 2, 3, 4}
