"""`--maps` in the commands and in Python: what is stored, what points, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

import aas
from aas.geometry import centroid_xy, deepest_xy, largest_pixel_xy, region_xy
from aas.geometry.maps import map_on_image
from aas.lmms.yes_no import yes_probabilities
from aas.maps.blackbox import Blackbox
from aas.presets import MAPS_EMBEDDED
from aas.records import View
from aas.registry import MAP_SOURCES
from aas.stages.ground_options import Ground
from aas.store.attention import read_item
from tests import tiny
from tests.command import run
from tests.test_adding import follow

ANSWER = "a cat on a blanket"


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    Image.fromarray(data.chelsea()).save(folder / "cat.png")
    return folder


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("answers") / "answers.jsonl"
    file.write_text(json.dumps({"image": "cat.png", "answer": ANSWER}) + "\n")
    return file


@pytest.fixture(scope="module")
def grounder() -> aas.Grounder:
    return aas.Grounder(maps=["tam", "mean"], drop=())


def test_infer_attn_stores_all_and_segment_takes_one(photos, answers, tmp_path, grounder):
    attn = tmp_path / "attn"
    asked = ("infer-attn", "--images", photos, "--answers", answers, "--out")
    assert run(*asked, attn, "--maps", "mean,tam,fused")[0] == 0
    assert run(*asked, tmp_path / "plain")[0] == 0
    item, plain = (read_item(folder / "cat.png.safetensors") for folder in (attn, tmp_path / "plain"))
    assert item.attention.sources == ("mean", "tam", "fused") and plain.attention.sources == ("mean",)
    np.testing.assert_allclose(item.attention.maps, plain.attention.maps, atol=1e-7)
    points = {}
    for name in ("mean", "tam"):
        code, output = run(
            "segment", "gcg", "--attn", attn, "--images", photos, "--out", tmp_path / name, "--maps", name
        )
        assert code == 0, output
        points[name] = json.loads((tmp_path / name / "cat.json").read_text())["points"]
    assert (
        run("segment", "gcg", "--attn", tmp_path / "plain", "--images", photos, "--out", tmp_path / "default")[0] == 0
    )
    assert json.loads((tmp_path / "default/cat.json").read_text())["points"] == points["mean"] != points["tam"]
    grounding = grounder(data.chelsea(), answer=ANSWER)
    assert grounding.points_xy.tolist() == points["tam"] and grounding.attention.sources == ("tam", "mean")
    where = ("--attn", attn, "--images", photos, "--out", tmp_path / "none")
    code, output = run("segment", "gcg", *where, "--maps", "lens")
    assert code == 2 and "holds no maps of 'lens', but of mean, tam, fused: run `aas infer-attn --maps lens`" in output


def test_the_default_writes_what_it_always_wrote(photos, answers, tmp_path):
    assert run("infer-attn", "--images", photos, "--answers", answers, "--out", tmp_path)[0] == 0
    header = (tmp_path / "cat.png.safetensors").read_bytes()
    assert b"sources" not in header and b"maps." not in header
    arguments = json.loads((tmp_path / "run.json").read_text())["arguments"]
    assert "maps" not in arguments and "read_out" not in arguments
    code, output = run("infer-attn", "--images", photos, "--answers", answers, "--out", tmp_path, "--maps", "tam")
    assert code == 2 and "other arguments" in output


def test_ground_saves_all_sources_and_loads_them(photos, tmp_path):
    code, output = run(
        "ground", photos / "cat.png", "--answer", ANSWER, "--maps", "attribution,mean", "--out", tmp_path
    )
    assert code == 0, output
    loaded = aas.Grounding.load(tmp_path / "cat.json")
    assert loaded.attention.sources == ("attribution", "mean")
    assert json.loads((tmp_path / "run.json").read_text())["arguments"]["maps"] == "attribution,mean"


def test_a_changed_calibration_makes_other_results(photos, tmp_path):
    calibration = tmp_path / "heads.json"
    calibration.write_text(json.dumps({"heads": [[0, 1], [2, 3]]}))
    asked = ("infer-attn", "--images", photos, "--out", tmp_path / "attn", "--max-new-tokens", 3)
    assert run(*asked, "--maps", f"heads:{calibration}")[0] == 0
    calibration.write_text(json.dumps({"heads": [[0, 2]]}))
    code, output = run(*asked, "--maps", f"heads:{calibration}")
    assert code == 2 and f"the content of --maps {calibration} is another" in output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--maps", "men"), "Unknown map source 'men'. Known: attribution"),
        (("--maps", "mean,mean"), "one or more different names"),
        (("--maps", "layers:90"), "numbered from 0: no 90"),
        (("--maps", "tam", "--layers", "0"), "choose their own layers and heads"),
        (("--maps", "tam", "--preset", "reference-2024"), "choose their own layers and heads"),
        (("--maps", "heads:none.json"), "none.json"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(photos, tmp_path, arguments, said):
    code, output = run("ground", photos / "cat.png", "--out", tmp_path / "out", *arguments)
    assert code == 2 and said in output and len(output.strip().splitlines()) <= 2
    assert not (tmp_path / "out").exists()


def test_sources_are_listed():
    rows = json.loads(run("list", "maps", "--json")[1])
    assert [row["id"] for row in rows] == sorted(MAP_SOURCES) and all(len(row["what"]) > 20 for row in rows)


def test_a_source_is_a_file_and_a_line(photos, tmp_path, monkeypatch):
    """docs/maps.md, followed to the letter."""
    listing, grounding = follow("maps.md", monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(data.chelsea()).save("photo.png")
    assert "boldest" in run(*listing[1:])[1]
    assert run(*grounding[1:])[0] == 0
    bold = aas.Grounding.load(tmp_path / "bold/photo.json")
    _, kept = aas.Grounder().attention(data.chelsea(), answer="a cat")
    np.testing.assert_allclose(bold.token_maps, kept.maps.max((0, 1)), atol=1e-7)
    assert bold.attention.sources == ("boldest", "fused:boldest+mean")


# ---- the black box ---------------------------------------------------------------------------------


def test_yes_over_yes_and_no():
    """Against the model's own logits, alone and in a batch."""
    lmm = tiny.family("llava")
    asked = [lmm.prepare(tiny.a_photo(seed=i), question) for i, question in enumerate(("Is it?", "Is it a big dog?"))]
    found = yes_probabilities(lmm, asked)
    for one, ours in zip(asked, found, strict=True):
        with torch.no_grad():
            words = lmm.model(**one.inputs).logits[0, -1].softmax(-1)
        ids = [
            {
                lmm.tokenizer(f"{space}{word}", add_special_tokens=False).input_ids[0]
                for space in ("", " ")
                for word in words_
            }
            for words_ in (("yes", "Yes", "YES"), ("no", "No", "NO"))
        ]
        yes, no = (float(words[list(some - (ids[0] & ids[1]))].sum()) for some in ids)
        assert ours == pytest.approx(yes / (yes + no), rel=1e-4)
    with pytest.raises(ValueError, match="cannot be asked for yes or no"):
        yes_probabilities(tiny.family("florence2"), [])


def test_bands_cover_the_image_once():
    photo = tiny.a_photo((37, 53))
    views = Blackbox("5").views(photo)
    changed = np.array([(view != photo).any(-1) for view in views])
    assert len(views) == 10 and (changed[:5].sum(0) <= 1).all() and (changed[5:].sum(0) <= 1).all()
    assert changed[:5].any(0).mean() > 0.99 and changed[5:].any(0).mean() > 0.99
    rows, columns = np.nonzero(changed[3])[0], np.nonzero(changed[7])[1]
    assert (rows.min(), rows.max()) == (22, 28) and (columns.min(), columns.max()) == (21, 30)


def test_the_point_is_where_the_answers_say(monkeypatch):
    """A model that says yes where a red band covers pixel (330, 90) of the cat."""
    grounder = aas.Grounder(maps="blackbox:6", read_out="region")
    (height, width), asked = data.chelsea().shape[:2], []
    seen = lambda lmm, batch: np.array([asked.append(one.question) or 0.1 for one in batch])  # noqa: E731
    monkeypatch.setattr("aas.ground.bands.yes_probabilities", seen)
    flat = grounder(data.chelsea(), answer="a cat")
    assert asked == ["Is a cat in the red band of the image? Answer with yes or no."] * 12
    assert flat.attention.source == "blackbox:6" and np.allclose(flat.phrases[0].map, 0.01)
    answers = iter([0.1, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.8, 0.1])
    monkeypatch.setattr(
        "aas.ground.bands.yes_probabilities", lambda lmm, batch: np.array([next(answers) for _ in batch])
    )
    x, y = grounder(data.chelsea(), answer="a cat").phrases[0].point_xy
    assert height / 6 <= y < height / 3 and 4 * width / 6 <= x < 5 * width / 6


@pytest.mark.parametrize(
    ("maps", "said"),
    [("blackbox,mean", "a grid of its own"), ("blackbox:1", "from 2 to 64"), ("blackbox:x", "from 2 to 64")],
)
def test_a_black_box_that_cannot_be(maps, said):
    with pytest.raises(ValueError, match=said):
        aas.Grounder(maps=maps)


def test_a_black_box_needs_phrases(photos, tmp_path):
    code, output = run("infer-attn", "--images", photos, "--out", tmp_path / "out", "--maps", "blackbox")
    assert code == 2 and "blackbox asks about phrases" in output and not (tmp_path / "out").exists()


# ---- read-outs -------------------------------------------------------------------------------------

VIEW, IMAGE_HW = View((6, 8), (-10, 0, 70, 60)), (60, 64)


def test_centroid_and_region_on_the_image():
    """Against the whole map on the image, on a view that reaches beyond it."""
    grid = np.random.default_rng(0).random((6, 8)).astype(np.float32)
    grid[1:4, 5:7] += 2
    pixels = map_on_image(grid, VIEW, IMAGE_HW).astype(np.float64)
    above = np.clip(pixels - pixels.mean(), 0, None)
    y, x = np.mgrid[: IMAGE_HW[0], : IMAGE_HW[1]] + 0.5
    expected = (int((x * above).sum() / above.sum()), int((y * above).sum() / above.sum()))
    assert centroid_xy(grid, VIEW, IMAGE_HW) == expected
    x, y = region_xy(grid, VIEW, IMAGE_HW)
    assert above[y, x] > 0 and (x, y) != largest_pixel_xy(grid, VIEW, IMAGE_HW)
    flat = np.full((6, 8), 0.1, np.float32)
    assert (
        centroid_xy(flat, VIEW, IMAGE_HW) == region_xy(flat, VIEW, IMAGE_HW) == largest_pixel_xy(flat, VIEW, IMAGE_HW)
    )


def test_a_region_beats_a_higher_but_smaller_one():
    grid = np.zeros((6, 8), np.float32)
    grid[0, 1], grid[3:6, 4:7] = 3, 1
    assert largest_pixel_xy(grid, VIEW, IMAGE_HW)[1] < 15
    x, y = region_xy(grid, VIEW, IMAGE_HW)
    assert 35 < x < 55 and 35 < y < 55
    above = map_on_image(grid, VIEW, IMAGE_HW) > map_on_image(grid, VIEW, IMAGE_HW).mean()
    assert (x, y) == deepest_xy(above & (np.indices(IMAGE_HW)[0] > 20))


def test_the_first_point_is_the_one_that_is_read_out():
    grounder = aas.Grounder(maps="mean", read_out="region")
    (phrase,) = grounder(data.chelsea(), answer="a cat").phrases
    assert (
        phrase.point_xy
        == phrase.points_xy[0]
        == region_xy(phrase.map, grounder(data.chelsea(), answer="a cat").view, data.chelsea().shape[:2])
    )
    with pytest.raises(ValueError, match="Unknown read_out 'middle'"):
        aas.Grounder(read_out="middle")


def test_attention_of_another_source():
    lmm = tiny.family("llava")
    _, attention = lmm.ask(tiny.a_photo(), "Who?", "a dog", aas.asking.ask_options(maps="mean,lens"))
    lens = attention.of("lens")
    assert lens.sources == ("lens", "mean") and lens.of("mean").maps is attention.maps
    with pytest.raises(ValueError, match="no maps of 'tam', but of: mean, lens"):
        attention.of("tam")


def test_the_embedded_lmm_is_read_by_a_sum(grounder):
    """Unless something is said of attention, or of the method; other models are read by the mean."""
    same = {"segmenter": grounder.segmenter, "phrases": grounder.pipeline}

    def maps(model: object, **said: object) -> tuple[str, ...]:
        return aas.Grounder(model, **same, **said).ask_options.maps

    assert maps(grounder.lmm) == (MAPS_EMBEDDED,)
    assert maps(grounder.lmm.model, processor=grounder.lmm.processor) == ("mean",)
    for said in ({"preset": "paper"}, {"maps": "mean"}, {"layers": (0,)}, {"heads": (1,)}, {"alignment": "self"}):
        assert maps(grounder.lmm, **said) == ("mean",), said
    for said, expected in (({}, MAPS_EMBEDDED), ({"preset": "paper"}, "mean"), ({"model": "other"}, "mean")):
        assert Ground(images=("a.jpg",), **said).maps_used == expected
