"""What heads learn from: RefCOCO, panoptic narratives and COCO's categories as photographs with phrases and masks."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aas import rle
from aas.datasets.refcoco import RefCoco, read_refs
from aas.training.data import DataSource, evenly
from aas.training.recipe import Recipe
from tests import expression_scenes as scenes
from tests.expression_scenes import SCENES, Scene


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return scenes.write_all(tmp_path_factory.mktemp("scenes") / "data")


def entries(data: Path) -> dict[str, dict[str, Any]]:
    """One of a recipe's `data` for each format."""
    return {
        "refcoco": {"dataset": "refcoco", "refs": f"{data}/refcoco/refs(unc).p", "split": "val", "sentences": "first"},
        "png": {"dataset": "png", "narratives": f"{data}/png.json", "panoptic": f"{data}/panoptic.json"},
        "coco": {"dataset": "coco", "annotations": f"{data}/refcoco/instances.json"},
    }


def source(data: Path, name: str, **more: Any) -> DataSource:
    return DataSource.of(entries(data)[name] | more, data / "images")


def learned(source: DataSource) -> dict[str, tuple[str, dict[str, np.ndarray]]]:
    """Of each lesson its text, and the mask of the words at each phrase's place in it."""
    photographs = {lesson.key: lesson.read() for lesson in source.read().lessons}
    return {
        key: (one.caption, {one.caption[slice(*found.span)]: rle.decoded(found.mask) for found in one.found})
        for key, one in photographs.items()
    }


def masks(scene: Scene, before: str = "") -> dict[str, np.ndarray]:
    return {f"{before}{thing.name}": thing.mask(scene.size_hw) for thing in scene.things}


def check(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys() and all((found[name] == wanted[name]).all() for name in wanted)


def test_all_expressions_of_a_photograph_are_one_text(data):
    found = learned(source(data, "refcoco"))
    assert list(found) == [scenes.file_name(scene) for scene in SCENES[:2]]
    text, seen = found[scenes.file_name(SCENES[0])]
    assert text == "red box. green floor. blue box."
    check(seen, masks(SCENES[0]))
    check(found[scenes.file_name(SCENES[1])][1], masks(SCENES[1]))


def test_each_narrative_is_a_text(data):
    found = learned(source(data, "png"))
    assert [key.partition("_")[0] for key in found] == ["7", "7", "42", "285"]
    text, seen = found["7_0"]
    assert text == "In this image there is a red box, a green floor, a blue box."
    check(seen, masks(SCENES[0], "a "))
    both = SCENES[0].things[0].mask((120, 180)) | SCENES[0].things[2].mask((120, 180))
    check(found["7_1"][1], {"two boxes": both})


def test_categories_are_named_once_each(data):
    """All things of a category are one phrase; one that has no name is told."""
    content = json.loads((data / "refcoco/instances.json").read_text())
    found = source(data, "coco").read()
    assert [lesson.key for lesson in found.lessons] == ["7", "42"]
    assert len(found.problems) == 2 and found.problems[0] == "annotation 1001: its category has no name"
    assert {one["category_id"] for one in content["annotations"]} == {1, 184}
    text, seen = learned(source(data, "coco"))["42"]
    assert text == "thing."
    check(seen, {"thing": np.any(list(masks(SCENES[1]).values()), axis=0)})


def test_damaged_entries_cost_no_other(data, tmp_path):
    content = json.loads((data / "refcoco/instances.json").read_text())
    del content["annotations"][3]["segmentation"]
    content["annotations"][2]["image_id"] = 999
    content["annotations"][0]["segmentation"] = [[1, 2]]
    (tmp_path / "instances.json").write_text(json.dumps(content))
    found = source(data, "coco", annotations=f"{tmp_path}/instances.json").read()
    assert "annotation 1003: it has no 'segmentation'" in found.problems
    assert "annotation 1002: its image is not in the file" in found.problems
    first, second = found.lessons
    with pytest.raises(ValueError, match="polygon"):
        first.read()
    assert len(second.read().found) == 1


def test_one_sentence_of_each_is_drawn_once(data):
    drawn = RefCoco(refs=data / "refcoco/refs(unc).p", split="val", sentences="random")
    names = [one.id for one in drawn.read().items]
    assert names == [one.id for one in drawn.read().items]
    every = RefCoco(refs=data / "refcoco/refs(unc).p", split="val").read()
    assert len(names) == len({name.split("_")[0] for name in names}) == len(every.items) / 2
    numbers = {int(name.split("_")[1]) % 10 for name in names}
    assert numbers == {0, 1}  # not always the first


def test_references_of_one_annotation_are_all_kept(data, tmp_path):
    refs = [ref for ref in read_refs(data / "refcoco/refs(unc).p") if ref["ann_id"] == 1000]
    again = {"sent_id": 99, "sent": "that one", "raw": "That one", "tokens": ["that", "one"]}
    refs += [refs[0] | {"ref_id": 7, "sentences": [again]}]
    (tmp_path / "refs.p").write_bytes(pickle.dumps(refs))
    more = {"refs": f"{tmp_path}/refs.p", "instances": f"{data}/refcoco/instances.json"}
    ((text, seen),) = learned(source(data, "refcoco", **more)).values()
    assert text == "red box. that one."
    check(seen, dict.fromkeys(("red box", "that one"), masks(SCENES[0])["red box"]))


def test_so_many_photographs_are_spread_over_the_file(data):
    assert list(evenly(10, 3)) == [0, 3, 6] and list(evenly(3, None)) == list(evenly(3, 5)) == [0, 1, 2]
    assert [one.key for one in source(data, "png", n_photographs=2).read().lessons] == ["7_0", "42_0"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dataset": "coko"}, "Unknown dataset 'coko'. Known: coco, png, reasonseg, refcoco"),
        ({"split_by": "unc", "annotation": "x"}, "dataset refcoco does not know annotation. It has: refs, split"),
        ({"say": "a {expression}"}, "dataset refcoco does not know say"),
        ({"sentences": "some"}, "sentences: 'some': give first, all, random"),
        ({"n_photographs": 0}, "n_photographs is at least 1"),
        ({"split": 3}, "split: 3: give a word"),
        ({"dataset": "reasonseg", "refs": None}, "dataset reasonseg does not know refs"),
    ],
)
def test_wrong_entries_are_told_before_anything_is_read(data, tmp_path, change, reason):
    with pytest.raises(ValueError, match=reason):
        Recipe(out=tmp_path, data=[entries(data)["refcoco"] | change], images=data / "images")


def test_what_is_not_there_is_told(data, tmp_path):
    with pytest.raises(ValueError, match="say where its photographs are"):
        Recipe(out=tmp_path, data=[entries(data)["png"]])
    with pytest.raises(ValueError, match="lacks dataset"):
        Recipe(out=tmp_path, data=[{"refs": "x"}], images=tmp_path)
    with pytest.raises(ValueError, match="asks questions"):
        Recipe(out=tmp_path, data=[{"dataset": "reasonseg", "data": "x"}], images=tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        source(data, "png", images=f"{tmp_path}/nowhere").read()
    with pytest.raises(FileNotFoundError, match=r"png2\.json: no such file"):
        source(data, "png", narratives=f"{data}/png2.json").read()
    lesson = source(data, "png", images=str(tmp_path)).read().lessons[0]
    with pytest.raises(FileNotFoundError, match=r"0007\.png: no such file"):
        lesson.read()


def test_a_mask_of_another_size_is_never_learned(data, tmp_path):
    scenes.photograph(SCENES[1]).save(tmp_path / scenes.file_name(SCENES[0]))
    lesson = source(data, "refcoco", images=str(tmp_path)).read().lessons[0]
    with pytest.raises(ValueError, match=r"a mask of \[120, 180\] pixels \(h, w\), the photograph has \[160, 110\]"):
        lesson.read()
