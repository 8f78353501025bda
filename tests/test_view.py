"""Pictures, report and terminal text, by their pixels and their parsed HTML."""

import base64
import hashlib
import io
import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aas.records import Answer, GroundedPhrase, Phrase, View
from aas.view import colours, overlay, panel, report, text
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
    """The tags of a page with their attributes, and the text inside of buttons and list items."""

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

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        for tag in set(self.open):
            self.words[tag][-1] += data

    def of_class(self, name: str) -> list[dict[str, str]]:
        return [attrs for _, attrs in self.tags if name in attrs.get("class", "").split()]

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2], validate=True)))


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / max(1, (one | other).sum())


@pytest.mark.parametrize("image_hw", [(480, 640), (2400, 3200), (30, 20), (500, 3000)])
def test_report_masks_are_the_masks_at_its_scale(image_hw: tuple[int, int]):
    image, answer, phrases, view = example(image_hw)
    page = Page(report.render_report([report.entry("a.jpg", image, answer, phrases, view)], "Title"))
    (base,) = page.of_class("base")
    photo, size_hw = decoded(base["href"]), shown_size_hw(image_hw, 1, 960)
    assert photo.size == size_hw[::-1]
    tags = page.of_class("mask")
    assert len(tags) == 2
    for tag in tags:
        picture = decoded(tag["href"]).convert("RGBA")
        index = int(tag["data-m"])
        assert picture.size == photo.size
        assert np.asarray(picture)[0, 0, 3] == 0
        expected = shown_mask(phrases[index].mask, size_hw) >= 0.5
        assert iou(np.asarray(picture)[..., 3] > 0, expected) == 1
        colour = np.asarray(picture)[expected][:, :3]
        assert (colour == colours.colour_of(index)).all()


def test_attention_lies_on_the_views_rectangle_and_keeps_its_peak():
    image, answer, phrases, _ = example((960, 1280))
    view = View((4, 4), (0.0, -160.0, 1280.0, 1120.0))
    page = Page(report.entry("a.jpg", image, answer, phrases, view))
    heat = page.of_class("heat")[0]
    assert [float(heat[k]) for k in ("x", "y", "width", "height")] == [0, -120, 960, 960]
    picture = np.asarray(decoded(heat["href"]).convert("RGBA").convert("L")).astype(int)
    row, column = divmod(int(picture.argmax()), picture.shape[1])
    assert row >= 72 and column >= 72
    assert picture[-1, -1] > 200 > 60 > picture[0, 0]
    flat = GroundedPhrase(phrases[0].phrase, np.full((4, 4), np.nan, np.float32), (1, 1), phrases[0].mask, 0.5)
    assert "heat" in report.entry("a.jpg", image, answer, [flat], view)


def test_one_button_per_phrase_even_when_spans_are_equal_or_cover_each_other():
    image, answer, _, view = example()
    spans = [(0, 19), (0, 5), (0, 5), (9, 18), (30, 40)]
    masks = [ellipse((480, 640), (0.1 + 0.2 * i, 0.5), (0.1, 0.1)) for i in range(5)]
    many = [grounded(answer.text[a:b] or "it", (a, b), mask) for (a, b), mask in zip(spans, masks, strict=True)]
    page = Page(report.entry("a.jpg", image, answer, many, view))
    buttons = page.named("button")
    assert sorted(int(b["data-i"]) for b in buttons) == list(range(5))
    assert all(b["type"] == "button" and b["aria-pressed"] == "false" for b in buttons)
    assert len(page.of_class("point")) == len(page.named("li")) == 5
    assert page.words["li"][3] == "a red mat0.87"
    assert Page(report.entry("a.jpg", image, answer, [], view)).named("button") == []


def with_points(phrase: GroundedPhrase, *points: tuple[int, int, int]) -> GroundedPhrase:
    places, labels = tuple((x, y) for x, y, _ in points), tuple(label for *_, label in points)
    return replace(phrase, point_xy=places[0], points_xy=places, labels=labels)


def test_all_points_stand_in_the_report_the_peak_on_top():
    image, answer, (one, other), view = example()
    phrases = [with_points(one, (200, 190, 1), (150, 200, 1), (600, 20, 0)), other]
    page = Page(report.entry("a.jpg", image, answer, phrases, view))
    dots = [path for path in page.named("path") if "dot" in path["class"]]
    peak_xy = f"M{other.point_xy[0] + 0.5} {other.point_xy[1] + 0.5}h0.01"
    assert [(dot["class"].split()[0], dot["d"]) for dot in dots] == [
        ("not", "M600.5 20.5h0.01"),
        ("further", "M150.5 200.5h0.01"),
        ("peak", "M200.5 190.5h0.01"),
        ("peak", peak_xy),
    ]
    assert len(page.of_class("point")) == 2


def test_phrases_of_one_mask_are_one_thing_in_the_report():
    image, answer, (one, other), view = example()
    shared = [one, other, replace(other, mask=one.mask, phrase=Phrase("mat", (15, 18), (15, 18), ()))]
    page = Page(report.entry("a.jpg", image, answer, shared, view))
    assert [tag["data-m"] for tag in page.of_class("mask")] == ["0", "1"]
    assert page.words["li"] == ["A cat · mat0.87", "a red mat0.87"]
    # Each phrase keeps its own attention and points, and knows its mask.
    assert [(tag["data-i"], tag["data-m"]) for tag in page.of_class("heat")] == [("0", "0"), ("1", "1"), ("2", "0")]
    assert [(tag["data-i"], tag["data-m"]) for tag in page.of_class("point")] == [("0", "0"), ("1", "1"), ("2", "0")]
    assert {tag["data-m"] for tag in page.of_class("phrase") if "c0" in tag["class"]} == {"0"}
    assert len(page.named("button")) == 3 and len(page.of_class("term")) == 3


def test_what_is_not_shown_is_said():
    image, answer, phrases, view = example((60, 80))
    page = Page(report.entry("a.jpg", image, answer, phrases, view, ["it", "the <b>image</b>", "it"]))
    assert page.words["p"][-1] == "Not shown on the picture: it, the <b>image</b>"
    assert len(page.of_class("remark")) == 1 and not page.named("b")
    assert not Page(report.entry("a.jpg", image, answer, phrases, view)).of_class("remark")
    plain, told = (overlay.draw(image, answer, phrases, left_out) for left_out in ((), ("it",) * 3))
    assert (np.asarray(plain)[:480, :640] == np.asarray(told)[:480, :640]).all()
    assert (np.asarray(told)[:, 640:] < 200).sum() > (np.asarray(plain)[:, 640:] < 200).sum() + 100


def test_the_answers_own_spaces_and_signs_reach_the_page():
    image, _, _, view = example((60, 80))
    words = "  A\n cat & {{ dog }} <i> ©\n"
    page = Page(
        report.entry("a.jpg", image, answer_of(words, " {% x %} "), [grounded("cat", (5, 8), np.eye(60, 80) > 0)], view)
    )
    assert page.words["p"][1] == words and page.words["p"][0] == " {% x %} "
    assert page.words["button"] == ["cat"]


def test_report_is_self_contained_and_names_are_harmless(tmp_path: Path):
    image, _, phrases, view = example((60, 80))
    evil = """<script>alert(1)</script>"' onload='x\x00\ud800"""
    fragment = report.entry(evil, image, answer_of(evil * 2, evil), phrases, view)
    target = tmp_path / "report.html"
    report.write_report(target, [fragment], evil, evil, failures=[(evil, evil)])
    content = target.read_text(encoding="utf-8")
    page = Page(content)
    assert len(page.named("script")) == len(page.named("style")) == 1
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"//[^\n]*", "", content))
    allowed = {"data-i", "data-m", "aria-pressed", "aria-label", "aria-live"}
    for _, attrs in page.tags:
        assert not {a for a in attrs if a.startswith("on") or a in {"style", "src", "srcset"}}
        assert all(v.startswith("data:image/") for k, v in attrs.items() if k == "href")
        assert {a for a in attrs if "-" in a} <= allowed | {"http-equiv"}
    assert page.words["h2"][0] == text.harmless(evil)
    assert text.harmless(evil) in page.words["li"][-1]
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_the_security_policy_allows_exactly_the_pages_own_style_and_script():
    content = report.render_report([], "Title", failures=[("a.jpg", "the file is empty")])
    policy = Page(content).named("meta")[1]["content"]
    for tag in ("style", "script"):
        inline = content.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        assert base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode() in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "0 photographs, 1 failed" in content and "the file is empty" in content


def test_an_entry_is_small():
    # A smooth picture compresses as photographs do.
    y, x = np.mgrid[:2400, :3200]
    image = np.stack([x // 13, y // 10, (x + y) // 23], axis=2).astype(np.uint8)
    _, answer, phrases, view = example((2400, 3200))
    assert len(report.entry("a.jpg", image, answer, phrases, view)) < 100_000
