"""Pictures, report and terminal text, by their pixels and their parsed HTML."""

import base64
import hashlib
import io
import itertools
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from aas.records import Answer, GroundedPhrase, Phrase, View
from aas.view import colours, overlay, panel, report, text
from aas.view.report import About
from aas.view.report_entry import Entry, Maps, Panel, entry
from aas.view.report_pictures import map_bytes
from aas.view.scaling import inner_edge, shown_mask, shown_size_hw
from aas.view.sharing import things
from aas.view.terminal import coloured


def ellipse(image_hw: tuple[int, int], centre_xy: tuple[float, float], radii_xy: tuple[float, float]) -> np.ndarray:
    """bool [H, W]; centre and radii as shares of the picture."""
    height, width = image_hw
    y, x = np.mgrid[:height, :width]
    dx = ((x + 0.5) / width - centre_xy[0]) / radii_xy[0]
    dy = ((y + 0.5) / height - centre_xy[1]) / radii_xy[1]
    return dx**2 + dy**2 <= 1


def grounded(words: str, span: tuple[int, int], mask: np.ndarray) -> GroundedPhrase:
    rows, columns = np.nonzero(mask)
    point_xy = (int(columns.mean()), int(rows.mean())) if len(rows) else (0, 0)
    grid = np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4)
    return GroundedPhrase(Phrase(words, span, span, (0,)), grid, point_xy, mask, 0.87)


def photograph(image_hw: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*image_hw, 3), np.uint8)


def answer_of(words: str, question: str = "Describe the image.") -> Answer:
    return Answer(question, words, (), ())


def example(image_hw: tuple[int, int] = (480, 640)) -> tuple[np.ndarray, Answer, list[GroundedPhrase], View]:
    answer = answer_of("A cat on a red mat.")
    masks = [ellipse(image_hw, (0.3, 0.4), (0.2, 0.3)), ellipse(image_hw, (0.75, 0.7), (0.2, 0.2))]
    phrases = [grounded("A cat", (0, 5), masks[0]), grounded("a red mat", (9, 18), masks[1])]
    return photograph(image_hw), answer, phrases, View((4, 4), (0.0, 0.0, float(image_hw[1]), float(image_hw[0])))


# Colours


def test_palette_reads_on_white_on_its_tints_and_under_its_ink():
    for colour in colours.PALETTE:
        assert colours.contrast(colour, colours.WHITE) >= 4.5
        assert colours.contrast(colours.light_ink(colour), colours.light_tint(colour)) >= 4.5
        assert colours.contrast(colours.dark_ink(colour), colours.dark_tint(colour)) >= 4.5
        assert colours.contrast(colours.ink_on(colour), colour) >= 4.5
    assert colours.ink_on((255, 230, 0)) == colours.BLACK
    assert colours.contrast(colours.BLACK, colours.WHITE) == pytest.approx(21)


def test_first_colours_differ_for_red_green_blindness():
    # Deuteranopia as a matrix on linear RGB (Machado, Oliveira and Fernandes, 2009).
    matrix = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
    seen = [255 * np.clip(matrix @ (np.array(c) / 255) ** 2.2, 0, 1) ** (1 / 2.2) for c in colours.PALETTE[:5]]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 20
    assert len(set(colours.PALETTE)) == len(colours.PALETTE)


# Overlay


def test_mask_is_tinted_with_its_colour_and_the_rest_is_the_photograph():
    image, answer, phrases, _ = example()
    picture = np.asarray(overlay.draw(image, answer, phrases)).astype(int)
    mask = phrases[0].mask
    # Without outline, labels and markers: they cover the middle and the edge.
    inside = inner_edge(mask.astype(np.float32), 6) < 0.5
    inside &= mask & (np.abs(np.arange(480)[:, None] - 180) > 40)
    expected = image * (1 - overlay.MASK_OPACITY) + np.array(colours.colour_of(0)) * overlay.MASK_OPACITY
    assert inside.sum() > 10_000
    assert np.abs(picture[:480, :640][inside] - expected[inside]).max() <= 1
    assert (picture[:60, 400:640] == image[:60, 400:]).all()
    assert (picture[420:480, :250] == image[420:, :250]).all()


def test_outline_and_marker_are_drawn_in_the_phrases_colour():
    image, _, phrases, _ = example()
    picture = np.asarray(overlay.draw_photo(np.full_like(image, 128), phrases)).astype(int)
    left_end = int(np.flatnonzero(phrases[0].mask[192])[0])
    assert np.abs(picture[192, left_end + 1] - colours.colour_of(0)).max() <= 12
    x, y = phrases[1].point_xy
    assert np.abs(picture[y, x] - colours.colour_of(1)).max() <= 3
    ring = picture[y - 8 : y + 9, x - 8 : x + 9].reshape(-1, 3)
    assert (ring.min(axis=1) > 240).any()


def test_all_points_are_drawn_the_peak_largest_and_crosses_where_the_thing_is_not():
    image, _, (one, _), _ = example()
    places = ((200, 190, 1), (150, 240, 1), (500, 60, 0))
    picture = np.asarray(overlay.draw_photo(np.full_like(image, 128), [with_points(one, *places)])).astype(int)
    colour = np.array(colours.colour_of(0))
    # Anti-aliased edges aside, as many pixels of the colour and of white as the marker is large.
    areas = {}
    for x, y, _ in places:
        around = picture[y - 9 : y + 10, x - 9 : x + 10]
        areas[x] = int((np.abs(around - colour).max(2) <= 3).sum()), int((around.min(2) > 240).sum())
    assert areas[200][0] > 2 * areas[150][0] > 0 and areas[200][1] > areas[150][1] > 0
    (x, y, _), white = places[2], areas[500][1]
    assert np.abs(picture[y, x] - colour).max() <= 40 and white > 0  # a cross in its middle, white between its arms
    assert picture[y, x - 2].min() > 150 < picture[y - 2, x].min()


def test_phrases_of_one_mask_are_drawn_as_one(monkeypatch: pytest.MonkeyPatch):
    image, answer, (one, other), _ = example()
    same = replace(other, mask=one.mask)
    labels = []
    monkeypatch.setattr(overlay, "_paste_label", lambda photo, label, *rest: labels.append(label))
    overlay.draw_photo(image, [one, same])
    assert labels == ["1 A cat · a red mat"]
    said = panel.content(answer, [one, same], things([one, same]))
    assert said.rows == [panel.Row(0, "A cat · a red mat", "0.87")]
    judged = [replace(one, confidence=0.5), replace(same, confidence=0.25)]
    (row,) = panel.content(answer, judged, things(judged), confidence="uncalibrated").rows
    assert row == panel.Row(0, "A cat · a red mat", "0.87", "confidence (uncalibrated) 0.50 · 0.25")
    assert [piece.phrase for piece in said.pieces] == [0, None, 0, None]


def test_where_masks_overlap_the_smaller_one_shows_alone():
    image = np.full((480, 640, 3), 200, np.uint8)
    large, small = ellipse((480, 640), (0.5, 0.5), (0.45, 0.45)), ellipse((480, 640), (0.5, 0.5), (0.2, 0.2))
    for order in ([small, large], [large, small]):
        phrases = [grounded("it", (0, 2), mask) for mask in order]
        index = next(i for i, mask in enumerate(order) if mask is small)
        expected = 200 * (1 - overlay.MASK_OPACITY) + np.array(colours.colour_of(index)) * overlay.MASK_OPACITY
        pixel = np.asarray(overlay.draw_photo(image, phrases))[200, 240]
        assert np.abs(pixel - expected).max() <= 1


@pytest.mark.parametrize(
    ("image_hw", "photo_wh", "below"),
    [
        ((480, 640), (640, 480), False),
        ((3000, 4000), (1280, 960), False),
        ((30, 20), (427, 640), False),
        ((1000, 6000), (1280, 213), True),
        ((2000, 1000), (640, 1280), False),
        ((1, 5000), (1280, 1), True),
        ((900, 3), (3, 900), False),
    ],
)
def test_sizes_and_the_panels_side(image_hw: tuple[int, int], photo_wh: tuple[int, int], below: bool):
    image, answer, phrases, _ = example(image_hw)
    photo, picture = overlay.draw_photo(image, phrases), overlay.draw(image, answer, phrases)
    assert photo.size == photo_wh
    assert (picture.height > photo.height) if below else (picture.width >= photo.width + 300)
    panel = np.asarray(picture)[photo.height :] if below else np.asarray(picture)[:, photo.width :]
    assert (panel == 255).all(axis=2).mean() > 0.5
    # Words in a phrase's own ink and plain words.
    for ink in (colours.light_ink(colours.colour_of(0)), (0x1B, 0x1F, 0x24)):
        assert (np.abs(panel.astype(int) - ink).max(axis=2) <= 12).any()


def test_a_tiny_photograph_is_enlarged_in_squares():
    image, _, _, _ = example((30, 20))
    photo = np.asarray(overlay.draw_photo(image, []))
    assert (photo[:20, :20] == image[0, 0]).all()


def test_long_answers_are_not_cut():
    words = " ".join(f"word{i}" for i in range(300))
    image = photograph((480, 640))
    short, long = (overlay.draw(image, answer_of(w), []) for w in ("word", words))
    assert long.height > short.height
    lines = text.wrapped(text.pieces_of(words, []), 16, 400)
    assert " ".join("".join(p.text for p in line) for line in lines) == words
    assert all(sum(text.width_px(p.text, 16) for p in line) <= 400 for line in lines)


@pytest.mark.parametrize("n_phrases", [0, 40])
def test_no_phrase_and_many(n_phrases: int):
    image = photograph((240, 320))
    words = " ".join(f"thing{i:02}" for i in range(n_phrases)) or "Yes."
    centres = np.random.default_rng(1).uniform(0.1, 0.9, (n_phrases, 2))
    masks = [ellipse((240, 320), (x, y), (0.08, 0.08)) for x, y in centres]
    phrases = [grounded(words[8 * i : 8 * i + 7], (8 * i, 8 * i + 7), mask) for i, mask in enumerate(masks)]
    picture = overlay.draw(image, answer_of(words), phrases)
    assert picture.mode == "RGB" and picture.width > 640
    if not phrases:
        small = np.asarray(overlay.draw_photo(image, phrases).resize((320, 240), Image.Resampling.BOX)).astype(int)
        assert np.abs(small - image).mean() < 20


def test_labels_of_neighbours_do_not_cover_each_other(monkeypatch: pytest.MonkeyPatch):
    boxes = []
    monkeypatch.setattr(overlay, "_paste_label", lambda photo, label, box, *rest: boxes.append(box))
    masks = [ellipse((480, 640), (0.02, 0.02), (0.03 + 0.01 * i, 0.05)) for i in range(5)]
    overlay.draw_photo(photograph((480, 640)), [grounded("a small thing", (0, 5), mask) for mask in masks])
    assert len(boxes) == 5
    for x0, y0, x1, y1 in boxes:
        assert 0 <= x0 < x1 <= 640 and 0 <= y0 < y1 <= 480
    for one, other in itertools.combinations(boxes, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_empty_masks_strange_characters_and_spans_outside_of_the_text_are_drawn():
    words = "火箭在发射台上 🚀\x1b[31m\ud800 naïve — café\n\n" + "x" * 400
    empty = np.zeros((60, 80), bool)
    phrases = [grounded("🚀", (8, 9), empty), grounded("", (-5, 10_000), empty), grounded("x" * 300, (7, 7), empty)]
    assert overlay.draw(photograph((60, 80)), answer_of(words, "你看到了什么\u202e?"), phrases).width > 640


# Words


def test_the_shortest_of_overlapping_phrases_owns_a_character():
    words = "the dog on a bench."
    mask = np.zeros((2, 2), bool)
    phrases = [grounded("", (0, 18), mask), grounded("", (11, 18), mask), grounded("", (8, 12), mask)]
    pieces = text.pieces_of(words, phrases)
    assert "".join(p.text for p in pieces) == words
    assert [(p.text, p.phrase) for p in pieces] == [("the dog ", 0), ("on a", 2), (" bench", 1), (".", None)]
    assert text.pieces_of("", phrases) == []


def test_harmless_and_drawable():
    assert text.harmless("a\x1b[31m\x00\x9b\r\nb\u202e\ud800é") == "a[31m\nbé"
    assert text.drawable("naïve — café") == "naïve — café"
    assert text.drawable("火\ufe0f\u200e\u2060") == "火"
    assert text.one_line(" گربه\u200cای \n روی ") == "گربه\u200cای روی"  # the joiner shapes its neighbours


def in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one says that has all colours."""
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


def test_terminal_colours_phrases_and_strips_control_characters(monkeypatch: pytest.MonkeyPatch):
    in_a_terminal(monkeypatch)
    mask = np.zeros((2, 2), bool)
    answer = answer_of("A cat\x1b[2J on\na mat.")
    phrases = [grounded("A cat", (0, 5), mask), grounded("on\na", (10, 14), mask)]
    assert coloured(answer, phrases, colour=False) == "A cat[2J on\na mat."
    painted = coloured(answer, phrases, colour=True)
    red, green, blue = colours.colour_of(0)
    assert painted.startswith(f"\x1b[38;2;255;255;255;48;2;{red};{green};{blue}mA cat\x1b[0m[2J ")
    assert re.sub(r"\x1b\[[0-9;]*m", "", painted) == "A cat[2J on\na mat."
    assert all(line.count(";48;2;") == line.count("\x1b[0m") for line in painted.split("\n"))


def test_terminal_words_follow_the_terminal(monkeypatch: pytest.MonkeyPatch):
    _, answer, phrases, _ = example((20, 30))
    in_a_terminal(monkeypatch)
    monkeypatch.delenv("COLORTERM")
    # The seventh colour: rich remembers how it wrote the first ones in the test above.
    seven = [grounded("it", (50, 50), np.zeros((2, 2), bool))] * 6 + phrases[:1]
    assert "48;5;" in coloured(answer, seven, colour=True) and "48;2;" not in coloured(answer, seven, colour=True)
    long = answer_of("[red]" + 400 * "x" + "[/red] :smile: 1.5")
    assert coloured(long, [], colour=False) == long.text  # not wrapped, no markup read into it
    assert coloured(answer, phrases) == answer.text  # standard output is no terminal here
    monkeypatch.setenv("NO_COLOR", "1")
    assert coloured(answer, phrases, colour=True) == answer.text


def test_phrases_of_one_mask_share_a_colour_in_the_terminal(monkeypatch: pytest.MonkeyPatch):
    in_a_terminal(monkeypatch)
    _, answer, (one, other), _ = example((20, 30))
    codes = re.findall(r"48;2;(\d+;\d+;\d+)", coloured(answer, [one, replace(other, mask=one.mask)], colour=True))
    assert len(codes) == 2 and len(set(codes)) == 1


# Scaling


def test_masks_keep_their_place_at_any_scale():
    mask = ellipse((1200, 1600), (0.3, 0.6), (0.2, 0.2))
    for size_hw in ((720, 960), (1200, 1600), (60, 80)):
        expected = ellipse(size_hw, (0.3, 0.6), (0.2, 0.2))
        assert iou(shown_mask(mask, size_hw) >= 0.5, expected) > 0.97
    assert shown_size_hw((1200, 1600), 1, 960) == (720, 960)
    assert shown_size_hw((3, 5), 1, 960) == (3, 5)


# Report


class Page(HTMLParser):
    """The tags of a page with their attributes, and the text inside of each."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self.open.append(tag)
        self.words.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        for tag in set(self.open):
            self.words[tag][-1] += data

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]


def told(image: np.ndarray, answer: Answer, phrases: list[GroundedPhrase], view: View, **about) -> Entry:
    of_phrases = np.array([one.map for one in phrases], np.float32).reshape(-1, *view.size_hw)
    return entry("a.jpg", image, [Panel(answer, phrases, maps=(Maps("mean", view, of_phrases),), **about)])


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2], validate=True)))


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / max(1, (one | other).sum())


def mask_told(runs: str, size_hw: tuple[int, int]) -> np.ndarray:
    """bool [h, w] of runs along the rows, read by pycocotools."""
    return coco_mask.decode({"size": list(size_hw[::-1]), "counts": runs}).T.astype(bool)


@pytest.mark.parametrize("image_hw", [(480, 640), (2400, 3200), (30, 20), (500, 3000)])
def test_report_masks_are_the_masks_at_its_scale(image_hw: tuple[int, int]):
    image, answer, phrases, view = example(image_hw)
    found, size_hw = told(image, answer, phrases, view), shown_size_hw(image_hw, 1, 960)
    assert found.summary["size"] == list(size_hw) and decoded(found.details["photo"]).size == size_hw[::-1]
    masks = found.details["panels"][0]["masks"]
    assert [mask["thing"] for mask in masks] == [0, 1]
    for mask, phrase in zip(masks, phrases, strict=True):
        assert (mask_told(mask["runs"], size_hw) == (shown_mask(phrase.mask, size_hw) >= 0.5)).all()


def test_maps_lie_on_the_views_rectangle_and_keep_their_order():
    image, answer, phrases, _ = example((960, 1280))
    view = View((4, 4), (0.0, -160.0, 1280.0, 1120.0))
    (told_map,) = told(image, answer, phrases, view).details["panels"][0]["maps"]
    np.testing.assert_allclose(told_map["box"], [0, -1 / 6, 1, 4 / 3], atol=1e-4)
    levels = np.frombuffer(base64.b64decode(told_map["phrases"]["bytes"]), np.uint8).reshape(2, 4, 4)
    assert (levels[0].ravel() == np.linspace(0, 255, 16).round()).all() and told_map["tokens"] is None
    flat = replace(phrases[0], map=np.full((4, 4), np.nan, np.float32))
    assert told(image, answer, [flat], view).details["panels"][0]["maps"][0]["phrases"]["size"] == [4, 4]


def test_maps_of_a_long_answer_get_coarser_and_not_larger():
    maps = np.random.default_rng(0).random((400, 24, 24), np.float32)
    found = map_bytes(maps)
    assert len(base64.b64decode(found["bytes"])) == 400 * np.prod(found["size"]) <= 60_000
    assert map_bytes(maps[:50])["size"] == [24, 24]


def test_every_phrase_has_a_piece_even_when_spans_are_equal_or_cover_each_other():
    image, answer, _, view = example()
    spans = [(0, 19), (0, 5), (0, 5), (9, 18), (30, 40)]
    masks = [ellipse((480, 640), (0.1 + 0.2 * i, 0.5), (0.1, 0.1)) for i in range(5)]
    many = [grounded(answer.text[a:b] or "it", (a, b), mask) for (a, b), mask in zip(spans, masks, strict=True)]
    (panel,) = told(image, answer, many, view).summary["panels"]
    assert {phrase for _, phrase in panel["pieces"]} - {None} == set(range(5))
    assert [one["text"] for one in panel["phrases"]][3:] == ["a red mat", "it"]
    assert panel["phrases"][3]["figures"] == {"score": 0.87}


def with_points(phrase: GroundedPhrase, *points: tuple[int, int, int]) -> GroundedPhrase:
    places, labels = tuple((x, y) for x, y, _ in points), tuple(label for *_, label in points)
    return replace(phrase, point_xy=places[0], points_xy=places, labels=labels)


def test_all_points_stand_in_the_report_the_peak_on_top():
    image, answer, (one, other), view = example()
    phrases = [with_points(one, (200, 190, 1), (150, 200, 1), (600, 20, 0)), other]
    (panel,) = told(image, answer, phrases, view).summary["panels"]
    points = panel["phrases"][0]["points"]
    assert [point["kind"] for point in points] == ["not", "further", "peak"]
    np.testing.assert_allclose(points[-1]["at"], [200.5 / 640, 190.5 / 480], atol=1e-5)
    assert len(panel["phrases"][1]["points"]) == 1


def test_phrases_of_one_mask_are_one_thing_in_the_report():
    image, answer, (one, other), view = example()
    shared = [one, other, replace(other, mask=one.mask, phrase=Phrase("mat", (15, 18), (15, 18), ()))]
    found = told(image, answer, shared, view)
    (panel,) = found.summary["panels"]
    assert panel["things"] == [{"thing": 0, "phrases": [0, 2]}, {"thing": 1, "phrases": [1]}]
    assert [mask["thing"] for mask in found.details["panels"][0]["masks"]] == [0, 1]
    # Each phrase keeps its own map, and knows its mask.
    assert [one["thing"] for one in panel["phrases"]] == [0, 1, 0]


def test_what_is_not_shown_is_said():
    image, answer, phrases, view = example((60, 80))
    (panel,) = told(image, answer, phrases, view, left_out=["it", "the <b>image</b>", "it"]).summary["panels"]
    assert panel["remark"] == "Not shown on the picture: it, the <b>image</b>"
    assert told(image, answer, phrases, view).summary["panels"][0]["remark"] == ""
    plain, said = (overlay.draw(image, answer, phrases, left_out) for left_out in ((), ("it",) * 3))
    assert (np.asarray(plain)[:480, :640] == np.asarray(said)[:480, :640]).all()
    assert (np.asarray(said)[:, 640:] < 200).sum() > (np.asarray(plain)[:, 640:] < 200).sum() + 100


def test_tokens_are_counted_as_javascript_does_in_what_is_shown():
    text = "a\x00 \U0001f600 cat"  # a character that is not shown, and one of two units
    answer = Answer("", text, (1, 2, 3, 4), ((0, 2), (2, 4), (4, 8), (8, 8)))
    image, _, _, view = example((60, 80))
    found = told(image, answer, [], view)
    (panel,) = found.summary["panels"]
    assert "".join(words for words, _ in panel["pieces"]) == "a \U0001f600 cat"
    assert found.details["panels"][0]["tokens"] == [[0, 1], [1, 4], [4, 8], [8, 8]]


EVIL = """<script>alert(1)</script>"' onload='x\x00\ud800<!--"""


def test_report_is_self_contained_and_names_are_harmless(tmp_path: Path):
    image, _, phrases, _ = example((60, 80))
    found = entry(EVIL, image, [Panel(answer_of(EVIL * 2, EVIL), phrases, EVIL, (EVIL,))])
    written = report.Report(tmp_path / "report.html", About(EVIL, [(EVIL, EVIL)], EVIL))
    written.add(EVIL, found)
    written.write([(EVIL, EVIL)])
    content = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(content)
    assert [tag.get("type") for tag in page.named("script")] == ["application/json"] * 2 + [None]
    assert len(page.named("style")) == 1 and "<!--" not in content and content.count("<script") == 3
    assert not re.search(r"https?:|@import|url\(", content)
    for _, attrs in page.tags:
        assert not {a for a in attrs if a.startswith("on") or a in {"style", "src", "srcset"}}
    assert page.words["h1"] == [text.harmless(EVIL)] and text.harmless(EVIL) in page.words["li"][-1]
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("beside", [False, True])
def test_the_security_policy_allows_exactly_the_pages_own_style_and_script(tmp_path: Path, beside: bool):
    written = report.Report(tmp_path / "report.html", About("Title"), beside_from_bytes=0 if beside else 10**9)
    written.add("a", told(*example((60, 80))))
    written.write([("a.jpg", "the file is empty")])
    content = (tmp_path / "report.html").read_text()
    policy = Page(content).named("meta")[1]["content"]
    for tag in ("style", "script"):
        inline = content.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        assert base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode() in policy
    # With 'strict-dynamic' that script may load others: the files beside the page.
    assert policy.startswith("default-src 'none'; img-src data:;") and ("strict-dynamic" in policy) == beside
    assert "1 photograph, 1 failed" in content and "the file is empty" in content
    assert (tmp_path / "report_files/a.js").is_file() == beside


def test_a_large_report_has_its_details_beside_it(tmp_path: Path):
    found = told(*example((60, 80)))
    one = len(json.dumps(found.details))
    written = report.Report(tmp_path / "report.html", About("Title"), beside_from_bytes=2 * one)
    for key in ("b", "a", "c/d"):
        written.add(key, found)
        written.write()
    assert {file.name for file in (tmp_path / "report_files").iterdir()} == {"a.js", "b.js", "c%2Fd.js"}
    content = (tmp_path / "report.html").read_text()
    page = json.loads(content.partition('id="page">')[2].partition("</script>")[0])
    assert [one["file"] for one in page["entries"]] == [f"report_files/{name}.js" for name in ("a", "b", "c%252Fd")]
    assert (
        found.details["photo"] not in content and found.details["photo"] in (tmp_path / "report_files/a.js").read_text()
    )


def test_an_entry_is_small():
    # A smooth picture compresses as photographs do.
    y, x = np.mgrid[:2400, :3200]
    image = np.stack([x // 13, y // 10, (x + y) // 23], axis=2).astype(np.uint8)
    _, answer, phrases, view = example((2400, 3200))
    found = told(image, answer, phrases, view)
    assert len(json.dumps(found.details)) < 100_000 and len(json.dumps(found.summary)) < 10_000
