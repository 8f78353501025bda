"""Names that never collide, files that are whole or absent."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aas.store.atomic import write_text, written
from aas.store.keys import quoted, result_names


def names(*paths: str, folder: str = "photos") -> list[str]:
    return result_names([(Path(folder) / path, Path(folder)) for path in paths])


def test_stem_where_it_is_unique():
    assert names("dog.jpg", "my cat.png", "日本.webp") == ["dog", "my cat", "日本"]


def test_extension_where_the_stem_is_shared():
    assert names("a.jpg", "a.png", "b.jpg") == ["a.jpg", "a.png", "b"]


def test_case_insensitive_file_systems():
    assert names("Dog.jpg", "dog.png") == ["Dog.jpg", "dog.png"]


def test_subfolders_are_part_of_the_name():
    assert names("a.jpg", "x/a.jpg") == ["a", "x%2Fa"]


def test_same_name_from_two_folders():
    images = [(Path("p/a.jpg"), Path("p")), (Path("q/a.jpg"), Path("q"))]
    assert result_names(images) == ["a.jpg", "a.jpg-2"]


@given(st.lists(st.text(min_size=1, max_size=8).filter(lambda s: s.strip("./") and "\0" not in s), max_size=8))
def test_names_are_unique_file_names(stems):
    images = [(Path("f") / f"{stem}.png", Path("f")) for stem in stems if "/" not in stem and "\\" not in stem]
    found = result_names(images)
    assert len({name.casefold() for name in found}) == len(images)
    assert not any(set(name) & set('/\\:*?"<>|\n') for name in found)


def test_quoted_is_reversible():
    from urllib.parse import unquote

    for name in ("a/b", "100%", "x%2Fy", "tab\there"):
        assert unquote(quoted(name)) == name and "/" not in quoted(name)


def test_a_failed_write_leaves_nothing(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError), written(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
