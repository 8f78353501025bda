"""Photographs that are no files of a folder: the same results of the same bytes, and one clear line for what is not
there."""

import json
from pathlib import Path

import pytest

from aas.datasets.sources import ImageSource
from aas.engine.chunks import ALL
from aas.engine.stage import Work
from aas.images import ImageError, as_pixels, known_suffixes, read_image
from aas.photographs import Address, Member, Photographs, limits, located, member_of, parquet
from aas.stages.infer_attn import Request
from aas.store.made_of import digest_of
from aas.store.runs import RunFolder
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


def asked(images: object, model: str, out: Path, *more: object) -> tuple[int, str]:
    asking = ("--model", model, "--max-new-tokens", 4, "--batch-size", 1, "--workers", 0)
    return run("infer-attn", "--images", images, *asking, "--out", out, *more)


def segmented(attn: Path, images: object, out: Path) -> tuple[int, str]:
    return run("segment", "gcg", "--attn", attn, "--images", images, "--out", out)


@pytest.fixture(scope="module")
def of_folder(everywhere, model, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("of_folder")
    assert asked(everywhere["folder"], model, out / "attn")[0] == 0
    assert segmented(out / "attn", everywhere["folder"], out / "masks")[0] == 0
    return out


@pytest.mark.parametrize("place", ["parquet", "tar of the web"])
def test_the_same_answers(everywhere, model, of_folder, tmp_path, place):
    assert asked(everywhere[place], model, tmp_path)[0] == 0
    assert len(items(tmp_path)) == len(FILES) and items(tmp_path) == items(of_folder / "attn")


def test_the_same_masks_and_what_shows_them(everywhere, model, of_folder, tmp_path):
    attn, masks = tmp_path / "attn", tmp_path / "masks"
    assert asked(everywhere["tar"], model, attn)[0] == 0 and items(attn) == items(of_folder / "attn")
    assert segmented(attn, everywhere["tar"], masks)[0] == 0
    assert items(masks) == items(of_folder / "masks")
    shown, table = ("--out", tmp_path / "shown"), ("coco", masks, "--out", tmp_path / "coco")
    for command in (("view", masks, "--no-open"), ("show", "masks", masks, *shown), ("show", "attn", attn, *shown),
                    ("export", *table)):  # fmt: skip
        code, said = run(*command)
        assert code == 0, said
    assert "3 photographs" in (masks / "report.html").read_text()


def test_processes_parts_and_another_start(everywhere, model, of_folder, tmp_path):
    """Workers that read, chunks, photographs that move from one place to another, and a start that finds all done."""
    for chunk, place in enumerate(everywhere[name] for name in ("tar in memory", "parquet")):
        assert asked(place, model, tmp_path, "--num-chunks", 2, "--chunk-idx", chunk, "--workers", 1)[0] == 0
    assert items(tmp_path) == items(of_folder / "attn")
    code, said = asked(place, model, tmp_path)
    assert code == 0 and "0 done, 3 were there" in said


def test_another_photograph_of_the_same_name(model, tmp_path):
    place = places.in_memory("changing", FILES)
    asking = ("--images", place, "--model", model, "--max-new-tokens", 2, "--workers", 0)
    assert run("infer-attn", *asking, "--out", tmp_path / "run")[0] == 0
    places.in_memory("changing", FILES)  # a copy: other times, the same bytes
    code, said = run("infer-attn", *asking, "--out", tmp_path / "run")
    assert code == 0 and "3 were there" in said
    places.in_memory("changing", {"a.png": FILES["b.png"]})
    code, said = run("infer-attn", *asking, "--out", tmp_path / "run")
    assert code == 2 and "photograph of a.png" in said
    code, said = segmented(tmp_path / "run", place, tmp_path / "masks")
    assert code == 3 and "a.png" in said and "2 done" in said


def test_bad_ones_cost_nobody_else_and_are_tried_again(model, tmp_path):
    """A picture that is none, one that is not there any more, a shard that is cut off."""
    half = places.in_tar(tmp_path / "1.tar", FILES).read_bytes()[:-11000]
    (tmp_path / "1.tar").write_bytes(half)
    places.in_tar(tmp_path / "0.tar", {"a.png": FILES["a.png"], "bad.jpg": b"no image", "empty.jpg": b""})
    (tmp_path / "2.tar").write_bytes(b"no tar")
    asking = ("--images", tmp_path / "*.tar", "--model", model, "--max-new-tokens", 2, "--workers", 0)
    code, said = run("infer-attn", *asking, "--out", tmp_path / "run")
    failed = {line["image"]: line["error"] for line in map(json.loads, (tmp_path / "run/failed.jsonl").open())}
    assert code == 3 and set(items(tmp_path / "run")) == {
        f"{name}.safetensors" for name in ("0.tar%2Fa.png", "1.tar%2Fa.png", "1.tar%2Fb.png")
    }
    assert set(failed) == {"0.tar/bad.jpg", "0.tar/empty.jpg", "1.tar/sub/c.png", "1.tar", "2.tar"}
    assert "not an image" in failed["0.tar/bad.jpg"] and "0 bytes" in failed["0.tar/empty.jpg"]
    assert "cut off in it" in failed["1.tar/sub/c.png"] and "damaged at byte" in failed["1.tar"]
    assert "no tar file" in failed["2.tar"] and all(str(tmp_path) in error for error in failed.values())
    for shard in ("1.tar", "2.tar"):
        places.in_tar(tmp_path / shard, FILES)
    code, said = run("retry", tmp_path / "run")
    assert code == 3 and "4 done" in said, "what failed of 1.tar, and all of 2.tar"
    assert RunFolder(tmp_path / "run", ".safetensors").failures().keys() == {"0.tar/bad.jpg", "0.tar/empty.jpg"}
    code, said = run("infer-attn", *asking, "--out", tmp_path / "run")
    assert code == 3 and "0 done, 7 were there, 2 failed" in said


@pytest.mark.parametrize(
    ("said", "again"),
    [
        ("0.tar", ["0.tar/a.png"]),  # of a pattern
        ("shards/0.tar", ["0.tar/a.png"]),
        ("s3://b/shards/0.tar", ["0.tar/a.png"]),  # as `aas ground` calls one of which nothing can be read
        ("1", ["1.tar/a.png"]),  # and the rest of one that is cut off
        ("ards/0.tar", []),
        ("c.png", []),
        ("d.png", ["d.png"]),
    ],
)
def test_what_is_tried_again_where_a_shard_failed_as_a_whole(said: str, again: list[str]):
    images = {f"{i}.tar/a.png": Member("a.png", "tar", f"s3://b/shards/{i}.tar") for i in range(2)}
    images["d.png"] = Path("d.png")
    requests = [Request(ImageSource(key, image), "") for key, image in images.items()]
    work = Work(requests, [("e", "gone")], 4).part(ALL, {said})
    keys = [item.key for item in work.items]
    assert keys == again and work.keys() == {said, *again} and not work.missing


def test_a_list_of_urls(everywhere, model, tmp_path):
    folder, address = places.in_folder(tmp_path / "here", {"a.png": FILES["a.png"]}), everywhere["web"]
    urls = [f"{address}/folder/b.png", f"{everywhere['memory']}/sub/c.png", f"tar://b.png::{everywhere['tar']}"]
    (folder / "list.txt").write_text("\n".join([*urls, "a.png", f"{address}/none.png", "file:///etc/passwd"]))
    asking = ("--model", model, "--max-new-tokens", 2, "--workers", 0)
    code, _ = run("infer-attn", "--images", folder / "list.txt", *asking, "--out", tmp_path / "run")
    failed = (tmp_path / "run/failed.jsonl").read_text()
    assert code == 3 and len(items(tmp_path / "run")) == 4 and "404" in failed and "no such file" in failed
    code, said = segmented(tmp_path / "run", folder / "list.txt", tmp_path / "masks")
    assert code == 0, said
    assert len(items(tmp_path / "masks")) == 4


def test_ground_and_what_reads_its_results(everywhere, tmp_path):
    """Also names that two places share."""
    address = f"tar://a.png::{everywhere['tar']}"
    given = (address, everywhere["memory"] + "/a.png", everywhere["web"] + "/folder/b.png", "s3x://a/b.png")
    saying = ("--answer", "a dog on a bench", "--no-png")
    code, said = run("ground", *given, *saying, "--out", tmp_path / "run")
    assert code == 3 and "s3x://a/b.png" in said and "photographs are taken from http://" in said
    names = {"a.png.json", "a.json", "b.json"}
    found = items(tmp_path / "run")
    assert {name for name in found if name.endswith(".json")} == names
    one, same = (json.loads(found[name]) for name in ("a.png.json", "a.json"))
    assert one["pred_masks"] == same["pred_masks"] and one["image"] == address
    code, said = run("ground", *given[:-1], *saying, "--out", tmp_path / "run")
    assert code == 0 and "3 were there" in said
    assert run("view", tmp_path / "run", "--no-open")[0] == 0
    assert run("export", "coco", tmp_path / "run", "--out", tmp_path / "coco")[0] == 0
    page = (tmp_path / "run/report.html").read_text()
    assert 'href="memory' not in page and 'href="tar' not in page, "no browser follows these"


def test_patterns_and_single_photographs(everywhere):
    folder = everywhere["tar in memory"].removesuffix("0.tar")
    assert list(photographs(f"{folder}*.tar").members) == [f"0.tar/{name}" for name in FILES]
    assert list(photographs(f"{folder[:-2]}*/*.tar").members) == [f"shards/0.tar/{name}" for name in FILES]
    web, tar = f"{everywhere['web']}/folder/a.png?x=1", f"tar://a.png::{everywhere['tar']}"
    for one in (f"{everywhere['memory']}/a.png", web, tar):
        found = photographs(one).members
        assert list(found) == ["a.png"] and found["a.png"].read() == FILES["a.png"]
    assert (photographs(everywhere["tar"]) / "sub/c").name == "sub/c.png", "as the authors' items have it"


# ------------------------------------------------------------------------------------------------ what cannot be read


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("file:///etc", "for a file of this machine give its path"),
        ("ftp://127.0.0.1/photos", "photographs are taken from http://"),
        ("simplecache::memory://photos", "photographs are taken from|chains"),
        ("memory://a::memory://photos", "chains"),
        ("memory://nowhere", "no such file or folder"),
        ("memory://nowhere/*.tar", "no file has such a name"),
        ("s3://bucket/photos", "s3fs"),
        ("x.tar.gz", "unpack it"),
        ("none.tar", "no such file"),
        ("none.parquet", "no such file"),
        ("http://127.0.0.1/*.tar", "lists no files"),
    ],
)
def test_places_that_cannot_be(place, said):
    with pytest.raises(ImageError, match=said) as error:
        photographs(place).members  # noqa: B018
    assert "\n" not in str(error.value)
    assert run("infer-attn", "--images", place, "--out", "nowhere")[0] == 2


def test_names_of_a_tar(tmp_path, caplog):
    """The last of several; bytes that are no UTF-8; hidden files, links and sparse files are no photographs."""
    import tarfile

    latin = b"caf\xe9.png".decode(errors="surrogateescape")
    path = places.in_tar(tmp_path / "x.tar", {latin: b"1", "./b.png": b"2", "../c.png": b"3", "._b.png": b"4"})
    with tarfile.open(path, "a") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE):
            entry = tarfile.TarInfo(f"{kind!r}.png")
            entry.type, entry.linkname = kind, "/etc/passwd"
            tar.addfile(entry)
        places._add(tar, "b.png", b"22")
    found = photographs(path).members
    assert {name: member.read() for name, member in found.items()} == {latin: b"1", "b.png": b"22", "../c.png": b"3"}
    assert "there twice (1, as b.png)" in caplog.text


def test_headers_that_lie(tmp_path):
    """A size of exabytes, one below zero, a long name of a gigabyte: the list ends, and none of it is read."""
    import tarfile

    for kind, size in ((tarfile.REGTYPE, 1 << 60), (tarfile.REGTYPE, -(1 << 20)), (tarfile.GNUTYPE_LONGNAME, 1 << 30)):
        first = places.in_tar(tmp_path / "x.tar", {"a.png": b"1"}).read_bytes()[:2048]
        entry = tarfile.TarInfo("big.png")
        entry.type, entry.size = kind, size
        (tmp_path / "x.tar").write_bytes(first + entry.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
        found = photographs(tmp_path / "x.tar").members
        assert found["a.png"].read() == b"1" and "damaged at byte" in found["x.tar"].trouble
        assert (kind != tarfile.GNUTYPE_LONGNAME) or "a header of absurd size" in found["x.tar"].trouble
        if "big.png" in found:
            with pytest.raises(ImageError, match="larger than 100 MB"):
                found["big.png"].read()


def test_columns_of_a_parquet(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    def members(**columns: object) -> dict:
        pq.write_table(pa.table(columns), tmp_path / "x.parquet")
        return photographs(tmp_path / "x.parquet").members

    pictures = list(FILES.values())
    assert members(img=pictures, n=[1, 2, 3])["00000001"].read() == pictures[1], "bare bytes, by their numbers"
    rows = [{"bytes": one, "path": path} for one, path in zip(pictures, ("x.png", "x.png", "y"), strict=True)]
    assert list(members(image=rows, other=rows)) == ["00000000", "00000001", "y"], "a path that is there twice is none"
    with pytest.raises(ImageError, match=r"several columns of images: leave one\. Columns: left, right"):
        members(left=rows, right=rows)
    with pytest.raises(ImageError, match=r"no column of images .*Columns: text, n"):
        members(text=["a"], n=[1])
    with pytest.raises(ImageError, match="this row holds no bytes"):
        members(image=[{"bytes": None, "path": "z.png"}, rows[0]])["z.png"].read()
    (tmp_path / "x.parquet").write_bytes((tmp_path / "x.parquet").read_bytes()[:-9])
    with pytest.raises(ImageError, match="no parquet file, or damaged"):
        photographs(tmp_path / "x.parquet").members  # noqa: B018


def test_a_row_group_is_bounded(tmp_path, monkeypatch):
    """Also where its few bytes stand for many: a dictionary holds the image once."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    picture = bytes(200_000)
    pq.write_table(pa.table({"image": [picture] * 100}), tmp_path / "x.parquet", compression="zstd")
    assert (tmp_path / "x.parquet").stat().st_size < 100_000
    member = photographs(tmp_path / "x.parquet").members["00000007"]
    assert member.read() == picture
    monkeypatch.setattr(parquet, "MAX_GROUP_MEGABYTES", 10)
    parquet._group.cache_clear()
    with pytest.raises(ImageError, match="write it anew with fewer rows in a group"):
        member.read()
    monkeypatch.setattr(limits, "MAX_MEGABYTES", 0)
    monkeypatch.setattr(parquet, "MAX_GROUP_MEGABYTES", 512)
    with pytest.raises(ImageError, match="larger than 0 MB"):
        member.read()


# ---------------------------------------------------------------------------------------------------------- networks


def test_what_may_pass_is_tried_again(everywhere):
    assert member_of(f"{everywhere['web']}/busy/folder/a.png").read() == FILES["a.png"]


def test_what_does_not_pass_is_told_at_once(everywhere):
    from tests.places import _Ranges

    with pytest.raises(ImageError, match="404"):
        member_of(f"{everywhere['web']}/gone.png").read()
    assert _Ranges.asked.count("/gone.png") == 1
    with pytest.raises(ImageError, match="gives no parts of files"):
        photographs(f"{everywhere['web']}/whole/shard.tar").members  # noqa: B018


def test_a_store_that_hangs_and_one_that_breaks(monkeypatch):
    import time

    from fsspec.implementations.memory import MemoryFileSystem

    member = member_of(places.in_memory("slow", FILES) + "/a.png")
    monkeypatch.setattr(limits, "READ_SECONDS", 0.05)
    monkeypatch.setattr(MemoryFileSystem, "_open", lambda *_, **__: time.sleep(1))
    with pytest.raises(ImageError, match=r"a.png: cannot be read \(timed out, tried 3 times\)"):
        member.read()
    calls = []
    monkeypatch.setattr(MemoryFileSystem, "_open", lambda *_, **__: calls.append(1) or 1 / 0)
    with pytest.raises(ImageError, match=r"tried 3 times"):
        member.read()
    assert len(calls) == 3


def test_what_was_read_for_its_digest_is_not_read_again(everywhere):
    from tests.places import _Ranges

    member = member_of(f"{everywhere['web']}/folder/a.png?once")
    digest_of(member)
    assert member.read() == FILES["a.png"] and _Ranges.asked.count("/folder/a.png?once") == 1
    member.read()
    assert _Ranges.asked.count("/folder/a.png?once") == 2, "nobody says whether it is still the same"


def test_only_addresses_that_are_known_are_addresses():
    assert isinstance(located("s3://a/b"), Address) and located("a/b.tar") == Path("a/b.tar")
    with pytest.raises(ImageError, match="no such file"):
        as_pixels("reference://x.json")
