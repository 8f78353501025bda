"""The viewer in a real Chromium: what is under the pointer, the finger and the keys, and the pixels under a mask."""

import base64
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from aas.records import Answer, GroundedPhrase, Phrase, View
from aas.view.report import About, Report, embedded
from aas.view.report_entry import Entry, Maps, Panel, entry
from tests.browser import PATIENCE_MS, launched

SIZE_HW = (120, 160)
TEXT = "A cat beside a red mat."
SPANS = {"A cat": (0, 5), "a red mat": (13, 22)}
TOKENS = ((0, 1), (1, 5), (5, 12), (12, 14), (14, 18), (18, 22), (22, 23), (23, 23))
DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def browser() -> Iterator:
    yield from launched()


def masks(inner: bool = False) -> list[np.ndarray]:
    """A disc at the left and a box at the right, or a box inside of the disc."""
    y, x = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    disc = (x - 50) ** 2 + (y - 60) ** 2 < 40**2
    box = (abs(x - (50 if inner else 125)) < 15) & (abs(y - 60) < 20)
    return [disc, box]


def grid(at: int) -> np.ndarray:
    found = np.zeros((6, 8), np.float32)
    found.flat[at] = 1
    return found


def panel(scores: tuple[float, float] = (0.9, 0.4), inner: bool = False, sources: int = 1, **about) -> Panel:
    phrases = [
        GroundedPhrase(Phrase(words, span, span, (i,)), grid(9 + i), (50 + 75 * i, 60), mask, score)
        for i, ((words, span), mask, score) in enumerate(zip(SPANS.items(), masks(inner), scores, strict=True))
    ]
    view = View((6, 8), (0.0, 0.0, 160.0, 120.0))
    of_tokens = np.stack([grid(5 * i) for i in range(len(TOKENS))])
    names = ["attention"] if sources == 1 else [f"source {i}" for i in range(sources)]
    maps = [Maps(name, view, np.stack([one.map for one in phrases]), of_tokens) for name in names]
    return Panel(Answer("What is it?", TEXT, tuple(range(8)), TOKENS), phrases, maps=maps, **about)


def photograph(name: str = "a.jpg", *panels: Panel, **about) -> Entry:
    # 320 pixels wide: more than those that are shown as squares.
    big = [replace(one, phrases=[twice(phrase) for phrase in one.phrases]) for one in panels or (panel(),)]
    big = [
        replace(one, maps=[replace(maps, view=View((6, 8), (0.0, 0.0, 320.0, 240.0))) for maps in one.maps])
        for one in big
    ]
    return entry(name, np.full((240, 320, 3), 90, np.uint8), big, **about)


def twice(phrase: GroundedPhrase) -> GroundedPhrase:
    x, y = phrase.point_xy
    return replace(phrase, mask=phrase.mask.repeat(2, 0).repeat(2, 1), point_xy=(2 * x, 2 * y))


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a report of these photographs; fails for anything that the page says to the console or asks the network."""
    said: list[str] = []
    contexts = []

    def open_page(*entries: Entry, device=DESKTOP, beside: bool = False, anchor: str = "", failures=(), **about):
        report = Report(tmp_path / "report.html", About("run", **about), beside_from_bytes=0 if beside else 10**9)
        for one in entries or (photograph(),):
            report.add(one.summary["name"], one)
        report.write(failures)
        contexts.append(browser.new_context(**device, offline=True))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.goto(f"file://{tmp_path}/report.html{anchor}")
        page.locator(".entry.open").first.wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not [words for words in said if "willReadFrequently" not in words]  # that is about the tests' own reading


def shot(page, locator) -> np.ndarray:
    """The pixels of an element, int [h, w, 3]."""
    return np.asarray(Image.open(io.BytesIO(locator.screenshot(animations="disabled"))).convert("RGB")).astype(int)


def layer(page, name: str, entry_at: int = 0) -> np.ndarray:
    """What a canvas holds: uint8 [h, w, 4]."""
    code = """([name, at]) => {
      const canvas = document.querySelectorAll(".entry")[at].querySelector("canvas." + name);
      const { width, height } = canvas;
      if (!width) return [0, 0, ""];
      const bytes = canvas.getContext("2d").getImageData(0, 0, width, height).data;
      let text = "";
      for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
      return [height, width, btoa(text)];
    }"""
    height, width, base64_text = page.evaluate(code, [name, entry_at])
    return np.frombuffer(base64.b64decode(base64_text), np.uint8).reshape(height, width, 4)


def until(page, is_so: str | Callable[[], bool]) -> None:
    """Waits till it is true, in the page or here. (The page's policy forbids what Playwright's own waiting
    evaluates.)"""
    for _ in range(PATIENCE_MS // 20):
        if page.evaluate(is_so) if isinstance(is_so, str) else is_so():
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"never true: {is_so}")


def at_photo(page, x: int, y: int) -> tuple[float, float]:
    """Where a pixel of the 160 × 120 masks is on the screen."""
    box = page.locator(".stage").first.bounding_box()
    return box["x"] + (x + 0.5) * box["width"] / 160, box["y"] + (y + 0.5) * box["height"] / 120


def on(page) -> list[str]:
    return page.locator(".answer .phrase.on").all_inner_texts()


# ---- pointer -----------------------------------------------------------------------------------------------


def test_a_phrase_under_the_pointer_lights_its_mask_pixel_by_pixel(opened):
    page = opened()
    everything = layer(page, "rest")[..., 3] > 0
    assert (everything == (masks()[0] | masks()[1]).repeat(2, 0).repeat(2, 1)).all()
    for i, words in enumerate(SPANS):
        page.get_by_role("button", name=words).first.hover()
        lit = layer(page, "one")
        assert ((lit[..., 3] > 0) == masks()[i].repeat(2, 0).repeat(2, 1)).all()
        assert on(page) == [words]
        assert page.locator(".caption").inner_text().startswith(f"Mask of “{words}”, score 0.{9 - 5 * i}0, ")
    share = round(100 * masks()[1].mean())
    assert page.locator(".caption").inner_text().endswith(f", {share} % of the photograph.")
    stage = shot(page, page.locator(".stage"))
    x, y = (np.array([125, 45]) * stage.shape[1] / 160).round().astype(int)
    red, green, blue = stage[y, x]
    assert red > blue + 30 and red > green + 30  # vermilion over grey
    assert abs(stage[5, 5] - 90).max() < 4  # the photograph itself
    page.mouse.move(5, 5)
    assert on(page) == [] and page.locator(".caption").inner_text() == ""


def test_a_mask_under_the_pointer_lights_its_phrase_the_smallest_first(opened):
    page = opened(photograph("a", panel(inner=True)))
    for at, words in (((20, 60), ["A cat"]), ((50, 60), ["a red mat"]), ((150, 10), [])):
        page.mouse.move(*at_photo(page, *at))
        assert on(page) == words
    page.mouse.click(*at_photo(page, 20, 60))
    assert page.locator(".caption").inner_text() == "Attention for “A cat”, its prompt point marked."
    page.mouse.click(*at_photo(page, 20, 60))
    assert page.locator(".attention").count() == 0


def test_a_click_shows_a_map_where_it_is_largest(opened):
    page = opened()
    button = page.locator(".answer button").nth(1)
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    heat = layer(page, "heat")
    row, column = np.unravel_index(heat[..., :3].sum(axis=2).argmax(), heat.shape[:2])
    assert (row * 6 // heat.shape[0], column * 8 // heat.shape[1]) == divmod(10, 8)
    assert page.locator(".heat").is_visible() and page.locator(".point.shown").count() == 1
    page.get_by_role("button", name="A cat").first.hover()  # another phrase: its mask, as long as the pointer is there
    assert not page.locator(".heat").is_visible() and on(page) == ["A cat"]
    page.mouse.move(5, 5)
    assert page.locator(".heat").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator(".heat").is_visible() and button.get_attribute("aria-pressed") == "false"


def test_several_sources_stand_side_by_side(opened):
    page = opened(photograph("a", panel(sources=3)))
    assert page.locator(".figure:visible").count() == 1
    drawn = "[...document.querySelectorAll('canvas.rest')].map((canvas) => canvas.width > 0)"
    assert page.evaluate(drawn) == [True, False, False]  # masks, where they are seen
    page.locator(".answer button").first.click()
    boxes = [one.bounding_box() for one in page.locator(".figure").all()]
    assert len({round(box["y"]) for box in boxes}) < 3 and len({round(box["x"]) for box in boxes}) > 1
    assert page.locator("figcaption").all_inner_texts() == ["source 0", "source 1", "source 2"]


def test_the_slider_walks_over_the_tokens(opened):
    page = opened()
    slider = page.get_by_label("Token of the answer")
    slider.focus()
    for words, at in (("A", 1), ("cat", 2), ("beside", 3)):
        slider.press("ArrowRight")
        assert page.locator(".caption").inner_text() == f"Attention while “{words}” was written: token {at} of 8."
        assert page.evaluate("[...CSS.highlights.get('aas-token')].map(String)") == [words]
        assert slider.get_attribute("aria-valuetext") == words
        heat = layer(page, "heat")
        row, column = np.unravel_index(heat[..., :3].sum(axis=2).argmax(), heat.shape[:2])
        assert (row * 6 // heat.shape[0], column * 8 // heat.shape[1]) == divmod(5 * (at - 1), 8)
    slider.press("Home")
    assert page.locator(".caption").inner_text() == "" and page.evaluate("CSS.highlights.size") == 0


def test_a_click_on_a_word_shows_its_map(opened):
    page = opened()
    box = page.evaluate(
        "() => { const r = new Range(), t = document.querySelector('.answer').childNodes[1];"
        "r.setStart(t, 1); r.setEnd(t, 7); const b = r.getBoundingClientRect(); return [b.x + b.width / 2, b.y + 12]; }"
    )
    page.mouse.click(*box)
    assert "“beside”" in page.locator(".caption").inner_text()
    page.mouse.click(*box)
    assert page.locator(".caption").inner_text() == ""


def test_the_photograph_alone(opened):
    page = opened()
    page.get_by_role("button", name="Photograph only").click()
    page.mouse.move(5, 5)
    assert (abs(shot(page, page.locator(".stage"))[20:-20, 20:-20] - 90) < 4).all()


# ---- touch, keys, and other ways to read ---------------------------------------------------------------------


def test_taps_go_from_the_mask_to_the_map_to_all(opened):
    page = opened(device=PHONE)
    target = page.locator(".answer button").nth(1)
    for _ in range(2):
        target.tap()
        assert on(page) == ["a red mat"] and page.locator(".attention").count() == 0
        target.tap()
        assert page.locator(".attention").count() == 1 and page.locator(".heat").is_visible()
        target.tap()
        assert on(page) == [] and page.locator(".attention, .lit").count() == 0
    x, y = at_photo(page, 50, 60)
    page.touchscreen.tap(x, y)
    assert on(page) == ["A cat"]
    page.touchscreen.tap(x, y)
    assert "Attention for “A cat”" in page.locator(".caption").inner_text()
    page.touchscreen.tap(x, y)
    assert page.locator(".attention, .lit").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_controls_share_a_row_on_a_phone(opened):
    page = opened(device=PHONE)
    slider, button = (page.locator(name).first.bounding_box() for name in (".walk input", "button.raw"))
    assert slider["y"] < button["y"] + button["height"] / 2 < slider["y"] + slider["height"]


def test_figures_leave_words_their_width(opened):
    """A long name of a figure stands below the words, which it once squeezed to a letter a line. Phrases that share a
    mask have figures of their own."""
    one = panel(figures={"confidence (uncalibrated)": (0.5, 0.1)})
    shared = replace(one, phrases=[replace(phrase, mask=one.phrases[0].mask) for phrase in one.phrases])
    page = opened(photograph("a", one), photograph("b", shared))
    assert page.locator(".score").all_text_contents()[-1] == "confidence (uncalibrated) 0.50 · 0.10"
    row = page.locator(".legend li").first
    words, further = (row.locator(one).bounding_box() for one in (".terms", ".score >> nth=1"))
    assert words["height"] < 2 * further["height"] and further["y"] >= words["y"] + words["height"] - 1


def test_keys(opened):
    page = opened(*(photograph(name) for name in "abc"))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the photographs"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")  # the name, which is an anchor
    page.keyboard.press("Tab")  # tokens
    page.keyboard.press("Tab")  # photograph only
    page.keyboard.press("Tab")
    focused = "[document.activeElement.closest('.entry').id, document.activeElement.textContent]"
    assert page.evaluate(focused) == ["photo-a", "A cat"] and on(page) == ["A cat"]
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == ["photo-a", "a red mat"] and on(page) == ["a red mat"]
    page.keyboard.press("Enter")
    assert page.locator("#photo-a .heat").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#photo-a .heat").is_visible()
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focused) == ["photo-b", "A cat"]
    page.keyboard.press("ArrowUp")
    assert page.evaluate(focused)[0] == "photo-a"
    stops = "[...document.querySelectorAll('a, button, input, select')].filter((e) => e.tabIndex >= 0 && !e.disabled)"
    assert page.evaluate(f"{stops}.length") == 1 + 4 + 1 + 3 * 4  # skip link, bar, contents, and each photograph's


def test_contents_and_anchors(opened):
    page = opened(*(photograph(f"{name} 1") for name in "abcd"), anchor="#photo-c%201")
    assert page.locator("[id='photo-c 1']").bounding_box()["y"] < 200
    links = page.get_by_role("navigation", name="Contents").get_by_role("link")
    links.nth(3).click()
    assert page.url.endswith("#photo-d%201")
    links.nth(3).focus()
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.textContent") == "c 1"


def test_marks_stay_in_forced_colours(opened):
    page = opened(device=DESKTOP | {"forced_colors": "active"})
    style = "getComputedStyle(document.querySelector('.phrase')).borderBottomStyle"
    assert page.evaluate(style) == "solid"
    page.locator(".answer button").first.hover()
    assert page.evaluate("getComputedStyle(document.querySelector('.phrase.on')).outlineStyle") == "solid"
    colours = "[...document.querySelectorAll('.swatch')].map((e) => getComputedStyle(e).backgroundColor)"
    assert page.evaluate(colours) == ["rgb(31, 111, 235)", "rgb(207, 69, 0)"]


@pytest.mark.parametrize(
    "device", [DESKTOP, PHONE, DESKTOP | {"color_scheme": "dark"}], ids=["desktop", "phone", "dark"]
)
def test_axe_finds_nothing(browser, tmp_path, device):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-playwright-python here")
    beside = panel(title="Prediction", figures={"IoU": (0.5, 0.1)}), panel(title="Truth", is_found=False)
    report = Report(tmp_path / "report.html", About("run", [("Model", "embedded")], "A notice."))
    for one in (photograph("a", links={"JSON": "a.json"}), photograph("b", *beside, figures={"IoU": 0.3})):
        report.add(one.summary["name"], one)
    report.write([("c", "is no image")])
    # axe itself is inserted as a script, which the page's policy forbids.
    # Colours on their way from one to another have other contrasts.
    context = browser.new_context(**device, bypass_csp=True, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"file://{tmp_path}/report.html")
    page.locator(".entry.open").first.wait_for()
    for prepare in (lambda: None, lambda: page.locator(".answer button").first.click()):
        prepare()
        found = axe.Axe().run(page)
        assert not [(one["id"], [node["html"] for node in one["nodes"]]) for one in found.response["violations"]]
    context.close()


# ---- which photographs --------------------------------------------------------------------------------------


def names(page) -> list[str]:
    return page.locator(".entry:visible h2").all_text_contents()  # not rendered yet where it moved


def test_search_order_and_filters(opened):
    some = [photograph("a", panel((0.9, 0.5))), photograph("b", panel((0.2, 0.3))), photograph("c", panel((0.6, 0.7)))]
    page = opened(*some)
    page.get_by_label("Order").select_option("Lowest score first")
    assert names(page) == ["b", "c", "a"]
    assert page.locator(".contents li").all_inner_texts() == ["b", "c", "a"]
    page.get_by_label("Order").select_option("Highest score first")
    assert names(page) == ["a", "c", "b"]
    page.get_by_label("Search words and names").fill("RED  a")
    assert len(names(page)) == 3
    page.get_by_label("Search words and names").fill("b nothing")
    assert names(page) == [] and page.locator(".count").inner_text() == "0 of 3 photographs"
    page.get_by_label("Search words and names").fill("")
    page.get_by_label("Least score").fill("0.65")
    until(page, "document.querySelectorAll('.entry:not([hidden])').length == 2")
    assert names(page) == ["a", "c"]
    assert page.locator("#photo-a .answer .below").all_inner_texts() == ["a red mat"]
    expected = masks()[0].repeat(2, 0).repeat(2, 1)
    until(page, lambda: bool(((layer(page, "rest")[..., 3] > 0) == expected).all()))  # drawn with the next frame


def test_opacity(opened):
    page = opened()
    before = layer(page, "rest")[120, 100, 3]
    page.get_by_label("Opacity of the masks").fill("80")
    until(page, "document.querySelector('canvas.rest').getContext('2d').getImageData(100, 120, 1, 1).data[3] > 200")
    assert layer(page, "rest")[120, 100, 3] == 204 and before == 102


def test_photographs_out_of_sight_hold_no_pictures(opened):
    page = opened(*(photograph(f"{i:02}") for i in range(12)))
    assert layer(page, "rest", 0).size and not layer(page, "rest", 11).size
    page.locator(".entry").nth(11).scroll_into_view_if_needed()
    page.locator(".entry.open[id='photo-11']").wait_for()
    until(page, "!document.querySelector('.entry').classList.contains('open')")
    assert layer(page, "rest", 11).size and not layer(page, "rest", 0).size


def test_details_beside_the_page(opened, tmp_path):
    page = opened(*(photograph(name) for name in ("a b", "c'd", "é#?")), beside=True)
    for i in range(3):
        page.locator(".entry").nth(i).scroll_into_view_if_needed()
        page.locator(".entry").nth(i).locator("css=.stage img[src^='data:image/jpeg']").wait_for()
        until(page, f"document.querySelectorAll('.entry.open')[{i}]")
        assert (layer(page, "rest", i)[..., 3] > 0).any()


# ---- words of others ------------------------------------------------------------------------------------------

EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>&amp;\"'`${alert(3)}\x07\u202e ‮שלום عربي\ud800</script>"


def test_words_of_others_stay_words(opened):
    shown = EVIL.replace("\x07", "").replace("\u202e", "").replace("\ud800", "")
    words = Panel(
        Answer(EVIL, EVIL + " cat", (), ()),
        [replace(twice(one), phrase=Phrase(EVIL, (0, len(EVIL)), (0, 1), ())) for one in panel().phrases[:1]],
        title=EVIL,
        left_out=(EVIL,),
        maps=[Maps(EVIL, View((6, 8), (0.0, 0.0, 320.0, 240.0)), np.zeros((1, 6, 8), np.float32))] * 2,
    )
    evil = entry(EVIL, np.full((240, 320, 3), 90, np.uint8), [words, words], links={EVIL: "./a.json"})
    page = opened(evil, photograph("b"), facts=[(EVIL, EVIL)], notice=EVIL, failures=[(EVIL, EVIL)])
    page.locator(".phrase").first.click()
    page.wait_for_timeout(100)
    texts = {
        name: page.locator(selector).first.text_content()
        for name, selector in {
            "name": "h2",
            "title": "h3",
            "question": ".question",
            "phrase": ".phrase",
            "term": ".term",
            "link": ".links a",
            "contents": ".contents a",
            "source": "figcaption",
            "notice": ".notice",
            "failure": ".failures b",
        }.items()
    }
    assert texts == dict.fromkeys(texts, shown)
    assert page.locator("body img:not([src^='data:image/'])").count() == 0
    assert page.locator(".answer").first.text_content() == shown + " cat"


# ---- in a notebook ----------------------------------------------------------------------------------------------


def test_an_element_for_a_notebook(browser):
    page = browser.new_context(**DESKTOP, offline=True).new_page()
    page.set_default_timeout(PATIENCE_MS)
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.set_content(f"<p>Out[1]:</p>{embedded(photograph(EVIL), 600)}")
    frame = page.frame_locator("iframe")
    frame.locator(".entry.open").wait_for()
    frame.locator(".answer button").first.hover()
    assert frame.locator(".answer .phrase.on").all_inner_texts() == ["A cat"]
    assert frame.locator("h1, .contents, input[type=search]").count() == 0
    assert not said
    page.context.close()


def test_what_the_page_is_told_is_json_of_its_own(tmp_path):
    report = Report(tmp_path / "report.html", About("run"))
    report.add("a", photograph("a"))
    report.write()
    content = (tmp_path / "report.html").read_text()
    blocks = re.findall(r'<script type="application/json" id="([\w-]+)">(.*?)</script>', content)
    assert [name for name, _ in blocks] == ["details-0", "page"]
    assert all(json.loads(text) for _, text in blocks)


def test_compared_sources_have_their_own_points_words_and_the_true_outline(opened):
    """Of `aas compare maps`: nothing of them is seen before a phrase is pressed, or of a token."""
    found = panel(sources=2, is_found=False)
    maps = [
        replace(one, points_xy=[(80 + 80 * i, 120), (240, 120)], notes=[f"AUC 0.{i}", "beside it"])
        for i, one in enumerate(found.maps)
    ]
    page = opened(photograph("a.jpg", replace(found, maps=maps)))
    assert page.locator(".point:visible").count() == 0
    page.locator("button.phrase").first.click()
    until(page, "document.querySelectorAll('.point.shown').length === 2")
    assert page.locator("figcaption").all_inner_texts() == ["source 0: AUC 0.0", "source 1: AUC 0.1"]
    lefts = page.locator(".point.shown").evaluate_all("all => all.map((one) => parseFloat(one.style.left))")
    assert lefts == pytest.approx([100 * 80.5 / 320, 100 * 160.5 / 320], abs=0.2)
    outline = layer(page, "outline")
    assert outline.shape[:2] == (240, 320) and outline[120, 19:24, 3].max() == 255  # the disc begins at x = 20
    assert outline[120, 100, 3] == 0 and outline[120, 260, 3] == 0
    page.locator("input[type=range][aria-label='Token of the answer']").fill("3")
    until(page, "document.querySelector('figcaption').textContent === 'source 0'")
    assert layer(page, "outline").shape[0] == 0 and page.locator(".point.shown").count() == 0
