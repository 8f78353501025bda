"""`aas status`, `verify` and `merge` over every kind of damage: one line that names the file, never "0 damaged"."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from aas import rle
from aas.records import Answer, AttentionMaps, View
from aas.store.attention import AttentionItem, write_item
from aas.store.instances import Detection, InstanceResult, write_instances
from aas.store.results import Result, write_result
from tests.command import run

MASK = rle.of_mask(np.eye(4, 6, dtype=bool))
ODD = [None, True, -1, 1.5, 2**64, 10**400, float("nan"), float("inf"), "", "x", "1", [], [[]], {}, [None], [-1], "\0"]
NAME = "photo.jpg"


def check(folder: Path, path: Path) -> None:
    code, output = run("verify", folder)
    assert code == 1 and output.startswith(f"{path}: ") and "1 damaged" in output and output.count("\n") == 2


def begin(folder: Path, command: str) -> None:
    (folder / "run.json").write_text(json.dumps({"command": command, "arguments": {}, "n_images": 1}))


# --------------------------------------------------------------------------------------------------- attention


@pytest.fixture
def attention(tmp_path: Path) -> Path:
    answer = Answer("What?", "a dog", (5, 6), ((0, 1), (1, 5)))
    maps = AttentionMaps(np.full((2, 3, 4), 0.1, np.float32), View((3, 4), (0, 0, 90, 60)))
    item = AttentionItem(NAME, (60, 90), answer, maps, "m", "m", {"heads": None}, np.zeros((1, 3, 4), np.float32))
    write_item(tmp_path / f"{NAME}.safetensors", item)
    begin(tmp_path, "infer-attn")
    assert run("verify", tmp_path)[0] == 0
    return tmp_path / f"{NAME}.safetensors"


def metadata_of(path: Path) -> dict[str, str]:
    content = path.read_bytes()
    return json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])["__metadata__"]


@pytest.mark.parametrize(
    "key, value",
    [
        ("views", [{"name": "image", "size_hw": [0, 4], "box_xyxy": [0, 0, 90, 60]}]),
        ("views", [{"name": "image", "size_hw": [3, 4.5], "box_xyxy": [0, 0, 90, 60]}]),
        ("views", [{"name": "image", "size_hw": [3, 4], "box_xyxy": [0, 0, 0, 60]}]),
        ("views", [{"name": "image", "size_hw": [3, 4], "box_xyxy": [0, 0, float("inf"), 60]}]),
        ("views", [{"name": "image", "size_hw": [3, 4], "box_xyxy": [0, 0, 90]}]),
        ("views", [{"name": 1, "size_hw": [3, 4], "box_xyxy": [0, 0, 90, 60]}]),
        ("views", []),
        ("views", [{}, {}]),
        ("image_size_hw", [60, 0]),
        ("image_size_hw", [60, 10**9]),
        ("image_size_hw", [60, True]),
        ("image_size_hw", ["60", 90]),
        ("reduction", []),
        ("schema", 2),
        *[(key, value) for key in ("views", "image_size_hw", "alignment", "reduction") for value in ODD if value != {}],
    ],
)
def test_what_an_item_says_of_its_maps(attention: Path, key: str, value: object):
    save_file(load_file(attention), attention, metadata_of(attention) | {key: json.dumps(value)})
    check(attention.parent, attention)


@pytest.mark.parametrize("key", ["image", "views", "image_size_hw", "question", "answer", "alignment", "reduction"])
def test_what_an_item_does_not_say(attention: Path, key: str):
    save_file(
        load_file(attention), attention, {name: text for name, text in metadata_of(attention).items() if name != key}
    )
    check(attention.parent, attention)


@pytest.mark.parametrize(
    "name, damage",
    [
        ("maps", lambda maps: maps * np.nan),
        ("maps", lambda maps: maps * np.inf),
        ("maps", lambda maps: maps[:1]),
        ("maps", lambda maps: maps[..., :0]),
        ("maps", lambda maps: maps.astype(np.float64)),
        ("maps", lambda maps: maps.ravel()),
        ("phrase_maps", lambda maps: maps * np.nan),
        ("phrase_maps", lambda maps: maps[:, :2]),
        ("phrase_maps", lambda maps: maps[0]),
        ("token_ids", lambda ids: -ids),
        ("token_ids", lambda ids: ids + 2**40),
        ("token_ids", lambda ids: ids.astype(np.float32)),
        ("token_ids", lambda ids: ids[:1]),
        ("token_ids", lambda ids: ids[:, None]),
        ("token_spans", lambda spans: spans[::-1]),
        ("token_spans", lambda spans: spans[:, ::-1]),
        ("token_spans", lambda spans: spans + 1),
        ("token_spans", lambda spans: spans - 1),
        ("token_spans", lambda spans: spans[:, :1]),
        ("token_spans", lambda spans: spans.ravel()),
    ],
)
def test_tensors_of_an_item(attention: Path, name: str, damage):
    tensors = load_file(attention)
    tensors[name] = np.ascontiguousarray(damage(tensors[name]))
    save_file(tensors, attention, metadata_of(attention))
    check(attention.parent, attention)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:7],
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: b"\xff" * 8 + content[8:],
        lambda content: content[:8] + b"[" * (len(content) - 8),
    ],
)
def test_bytes_of_an_item(attention: Path, damage):
    attention.write_bytes(damage(attention.read_bytes()))
    check(attention.parent, attention)


# ----------------------------------------------------------------------------------------------------- results


@pytest.fixture
def result(tmp_path: Path) -> Path:
    columns = {"points_xy": ((1, 1),), "prompt_points": (((1, 1, 1),),), "scores": (0.5,), "spans": ((0, 5),)}
    path = tmp_path / "photo.json"
    write_result(path, Result("photo", "a dog", ("a dog",), (MASK,), **columns, token_indices=((0, 1),)))
    begin(tmp_path, "segment gcg")
    assert run("verify", tmp_path)[0] == 0
    return path


@pytest.mark.parametrize("value", [one for one in ODD if one not in ([], [[]])], ids=repr)
@pytest.mark.parametrize(
    "place", ["pred_masks", "size", "counts", "points", "prompt_points", "scores", "spans", "token_indices"]
)
def test_values_of_a_result(result: Path, place: str, value: object):
    content = json.loads(result.read_text())
    at, key = (content["pred_masks"][0], place) if place in ("size", "counts") else (content[place], 0)
    if place == "scores" and value in (-1, 1.5, 2**64) and value is not True:
        return  # numbers are scores
    at[key] = value
    result.write_text(json.dumps(content))
    check(result.parent, result)


def test_maps_beside_a_grounding(result: Path, tmp_path: Path):
    begin(tmp_path, "ground")
    answer = Answer("What?", "a dog", (5, 6), ((0, 1), (1, 5)))
    maps = AttentionMaps(np.full((2, 3, 4), 0.1, np.float32), View((3, 4), (0, 0, 90, 60)))
    for n, code in ((1, 0), (2, 1)):
        phrases = np.zeros((n, 3, 4), np.float32)
        beside = AttentionItem(NAME, (60, 90), answer, maps, "m", "m", {}, phrases)
        write_item(tmp_path / "photo.safetensors", beside)
        assert run("verify", tmp_path)[0] == code
    (tmp_path / "photo.safetensors").write_bytes(b"")
    check(tmp_path, tmp_path / "photo.safetensors")


def test_instances_whose_area_is_another(tmp_path: Path):
    begin(tmp_path, "segment instance")
    found = Detection(7, 1, "dog", "a dog", MASK, 0.5, rle.area(MASK), (1, 1))
    write_instances(tmp_path / "7.json", InstanceResult(7, "a dog", (found,)))
    content = json.loads((tmp_path / "7.json").read_text())
    for key, value in (("area", 1), ("iscrowd", 2), ("iscrowd", -1), ("point", [1, 2**64])):
        changed = content | {"detections": [content["detections"][0] | {key: value}]}
        (tmp_path / "7.json").write_text(json.dumps(changed))
        check(tmp_path, tmp_path / "7.json")
        code, output = run("merge", tmp_path)
        assert code == 2 and "7.json" in output


# ---------------------------------------------------------------------------------------------------- run.json


@pytest.mark.parametrize("key", ["n_images", "arguments", "command"])
@pytest.mark.parametrize("value", ODD, ids=repr)
def test_values_of_a_run(tmp_path: Path, key: str, value: object):
    (tmp_path / "run.json").write_text(json.dumps({"command": "ground", "arguments": {}, "n_images": 1} | {key: value}))
    for command in ("status", "verify", "merge"):
        code, output = run(command, tmp_path)
        fits = (key, value) in (("n_images", None), ("arguments", {})) or (key == "command" and isinstance(value, str))
        assert output.count("\n") < 4 and (fits or (code == 2 and "run.json is damaged" in output))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"\0" * 9, b"null", b"1", b"[" * 99_999, b'{"command": "\xff"}'])
def test_a_run_that_is_none(tmp_path: Path, content: bytes):
    (tmp_path / "run.json").write_bytes(content)
    for command in ("status", "verify", "merge"):
        code, output = run(command, tmp_path)
        assert code == 2 and f"{tmp_path / 'run.json'} is damaged" in output and output.count("\n") == 1


@pytest.mark.parametrize("value", [one for one in ODD if not isinstance(one, str)], ids=repr)
def test_failures_that_are_none(tmp_path: Path, value: object):
    begin(tmp_path, "ground")
    lines = [
        value,
        {"image": value, "error": "x"},
        {"image": "a", "error": value},
        {"image": "a", "error": "b", "key": value},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "failed.jsonl").write_bytes(
        text.encode() + b"\xff\xfe\n" + b'{"image": "c", "error": "broken"}\n{"image'
    )
    code, output = run("status", tmp_path)
    assert code == 0 and "1 failed" in output and "failed: broken" in output
