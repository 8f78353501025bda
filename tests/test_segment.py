"""`aas segment` against the results of the method's authors, and its run folders."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from typer.testing import CliRunner

from aas.cli import app
from tests.conftest import shared


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def iou(one: dict, other: dict) -> float:
    """1 for two masks that are both empty."""
    return float(coco_mask.iou([one], [other], [0])[0, 0]) if coco_mask.area([one, other]).any() else 1.0


@pytest.fixture(scope="module")
def golden(shared_dir) -> Path:
    return shared_dir / "golden"


def models(golden: Path) -> list[object]:
    folder = golden / "models"
    return ["--segmenter", folder / "sam-tiny", "--phrases", folder / "en_ewt_np", "--tokenizer", folder / "llava-tiny"]


@shared
@pytest.mark.parametrize("heads", ["all-heads", "head-minus-2"])
def test_gcg_of_the_reference(golden, tmp_path, heads):
    where = ("--attn", golden / "segment/attn_pth" / heads, "--images", golden / "images", "--out", tmp_path)
    annotation = ("--ref-anno", golden / "segment/gcg_ref_anno.json")
    assert run("segment", "gcg", *where, *annotation, *models(golden))[0] == 0
    for name in ("dog", "truck"):
        ours = json.loads((tmp_path / f"{name}.json").read_text())
        theirs = json.loads((golden / f"segment/gcg/{heads}/{name}.json").read_text())
        for key in ("image_id", "caption", "phrases", "points"):
            assert ours[key] == theirs[key]
        assert min(map(iou, ours["pred_masks"], theirs["pred_masks"])) >= 0.999
        assert [ours["caption"][a:b] for a, b in ours["spans"]] == ours["phrases"]


@shared
@pytest.mark.parametrize("heads", ["all-heads", "head-minus-2"])
@pytest.mark.parametrize("masks", ["last-mask", "more-masks"])
def test_instances_of_the_reference(golden, tmp_path, heads, masks):
    where = ("--attn", golden / "segment/attn_pth" / heads, "--images", golden / "images", "--out", tmp_path)
    annotation = ("--ref-anno", golden / "segment/instance_ref_anno.json", "--category-thresh", 0.2)
    more = ["--more-masks"] if masks == "more-masks" else []
    code, _ = run("segment", "instance", *where, *annotation, *models(golden), *more)
    assert code == 0
    ours = json.loads((tmp_path / "results.json").read_text())
    theirs = json.loads((golden / f"segment/instance/{heads}/{masks}.json").read_text())
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for key in ("image_id", "category_id", "category_name", "noun_phrase", "point", "iscrowd"):
            assert one[key] == other[key], key
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        assert iou(one["segmentation"], other["segmentation"]) >= 0.999
        assert one["area"] == pytest.approx(other["area"], rel=1e-3)
    assert "oracle" in json.loads((tmp_path / "run.json").read_text())
    np.testing.assert_array_equal([d["id"] for d in ours], np.arange(1, len(ours) + 1))
