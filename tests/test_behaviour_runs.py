"""Runs over many images, through the commands: what decides one, what a chunk does, views, order of what is merged."""

import json
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from scipy.ndimage import map_coordinates

from aas.lmms.prepared import AskOptions
from tests import tiny
from tests.command import run
from tests.tiny import gemma

SIZES_HW = [(60, 90), (90, 60), (64, 64), (41, 130), (70, 70), (50, 80), (80, 50)]


def well(*arguments: object) -> str:
    code, output = run(*arguments)
    assert code == 0, output
    return output


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return tiny.photographs(tmp_path_factory.mktemp("run") / "photos", SIZES_HW)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny.saved(tiny.family("llava"), tmp_path_factory.mktemp("model"))


def items(folder: Path) -> dict[str, tuple[np.ndarray, dict[str, str], list[int]]]:
    """Image -> maps, metadata and token ids, as docs/formats.md says it."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "np") as file:
            metadata = file.metadata()
            found[metadata["image"]] = file.get_tensor("maps"), metadata, file.get_tensor("token_ids").tolist()
    return found


# ------------------------------------------------------------------------------------------ what decides a run


def test_seed_temperature_and_top_p_decide_the_answers(photos, model, tmp_path):
    drawn = ("infer-attn", "--images", photos, "--model", model, "--max-new-tokens", 6, "--temperature", 3.0)
    options = {"a": ("--seed", 1), "again": ("--seed", 1, "--batch-size", 2), "b": ("--seed", 2)}
    options |= {"likeliest": ("--seed", 1, "--top-p", 1e-6)}
    for name, more in options.items():
        well(*drawn, "--out", tmp_path / name, *more)
    well(*drawn[:-2], "--out", tmp_path / "greedy")
    ids = {name: [token_ids for _, _, token_ids in items(tmp_path / name).values()] for name in (*options, "greedy")}
    assert ids["a"] == ids["again"] and ids["a"] != ids["b"] and ids["a"] != ids["greedy"]
    assert ids["likeliest"] == ids["greedy"]
    assert len({tuple(one[:3]) for one in ids["a"]}) > 1


@pytest.mark.parametrize(
    "changed",
    [
        ("--seed", 2),
        ("--temperature", 2.5),
        ("--top-p", 0.5),
        ("--question", "Who?"),
        ("--keep", "heads"),
        ("--layers", "0"),
        ("--heads", "0"),
        ("--alignment", "self"),
        ("--view", "image"),
        ("--dtype", "float32"),
    ],
    ids=lambda changed: changed[0],
)
def test_an_option_that_decides_the_items_cannot_change_in_a_run(photos, model, tmp_path_factory, tmp_path, changed):
    common = ("infer-attn", "--images", photos, "--model", model, "--out", tmp_path, "--num-chunks", 7)
    common = (*common, "--max-new-tokens", 2, "--temperature", 3.0, "--seed", 1)
    well(*common)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    code, output = run(*common, "--chunk-idx", 1, *changed)
    assert code == 2 and changed[0].strip("-").replace("-", "_") in output.replace("-", "_")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# ------------------------------------------------------------------------------------------ chunks


def test_every_chunk_does_its_own_images_only(photos, model, tmp_path):
    """Each into a folder of its own: together they do every image once, shared out evenly."""
    asked = ("infer-attn", "--images", photos, "--model", model, "--max-new-tokens", 2, "--num-chunks", 3)
    done = []
    for chunk in range(3):
        well(*asked, "--out", tmp_path / str(chunk), "--chunk-idx", chunk)
        done.append(sorted(items(tmp_path / str(chunk))))
        described = json.loads((tmp_path / str(chunk) / "run.json").read_text())
        assert described["n_images"] == len(SIZES_HW), "all chunks' together"
    assert sorted(chain(*done)) == sorted(path.name for path in photos.iterdir())
    assert sorted(map(len, done)) == [2, 2, 3]

    attn = tmp_path / "attn"
    well(*asked[:-2], "--out", attn)
    masks = []
    for chunk in range(3):
        out = tmp_path / f"masks {chunk}"
        well(
            "segment", "gcg", "--attn", attn, "--images", photos, "--out", out, "--num-chunks", 3, "--chunk-idx", chunk
        )
        masks.append(sorted(path.name for path in out.glob("*.json") if path.name != "run.json"))
    assert sorted(chain(*masks)) == sorted(f"{i}.json" for i in range(len(SIZES_HW)))
    assert sorted(map(len, masks)) == [2, 2, 3]


def test_a_line_about_no_image_is_told_once(photos, model, tmp_path):
    lines = [{"image": f"{i}.png", "answer": "a dog"} for i in range(3)] + [{"image": "gone.png", "answer": "a cat"}]
    (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, lines)))
    asked = ("infer-attn", "--images", photos, "--model", model, "--answers", tmp_path / "answers.jsonl")
    codes = []
    for chunk in (1, 0):
        codes.append(run(*asked, "--out", tmp_path / "run", "--num-chunks", 2, "--chunk-idx", chunk)[0])
    assert sorted(codes) == [0, 3] and sorted(items(tmp_path / "run")) == ["0.png", "1.png", "2.png"]
    lines = (tmp_path / "run/failed.jsonl").read_text().splitlines()
    assert [json.loads(line)["image"] for line in lines] == ["gone.png"]
    assert "3 of 4 done, 1 failed, 0 to do" in well("status", tmp_path / "run")


# ------------------------------------------------------------------------------------------ views


def spread(maps: np.ndarray, box: list[float], onto_hw: tuple[int, int], onto_box: list[float]) -> np.ndarray:
    """Attention of a view at the centres of another view's cells: bilinear between cells' centres, per pixel the same,
    0 where the view does not reach."""
    (rows, columns), (x0, y0, x1, y1), (left, top, right, bottom) = maps.shape[-2:], box, onto_box
    x = left + (np.arange(onto_hw[1]) + 0.5) / onto_hw[1] * (right - left)
    y = top + (np.arange(onto_hw[0]) + 0.5) / onto_hw[0] * (bottom - top)
    at_x, at_y = (x - x0) / (x1 - x0) * columns - 0.5, (y - y0) / (y1 - y0) * rows - 0.5
    where = np.stack(np.meshgrid(at_y, at_x, indexing="ij"))
    inside = ((y >= y0) & (y <= y1))[:, None] & ((x >= x0) & (x <= x1))
    cell = (right - left) * (bottom - top) / (onto_hw[0] * onto_hw[1])
    share = cell / ((x1 - x0) * (y1 - y0) / (rows * columns))
    return np.stack([map_coordinates(one, where, order=1, mode="nearest") * inside * share for one in maps])


@pytest.mark.parametrize("family", ["llava_next", "internvl", "idefics3"])
def test_the_combined_view_is_the_sum_of_all_views_on_the_finest(family, tmp_path):
    folder = tiny.saved(tiny.family(family), tmp_path / "model")
    tiny.photographs(tmp_path / "photos", [(60, 130), (150, 70)])
    lines = [json.dumps({"image": f"{i}.png", "answer": "a dog and a cat"}) for i in range(2)]
    (tmp_path / "answers.jsonl").write_text("\n".join(lines))
    asked = ("infer-attn", "--images", tmp_path / "photos", "--model", folder, "--answers", tmp_path / "answers.jsonl")
    names = [grid.view.name for grid in tiny.family(family).prepare(tiny.a_photo((60, 130)), "Who?").grids]
    assert len(names) > 1
    for name in (*names, "combined"):
        well(*asked, "--out", tmp_path / name, "--view", name)
    combined = items(tmp_path / "combined")
    assert len(combined) == 2
    for image, (maps, metadata, _) in combined.items():
        (view,) = json.loads(metadata["views"])
        expected, finest = np.zeros(maps.shape), (0.0, None)
        for name in names:
            some, some_metadata, _ = items(tmp_path / name)[image]
            (other,) = json.loads(some_metadata["views"])
            assert other["name"] == name
            x0, y0, x1, y1 = other["box_xyxy"]
            cells = np.prod(other["size_hw"]) / ((x1 - x0) * (y1 - y0))
            finest = (cells, other) if cells > finest[0] * (1 + 1e-9) else finest
            expected += spread(some, other["box_xyxy"], maps.shape[-2:], view["box_xyxy"])
        assert view["name"] == "combined"
        assert (view["size_hw"], view["box_xyxy"]) == (finest[1]["size_hw"], finest[1]["box_xyxy"])
        np.testing.assert_allclose(maps, expected, atol=1e-5 * expected.max())


def test_where_a_view_does_not_reach_it_adds_nothing():
    """Gemma 3's crops of a long image lie side by side; the whole image reaches all, and so do combined maps."""
    lmm = gemma.gemma3()
    cropping = {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 20}
    lmm.processor.images_kwargs = {**lmm.processor.images_kwargs, **cropping}
    one = lmm.prepare(tiny.a_photo((60, 200)), "Who?", "a dog and a cat")
    views = {grid.view.name: grid.view for grid in one.grids}
    assert len(views) > 2
    found = {name: lmm.run([one], AskOptions(view=name))[0][1] for name in (*views, "combined")}
    combined = found.pop("combined")
    onto = combined.view.size_hw, list(combined.view.box_xyxy)
    reach = {name: spread(maps.maps, list(maps.view.box_xyxy), *onto) for name, maps in found.items()}
    assert all(map(np.any, reach.values())) and combined.view.box_xyxy == (0, 0, 200, 60)
    assert combined.view.size_hw == (4, 12), "three crops of 4 x 4 cells"
    np.testing.assert_allclose(combined.maps.sum(), sum(maps.maps.sum() for maps in found.values()), rtol=0.05)
    expected = sum(reach.values())
    np.testing.assert_allclose(combined.maps, expected, atol=1e-5 * expected.max())


def test_a_view_that_an_image_does_not_have(photos, model, tmp_path):
    code, _ = run("infer-attn", "--images", photos, "--model", model, "--out", tmp_path, "--view", "tiles",
                  "--max-new-tokens", 2)  # fmt: skip
    assert code in (2, 3) and not items(tmp_path)


# ------------------------------------------------------------------------------------------ merge


def test_merged_instances_are_in_the_order_of_the_images_ids(photos, model, tmp_path):
    """9 before 30 before 100; the ids of detections count from 1 in that order."""
    ids = {100: "0.png", 9: "1.png", 30: "2.png", 7: "3.png"}
    lines = [json.dumps({"image": name, "answer": "A dog and a cat near a bench."}) for name in ids.values()]
    (tmp_path / "answers.jsonl").write_text("\n".join(lines))
    well("infer-attn", "--images", photos, "--model", model, "--answers", tmp_path / "answers.jsonl", "--out",
         tmp_path / "attn")  # fmt: skip
    categories = [{"id": i, "name": name} for i, name in enumerate(("dog", "cat", "bench"), start=1)]
    images = [{"id": i, "file_name": name} for i, name in ids.items()]
    (tmp_path / "coco.json").write_text(json.dumps({"images": images, "categories": categories, "annotations": []}))
    out = tmp_path / "out"
    well("segment", "instance", "--attn", tmp_path / "attn", "--images", photos, "--ref-anno", tmp_path / "coco.json",
         "--out", out, "--categories", "all", "--more-masks")  # fmt: skip
    written = json.loads((out / "results.json").read_text())
    well("merge", out)
    merged = json.loads((out / "results.json").read_text())
    assert merged == written
    assert list(dict.fromkeys(d["image_id"] for d in merged)) == [7, 9, 30, 100]
    assert [d["id"] for d in merged] == list(range(1, len(merged) + 1))
    for i in ids:
        one = json.loads((out / f"{i}.json").read_text())["detections"]
        assert [{"id": 0, **d} for d in one] == [d | {"id": 0} for d in merged if d["image_id"] == i]
        assert list(dict.fromkeys(d["category_name"] for d in one)) == ["dog", "cat", "bench"], "in reading order"
