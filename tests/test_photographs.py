"""Photographs that are no files of a folder: the same results of the same bytes, and one clear line for what is not
there."""

import json
from pathlib import Path

import pytest

from aas.images import ImageError, as_pixels, known_suffixes, read_image
from aas.photographs import Address, Photographs, limits, located, member_of, parquet
from aas.store.made_of import digest_of
from tests import places, tiny
from tests.command import run

FILES = places.photographs()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(limits, "WAITS", (0.0, 0.0))


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory):
    """Kind of place -> what is given for --images."""
    root = tmp_path_factory.mktemp("places")
    folder = places.in_folder(root / "folder", FILES)
    with places.served(root) as address:
        places.in_tar(root / "shard.tar", FILES), places.in_parquet(root / "rows.parquet", FILES)
        yield {
            "folder": folder,
            "tar": root / "shard.tar",
            "parquet": root / "rows.parquet",
            "memory": places.in_memory("photos", FILES),
            "tar in memory": places.in_memory("shards", {"0.tar": (root / "shard.tar").read_bytes()}) + "/0.tar",
            "tar of the web": f"{address}/shard.tar?download=true",
            "parquet of the web": f"{address}/rows.parquet",
            "web": address,
        }


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(tiny.saved(tiny.family("llava"), tmp_path_factory.mktemp("model")))


def photographs(place: object) -> Photographs:
    return Photographs(located(place), known_suffixes())


ELSEWHERE = ["tar", "parquet", "memory", "tar in memory", "tar of the web", "parquet of the web"]


@pytest.mark.parametrize("place", ELSEWHERE)
def test_the_same_names_and_bytes(everywhere, place):
    found = photographs(everywhere[place]).members
    assert list(found) == list(FILES)
    for name, member in found.items():
        assert member.read() == FILES[name]
        by_address = member_of(str(member))
        assert by_address == member and by_address.read() == FILES[name], "known by its address alone"
        assert read_image(member).shape[:2] == as_pixels(str(member)).shape[:2] == places.SIZES_HW[name]


def items(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".json", ".safetensors")
            and path.name != "run.json"}  # fmt: skip


@pytest.fixture(scope="module")
def of_folder(everywhere, model, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("of_folder")
    return both_stages(everywhere["folder"], model, out)


def both_stages(images: object, model: str, out: Path) -> Path:
    asking = ("--model", model, "--max-new-tokens", 4, "--batch-size", 1, "--workers", 0)
    code, said = run("infer-attn", "--images", images, *asking, "--out", out / "attn")
    assert code == 0, said
    code, said = run("segment", "gcg", "--attn", out / "attn", "--images", images, "--out", out / "masks")
    assert code == 0, said
    return out


@pytest.mark.parametrize("place", ["tar", "parquet", "memory", "tar of the web"])
def test_the_same_results(everywhere, model, of_folder, tmp_path, place):
    out = both_stages(everywhere[place], model, tmp_path)
    for stage in ("attn", "masks"):
        assert len(items(of_folder / stage)) == len(FILES) and items(out / stage) == items(of_folder / stage)
