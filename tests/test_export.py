"""Exports, each read back by the library of its own tool, where that is installed; else by hand."""

import base64
import io
import json
import os
import re
import zlib
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from transformers.image_transforms import rgb_to_id
from typer.testing import CliRunner

import aas
from aas import registry, rle
from aas.cli import app
from aas.export.fiftyone import sample
from aas.export.photograph import Found, Photograph, label_of
from aas.export.writing import NO_XML
from aas.images import read_image
from aas.records import Answer, AttentionMaps, GroundedPhrase, Phrase, View
from aas.store.instances import Detection, InstanceResult, write_instances
from aas.store.keys import quoted
from aas.store.results import read_result, write_result
from aas.store.runs import RunFolder
from aas.text import harmless
from tests.export_runs import (
    EDGE,
    HOSTILE,
    HW,
    INNER,
    OVER,
    PARTS,
    RING,
    box,
    grounded,
    iou,
    photograph,
    truth_of,
    write_coco_run,
    write_run,
)
from tests.test_adding import follow

FOLDERS = {"fiftyone": "data", "labelme": ".", "voc": "JPEGImages"}  # of the photographs; others: images


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory, shared_dir) -> Path:
    return write_coco_run(tmp_path_factory.mktemp("coco"), shared_dir, 6)


def export(name: str, run: Path, out: Path, *options: object, code: int = 0):
    result = CliRunner().invoke(app, ["export", name, str(run), "--out", str(out), *map(str, options)])
    assert result.exit_code == code, result.output
    return result


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def sizes(words: list[tuple[str, np.ndarray]]) -> list[int]:
    return [int(mask.sum()) for _, mask in words]


# ---- all formats -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.EXPORTS)
def test_photographs_lie_upright_where_the_format_has_them(name, scenes, tmp_path):
    """A JPEG and a PNG as they are, what EXIF turns and a WebP as PNG; the same run gives the same bytes."""
    said = export(name, scenes, tmp_path / "out").output
    assert "1 phrases have an empty mask" in said
    folder = tmp_path / "out" / FOLDERS.get(name, "images")
    odd = next(path.stem for path in scenes.glob("sub*"))
    files = {path.name for path in folder.iterdir() if path.suffix in (".jpg", ".png")}
    assert files == {"plain.jpg", f"{odd}.png", "turned.png", "empty.png"}
    assert (folder / "plain.jpg").read_bytes() == (scenes.parent / "photos/plain.jpg").read_bytes()
    turned = read_image(scenes.parent / "photos/turned.jpg")
    assert turned.shape[:2] == HW and (np.array(Image.open(folder / "turned.png")) == turned).all()
    export(name, scenes, tmp_path / "again")
    assert content_of(tmp_path / "out") == {
        path: content.replace(b'"name": "again"', b'"name": "out"')  # FiftyOne's, after its folder
        for path, content in content_of(tmp_path / "again").items()
    }


def test_links_instead_of_copies(scenes, tmp_path):
    export("coco", scenes, tmp_path / "out", "--link")
    images = tmp_path / "out/images"
    assert (images / "plain.jpg").is_symlink() and not (images / "turned.png").is_symlink()
    assert (images / "plain.jpg").resolve() == (scenes.parent / "photos/plain.jpg").resolve()


def test_one_bad_result_costs_only_itself(scenes, tmp_path):
    run = write_run(tmp_path)
    (run / "plain.json").write_text("{")
    (tmp_path / "photos/empty.webp").unlink()
    (tmp_path / "photos/odd.png").write_bytes((tmp_path / "photos/odd.png").read_bytes()[:40])
    said = export("coco", run, tmp_path / "out", code=3).output
    assert said.count("failed: ") == 3 and "plain.json" in said and "empty.webp" in said and "odd.png" in said
    content = json.loads((tmp_path / "out/annotations.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["turned.png"]


def test_photographs_that_were_moved(tmp_path):
    """By their keys, or the names of their files."""
    run = write_run(tmp_path)
    moved = tmp_path / "moved"
    (tmp_path / "photos").rename(moved)
    export("coco", run, tmp_path / "none", code=3)
    (moved / "plain.jpg").rename(moved / "plain.jpeg")
    export("coco", run, tmp_path / "out", "--images", moved)
    assert len(list((tmp_path / "out/images").iterdir())) == 4


@pytest.mark.parametrize("task", ["gcg", "instance"])
def test_runs_of_aas_segment(task, tmp_path):
    """Photographs are found by run.json and the annotation; categories are classes."""
    (tmp_path / "photos").mkdir()
    photograph().save(tmp_path / "photos/0007.png")
    (tmp_path / "truth.json").write_text(json.dumps({"images": [{"id": 7, "file_name": "0007.png"}]}))
    inputs = {"images": str(tmp_path / "photos"), "ref_anno": str(tmp_path / "truth.json")}
    run = RunFolder(tmp_path / "run", ".json")
    run.begin(f"segment {task}", {}, {"n_images": 1, "inputs": inputs})
    if task == "gcg":
        write_result(run.item_path("7"), replace(grounded("7", "", ["a ring"], [RING]), image=None, image_id=7))
    else:
        one = Detection(7, 3, "round\tthing", "a ring", rle.of_mask(RING), 0.5, int(RING.sum()), (10, 10))
        write_instances(run.item_path("7"), InstanceResult(7, "a ring", (one,)))
    export("coco", run.path, tmp_path / "out")
    content = json.loads((tmp_path / "out/annotations.json").read_text())
    assert [(one["id"], one["file_name"]) for one in content["images"]] == [(7, "7.png")]
    assert [one["name"] for one in content["categories"]] == ["ring" if task == "gcg" else "round thing"]


def test_what_cannot_be_exported(scenes, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("")
    assert "not an empty folder" in export("coco", scenes, tmp_path / "full", code=2).output
    assert "no run folder" in export("coco", tmp_path, tmp_path / "out", code=2).output
    (tmp_path / "run.json").write_text(json.dumps({"command": "infer-attn"}))
    assert "has no masks" in export("coco", tmp_path, tmp_path / "out", code=2).output
    assert not (tmp_path / "out").exists()


# ---- COCO --------------------------------------------------------------------------------------------


def test_coco_by_pycocotools(scenes, tmp_path):
    export("coco", scenes, tmp_path / "out")
    coco, truth = COCO(str(tmp_path / "out/annotations.json")), truth_of(scenes)
    for image in coco.loadImgs(coco.getImgIds()):
        found = coco.loadAnns(coco.getAnnIds(image["id"]))
        stem = Path(image["file_name"]).stem
        assert [one["phrase"] for one in found] == [phrase for phrase, _ in truth[stem]]
        for one, (_, mask) in zip(found, truth[stem], strict=True):
            assert (coco.annToMask(one) == mask).all() and one["area"] == mask.sum()
            x, y, width, height = one["bbox"]
            assert (x, y, x + width, y + height) == rle.box_xyxy(mask)
        assert (image["height"], image["width"]) == HW and image["question"] == "What is it?"
    assert len(coco.getImgIds()) == 4 and {name["name"] for name in coco.cats.values()} >= {"ring", "two boxes"}
    captions = COCO(str(tmp_path / "out/captions.json"))
    assert captions.loadAnns(captions.getAnnIds())[1]["caption"] == "A ring and two boxes and the inner box"


def test_ids_are_those_of_the_run_where_these_are_numbers(tmp_path, photographs):
    export("coco", photographs, tmp_path / "out")
    images = json.loads((tmp_path / "out/annotations.json").read_text())["images"]
    assert {str(image["id"]) for image in images} == set(truth_of(photographs))


def test_panoptic_by_transformers(scenes, tmp_path):
    """`rgb_to_id` is panopticapi's. Where masks overlap, the smaller one is on top, and people are told."""
    assert "on 1 photographs masks overlap" in export("coco-panoptic", scenes, tmp_path / "out").output
    content, truth = json.loads((tmp_path / "out/panoptic.json").read_text()), truth_of(scenes)
    names = {one["id"]: one["name"] for one in content["categories"]}
    for entry in content["annotations"]:
        ids = rgb_to_id(np.array(Image.open(tmp_path / "out/panoptic" / entry["file_name"])))
        segments, words = entry["segments_info"], truth[Path(entry["file_name"]).stem]
        assert set(np.unique(ids)) - {0} == {one["id"] for one in segments}
        for one, (phrase, mask) in zip(segments, words, strict=True):
            left = mask & ~EDGE if phrase == "a box" else mask
            assert ((ids == one["id"]) == left).all() and one["area"] == left.sum()
            assert one["phrase"] == phrase and names[one["category_id"]] == label_of(phrase)
    assert (EDGE & OVER).any() and EDGE.sum() < OVER.sum()


def test_panoptic_has_the_keys_of_the_published_sample(scenes, tmp_path, shared_dir):
    export("coco-panoptic", scenes, tmp_path / "out")
    ours = json.loads((tmp_path / "out/panoptic.json").read_text())
    theirs = json.loads((shared_dir / "data/panopticapi/sample_data/panoptic_examples.json").read_text())
    for name in ("annotations", "categories"):
        assert theirs[name][0].keys() - {"supercategory", "color"} <= ours[name][0].keys()
    segments = (
        next(one["segments_info"][0] for one in of["annotations"] if one["segments_info"]) for of in (theirs, ours)
    )
    assert next(segments).keys() <= next(segments).keys()


# ---- polygons and boxes: supervision -----------------------------------------------------------------


def test_yolo_by_supervision(photographs, tmp_path):
    """One polygon a thing: what is lost are the seams between parts (docs/exports.md)."""
    supervision = pytest.importorskip("supervision")
    export("yolo", photographs, tmp_path / "out")
    out, truth = tmp_path / "out", truth_of(photographs)
    read = supervision.DetectionDataset.from_yolo(
        *map(str, (out / "images", out / "labels", out / "data.yaml")), force_masks=True
    )
    ious = []
    for path, _, found in read:
        labels = [f"a {read.classes[number]}" for number in found.class_id]
        for label, mask in zip(labels, found.mask, strict=True):
            ious.append(max(iou(mask, true) for phrase, true in truth[Path(path).stem] if phrase == label))
    assert len(ious) == sum(map(len, truth.values())) and min(ious) > 0.98 and np.mean(ious) > 0.999


def test_yolos_polygons_are_found_by_readers_that_cut_fractions_off(scenes, tmp_path):
    """As Ultralytics does; supervision rounds."""
    export("yolo", scenes, tmp_path / "out")
    line = (tmp_path / "out/labels/plain.txt").read_text().splitlines()[0]
    points = np.array(line.split()[1:], np.float32).reshape(-1, 2) * HW[::-1]
    for whole in (points.astype(np.int32), np.round(points).astype(np.int32)):
        canvas = np.zeros(HW, np.uint8)
        cv2.fillPoly(canvas, [whole], 1)
        assert (canvas.astype(bool) == RING).all()


def test_voc_by_supervision(photographs, tmp_path):
    supervision = pytest.importorskip("supervision")
    export("voc", photographs, tmp_path / "out")
    out, truth = tmp_path / "out", truth_of(photographs)
    read = supervision.DetectionDataset.from_pascal_voc(str(out / "JPEGImages"), str(out / "Annotations"))
    for path, _, found in read:
        boxes = [list(rle.box_xyxy(mask)) for _, mask in truth[Path(path).stem]]
        assert found.xyxy.tolist() == boxes
        assert [f"a {read.classes[number]}" for number in found.class_id] == [one for one, _ in truth[Path(path).stem]]


def test_vocs_pictures(scenes, tmp_path):
    export("voc", scenes, tmp_path / "out")
    classes = (tmp_path / "out/classes.txt").read_text().splitlines()
    objects, of_class = (
        Image.open(tmp_path / "out" / folder / "plain.png") for folder in ("SegmentationObject", "SegmentationClass")
    )
    assert objects.mode == "P" and objects.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
    assert objects.getpalette()[-3:] == [224, 224, 192]  # VOC's colour of the void
    for number, mask in enumerate((RING, PARTS, INNER), start=1):
        assert ((np.array(objects) == number) == mask).all()
    assert ((np.array(of_class) == classes.index("ring") + 1) == RING).all()
    assert (tmp_path / "out/ImageSets/Segmentation/train.txt").read_text().splitlines()[:2] == ["empty", "plain"]


def test_supervisions_detections(scenes):
    supervision = pytest.importorskip("supervision")
    found = a_grounding(scenes).to_supervision()
    assert isinstance(found, supervision.Detections) and (found.mask == [RING, PARTS]).all()
    assert found.data["phrase"].tolist() == ["A ring", "two boxes"] and found.data["class_name"][0] == "ring"
    assert found.confidence.tolist() == [0.5, 0.5625] and found.xyxy[0].tolist() == [10, 10, 50, 60]


# ---- tools of annotation -----------------------------------------------------------------------------


def test_labelme_by_labelme(scenes, tmp_path, monkeypatch):
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    label_file = pytest.importorskip("labelme._label_file", reason="labelme needs Qt", exc_type=ImportError)
    from labelme.utils import shape_to_mask

    export("labelme", scenes, tmp_path / "out")
    for stem, words in truth_of(scenes).items():
        read = label_file.LabelFile(str(tmp_path / f"out/{stem}.json"))
        assert read.imageData and read.otherData["question"] == "What is it?"
        for group, (phrase, mask) in enumerate(words, start=1):
            shapes = [one for one in read.shapes if one["group_id"] == group]
            drawn = [shape_to_mask(HW, one["points"], one["shape_type"]) for one in shapes]
            assert (np.any(drawn, axis=0) == mask).all() and {one["description"] for one in shapes} == {phrase}


def test_label_studio_by_its_converter(scenes, tmp_path):
    sdk = pytest.importorskip("label_studio_sdk.converter.brush", reason="it brings another OpenCV")
    from label_studio_sdk.label_interface import LabelInterface

    export("labelstudio", scenes, tmp_path / "out")
    interface = LabelInterface((tmp_path / "out/config.xml").read_text())
    truth = truth_of(scenes)
    for task in json.loads((tmp_path / "out/tasks.json").read_text()):
        (prediction,) = task["predictions"]
        words = truth[quoted(task["data"]["name"])]
        for region, (phrase, mask) in zip(prediction["result"], words, strict=True):
            read = sdk.decode_rle(region["value"]["rle"]).reshape(*HW, 4)[..., 3]
            assert ((read > 0) == mask).all() and region["meta"]["text"] == [phrase]
            theirs = sdk.mask2rle(255 * mask.astype(np.uint8))
            assert region["value"]["rle"] in (theirs, theirs[:-1])  # it may fill a byte that is full with another one
            region["value"]["rle"] = [1, 1]  # its check takes brush runs for pairs, and refuses its own
        assert interface.validate_prediction(prediction)


def test_cvats_runs(scenes, tmp_path):
    """By CVAT's description: row by row inside the box, first what is not the thing."""
    export("cvat", scenes, tmp_path / "out")
    root, truth = ElementTree.parse(tmp_path / "out/annotations.xml").getroot(), truth_of(scenes)
    assert root.findtext("version") == "1.1" and root.findtext("meta/task/size") == "4"
    declared = {name.text for name in root.findall("meta/task/labels/label/name")}
    for image in root.findall("image"):
        words = truth[Path(image.get("name")).stem]
        assert len(image.findall("mask")) == len(words)
        for one, (phrase, mask) in zip(image.findall("mask"), words, strict=True):
            left, top, width, height = (int(one.get(key)) for key in ("left", "top", "width", "height"))
            runs = list(map(int, one.get("rle").split(", ")))
            inside = np.repeat(np.arange(len(runs)) % 2, runs).reshape(height, width)
            read = np.zeros(HW, bool)
            read[top : top + height, left : left + width] = inside
            assert (read == mask).all() and one.get("label") in declared
            assert one.findtext("attribute[@name='phrase']") == NO_XML.sub("", phrase)


# ---- datasets ----------------------------------------------------------------------------------------


def test_hugging_face_by_datasets(scenes, tmp_path):
    datasets = pytest.importorskip("datasets")
    export("huggingface", scenes, tmp_path / "out")
    where = {"data_dir": str(tmp_path / "out"), "cache_dir": str(tmp_path / "cache")}
    rows, truth = datasets.load_dataset("imagefolder", split="train", **where), truth_of(scenes)
    assert len(rows) == 4
    for row in rows:
        words = truth[quoted(row["name"])]
        assert row["phrases"] == [phrase for phrase, _ in words] and row["image"].size == HW[::-1]
        assert all((np.array(mask, bool) == true).all() for mask, (_, true) in zip(row["masks"], words, strict=True))


def test_fiftyones_samples(scenes, tmp_path):
    """As FiftyOne's loader unpacks them; `test_fiftyone_by_fiftyone` needs its database."""
    export("fiftyone", scenes, tmp_path / "out")
    truth = truth_of(scenes)
    for entry in json.loads((tmp_path / "out/samples.json").read_text())["samples"]:
        words = truth[Path(entry["filepath"]).stem]
        for one, (phrase, mask) in zip(entry["phrases"]["detections"], words, strict=True):
            packed = zlib.decompress(base64.b64decode(one["mask"]["$binary"]["base64"]))
            inside = np.load(io.BytesIO(packed), allow_pickle=False)
            x, y, width, height = (
                int(share * side) for share, side in zip(one["bounding_box"], HW[::-1] * 2, strict=True)
            )
            assert (mask[y : y + inside.shape[0], x : x + inside.shape[1]] == inside).all()
            assert inside.sum() == mask.sum() and one["phrase"] == phrase and (height, width) <= inside.shape


def test_fiftyone_finds_every_pixel_with_its_fractions_cut_off():
    for left in range(333):
        mask = rle.of_mask(box(left, 0, 333, 1, (1, 333)))
        shares = sample(Photograph(1, "a", Path("a.jpg"), (1, 333), found=(Found("a", "a", mask),)), "a.jpg")
        x, _, width, _ = shares["phrases"]["detections"][0]["bounding_box"]
        assert (int(x * 333), int((x + width) * 333)) == (left, 333)


@pytest.mark.skipif("FIFTYONE_DATABASE_URI" not in os.environ, reason="FiftyOne needs a MongoDB")
def test_fiftyone_by_fiftyone(scenes, tmp_path):
    fiftyone = pytest.importorskip("fiftyone")
    export("fiftyone", scenes, tmp_path / "out")
    kind, truth = fiftyone.types.FiftyOneDataset, truth_of(scenes)
    read = fiftyone.Dataset.from_dir(str(tmp_path / "out"), dataset_type=kind)
    assert len(read) == 4
    for entry in read:
        words = truth[Path(entry.filepath).stem]
        for one, (phrase, mask) in zip(entry.phrases.detections, words, strict=True):
            assert ((one.to_segmentation(frame_size=HW[::-1]).mask > 0) == mask).all() and one.phrase == phrase


def test_glamms_captions(scenes, tmp_path):
    export("glamm", scenes, tmp_path / "out")
    entries = {one["file_name"]: one for one in json.loads((tmp_path / "out/grounded_captions.json").read_text())}
    plain = entries["plain.jpg"]
    assert plain["marked_caption"] == (
        "<p> A ring </p> [SEG] and <p> two boxes </p> [SEG] and <p> the inner box </p> [SEG]"
    )
    for phrase, of_phrase in plain["groundings"].items():
        assert plain["caption"][slice(*of_phrase["token_positives"])] == phrase
    assert [coco_mask.decode(mask).sum() for mask in plain["masks"]] == [RING.sum(), PARTS.sum(), INNER.sum()]


def test_a_captions_own_marks_are_no_marks(tmp_path):
    run = write_run(tmp_path)
    result = grounded("plain", "../photos/plain.jpg", ["a <p> </P> [SEG]", "a ring"], [RING, PARTS])
    write_result(run / "plain.json", result)
    export("glamm", run, tmp_path / "out")
    entries = {one["file_name"]: one for one in json.loads((tmp_path / "out/grounded_captions.json").read_text())}
    marked = entries["plain.jpg"]["marked_caption"]
    assert re.findall(r"</?p>|\[SEG\]", marked, re.IGNORECASE) == ["<p>", "</p>", "[SEG]"] * 2


def test_ones_own_classes(scenes, tmp_path):
    """In the order of the file, used or not; what names none is left out and listed; one thing is written once."""
    (tmp_path / "classes.txt").write_text("dog\nbox: carton\nring\n")
    said = export("yolo", scenes, tmp_path / "out", "--classes", tmp_path / "classes.txt", "--class-thresh", 2).output
    assert yaml.safe_load((tmp_path / "out/data.yaml").read_text())["names"] == {0: "dog", 1: "box", 2: "ring"}
    lines = (tmp_path / "out/labels/plain.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["2", "1", "1"]  # "A ring", "two boxes", "the inner box"
    assert (tmp_path / "out/unmapped.tsv").read_text().splitlines()[1:] and "name no class and were left out" in said
    bad = export("yolo", scenes, tmp_path / "none", "--classes", tmp_path / "out/labels/empty.txt", code=2).output
    assert "lists no class" in bad and not (tmp_path / "none").exists()


# ---- confidence --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judged(tmp_path_factory) -> Path:
    """The run with a confidence of each phrase: 0.25, 0.5, 0.75."""
    run = write_run(tmp_path_factory.mktemp("judged"))
    for path in RunFolder(run, ".json").items().values():
        result = read_result(path)
        values = tuple(0.25 * (i + 1) for i in range(len(result.phrases)))
        write_result(path, replace(result, confidences=values, confidence_kind="calibrated"))
    return run


def test_confidence_stands_where_a_tool_has_a_score(judged, tmp_path):
    """And the segmenter's score beside it, as `mask_score`."""
    supervision, datasets = pytest.importorskip("supervision"), pytest.importorskip("datasets")
    for name in ("coco", "fiftyone", "labelstudio", "labelme", "huggingface"):
        export(name, judged, tmp_path / name)
    coco = COCO(str(tmp_path / "coco/annotations.json"))
    (image,) = (one for one in coco.loadImgs(coco.getImgIds()) if one["name"] == "plain")
    found = coco.loadAnns(coco.getAnnIds(image["id"]))
    values = [(0.25, 0.5), (0.5, 0.5625), (0.75, 0.625)]
    assert [(one["score"], one["mask_score"]) for one in found] == values and image["confidence_kind"] == "calibrated"
    scored = coco.loadRes(
        [{key: one[key] for key in ("image_id", "category_id", "segmentation", "score")} for one in found]
    )
    assert [one["score"] for one in scored.loadAnns(scored.getAnnIds())] == [0.25, 0.5, 0.75]

    samples = json.loads((tmp_path / "fiftyone/samples.json").read_text())["samples"]
    (plain,) = (one for one in samples if one["name"] == "plain")
    assert [(one["confidence"], one["mask_score"]) for one in plain["phrases"]["detections"]] == values
    tasks = json.loads((tmp_path / "labelstudio/tasks.json").read_text())
    (task,) = (one for one in tasks if one["data"]["name"] == "plain")
    assert [one["score"] for one in task["predictions"][0]["result"]] == [0.25, 0.5, 0.75]
    where = {"data_dir": str(tmp_path / "huggingface"), "cache_dir": str(tmp_path / "cache")}
    rows = {row["name"]: row for row in datasets.load_dataset("imagefolder", split="train", **where)}
    assert list(zip(rows["plain"]["confidences"], rows["plain"]["scores"], strict=True)) == values
    assert rows["empty"]["confidences"] == [] and rows["plain"]["confidence_kind"] == "calibrated"
    grounding = a_grounding(judged)
    grounding = replace(grounding, phrases=tuple(replace(one, confidence=0.25) for one in grounding))
    found = replace(grounding, confidence_kind="calibrated").to_supervision()
    assert isinstance(found, supervision.Detections) and found.confidence.tolist() == [0.25, 0.25]
    assert found.with_nms(0.5).data["mask_score"].tolist() == [0.5, 0.5625]


@pytest.mark.parametrize("name", registry.IMPORTS)
def test_an_import_takes_no_confidence_for_a_masks_score(name, judged, tmp_path):
    export(name, judged, tmp_path / "out")
    result = CliRunner().invoke(app, ["import", name, str(tmp_path / "out"), "--out", str(tmp_path / "back")])
    assert result.exit_code == 0, result.output
    lost = name == "labelstudio"  # its regions have one score
    assert read_result(tmp_path / "back/plain.json").scores == ((1, 1, 1) if lost else (0.5, 0.5625, 0.625))


def test_too_little_confidence_is_left_out(judged, scenes, tmp_path):
    said = export("coco", judged, tmp_path / "out", "--min-confidence", 0.5).output
    phrases = [one["phrase"] for one in json.loads((tmp_path / "out/annotations.json").read_text())["annotations"]]
    assert phrases == ["two boxes", "the inner box", "An edge", "a box"]
    assert "3 phrases are below --min-confidence" in said and "1 phrases have an empty mask" in said
    said = export("coco", scenes, tmp_path / "none", "--min-confidence", 0.5, code=3).output
    assert said.count("whose phrases have no confidence: leave --min-confidence out") == 3
    result = CliRunner().invoke(app, ["import", "coco", str(tmp_path / "out"), "--out", str(tmp_path / "back")])
    assert result.exit_code == 0, result.output
    assert "`aas import`, whose phrases" in export(
        "coco", tmp_path / "back", tmp_path / "no", "--min-confidence", 0, code=2
    ).output  # fmt: skip


# ---- words and names ---------------------------------------------------------------------------------


def test_hostile_words_stay_words(scenes, tmp_path):
    """They come back as they are where the format can hold them, and without what it cannot hold elsewhere."""
    label = " ".join(harmless(HOSTILE).lower().split()[1:])
    for name in registry.EXPORTS:
        export(name, scenes, tmp_path / name)
    entries = json.loads((tmp_path / "coco/annotations.json").read_text())
    assert HOSTILE in [one["phrase"] for one in entries["annotations"]]
    assert label in [one["name"] for one in entries["categories"]]
    assert label in yaml.safe_load((tmp_path / "yolo/data.yaml").read_text())["names"].values()
    config = ElementTree.parse(tmp_path / "labelstudio/config.xml")
    assert label in [one.get("value") for one in config.iter("Label")]
    odd = next(path.stem for path in scenes.glob("sub*"))
    voc = ElementTree.parse(tmp_path / f"voc/Annotations/{odd}.xml")
    assert voc.findtext("object/name") == label and voc.findtext("filename") == f"{odd}.png"


# ---- one grounding -----------------------------------------------------------------------------------


def a_grounding(run: Path) -> aas.Grounding:
    """Of the photograph `plain`, two phrases."""
    result = grounded("plain", "", ["A ring", "two boxes"], [RING, PARTS])
    answer = Answer("What is it?", result.caption, (), ())
    view = View((2, 2), (0, 0, HW[1], HW[0]))
    maps = AttentionMaps(np.zeros((0, 2, 2), np.float32), view)
    phrases = tuple(
        GroundedPhrase(Phrase(text, span, span, ()), np.zeros((2, 2), np.float32), point, rle.decoded(mask), score)
        for text, span, point, mask, score in zip(
            result.phrases, result.spans, result.points_xy, result.pred_masks, result.scores, strict=True
        )
    )
    photo = run.parent / "photos/plain.jpg"
    return aas.Grounding("plain", read_image(photo), answer, phrases, maps, source=str(photo))


def test_a_grounding_exports_itself(scenes, tmp_path):
    grounding = a_grounding(scenes)
    coco = grounding.to_coco()
    assert coco["images"][0]["file_name"] == "plain.jpg"
    assert [(coco_mask.decode(one["segmentation"]) == mask).all() for one, mask in
            zip(coco["annotations"], (RING, PARTS), strict=True)] == [True, True]  # fmt: skip
    assert grounding.to_labelme()["imagePath"] == "plain.jpg" and len(grounding.to_labelme()["shapes"]) == 4
    assert grounding.to_labelstudio()["data"]["image"] == "plain.jpg"
    assert grounding.to_glamm()["marked_caption"].startswith("<p> A ring </p> [SEG] and")
    for name in registry.EXPORTS:
        assert any(grounding.export(name, tmp_path / name).iterdir())
    few, many = (grounding.export("yolo", tmp_path / str(by), tolerance_px=by) / "labels/plain.txt" for by in (9, 0))
    assert len(few.read_text()) < len(many.read_text())
    with pytest.raises(ValueError, match="Unknown format 'coko'"):
        grounding.export("coko", tmp_path / "other")
    with pytest.raises(ValueError, match="not an empty folder"):
        grounding.export("coco", tmp_path / "coco")
    assert sizes(truth_of(scenes)["plain"])[:2] == [one["area"] for one in coco["annotations"]]


# ---- one's own ---------------------------------------------------------------------------------------


def test_a_format_is_a_file_and_a_line(scenes, tmp_path, monkeypatch):
    """docs/adding-an-export.md, followed to the letter."""
    (words,) = follow("adding-an-export.md", monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").symlink_to(scenes)
    (tmp_path / "photos").symlink_to(scenes.parent / "photos")
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0 and "things are small" not in result.output, result.output
    rows = [line.split("\t") for line in (tmp_path / "boxes/boxes.tsv").read_text().splitlines()]
    assert ["plain.jpg", "1", "two boxes", "60", "5", "70", "56"] in rows and len(rows) == 7
    assert "--least-area" in CliRunner().invoke(app, ["export", "boxes", "--help"]).output
    assert any(a_grounding(scenes).export("boxes", tmp_path / "mine", least_area=10**6).iterdir())


def test_formats_are_listed():
    rows = json.loads(CliRunner().invoke(app, ["list", "formats", "--json"]).stdout)
    assert {row["id"] for row in rows} == set(registry.EXPORTS)
    assert {row["id"] for row in rows if row["import"]} == set(registry.IMPORTS)
