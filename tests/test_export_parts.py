"""What formats are made of: polygons, brush run lengths, classes, each thing and each pixel once."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy
from PIL import Image, ImageDraw

from aas import rle
from aas.export import brush
from aas.export.classes import OwnClasses, read_classes
from aas.export.cvat import row_runs
from aas.export.names import ClassNames
from aas.export.objects import each_once, each_pixel_once
from aas.export.photograph import Found, label_of
from aas.export.polygons import joined, parts
from tests.export_runs import HW, INNER, OVER, PARTS, RING, box, iou

MASKS = of_numpy.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 15)))


def filled(polygons: list[np.ndarray], size_hw: tuple[int, int]) -> np.ndarray:
    canvas = np.zeros(size_hw, np.uint8)
    for polygon in polygons:
        cv2.fillPoly(canvas, [polygon], 1)
    return canvas.astype(bool)


def filled_by_pillow(polygons: list[np.ndarray], size_hw: tuple[int, int]) -> np.ndarray:
    canvas = Image.new("L", size_hw[::-1])
    for polygon in polygons:
        one = Image.new("L", size_hw[::-1])
        ImageDraw.Draw(one).polygon([tuple(map(float, point)) for point in polygon], outline=1, fill=1)
        canvas.paste(1, mask=one.point(lambda value: 255 * value))
    return np.array(canvas, bool)


@pytest.mark.parametrize("mask", [RING, PARTS, RING | INNER | OVER, box(0, 0, *HW[::-1]), RING & INNER])
def test_polygons_filled_are_the_mask(mask):
    assert (filled(parts(mask), HW) == mask).all()
    assert (filled_by_pillow(parts(mask), HW) == mask).all()
    assert all(len(polygon) >= 3 for polygon in parts(mask))


@settings(max_examples=80, deadline=None)
@given(mask=MASKS)
def test_polygons_never_lose_a_pixel(mask):
    """Seams of hole-riddled noise may cross a hole; of the mask itself nothing is lost."""
    drawn = filled(parts(mask), mask.shape)
    assert (drawn >= mask).all() and len(parts(mask)) == cv2.connectedComponents(mask.astype(np.uint8))[0] - 1


def test_one_polygon_for_all_parts():
    polygon = joined(parts(PARTS))
    assert iou(filled([polygon], HW), PARTS) > 0.9 and (filled([polygon], HW) >= PARTS).all()


def test_tolerance_is_kept():
    y, x = np.mgrid[:200, :200]
    disc = (x - 100) ** 2 + (y - 90) ** 2 < 70**2
    sizes = [len(parts(disc, tolerance)[0]) for tolerance in (0, 0.5, 1, 2)]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 3 * sizes[-1]
    for tolerance in (0.5, 1, 2):
        lost = filled(parts(disc, tolerance), disc.shape) ^ disc
        assert 0 < lost.sum() < 2 * 3.2 * 70 * (tolerance + 0.5)  # a band along the disc's edge


# ---- run lengths -------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(mask=MASKS)
def test_brush_runs_come_back(mask):
    assert (brush.decoded(brush.encoded(mask), mask.shape) == mask).all()
    runs = row_runs(mask)
    assert (np.repeat(np.arange(len(runs)) % 2, runs).reshape(mask.shape) == mask).all()


def test_long_runs_and_values_one_after_another():
    wide = np.zeros((200, 300), bool)
    wide[100:] = True
    assert (brush.decoded(brush.encoded(wide), wide.shape) == wide).all()
    # Two pixels, each value by itself, as Label Studio writes soft edges: alpha 200 and 100.
    values = [1, 2, 3, 200, 9, 9, 9, 100]
    bits = f"{8:032b}{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16)) + "000" + f"{7:03b}"
    bits += "".join(f"{value:08b}" for value in values)
    content = [int(bits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(bits), 8)]
    assert brush.decoded(content, (1, 2)).tolist() == [[True, False]]


@settings(max_examples=100, deadline=None)
@given(content=st.lists(st.integers(-1, 256), max_size=40))
def test_damaged_brush_runs_are_one_line(content):
    head = brush.encoded(np.zeros((2, 3), bool))[:7]
    with pytest.raises(ValueError, match="brush run lengths"):
        brush.decoded([*head[:6], 255, *content, 256], (2, 3))
    with pytest.raises(ValueError, match="brush run lengths"):
        brush.decoded(brush.encoded(np.zeros((2, 3), bool)), (3, 3))
    with pytest.raises(ValueError, match="cut off"):
        brush.decoded(head, (2, 3))


# ---- objects and classes -----------------------------------------------------------------------------


def found(phrase: str, mask: np.ndarray, label: str | None = None) -> Found:
    return Found(phrase, label or label_of(phrase), rle.of_mask(mask))


def test_each_thing_once():
    kept = each_once([found("a dog", RING), found("the dog", RING), found("a cat", RING), found("The dog", PARTS)])
    assert [one.phrase for one in kept] == ["a dog", "a cat", "The dog"]


def test_each_pixel_once():
    numbers, shared = each_pixel_once([found("a", INNER), found("b", RING | INNER), found("c", INNER)], HW)
    assert ((numbers == 1) == INNER).all() and ((numbers == 2) == RING).all() and not (numbers == 3).any()
    assert shared == INNER.sum()


@pytest.mark.parametrize(
    "phrase, label",
    [("A Dog", "dog"), ("the  two\ndogs", "two dogs"), ("the", "the"), ("\x00", "thing"), ("An apple\u202e", "apple")],
)
def test_a_phrase_as_a_class(phrase, label):
    assert label_of(phrase) == label


def test_numbers_of_classes():
    names = ClassNames(["b", "a"])
    assert [names.number(name) for name in ("a", "c", "b", "c")] == [1, 2, 0, 2] and list(names) == ["b", "a", "c"]


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> OwnClasses:
    path = tmp_path_factory.mktemp("classes") / "classes.txt"
    path.write_text("dog: puppy, hound  # barks\n\nperson: child, people\ntraffic light\nlight\ncouch\n")
    return OwnClasses(path)


@pytest.mark.parametrize(
    "phrase, name",
    [
        ("A small brown dog", "dog"),
        ("two dogs", "dog"),
        ("THE HOUND", "dog"),
        ("the children", "person"),
        ("a red traffic light", "traffic light"),
        ("a light", "light"),
        ("a person with a dog", "person"),
        ("a dog house", None),
        ("a sofa", "couch"),  # by vectors
        ("grass", None),
        ("", None),
        ("...", None),
    ],
)
def test_phrases_to_ones_own_classes(own, phrase, name):
    assert own.of(phrase) == name


def test_what_stays_unmapped_is_listed(own, tmp_path):
    own.unmapped.clear()
    for phrase in ("green\tgrass", "a kite", "a kite", "a dog"):
        own.of(phrase)
    (line,) = own.report(tmp_path / "unmapped.tsv")
    assert line.startswith("3 phrases of 2 wordings")
    rows = [row.split("\t") for row in (tmp_path / "unmapped.tsv").read_text().splitlines()]
    assert [row[:2] for row in rows] == [["count", "phrase"], ["2", "a kite"], ["1", "green grass"]]
    assert all(len(row) == 4 and row[2] in own.names for row in rows[1:])


def test_a_wording_of_two_classes(tmp_path):
    """Which of them is meant nobody knows."""
    file = tmp_path / "classes.txt"
    file.write_text("dog: hound\ncat\ndog: puppy\n")
    with pytest.raises(ValueError, match="the class 'dog' has two lines"):
        read_classes(file)
    file.write_text("person: man\ndogs: puppy\ndriver: Men\n")
    with pytest.raises(ValueError, match="'Men' is of the class 'person' and of 'driver'"):
        OwnClasses(file, thresh=2)


def test_a_file_without_classes(tmp_path):
    (tmp_path / "none.txt").write_text("# dog\n : cat\n")
    with pytest.raises(ValueError, match="lists no class"):
        read_classes(tmp_path / "none.txt")
