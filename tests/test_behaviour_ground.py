"""Every option of `aas ground` that decides a mask: the same as `aas infer-attn` and `aas segment` with that option."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests import tiny
from tests.command import done
from tests.tiny import segmenters
from tests.tiny.llava import llava

QUESTION = "What is it?"
ANSWER = "Young skateboarders and photographers watch a white lighthouse behind the waterfront."
COLUMNS = ("phrases", "points", "pred_masks", "spans")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("ground")
    model, processor = llava(n_kv_heads=4, image_side=112)
    model.save_pretrained(root / "model")
    processor.save_pretrained(root / "model")
    segmenters.undecided_sam(root / "sam")
    (root / "photos").mkdir()
    Image.fromarray(tiny.a_photo((60, 90))).save(root / "photos/photo.png")
    (root / "answers.jsonl").write_text(json.dumps({"image": "photo.png", "answer": ANSWER}))
    return root


def at_once(folder: Path, out: Path, *options: object) -> dict:
    common = ("--model", folder / "model", "--segmenter", folder / "sam", "--question", QUESTION, "--out", out)
    done("ground", folder / "photos/photo.png", *common, *options)
    return json.loads((out / "photo.json").read_text())


def in_two_steps(folder: Path, out: Path, attention: tuple[object, ...], masks: tuple[object, ...]) -> dict:
    where = ("--images", folder / "photos")
    done("infer-attn", *where, "--model", folder / "model", "--question", QUESTION, "--out", out / "attn", *attention)
    done(
        "segment", "gcg", "--attn", out / "attn", *where, "--segmenter", folder / "sam", "--out", out / "masks", *masks
    )
    return json.loads((out / "masks/photo.json").read_text())


@pytest.fixture(scope="module")
def plain(folder) -> dict:
    return at_once(folder, folder / "plain", "--answer", ANSWER)


@pytest.mark.parametrize(
    ("of_attention", "of_masks"),
    [
        ((), ()),
        (("--heads", "1"), ()),
        (("--layers", "0,-1"), ()),
        (("--alignment", "self"), ()),
        ((), ("--merge", "max")),
        ((), ("--words", "chunk")),
        ((), ("--prompt", "mask")),
        ((), ("--points", 2)),
        ((), ("--negative-points", 1)),
        ((), ("--mask-choice", "best-score")),
        ((), ("--mask-choice", "best-attention")),
        (("--heads=-2",), ("--preset", "reference-2024")),
        ((), ("--preset", "reference-2025")),
    ],
    ids=lambda options: "_".join(map(str, options)).strip("-") or "none",
)
def test_ground_is_infer_attn_and_segment(folder, plain, tmp_path, of_attention, of_masks):
    ours = at_once(folder, tmp_path / "ground", "--answer", ANSWER, *of_attention, *of_masks)
    expected = in_two_steps(folder, tmp_path, ("--answers", folder / "answers.jsonl", *of_attention), of_masks)
    assert {name: ours[name] for name in COLUMNS} == {name: expected[name] for name in COLUMNS}
    assert ours["scores"] == pytest.approx(expected["scores"], abs=1e-3)
    changed = any(ours[name] != plain[name] for name in ("points", "pred_masks"))
    assert changed == bool(of_attention or of_masks), "the option matters here"


@pytest.mark.parametrize("options", [("--seed", 1), ("--seed", 2), ("--top-p", 0.3)], ids=str)
def test_what_is_drawn_is_drawn_alike(folder, tmp_path, options):
    drawn = ("--temperature", 3.0, "--max-new-tokens", 12, *options)
    ours = at_once(folder, tmp_path / "ground", *drawn)
    expected = in_two_steps(folder, tmp_path, drawn, ())
    assert ours["caption"] == expected["caption"]
    assert (
        ours["caption"] != at_once(folder, tmp_path / "other", "--temperature", 3.0, "--max-new-tokens", 12)["caption"]
    )
