"""`aas serve` in a real Chromium: the real server, with the embedded models."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from aas.grounding import Grounding
from aas.serve.models import Models
from aas.serve.options import Serve
from aas.serve.service import Service
from tests.browser import launched

PATIENCE_MS = 240_000  # for a machine that does other things
DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def browser() -> Iterator:
    yield from launched()


@pytest.fixture(scope="module")
def served(browser, tmp_path_factory) -> Iterator[str]:
    """The address."""
    pytest.importorskip("gradio", reason='no gradio here (pip install "attend-and-segment[demo]")')
    from aas.serve import app as of_gradio

    folder = tmp_path_factory.mktemp("app")
    (folder / "uploads").mkdir()
    options = Serve(out=folder / "served", max_megabytes=2)
    app, addresses = of_gradio.launched(options, Service(Models(options), folder / "uploads", options.out))
    yield addresses[0]
    app.close(verbose=False)


@pytest.fixture
def opened(browser, served):
    """Opens the page; fails for whatever it says to the console, and for a wish to any other server."""
    said: list[str] = []
    contexts = []

    def open_page(device=DESKTOP):
        contexts.append(browser.new_context(**device))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if not is_here(request.url, served) else None)
        page.goto(served)
        page.get_by_label("Ask a question").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not said


def is_here(url: str, served: str) -> bool:
    return url.startswith((served, "data:", "blob:"))


def show(page, tmp_path: Path, name: str) -> None:
    """A picture for people, in the folder of the variable AAS_SCREENSHOTS, else in the test's own."""
    folder = Path(os.environ.get("AAS_SCREENSHOTS", tmp_path))
    page.screenshot(path=folder / f"app-{name}.png", full_page=True, animations="disabled")


def photograph(tmp_path: Path, name: str = "coffee.jpg") -> Path:
    Image.fromarray(data.coffee()).save(tmp_path / name)
    return tmp_path / name


def choose(page, file: Path) -> None:
    page.get_by_label("Choose a photograph").set_input_files(file)


def drawn(page, selector: str) -> np.ndarray:
    """Which pixels of a canvas are painted: bool [h, w]."""
    code = "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
    canvas = page.locator(selector)
    height, width = (int(canvas.evaluate(f"canvas => canvas.{side}")) for side in ("height", "width"))
    return np.array(canvas.evaluate(code), np.uint8).reshape(height, width, 4)[..., 3] > 0


def ask(page, words: str = "", way: str = "Ask") -> None:
    page.locator("textarea").fill(words)
    page.get_by_role("button", name=way, exact=True).click()
    page.locator(".turn:not(.writing)").first.wait_for()


def points(page) -> list[str]:
    """Of the mask that is being corrected: what each says."""
    return page.locator(".editing .point").evaluate_all(
        "all => all.map((one) => one.classList.contains('on') ? '+' : '−')"
    )


def test_ask_and_ask_further(opened, tmp_path):
    page = opened()
    choose(page, photograph(tmp_path))
    page.locator(".drop.full img").wait_for()
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator(".turn.writing .answer").wait_for()
    page.locator(".turn:not(.writing)").wait_for()
    assert page.locator(".question").inner_text() == "Describe the image in detail."
    assert drawn(page, ".turn canvas.rest").any()
    show(page, tmp_path, "answer")
    phrase = page.locator(".answer button").first
    phrase.hover()
    assert page.locator(".caption").inner_text().startswith(f"Mask of “{phrase.inner_text()}”")
    phrase.click()
    assert page.locator(".heat").is_visible()
    page.get_by_role("button", name="Ground my own sentence").click()
    ask(page, "a cup <b>on</b> a saucer", "Ground")
    assert page.locator(".answer").all_inner_texts()[0] == "a cup <b>on</b> a saucer"
    assert (
        page.locator(".turn").count() == 2
        and "a saucer" in page.locator(".turn").first.locator(".term").all_inner_texts()
    )


def test_correct_save_and_download(opened, served, tmp_path):
    page = opened()
    choose(page, photograph(tmp_path, "cup.jpg"))
    page.locator(".drop.full img").wait_for()
    page.get_by_role("button", name="Ground my own sentence").click()
    ask(page, "a cup on a saucer", "Ground")
    page.get_by_role("button", name="Correct masks").click()
    before, box = drawn(page, ".editing canvas"), page.locator(".editing .stage").bounding_box()
    n_before = len(points(page))
    page.mouse.click(box["x"] + 0.2 * box["width"], box["y"] + 0.8 * box["height"])
    page.get_by_role("button", name="not on it").click()
    page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    page.locator(".editing .line", has_text="Score").wait_for()
    assert points(page)[n_before:] == ["+", "−"] and (drawn(page, ".editing canvas") != before).any()
    show(page, tmp_path, "editing")
    page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])  # on the point: it goes
    page.get_by_role("button", name="Undo").click()
    assert points(page)[n_before:] == ["+", "−"]
    page.keyboard.press("Control+z")
    page.locator(".editing .stage").focus()
    for key in ("-", "ArrowRight", "Space"):
        page.keyboard.press(key)
    assert points(page)[n_before:] == ["+", "−"]
    page.get_by_role("button", name="Accept").click()
    page.locator(".editing .line", has_text="Accepted: a cup").wait_for()
    corrected = drawn(page, ".editing canvas")
    page.get_by_role("button", name="Done").click()
    page.get_by_role("button", name="Save").click()
    page.locator(".tools .line", has_text="Saved: ").wait_for()
    file = Path(page.locator(".tools .line").inner_text().removeprefix("Saved: "))
    found = Grounding.load(file)
    assert (found[0].mask == corrected).mean() > 0.999 and found[0].labels[n_before:] == (1, 0)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download json").click()
    assert json.loads(Path(download.value.path()).read_text())["pred_masks"] == found.item()["pred_masks"]


def test_what_goes_wrong_is_a_line_on_a_phone_too(opened, tmp_path):
    page = opened(PHONE)
    page.get_by_role("button", name="Ask", exact=True).tap()
    line = page.locator(".composer .line.wrong")
    assert line.inner_text() == "Choose a photograph first."
    (tmp_path / "broken <i>.jpg").write_bytes(photograph(tmp_path).read_bytes()[:3000])
    choose(page, tmp_path / "broken <i>.jpg")
    page.locator(".line.wrong", has_text="broken <i>.jpg: broken or cut off").wait_for()
    show(page, tmp_path, "error")
    (tmp_path / "large.jpg").write_bytes(bytes(2_500_000))
    choose(page, tmp_path / "large.jpg")
    assert line.inner_text() == "large.jpg has 2.5 MB, and 2.0 are taken: make it smaller first."
    choose(page, photograph(tmp_path))
    page.locator(".drop.full img").wait_for()
    page.get_by_role("button", name="Ground my own sentence").tap()
    ask(page, "a cup on a saucer", "Ground")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    show(page, tmp_path, "phone")
    page.get_by_role("button", name="Correct masks").tap()
    show(page, tmp_path, "phone-editing")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-playwright-python here")
    found = axe.Axe().run(page)
    assert not [(one["id"], [node["html"] for node in one["nodes"]]) for one in found.response["violations"]]
