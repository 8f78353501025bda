"""Generated damage of items, annotations and answers: what a reader makes of it is a result or one clear error, and no
code that a `.pth` or `.p` asks for is run."""

import copy
import io
import json
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aas import rle
from aas.datasets.answers import read_answers
from aas.datasets.instances import read_truth
from aas.datasets.png import Png
from aas.datasets.reasonseg import ReasonSeg
from aas.datasets.refcoco import RefCoco, read_refs
from aas.records import Answer, AttentionMaps, View
from aas.stages.segment_jobs import read_annotation
from aas.store import reference
from aas.store.attention import AttentionItem, read_item, write_item
from aas.store.instances import Detection, InstanceResult, read_instances, write_instances
from aas.store.results import Result, read_result, write_result
from tests import expression_scenes as scenes

CLEAR = (ValueError, OSError)  # what every command tells in one line
MASK = rle.of_mask(np.eye(4, 6, dtype=bool))
fuzzed = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

# ----------------------------------------------------------------------------------------------------- damage

odd_values = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=6)
odd = st.recursive(
    odd_values, lambda of: st.lists(of, max_size=3) | st.dictionaries(st.text(max_size=6), of, max_size=3), max_leaves=4
)


def places_in(content: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in it."""
    if not isinstance(content, (dict, list)):
        return []
    here = [(content, key) for key in (content if isinstance(content, dict) else range(len(content)))]
    return here + [place for container, key in here for place in places_in(container[key])]


@st.composite
def damaged_json(draw: st.DrawFn, content: Any) -> Any:
    """It, with one or two values that are others, or gone."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 2))):
        container, key = draw(st.sampled_from(places_in(content)))
        if draw(st.integers(0, 4)):
            container[key] = draw(odd)
        else:
            del container[key]
        if not places_in(content):
            break
    return content


@st.composite
def damaged_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """It, with a few bytes that are others, some more or some fewer, or cut off."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(found)))
        found[start : start + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return bytes(found[: draw(st.sampled_from([len(found), len(found) // 2]) | st.integers(0, len(found)))])


def read(reader: Callable[[], Any]) -> None:
    """A result, or one line of what is wrong."""
    try:
        reader()
    except CLEAR as error:
        assert str(error).strip() and len(str(error).splitlines()) < 4


# ------------------------------------------------------------------------------------------------------ items


def an_answer() -> tuple[Answer, AttentionMaps]:
    maps = AttentionMaps(np.full((2, 3, 4), 0.1, np.float32), View((3, 4), (0, 0, 90, 60)))
    return Answer("What?", "a dog", (5, 6), ((0, 1), (1, 5))), maps


@fuzzed
@given(data=st.data())
def test_attention_items(tmp_path: Path, data: st.DataObject):
    path = tmp_path / "a.safetensors"
    write_item(path, AttentionItem("a.png", (60, 90), *an_answer(), "m", "m", {"heads": None}, None))
    path.write_bytes(data.draw(damaged_bytes(path.read_bytes())))
    read(lambda: read_item(path))


def a_result(path: Path) -> None:
    columns = {"points_xy": ((1, 1),), "prompt_points": (((1, 1, 1),),), "scores": (0.5,), "spans": ((0, 5),)}
    write_result(path, Result("photo", "a dog", ("a dog",), (MASK,), **columns, token_indices=((0, 1),)))


def instances(path: Path) -> None:
    found = Detection(7, 1, "dog", "a dog", MASK, 0.5, rle.area(MASK), (1, 1))
    write_instances(path, InstanceResult(7, "a dog", (found,)))


@pytest.mark.parametrize(("write", "reader"), [(a_result, read_result), (instances, read_instances)])
@fuzzed
@given(data=st.data())
def test_results(tmp_path: Path, write, reader, data: st.DataObject):
    path = tmp_path / "7.json"
    write(path)
    whole = path.read_bytes()
    path.write_text(json.dumps(data.draw(damaged_json(json.loads(whole)))))
    read(lambda: reader(path))
    path.write_bytes(data.draw(damaged_bytes(whole)))
    read(lambda: reader(path))


# -------------------------------------------------------------------------------------- annotations and answers


@pytest.fixture(scope="module")
def annotated(tmp_path_factory) -> Path:
    return scenes.write_all(tmp_path_factory.mktemp("fuzzed") / "data")


def with_masks(dataset: Any) -> None:
    for item in dataset.read().items:
        with suppress(KeyError, TypeError, ValueError, OSError):  # `aas eval` tells it of that expression alone
            item.read_targets()


ANNOTATIONS = {  # file -> what reads it
    "refcoco/instances.json": [
        lambda data: read_annotation(data / "refcoco/instances.json"),
        lambda data: read_truth(data / "refcoco/instances.json", {}),
        lambda data: with_masks(RefCoco(refs=data / "refcoco", split="val", split_by="unc")),
    ],
    "panoptic.json": [lambda data: with_masks(Png(narratives=data / "png.json", panoptic=data / "panoptic.json"))],
    "png.json": [lambda data: with_masks(Png(narratives=data / "png.json", panoptic=data / "panoptic.json"))],
    "reasonseg/7_0.json": [lambda data: with_masks(ReasonSeg(data=data / "reasonseg"))],
}


@pytest.mark.parametrize("name", ANNOTATIONS)
@fuzzed
@given(data=st.data())
def test_annotations(annotated: Path, name: str, data: st.DataObject):
    path = annotated / name
    whole = path.read_bytes()
    try:
        path.write_text(json.dumps(data.draw(damaged_json(json.loads(whole)))))
        for reader in ANNOTATIONS[name]:
            read(lambda reader=reader: reader(annotated))
    finally:
        path.write_bytes(whole)


LINES = [
    {"image": "a.png", "answer": "a dog on a bench", "id": "1", "question": "What?", "spans": [[0, 5]]},
    {"image": "a.png", "answer": "a dog", "id": 2, "token_ids": [5, 6]},
]


@fuzzed
@given(data=st.data())
def test_answers(tmp_path: Path, data: st.DataObject):
    path = tmp_path / "answers.jsonl"
    lines = data.draw(damaged_json(LINES))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    read(lambda: read_answers(path))
    path.write_bytes(data.draw(damaged_bytes(path.read_bytes())))
    read(lambda: read_answers(path))


# ------------------------------------------------------------------------------------------------- code in files


class Asks:
    """Asks whoever unpickles it to make a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self) -> tuple:
        return Path.mkdir, (self.folder,)


def as_p(content: Any, protocol: int) -> bytes:
    return pickle.dumps(content, protocol)


def as_pth(content: Any, protocol: int) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, pickle_protocol=protocol, _use_new_zipfile_serialization=protocol > 2)
    return buffer.getvalue()


REFS = {"ref_id": 1, "ann_id": 2, "split": "val", "sentences": [{"sent": "a dog", "tokens": ["a", "dog"]}]}
ITEM = {"attentions": torch.full((2, 3, 4), 0.5), "sequences": torch.tensor([[1, 5, 6]]), "answer": "a dog"}


@pytest.mark.parametrize(
    ("pickled", "reader", "content"),
    [(as_p, read_refs, [REFS]), (as_pth, reference.read_item, ITEM)],
    ids=[".p", ".pth"],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # torch wonders that it is not its own
@fuzzed
@given(data=st.data(), protocol=st.integers(0, 5), at=st.integers(0, 2), is_damaged=st.booleans())
def test_no_code_is_run(tmp_path: Path, pickled, reader, content, data, protocol: int, at: int, is_damaged: bool):
    """A call somewhere within, as it is and with damage around it."""
    path, canary = tmp_path / "a.p", tmp_path / "canary"
    whole = pickled([[content, Asks(canary)], {"a": content, "answer": Asks(canary)}, Asks(canary)][at], protocol)
    if is_damaged:
        path.write_bytes(data.draw(damaged_bytes(whole)))
        read(lambda: reader(path))
    else:
        path.write_bytes(whole)
        with pytest.raises(ValueError, match=r"a\.p"):
            reader(path)
    assert not canary.exists()


def test_a_few_damaged_bytes_of_a_pickle_take_no_memory(tmp_path: Path):
    """A place for 17 million remembered values; one byte more, and it would be 4 billion."""
    (tmp_path / "refs(unc).p").write_bytes(b"\x80\x02]r\xff\xff\xff\x00.")
    before = getrusage(RUSAGE_SELF).ru_maxrss
    assert read_refs(tmp_path / "refs(unc).p") == []
    assert getrusage(RUSAGE_SELF).ru_maxrss - before < 100_000
