"""`aas calibrate`: the score of a head, and the command on planted scores and on a model without such heads."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from typer.testing import CliRunner

from aas.asking import ask_options
from aas.cli import app
from aas.lmms import load_lmm
from aas.maps import calibrations_of, source_named
from aas.maps.calibration import SHIPPED, read_calibration
from aas.paths import embedded_dir
from aas.records import AttentionMaps, View
from aas.stages.calibrate import PANELS, chosen, gaze, mosaic_of, spearman
from aas.stages.calibrate_frequency import frequencies, looking, spatial_entropy
from aas.store.origin import Origin
from tests import tiny


def test_gaze_is_the_mass_in_the_panel_less_that_in_the_others():
    rng = np.random.default_rng(0)
    maps = rng.random((2, 3, 5, 4, 6)).astype(np.float32)
    attention = AttentionMaps(maps, View((4, 6), (0, 0, 448, 448)))
    quarters = [maps[..., :2, :3], maps[..., :2, 3:], maps[..., 2:, :3], maps[..., 2:, 3:]]
    masses = np.array([quarter.sum((-1, -2)).mean(-1) for quarter in quarters])
    for place in range(4):
        expected = masses[place] - (masses.sum(0) - masses[place]) / 3
        np.testing.assert_allclose(gaze(attention, place), expected, atol=1e-5)
    sink = np.zeros((1, 1, 2, 4, 6), np.float32)
    sink[..., 0, 0] = 0.9
    found = [gaze(AttentionMaps(sink, attention.view), place) for place in range(4)]
    assert np.mean(found) == pytest.approx(0)


def test_panels_hold_their_photographs():
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0)]
    image = mosaic_of([np.full((30, 50, 3), colour, np.uint8) for colour in colours])
    for colour, (x0, y0, x1, y1) in zip(colours, PANELS, strict=True):
        assert (image[y0:y1, x0:x1] == colour).all()


def test_ranks_and_choice():
    scores = np.array([[0.1, -0.2, 0.5], [0.4, 0.0, -0.1]])
    assert chosen(scores, 5) == [(0, 2, 0.5), (1, 0, 0.4), (0, 0, 0.1)]
    assert spearman(np.array([1.0, 5, 3]), np.array([2.0, 9, 4])) == pytest.approx(1)
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([2.0, 1, 3, 4])) == pytest.approx(1 - 6 * 2 / (4 * 15))
    one, other = np.array([0.0, 0, 0, 2, 1, 5]), np.array([0.0, 3, 0, 1, 0, 0])
    assert spearman(one, other) == pytest.approx(spearmanr(one, other).statistic)
    assert np.isnan(spearman(one, np.zeros(6)))


def test_entropy_of_regions():
    """Two regions above the mean, of three cells (by their corners) and one; P is a region's share of the cells."""
    grid_map = np.zeros((5, 5))
    grid_map[0, 0] = grid_map[1, 1] = grid_map[2, 2] = 0.3
    grid_map[0, 4] = 0.9
    assert spatial_entropy(grid_map) == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    one = np.zeros((5, 5))
    one[2, 2] = 1
    assert spatial_entropy(one) == 0 and spatial_entropy(np.ones((5, 5))) == np.inf
    one[4] = 1
    assert spatial_entropy(one) == np.inf, "a whole bottom row is a sink"


def test_frequency_counts_the_most_compact_of_those_that_look():
    """Six layers of four heads: 2.1 and 5.3 look at one place, 3.0 at two, 4.2 at three, 1.1 lies too early, and 2.3 is
    compact but pays no attention to the image."""
    sums = np.full((8, 6, 4), 0.2)
    sums[:, 2:] = 0.5
    sums[:, 2, 3] = 0.01
    entropies = np.full((8, 6, 4), 5.0)
    for layer, head, entropy in ((2, 1, 0.1), (5, 3, 0.2), (3, 0, 1.0), (4, 2, 2.0), (1, 1, 0.0), (2, 3, 0.0)):
        entropies[:, layer, head] = entropy
    entropies[:2, 3, 0] = np.inf
    looks = looking(sums)
    assert not looks[:2].any() and not looks[2, 3] and looks.sum() == 15
    found = frequencies(entropies, looks)
    assert found[2, 1] == found[5, 3] == 1 and found[3, 0] == 0.75 and found[4, 2] == 0.25
    assert found.sum() == pytest.approx(3)


@pytest.fixture
def photos(tmp_path):
    for i in range(9):
        Image.fromarray(tiny.a_photo((40, 50), seed=i)).save(tmp_path / f"{i}.png")
    rows = [{"image": f"{i}.png", "answer": f"a dog and {i} cats"} for i in range(9)]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lmm = tiny.family("llava")
    for part in (lmm.model, lmm.processor):
        part.save_pretrained(tmp_path / "model")
    return tmp_path


def run(photos, *more: object):
    words = ["calibrate", photos / "model", "--images", photos, "--answers", photos / "captions.jsonl", *more]
    return CliRunner().invoke(app, list(map(str, words)))


def test_heads_that_agree_are_written(photos, monkeypatch):
    planted = np.random.default_rng(0).random((3, 4)) - 0.5
    monkeypatch.setattr("aas.stages.calibrate.gaze", lambda attention, place: planted)
    result = run(photos, "--out", photos / "heads.json", "--heads", 2)
    assert result.exit_code == 0, result.output
    content = json.loads((photos / "heads.json").read_text())
    best = [divmod(int(i), 4) for i in np.argsort(-planted, axis=None)[:2]]
    assert [tuple(row[:2]) for row in content["heads"]] == best
    np.testing.assert_allclose(content["scores"], planted, atol=1e-6)
    assert content["made"] == {"how": "mosaics", "mosaics": 2, "seed": 0, "spearman": 1.0}
    assert list(source_named(f"heads:{photos / 'heads.json'}").weights) == best


def test_one_that_ships_is_found_by_name_and_holds_for_its_model_alone(photos, monkeypatch):
    monkeypatch.setattr("aas.stages.calibrate.gaze", lambda attention, place: np.arange(12.0).reshape(3, 4))
    (photos / "heads").mkdir()
    assert run(photos, "--out", photos / "heads/tiny.json", "--heads", 1).exit_code == 0
    monkeypatch.setattr("aas.maps.calibration.embedded_dir", lambda name: photos / name)
    assert calibrations_of("mean,fused:mean+heads:tiny,heads:0.1") == {"tiny": photos / "heads/tiny.json"}
    own = load_lmm(photos / "model")
    for maps in ("heads:tiny", "fused:mean+heads:tiny"):
        own.check_options(ask_options(maps=maps))
    shutil.move(photos / "model", photos / "moved")
    load_lmm(photos / "moved").check_options(ask_options(maps="heads:tiny"))
    with torch.no_grad():
        next(own.model.parameters()).add_(1)
    for part in (own.model, own.processor):
        part.save_pretrained(photos / "trained")
    for maps in ("heads:tiny", "fused:mean+heads:tiny"):
        with pytest.raises(ValueError, match=r"tiny.json names heads of .*, and this is .*trained"):
            load_lmm(photos / "trained").check_options(ask_options(maps=maps))
    with pytest.raises(ValueError, match=r"heads:other: no such calibration ships \(tiny\)"):
        ask_options(maps="heads:other")


def test_those_that_ship_are_of_the_models_that_ship():
    for file in (embedded_dir(".") / SHIPPED).glob("*.json"):
        meant = read_calibration(file)
        here = Origin.of(meant.model, "lmm")
        assert here.is_same(Origin(meant.model, meant.revision)), "run scripts/embedded/make_heads.py"


def test_where_the_gaze_is_weak_compact_heads_are_taken(photos, monkeypatch):
    """Planted entropies, of the twelve heads of a model whose first layers count too."""
    planted = np.arange(12.0)[::-1].reshape(3, 4)
    noise = np.random.default_rng(0)
    seen = []

    def looked_at(maps):
        seen.append(maps.shape)
        return np.ones((3, 4)), planted + noise.random((3, 4))

    monkeypatch.setattr("aas.stages.calibrate.gaze", lambda attention, place: planted / 1e4)
    monkeypatch.setattr("aas.stages.calibrate.sums_and_entropies", looked_at)
    monkeypatch.setattr("aas.stages.calibrate_frequency.FIRST_LAYER", 0)
    result = run(photos, "--out", photos / "heads.json")
    assert result.exit_code == 0 and "LocalizationHeads" in result.output, result.output
    content = json.loads((photos / "heads.json").read_text())
    assert [row[:2] for row in content["heads"]] == [[2, 1], [2, 2], [2, 3]]
    assert content["made"]["how"] == "photographs" and content["made"]["photographs"] == 8
    assert len(seen) == 8 and {shape[:2] for shape in seen} == {(3, 4)}


def test_a_model_without_such_heads_is_told(photos):
    result = run(photos, "--out", photos / "heads.json")
    assert result.exit_code == 1 and "no heads that look at what is spoken of" in result.output
    assert not (photos / "heads.json").exists()


def test_too_few_photographs(photos):
    for i in range(3):
        (photos / f"{i}.png").unlink()
    result = run(photos, "--out", photos / "heads.json")
    assert result.exit_code == 2 and "at least 8 photographs" in result.output
    assert run(photos, "--out", photos / "heads").exit_code == 2
    assert "make another model of it" in run(photos, "--out", photos / "model/heads.json").output
