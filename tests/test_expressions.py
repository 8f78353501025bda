"""Given expressions: readers, the way through the models, and the figures."""

import csv
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from aas.datasets.answers import read_answers
from aas.datasets.expressions import Expressions, mask_of
from aas.datasets.png import Png
from aas.datasets.reasonseg import ReasonSeg, drawn
from aas.datasets.refcoco import RefCoco, read_refs
from aas.metrics import bootstrap
from aas.metrics.narratives import narratives
from aas.metrics.overlap import MaskPair
from aas.metrics.referring import referring
from aas.phrases.parser import load_pipeline
from aas.phrases.referent import referent
from aas.phrases.spacing import carried_over
from aas.pointing.prompts import point_prompt
from aas.records import Answer
from aas.segmenters.sam_family import SamFamily
from aas.store.attention import read_item
from tests import expression_scenes as scenes
from tests.command import run


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return scenes.write_all(tmp_path_factory.mktemp("scenes") / "data")


# --------------------------------------------------------------------------------------------------- readers


def read_refcoco(refs: Path, split: str, **options: object) -> Expressions:
    return RefCoco(refs=refs, split=split, **options).read()


def read_png(narratives: Path, panoptic: Path, panoptic_masks: Path | None = None) -> Expressions:
    return Png(narratives=narratives, panoptic=panoptic, panoptic_masks=panoptic_masks).read()


def read_reasonseg(data: Path, sentences: str = "first") -> Expressions:
    return ReasonSeg(data=data, sentences=sentences).read()


def masks(dataset: Expressions) -> dict[str, list[dict]]:
    return {one.id: [target.mask for target in one.read_targets()] for one in dataset.items}


def test_every_format_gives_the_same_masks(data):
    of_refs = masks(read_refcoco(data / "refcoco", "val", split_by="unc"))
    of_refs |= masks(read_refcoco(data / "refcoco", "testB", split_by="unc"))
    of_narratives = masks(read_png(data / "png.json", data / "panoptic.json"))
    of_questions = masks(read_reasonseg(data / "reasonseg"))
    n_compared = 0
    for scene in scenes.SCENES:
        for n, thing in enumerate(scene.things):
            expected = scenes.truth(scene, thing)
            found = [mask for name, (mask,) in of_refs.items() if name.split("_")[0] == str(n_compared)]
            assert found == [expected, expected]
            assert of_narratives[f"{scene.image_id}_0"][n] == expected
            assert of_questions[f"{scene.image_id}_{n}_0"] == [expected]
            n_compared += 1
    first = scenes.SCENES[0]
    assert of_narratives["7_1"] == [scenes.truth(first, first.things[0], first.things[2])]
    assert n_compared == 6 and len(of_refs) == 12 and len(of_narratives) == 4 and len(of_questions) == 6


def test_words_and_kinds(data):
    narratives = {one.id: one for one in read_png(data / "png.json", data / "panoptic.json").items}
    one = narratives["7_0"]
    assert one.image == "000000000007.png" and one.text == one.text.strip()
    assert [one.text[slice(*span)] for span in one.spans] == ["a red box", "a green floor", "a blue box"]
    assert [set(target.kinds) for target in one.read_targets()] == [
        {"things", "singular"}, {"stuff", "singular"}, {"things", "singular"}
    ]  # fmt: skip
    assert [set(target.kinds) for target in narratives["7_1"].read_targets()] == [{"things", "plural"}]
    questions = {one.id: one for one in read_reasonseg(data / "reasonseg", "all").items}
    assert len(questions) == 8 and questions["7_1_1"].text == "And again?" and questions["7_1_1"].is_question
    assert questions["42_1_0"].text == "Where is the small café?" and not questions["7_0_0"].is_question
    firsts = read_refcoco(data / "refcoco", "val", split_by="unc", sentences="first").items
    assert [one.text for one in firsts] == [thing.name for scene in scenes.SCENES[:2] for thing in scene.things]
    assert len(read_refcoco(data / "refcoco", "test", split_by="unc").items) == 2, "test is testA and testB"


def test_utterances_that_do_not_spell_the_caption(data, tmp_path):
    content = json.loads((data / "png.json").read_text())
    content[0]["caption"] = "In this  image there is\na red box , a green floor,a blue box."
    content[2]["caption"] = "Something else."
    (tmp_path / "png.json").write_text(json.dumps(content))
    found = {one.id: one for one in read_png(tmp_path / "png.json", data / "panoptic.json").items}
    assert found["7_0"].text == content[0]["caption"]
    for one in found.values():
        assert all(one.text[start:end].startswith(("a ", "two ")) for start, end in one.spans)
    assert found["42_0"].text == "In this image there is a tall tower , a small café ."


def test_what_cannot_be_used_is_told(data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    here = tmp_path / "data"
    instances = json.loads((here / "refcoco/instances.json").read_text())
    instances["annotations"] = instances["annotations"][1:]
    (here / "refcoco/instances.json").write_text(json.dumps(instances))
    dataset = read_refcoco(here / "refcoco", "val", split_by="unc")
    assert len(dataset.items) == 8 and len(dataset.problems) == 1 and "1000" in dataset.problems[0]
    (here / "reasonseg/7_0.json").write_text('{"text": []}')
    (here / "reasonseg/7_1.json").unlink()
    (here / "reasonseg/42_0.jpg").unlink()
    problems = " ".join(read_reasonseg(here / "reasonseg").problems)
    assert "7_0.json: it has no list `shapes`" in problems and "7_1.jpg: no JSON" in problems and "42_0" in problems
    content = json.loads((here / "png.json").read_text())
    content[0]["segments"][1]["segment_ids"] = ["5"]
    content.append(content[1] | {"image_id": 99})
    (here / "png.json").write_text(json.dumps(content))
    dataset = read_png(here / "png.json", here / "panoptic.json")
    assert len(dataset.items) == 3 and "segment 5" in dataset.problems[0] and "image 99" in dataset.problems[1]
    del content[1]["segments"][1]["segment_ids"]
    (here / "png.json").write_text(json.dumps(content))
    assert "it has no 'segment_ids'" in read_png(here / "png.json", here / "panoptic.json").problems[1]
    (here / "reasonseg/285_0.json").write_text('{"text": "x", "shapes": [{"points": [[0, 0]]}]}')
    assert "285_0.json: it has no 'label'" in read_reasonseg(here / "reasonseg").problems


@pytest.mark.parametrize(
    "read, message",
    [
        (lambda data: read_refcoco(data / "refcoco", "val"), "refs(google).p, refs(unc).p"),
        (lambda data: read_refcoco(data / "refcoco", "testC", split_by="unc"), "testB, val"),
        (lambda data: read_refcoco(data / "refcoco", "val", split_by="unc", sentences="last"), "first, all"),
        (lambda data: read_refcoco(data / "refcoco", "val", split_by="unc", instances=data / "png.json"), "COCO"),
        (lambda data: read_png(data / "panoptic.json", data / "panoptic.json"), "narratives"),
        (lambda data: read_png(data / "png.json", data / "png.json"), "panoptic annotation"),
        (lambda data: read_png(data / "png.json", data / "panoptic.json", data / "nowhere"), "nowhere"),
        (lambda data: read_reasonseg(data / "images"), "ReasonSeg"),
        (lambda data: read_reasonseg(data / "nowhere"), "nowhere"),
    ],
)
def test_mistakes_are_explained(data, read, message):
    with pytest.raises((ValueError, OSError)) as error:
        read(data)
    assert message in str(error.value)


class Evil:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_runs_code_is_refused(data, tmp_path, protocol):
    content = [{"ref_id": 0, "ann_id": 0, "split": "val", "sentences": [], "x": Evil(tmp_path / "ran")}]
    path = tmp_path / "refs(unc).p"
    path.write_bytes(pickle.dumps(content, protocol))
    code, output = run("expressions", "refcoco", "--refs", path, "--out", tmp_path / "rows.jsonl")
    assert code == 2 and "no pickle of references: it wants to import" in output
    assert not (tmp_path / "ran").exists() and not (tmp_path / "rows.jsonl").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"(S'1'\nibuiltins\neval\n.",  # INST
        b"(cos\nsystem\nS'true'\no.",  # OBJ
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.",  # STACK_GLOBAL
        b"\x80\x02\x82\x01.",  # EXT1
        b"Pid\n.",  # PERSID
        b"no pickle",
        b"",
        b"(lp0\nI1\na.",
    ],
)
def test_pickles_that_are_no_references(tmp_path, content):
    (tmp_path / "refs.p").write_bytes(content)
    with pytest.raises(ValueError, match=r"is no (pickle|list) of references"):
        read_refs(tmp_path / "refs.p")


def test_a_pickle_of_python_2(tmp_path):
    keys = b"(lp0\n(dp1\nS'ref_id'\np2\nI7\nsS'ann_id'\np3\nL8L\nsS'split'\np4\nS'val'\np5\ns"
    (tmp_path / "refs.p").write_bytes(keys + b"S'sentences'\np6\n(lp7\n(dp8\nS'sent'\np9\nVcaf\\u00e9\np10\nsasa.")
    (ref,) = read_refs(tmp_path / "refs.p")
    assert ref == {"ref_id": 7, "ann_id": 8, "split": "val", "sentences": [{"sent": "café"}]}


def test_polygons_on_polygons():
    """Small ones lie on large ones, whatever their order; what is ignored is neither."""
    inner = {"label": "ignore", "points": [[4, 4], [6.9, 4], [6, 6.2], [4, 6]]}
    innermost = {"label": "Target", "points": [[5, 5]]}
    outer = {"label": "target", "points": [[2, 2], [9, 2], [9, 9], [2, 9]]}
    expected = np.zeros((12, 12), np.uint8)
    expected[2:10, 2:10] = 1
    expected[4:7, 4:7] = 255
    expected[5, 5] = 1
    for shapes in ([inner, innermost, outer], [outer, inner, innermost]):
        np.testing.assert_array_equal(drawn(shapes, (12, 12)), expected)


def test_masks_that_coco_knows():
    mask = np.zeros((5, 6), bool)
    mask[1:3, 2:4] = True
    compressed = scenes.run_lengths(mask)
    for same in (compressed, compressed | {"counts": compressed["counts"].encode()}, [compressed, compressed]):
        assert mask_of(same, 5, 6) == compressed
    assert coco_mask.area(mask_of([], 5, 6)) == 0


def test_real_panoptic_segments(shared_dir, tmp_path):
    """Every segment has the area that COCO says it has, and its pixels are those of its colour."""
    coco = shared_dir / "data/coco/annotations"
    annotation = coco / "panoptic_subset_val2017.json"
    content = json.loads(annotation.read_text())
    narratives = [
        {"image_id": entry["image_id"], "caption": "", "segments": [
            {"utterance": f"thing {i}", "segment_ids": [str(part["id"])], "noun": True}
            for i, part in enumerate(entry["segments_info"])
        ]}
        for entry in content["annotations"]
    ]  # fmt: skip
    (tmp_path / "png.json").write_text(json.dumps(narratives))
    dataset = read_png(tmp_path / "png.json", annotation)
    assert len(dataset.items) == len(narratives) and not dataset.problems
    for expression, entry in zip(dataset.items, content["annotations"], strict=True):
        image = Image.open(annotation.with_suffix("") / entry["file_name"])
        red, green, blue = np.moveaxis(np.array(image.convert("RGB")).astype(np.int64), 2, 0)
        for target, part in zip(expression.read_targets(), entry["segments_info"], strict=True):
            assert coco_mask.area(target.mask) == part["area"]
            same = red + (green << 8) + (blue << 16) == part["id"]
            np.testing.assert_array_equal(coco_mask.decode(target.mask).astype(bool), same)


# --------------------------------------------------------------------------------------------------- figures


def random_masks(n: int, seed: int) -> list[np.ndarray]:
    """Rectangles of all sizes, some of them empty."""
    random = np.random.default_rng(seed)
    found = []
    for i in range(n):
        mask = np.zeros((40, 50), bool)
        (y0, y1), (x0, x1) = np.sort(random.integers(0, 40, 2)), np.sort(random.integers(0, 50, 2))
        mask[y0:y1, x0:x1] = i % 7 > 0
        found.append(mask)
    return found


def figures_of(evidence: dict) -> dict[str, float]:
    n_images = len(evidence[next(iter(evidence))]["n"])
    return {name: values[0] for name, values in bootstrap.figures(evidence, np.ones((1, n_images))).items()}


def test_figures_equal_those_of_decoded_masks():
    predicted, target, ignore = (random_masks(300, seed) for seed in range(3))
    pairs, ious, intersections, unions = [], [], [], []
    kinds = [{"stuff" if i % 3 else "things", "plural" if i % 5 else "singular"} for i in range(300)]
    for i, (p, t, g) in enumerate(zip(predicted, target, ignore, strict=True)):
        g = g & (i % 2 == 0)
        pairs.append(
            MaskPair(*map(scenes.run_lengths, (p, t)), scenes.run_lengths(g) if i % 2 == 0 else None, kinds[i])
        )
        p, t = p[~g], t[~g]
        intersections.append((p & t).sum())
        unions.append((p | t).sum())
        ious.append(intersections[-1] / unions[-1] if unions[-1] else 1.0)
    scores = figures_of(referring(pairs, range(300)))
    expected = {"cIoU": sum(intersections) / sum(unions), "gIoU": np.mean(ious)}
    expected |= {f"Pr@{t}": np.mean([iou >= t for iou in ious]) for t in (0.5, 0.7, 0.9)}
    assert scores == pytest.approx(expected, abs=1e-9)

    scores = figures_of(narratives(pairs, np.arange(300) // 3))
    for kind in ("things", "stuff", "singular", "plural"):
        mine = [iou for iou, of in zip(ious, kinds, strict=True) if kind in of]
        assert scores[f"AR_{kind}"] == pytest.approx(np.mean(mine), abs=1e-9)
    thresholds = np.linspace(0, 1, 20_001)
    recall = [np.mean(np.array(ious) >= t) for t in thresholds]
    assert scores["AR"] == pytest.approx(np.trapezoid(recall, thresholds), abs=1e-4), "the area under the recall curve"
    assert scores["AR"] == pytest.approx(np.mean(ious), abs=1e-9)


def test_nothing_found_and_nothing_there():
    nothing, something = scenes.run_lengths(np.zeros((4, 4))), scenes.run_lengths(np.eye(4))
    assert MaskPair(nothing, nothing).iou == 1 and MaskPair(None, nothing).iou == 0
    assert MaskPair(something, nothing).iou == 0 and MaskPair(None, something).overlap.union == 4
    assert MaskPair(something, nothing, something).iou == 1, "what is ignored does no harm"
    stuff = MaskPair(something, something, kinds=frozenset({"stuff"}))
    assert np.isnan(figures_of(narratives([stuff], [0]))["AR_things"])
    with pytest.raises(ValueError, match="4 x 4 and 5 x 5"):
        MaskPair(scenes.run_lengths(np.eye(5)), something)


@pytest.fixture
def perfect(data, tmp_path) -> Path:
    """A result for every narrative, as it should be."""
    (tmp_path / "results").mkdir()
    for name, found in masks(read_png(data / "png.json", data / "panoptic.json")).items():
        (tmp_path / "results" / f"{name}.json").write_text(json.dumps({"image_id": name, "pred_masks": found}))
    return tmp_path / "results"


def scored_png(data: Path, results: Path) -> tuple[int, str, dict]:
    target = results.parent / "scores.json"
    narratives = ("--narratives", data / "png.json", "--panoptic", data / "panoptic.json")
    table = results.parent / "table.csv"
    code, output = run("eval", "png", *narratives, "--results", results, "--json", target, "--csv", table)
    return code, output, json.loads(target.read_text())


def test_perfect_masks(data, perfect):
    code, output, scores = scored_png(data, perfect)
    assert code == 0 and "| 1.000 [1.000, 1.000] |" in output
    assert {scores[key] for key in ("AR", "AR_things", "AR_stuff", "AR_singular", "AR_plural", "recall@0.5")} == {1.0}
    assert scores["counts"] == {
        "expressions": 4, "images": 3, "masks": 7, "not_predicted": 0, "unusable": 0, "extra": 0
    }  # fmt: skip
    rows = list(csv.DictReader((perfect.parent / "table.csv").read_text().splitlines()))
    assert len(rows) == 7 and rows[3]["words"] == "two boxes" and rows[3]["kinds"] == "plural things"


def test_masks_of_other_tools(data, perfect):
    """Runs as numbers, and polygons, are masks too."""
    item = json.loads((perfect / "7_0.json").read_text())
    first = scenes.SCENES[0]
    item["pred_masks"] = [scenes.segmentation(thing, first.size_hw, n) for n, thing in enumerate(first.things)]
    assert isinstance(item["pred_masks"][0], list) and isinstance(item["pred_masks"][2]["counts"], list)
    (perfect / "7_0.json").write_text(json.dumps(item))
    assert scored_png(data, perfect)[2]["AR"] == 1
    too_short = {"size": list(first.size_hw), "counts": "52203"}
    for wrong in ([None, 5], [too_short, {"counts": []}], [[[1, 2]], ["x"]]):
        item["pred_masks"][1:] = wrong
        (perfect / "7_0.json").write_text(json.dumps(item))
        code, output, scores = scored_png(data, perfect)
        assert code == 3 and scores["AR"] == pytest.approx(5 / 7)
        assert "7_0: mask 1 is no mask of the photograph" in output and "7_0: mask 2 is" in output


def test_missing_and_damaged_results_count_zero_and_are_told(data, perfect, tmp_path):
    (perfect / "285_0.json").unlink()
    (perfect / "42_0.json").write_text("{")
    first = json.loads((perfect / "7_0.json").read_text())
    first["pred_masks"][0] = scenes.run_lengths(np.ones((3, 3)))
    (perfect / "7_0.json").write_text(json.dumps(first))
    (perfect / "7_1.json").write_text(json.dumps({"pred_masks": []}))
    (perfect / "other.json").write_text("{}")
    code, output, scores = scored_png(data, perfect)
    assert code == 3 and scores["AR"] == pytest.approx(2 / 7) and scores["AR_plural"] == 0
    assert scores["counts"] | {"images": 3} == {
        "expressions": 4, "images": 3, "masks": 7, "not_predicted": 5, "unusable": 0, "extra": 1
    }  # fmt: skip
    for problem in ("285_0: no result", "damaged", "3 x 3", "0 masks for 1 targets"):
        assert problem in output
    assert scores["reported"]["extra"] == ["other"]


def test_several_runs_in_one_table(data, perfect, tmp_path):
    """Each beside the first, with the paired difference; what is missing in one costs that one only."""
    worse = tmp_path / "worse"
    shutil.copytree(perfect, worse)
    (worse / "285_0.json").unlink()
    (worse / "run.json").write_text(json.dumps({"arguments": {"head": "trained/head.safetensors"}}))
    narratives = ("--narratives", data / "png.json", "--panoptic", data / "panoptic.json")
    both = ("--results", perfect, "--results", worse)
    files = ("--json", tmp_path / "both.json", "--csv", tmp_path / "both.csv")
    code, output = run("eval", "png", *narratives, *both, *files)
    found = json.loads((tmp_path / "both.json").read_text())
    change = found["differences"]["worse"]["expressions"]["AR"]
    assert code == 3 and "worse: 285_0: no result" in output and "worse: --head trained/head.safetensors" in output
    assert found["runs"]["results"] == scored_png(data, perfect)[2]
    assert found["runs"]["worse"] == scored_png(data, worse)[2]
    assert change["a"] == 1 and change["difference"] == pytest.approx(-1 / 7) and change["interval"][0] < -1 / 7
    assert "| worse − results " in output and "| -0.143 [" in output
    rows = list(csv.DictReader((tmp_path / "both.csv").read_text().splitlines()))
    assert [row["run"] for row in rows] == ["results"] * 7 + ["worse"] * 7
    output = run("eval", "png", *narratives, *both, "--bootstrap", 0)[1]
    assert "| worse " in output and "−" not in output


@pytest.mark.parametrize(
    "masks, said",
    [
        ([[[1, 2, 3, 4]]], "none of its polygons has three points"),
        ([[["a", 2, 3, 4, 5, 6]]], "no list of numbers"),
        ([{"size": [3], "counts": "0"}], "size"),
        ([7], "neither polygons nor run lengths"),
        ({"0": 1}, "pred_masks are no list"),
        ("abc", "pred_masks are no list"),
        (None, "pred_masks are no list"),
    ],
)
def test_a_damaged_prediction_counts_zero_and_is_named(data, perfect, masks, said):
    item = json.loads((perfect / "285_0.json").read_text())
    (perfect / "285_0.json").write_text(json.dumps(item | {"pred_masks": masks}))
    code, output, scores = scored_png(data, perfect)
    assert code == 3 and scores["AR"] == pytest.approx(6 / 7) and scores["counts"]["unusable"] == 0
    assert scores["counts"]["not_predicted"] == 1 and "285_0" in output and said in output


@pytest.mark.parametrize("key, value", [("caption", None), ("caption", 5), ("segments", None), ("segments", [None])])
def test_a_narrative_without_words_costs_no_other(data, tmp_path, key, value):
    content = json.loads((data / "png.json").read_text())
    n_good = len(read_png(data / "png.json", data / "panoptic.json").items)
    content.append(content[0] | {key: value})
    content.append(content[0] | {"segments": [{"utterance": None, "segment_ids": []}]})
    (tmp_path / "png.json").write_text(json.dumps(content))
    found = read_png(tmp_path / "png.json", data / "panoptic.json")
    assert len(found.items) == n_good and len(found.problems) == 2 and key in found.problems[0]


def test_panoptic_ids_in_every_spelling(data, tmp_path):
    narratives, panoptic = (json.loads((data / name).read_text()) for name in ("png.json", "panoptic.json"))
    for one in narratives:
        one["image_id"] = str(one["image_id"])
        for part in one["segments"]:
            part["segment_ids"] = [float(i) for i in part["segment_ids"]]
    for category in panoptic["categories"]:
        category |= {"id": str(category["id"]), "isthing": str(int(category["isthing"]))}
    for entry in panoptic["annotations"]:
        entry["image_id"] = float(entry["image_id"])
    for name, content in (("png.json", narratives), ("panoptic.json", panoptic)):
        (tmp_path / name).write_text(json.dumps(content))
    spelled = read_png(tmp_path / "png.json", tmp_path / "panoptic.json", data / "panoptic")
    plain = read_png(data / "png.json", data / "panoptic.json")
    assert not spelled.problems and [one.id for one in spelled.items] == [one.id for one in plain.items]
    for one, other in zip(spelled.items, plain.items, strict=True):
        assert one.read_targets() == other.read_targets()


def test_ground_truth_that_cannot_be_read_is_left_out(data, perfect, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data/panoptic/000000000042.png").unlink()
    (tmp_path / "data/panoptic/000000000285.png").write_bytes(b"broken")
    code, output, scores = scored_png(tmp_path / "data", perfect)
    assert code == 3 and scores["AR"] == 1 and scores["counts"]["unusable"] == 2 and scores["counts"]["masks"] == 4
    assert "42_0" in output and "285_0" in output


def test_results_of_something_else(data, tmp_path):
    narratives = ("--narratives", data / "png.json", "--panoptic", data / "panoptic.json")
    code, output = run("eval", "png", *narratives, "--results", tmp_path)
    assert code == 2 and "7_0.json" in output
    assert run("eval", "png", *narratives, "--results", tmp_path / "nowhere")[0] == 2


def test_expressions_of_a_photograph_as_one_text(data, tmp_path):
    """--concat: the same words and masks as one by one, each where it stands."""
    options = {"split_by": "unc", "sentences": "first"}
    single, together = (read_refcoco(data / "refcoco", "val", concat=concat, **options) for concat in (False, True))
    assert len(together.items) == len({one.image for one in single.items}) < len(single.items)
    for one in together.items:
        mine = [other for other in single.items if other.image == one.image]
        assert one.text == " ".join(f"{other.text}." for other in mine) and one.id == one.image
        assert [one.text[slice(*span)] for span in one.spans] == [other.text for other in mine]
        assert one.read_targets() == [target for other in mine for target in other.read_targets()]
    dataset = ("--refs", data / "refcoco", "--split-by", "unc", "--sentences", "first", "--concat")
    assert run("expressions", "refcoco", *dataset, "--out", tmp_path / "rows")[0] == 0
    row = json.loads((tmp_path / "rows").read_text().splitlines()[0])
    assert row["answer"] == together.items[0].text and row["spans"] == [list(span) for span in together.items[0].spans]
    results = tmp_path / "results"
    results.mkdir()
    for name, found in masks(together).items():
        (results / f"{name}.json").write_text(json.dumps({"image_id": name, "pred_masks": found}))
    code, output = run("eval", "refcoco", *dataset, "--results", results)
    assert code == 0 and f"{len(single.items)} masks of {len(together.items)} expressions" in output
    code, output = run("expressions", "refcoco", *dataset, "--ask", "Where is {expression}?", "--out", tmp_path / "x")
    assert code == 2 and "--concat" in output


# ----------------------------------------------------------------------------------------------- the whole way


def grounded(rows: Path, images: Path, out: Path, *more: object) -> Path:
    code, output = run("infer-attn", "--images", images, "--answers", rows, "--out", out / "attn", "--max-new-tokens",
                       12, *more)  # fmt: skip
    assert code == 0, output
    where = ("--attn", out / "attn", "--images", images, "--answers", rows, "--out", out / "masks")
    code, output = run("segment", "expressions", *where, "--workers", 0)
    assert code == 0, output
    assert run("verify", out / "masks")[0] == 0
    return out / "masks"


def test_refcoco_all_the_way(data, tmp_path):
    dataset = ("--refs", data / "refcoco", "--split-by", "unc")
    rows = tmp_path / "rows.jsonl"
    assert run("expressions", "refcoco", *dataset, "--out", rows, "--say", "Here is {expression}.")[0] == 0
    results = grounded(rows, data / "images", tmp_path, "--alignment", "self")
    item = json.loads((results / "0_1.json").read_text())
    assert item["image"] == "000000000007.png" and item["caption"] == "Here is the red box over there."
    assert item["phrases"] == ["the red box over there"] and item["spans"] == [[8, 30]]
    stored = read_item(tmp_path / "attn/0_1.safetensors")
    assert stored.attention.alignment == "self"
    maps = stored.attention.maps.astype(np.float64)
    mine = [i for i, (start, end) in enumerate(stored.answer.token_spans) if start < 30 and end > 8 and end > start]
    assert item["token_indices"] == [mine]
    residual = (maps - maps.mean(axis=0))[mine].max(axis=0).astype(np.float32)
    assert tuple(item["points"][0]) == point_prompt(residual, stored.attention.view, (120, 180))
    code, _ = run("eval", "refcoco", *dataset, "--results", results, "--json", tmp_path / "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert code == 0 and scores["counts"]["masks"] == 10 and 0 <= scores["cIoU"] <= 1
    code, _ = run("show", "masks", results, "--out", tmp_path / "pictures", "--only", "0_1")
    assert code == 0 and (tmp_path / "pictures/0_1.png").exists()
    parts = tmp_path / "parts"
    where = ("--attn", tmp_path / "attn", "--images", data / "images", "--answers", rows, "--out", parts)
    for chunk in range(2):
        assert run("segment", "expressions", *where, "--num-chunks", 2, "--chunk-idx", chunk)[0] == 0
    for path in results.glob("[0-9]*.json"):
        assert (parts / path.name).read_bytes() == path.read_bytes()


def test_a_photograph_is_encoded_once_for_all_its_expressions(data, tmp_path, monkeypatch):
    rows = tmp_path / "rows.jsonl"
    run("expressions", "refcoco", "--refs", data / "refcoco", "--split-by", "unc", "--out", rows)
    encoded = []
    encode = SamFamily.encode
    monkeypatch.setattr(SamFamily, "encode", lambda self, images: encoded.extend(images) or encode(self, images))
    results = grounded(rows, data / "images", tmp_path)
    assert len(list(results.glob("[0-9]*.json"))) == 10 and len(encoded) == 2


def test_png_all_the_way(data, tmp_path):
    dataset = ("--narratives", data / "png.json", "--panoptic", data / "panoptic.json")
    assert run("expressions", "png", *dataset, "--out", tmp_path / "rows.jsonl")[0] == 0
    results = grounded(tmp_path / "rows.jsonl", data / "images", tmp_path, "--alignment", "self")
    item = json.loads((results / "42_0.json").read_text())
    assert item["phrases"] == ["a tall tower", "a small café"] and len(item["pred_masks"]) == 2
    code, _, scores = scored_png(data, results)
    assert code == 0 and scores["counts"]["masks"] == 7 and 0 <= scores["AR"] <= 1


def test_reasonseg_all_the_way(data, tmp_path):
    dataset = ("--data", data / "reasonseg")
    rows = tmp_path / "rows.jsonl"
    assert run("expressions", "reasonseg", *dataset, "--out", rows)[0] == 0
    asked = {row.id: row.question for row in read_answers(rows)}
    assert asked["7_0_0"] == "What is red box in this image?" and asked["7_1_0"] == "Where is the green floor?"
    results = grounded(rows, data / "reasonseg", tmp_path)
    item = json.loads((results / "7_1_0.json").read_text())
    assert item["question"] == "Where is the green floor?" and len(item["pred_masks"]) == 1
    code, output = run("eval", "reasonseg", *dataset, "--results", results)
    assert code == 0 and "6 masks of 6 expressions in 6 images" in output


def test_expressions_without_attention_are_told(data, tmp_path):
    dataset = ("--refs", data / "refcoco", "--split-by", "unc", "--sentences", "first")
    rows = tmp_path / "rows.jsonl"
    run("expressions", "refcoco", *dataset, "--out", rows)
    lines = rows.read_text().splitlines()
    (tmp_path / "some.jsonl").write_text("\n".join(lines[:2]))
    grounded(tmp_path / "some.jsonl", data / "images", tmp_path)
    where = ("--attn", tmp_path / "attn", "--images", data / "images", "--out", tmp_path / "all")
    code, output = run("segment", "expressions", *where, "--answers", rows)
    assert code == 3 and "2_20: no attention item" in output and "2 done" in output
    other = json.loads(lines[0]) | {"answer": "some other words", "spans": [[0, 4]]}
    (tmp_path / "other.jsonl").write_text("\n".join([json.dumps(other), lines[1]]))
    where = (*where[:-1], tmp_path / "others", "--answers", tmp_path / "other.jsonl")
    code, output = run("segment", "expressions", *where)
    assert code == 3 and "other words" in output and "1 done" in output
    assert run("segment", "expressions", *where[:-2])[0] == 2
    assert run("segment", "gcg", *where)[0] == 2


# ------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    "lines, message",
    [
        (['{"image": "a", "answer": "x"}', '{"image": "a", "answer": "y"}'], "line 2: a is there twice; give each"),
        (['{"image": "a", "id": 1, "answer": "x"}', '{"image": "b", "id": 1, "answer": "y"}'], "1 is there twice"),
        (['{"image": "a", "answer": "x"}', '{"image": "b", "question": "y"}'], "some lines have an answer"),
        (['{"image": "a"}'], "the answer is missing"),
        (['{"image": "a", "answer": " "}'], "the answer is empty"),
        (['{"image": "a", "question": " "}'], "the question is empty"),
        (['{"image": "a", "answer": "x", "spans": [[0, 2]]}'], "characters of the answer"),
        (['{"image": "a", "answer": "x y", "spans": [[1, 2]]}'], "characters of the answer"),
        (['{"image": "a", "answer": "x", "spans": []}'], "characters of the answer"),
        (['{"image": "a", "answer": "x", "spans": 7}'], "characters of the answer"),
        (['{"image": "a", "question": "x", "spans": [[0, 1]]}'], "there is none"),
    ],
)
def test_lines_that_cannot_be_used(tmp_path, lines, message):
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"rows\.jsonl") as error:
        read_answers(tmp_path / "rows.jsonl")
    assert message in str(error.value)


def test_spans_in_a_text_with_other_spaces():
    text, other = "a dog , on\n a bench .", "a dog, on a  bench."
    spans = [(0, 5), (6, 7), (12, 19)]
    carried = carried_over(spans, text, other)
    assert [other[slice(*span)] for span in carried] == ["a dog", ",", "a  bench"]
    assert carried_over(spans, text, "a dog, on a beach.") is None
    assert carried_over(spans, text, text) == spans


@pytest.fixture(scope="module")
def pipeline():
    return load_pipeline("embedded")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("The red cup is on the table.", "The red cup"),
        ("It is the orange on the left.", "the orange"),
        ("The food that he eats is an apple.", "an apple"),
        ("There is a dog on the bench.", "a dog"),
        ("The dog.", "The dog"),
        ("A man in a red shirt", "A man"),
        ("I can see a cat near the window.", "a cat"),
        ("The woman holds an umbrella. It is a red umbrella.", "The woman"),
        ("Yes.", "Yes."),
    ],
)
def test_what_an_answer_is_about(pipeline, text, expected):
    answer = Answer("", text, tuple(range(len(text))), tuple((i, i + 1) for i in range(len(text))))
    assert referent(pipeline, answer).text == expected


def test_an_empty_answer_is_about_nothing(pipeline):
    assert referent(pipeline, Answer("", "", (2,), ((0, 0),))) is None


def test_two_runs_are_compared(data, perfect, tmp_path):
    scored_png(data, perfect)
    better = perfect.parent / "better.json"
    (perfect.parent / "scores.json").rename(better)
    (perfect / "7_0.json").unlink()
    scored_png(data, perfect)
    target = tmp_path / "change.json"
    code, output = run("eval", "compare", perfect.parent / "scores.json", better, "--json", target)
    change = json.loads(target.read_text())["expressions"]["AR"]
    assert code == 0 and "AR" in output
    assert change["b"] == 1 and change["difference"] == pytest.approx(3 / 7), "three of seven masks were 7_0's"
