"""`aas serve` in a real Chromium: the real server, with the embedded models."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from PIL import Image
from skimage import data

from aas.grounding import Grounding
from aas.serve.models import Models
from aas.serve.options import Serve
from aas.serve.service import Service
from tests.browser import PATIENCE_MS, launched

SENTENCE = "a cup <b>on</b> a saucer"
# Tall enough for all: what is scrolled out of sight is not drawn.
DESKTOP = {"viewport": {"width": 1280, "height": 1300}}
PHONE = {"viewport": {"width": 390, "height": 1600}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def browser() -> Iterator:
    yield from launched()


HOSTS: set[str] = set()


def hear(event: str, arguments: tuple) -> None:
    """Notes whom this process wants to talk to."""
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        HOSTS.add(str(arguments[1][0]))
    if event == "socket.getaddrinfo":
        HOSTS.add(str(arguments[0]))


class Gated(Service):
    """Keeps the end of answers back until the gate is open."""

    gate = Event()

    def ask(self, wish):
        before = {}
        for state in super().ask(wish):
            while state["state"] == "done" and not self.gate.wait(0.2):
                yield before
            before = state
            yield state


@pytest.fixture(scope="module")
def served(browser, tmp_path_factory) -> Iterator[str]:
    """The address."""
    pytest.importorskip("gradio", reason='no gradio here (pip install "attend-and-segment[demo]")')
    from aas.serve import app as of_gradio

    folder = tmp_path_factory.mktemp("app")
    (folder / "uploads").mkdir()
    options = Serve(out=folder / "served", max_megabytes=2)
    sys.addaudithook(hear)
    app, addresses = of_gradio.launched(options, Gated(Models(options), folder / "uploads", options.out))
    yield addresses[0]
    app.close(verbose=False)
    assert {"127.0.0.1", "localhost"} >= HOSTS, "the server told somebody"


@pytest.fixture
def opened(browser, served):
    """Opens the page; fails for whatever it says to the console, and for a wish to any other server."""
    said: list[str] = []
    contexts = []

    def open_page(device):
        contexts.append(browser.new_context(**device))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if not is_here(request.url, served) else None)
        page.goto(served)
        page.get_by_label("Ask a question").wait_for()
        return page

    Gated.gate.set()
    yield open_page
    Gated.gate.set()
    for context in contexts:
        context.close()
    assert not [words for words in said if "willReadFrequently" not in words]  # that is about the tests' own reading


def is_here(url: str, served: str) -> bool:
    return url.startswith((served, "data:", "blob:"))


@pytest.mark.parametrize("share", [False, True])
def test_only_who_asks_for_a_public_address_gets_one(share, tmp_path, monkeypatch):
    """What gradio is told: its servers are not asked here."""
    gradio = pytest.importorskip("gradio", reason='no gradio here (pip install "attend-and-segment[demo]")')
    from aas.serve import app as of_gradio

    told: list[dict] = []
    there = "https://abc.gradio.live" if share else None
    monkeypatch.setattr(gradio.Blocks, "launch", lambda _, **options: told.append(options) or (None, "here", there))
    options = Serve(out=tmp_path, share=True) if share else Serve(out=tmp_path)
    service = Service(Models(options), tmp_path, options.out)
    assert of_gradio.launched(options, service)[1] == (["here", there] if share else ["here"])
    assert [(one["share"], one["server_name"]) for one in told] == [(share, "127.0.0.1")]
    there = None
    if share:
        with pytest.raises(ValueError, match="No public address could be had"):
            of_gradio.launched(options, service)


def show(page, tmp_path: Path, name: str) -> None:
    """A picture for people, in the folder of the variable AAS_SCREENSHOTS, else in the test's own."""
    folder = Path(os.environ.get("AAS_SCREENSHOTS", tmp_path))
    page.screenshot(path=folder / f"app-{name}.png", animations="disabled")


def photograph(tmp_path: Path, name: str = "coffee.jpg") -> Path:
    Image.fromarray(data.coffee()).save(tmp_path / name)
    return tmp_path / name


def choose(page, file: Path) -> None:
    page.get_by_label("Choose a photograph").set_input_files(file)


def ground(page, words: str) -> None:
    """A sentence of one's own."""
    page.get_by_role("button", name="Ground my sentence").click()
    page.locator("textarea").fill(words)
    page.get_by_role("button", name="Ground", exact=True).click()
    page.locator(".turn:not(.writing)", has_text=words).wait_for()


def drawn(page, selector: str) -> np.ndarray:
    """Which pixels of a canvas are painted: bool [h, w]."""
    code = """canvas => {
      const { width, height } = canvas, all = canvas.getContext("2d").getImageData(0, 0, width, height).data;
      let text = "";
      for (let i = 3; i < all.length; i += 4) text += all[i] ? "1" : "0";
      return [height, width, text];
    }"""
    height, width, text = page.locator(selector).first.evaluate(code)
    return (np.frombuffer(text.encode(), np.uint8) == ord("1")).reshape(height, width)


def click(page, x: float, y: float) -> None:
    """On the photograph that is being corrected, at these shares of it."""
    stage = page.locator(".editing .stage")
    box = stage.bounding_box()
    stage.click(position={"x": x * box["width"], "y": y * box["height"]})


def points(page) -> list[str]:
    """Of the mask that is being corrected: what each says."""
    code = "all => all.map((one) => one.classList.contains('on') ? '+' : '−')"
    return page.locator(".editing .point").evaluate_all(code)


def test_ask_correct_and_save(opened, tmp_path):
    page = opened(DESKTOP)
    choose(page, photograph(tmp_path))
    page.locator(".drop.full img").wait_for()
    streams_in(page, lambda: waits(opened(DESKTOP), tmp_path), tmp_path)
    ground(page, SENTENCE)
    assert page.locator(".turn").count() == 2 and page.locator(".answer").first.inner_text() == SENTENCE
    n_before, mask = corrects(page, tmp_path)
    page.get_by_role("button", name="Save").first.click()
    page.locator(".tools .line", has_text="Saved: ").wait_for()
    found = Grounding.load(page.locator(".tools .line").first.inner_text().removeprefix("Saved: "))
    assert (found[0].mask == mask).all() and found[0].labels[n_before:] == (1, 0)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download json").first.click()
    assert json.loads(Path(download.value.path()).read_text())["pred_masks"] == found.item()["pred_masks"]


def waits(page, tmp_path) -> None:
    """A second window's question, while another one is answered, says so."""
    choose(page, photograph(tmp_path))
    page.locator(".drop.full img").wait_for()
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator(".turn .place", has_text="1 question is answered before yours.").wait_for()
    show(page, tmp_path, "waiting")
    assert page.locator(".turn.writing .answer").count() == 0


def streams_in(page, meanwhile: Callable[[], None], tmp_path) -> None:
    """Masks come while the answer is written; it may be stopped, and asked again. `meanwhile`: before it ends."""
    Gated.gate.clear()
    for is_last in (False, True):
        page.get_by_role("button", name="Ask", exact=True).click()
        page.locator(".turn.writing .answer .phrase").first.wait_for()
        assert drawn(page, ".turn.writing canvas.rest").any()
        if not is_last:
            show(page, tmp_path, "writing")
            page.get_by_role("button", name="Stop").click()
            page.locator(".turn .line", has_text="Stopped.").wait_for()
            page.locator(".turn").evaluate("turn => turn.remove()")
    meanwhile()
    Gated.gate.set()
    page.locator(".turn:not(.writing)").wait_for()
    assert page.locator(".question").inner_text() == "Describe the image in detail."
    show(page, tmp_path, "answer")
    phrase = page.locator(".answer button").first
    phrase.hover()
    assert page.locator(".caption").inner_text().startswith(f"Mask of “{phrase.inner_text()}”")
    phrase.click()
    assert page.locator(".heat").is_visible()


def test_who_hears_no_answer_is_told(browser, served, tmp_path):
    """Of a server that is gone, or a connection."""
    with browser.new_context(**DESKTOP) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(served)
        choose(page, photograph(tmp_path))
        page.locator(".drop.full img").wait_for()
        Gated.gate.clear()
        page.get_by_role("button", name="Ask", exact=True).click()
        page.locator(".turn.writing .answer .phrase").first.wait_for()
        context.set_offline(True)
        page.locator(".turn:not(.writing) .line.wrong", has_text="The app does not answer").wait_for()
        Gated.gate.set()
        assert page.get_by_role("button", name="Ask", exact=True).is_visible()


def corrects(page, tmp_path) -> tuple[int, np.ndarray]:
    """By pointer and by keys; how many points there were, and the mask that is accepted."""
    page.get_by_role("button", name="Correct masks").first.click()
    before, n_before = drawn(page, ".editing canvas"), len(points(page))
    click(page, 0.2, 0.8)
    page.get_by_role("button", name="not on it").click()
    click(page, 0.5, 0.2)
    page.locator(".editing .line", has_text="Score").wait_for()
    assert points(page)[n_before:] == ["+", "−"] and (drawn(page, ".editing canvas") != before).any()
    show(page, tmp_path, "editing")
    click(page, 0.5, 0.2)  # on the point: it goes
    assert points(page)[n_before:] == ["+"]
    page.get_by_role("button", name="Undo").click()
    assert points(page)[n_before:] == ["+", "−"]
    page.keyboard.press("Control+z")
    page.locator(".editing .stage").focus()
    for key in ("-", "ArrowRight", "Space"):
        page.keyboard.press(key)
    assert points(page)[n_before:] == ["+", "−"]
    page.get_by_role("button", name="Accept").click()
    page.locator(".editing .line", has_text="Accepted: a cup").wait_for()
    mask = drawn(page, ".editing canvas")
    page.get_by_role("button", name="Done").click()
    return n_before, mask


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
    page.set_viewport_size({"width": 390, "height": 844})
    page.locator("textarea").fill("What is on the table?")
    page.get_by_role("button", name="Ask", exact=True).tap()
    page.locator(".turn:not(.writing) .answer").wait_for()
    box = page.locator(".turn .stage").bounding_box()
    assert box["y"] >= 0 and box["y"] + box["height"] < 844, "the photograph came into sight with its masks"
    page.set_viewport_size(PHONE["viewport"])
    ground(page, SENTENCE)
    assert page.locator(".question").all_inner_texts() == ["What is on the table?"]
    show(page, tmp_path, "phone")
    page.get_by_role("button", name="Correct masks").first.tap()
    assert page.locator(".editing .touched").is_visible() and not page.locator(".editing .pointed").is_visible()
    show(page, tmp_path, "phone-editing")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-playwright-python here")
    found = axe.Axe().run(page)
    assert not [(one["id"], [node["html"] for node in one["nodes"]]) for one in found.response["violations"]]
