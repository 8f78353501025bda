"""Pictures of the viewer for people to look at, of real photographs and answers: what no assertion sees.

AAS_SCREENSHOTS=screenshots AAS_SHARED=… python -m pytest tests/test_screenshots.py
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import PATIENCE_MS, launched
from tests.command import run
from tests.test_viewer import DESKTOP, PHONE

FOLDER = os.environ.get("AAS_SCREENSHOTS", "")
N_PHOTOGRAPHS = 8
TRUTH = "data/coco/annotations/instances_subset_val2017.json"
pytestmark = [pytest.mark.skipif(not FOLDER, reason="AAS_SCREENSHOTS does not name a folder for pictures")]
Opener = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator:
    yield from launched()


@pytest.fixture(scope="module")
def grounded(shared_dir, tmp_path_factory) -> Path:
    """A run of the embedded models over COCO's photographs, with two map sources."""
    folder = tmp_path_factory.mktemp("screenshots")
    (folder / "photos").mkdir()
    for file in sorted((shared_dir / "data/coco/images/val2017").glob("*.jpg"))[:N_PHOTOGRAPHS]:
        shutil.copy(file, folder / "photos")
    assert run("ground", folder / "photos", "--out", folder / "run", "--maps", "mean,tam", "--no-png")[0] == 0
    return folder / "run"


@pytest.fixture
def opened(browser, request) -> Iterator[Opener]:
    """Opens a page; when the test ends, its picture is in the folder under the test's name."""
    pages = []

    def open_page(path: Path, device: dict[str, Any] = DESKTOP) -> Any:
        pages.append(browser.new_context(**device, offline=True).new_page())
        pages[-1].set_default_timeout(PATIENCE_MS)
        pages[-1].goto(path.as_uri())
        pages[-1].locator(".entry.open").first.wait_for()
        return pages[-1]

    yield open_page
    for page in pages:
        page.wait_for_timeout(400)  # what fades in
        page.screenshot(path=Path(FOLDER) / f"{request.node.name.removeprefix('test_')}.png")
        page.context.close()


def second_phrase(page: Any) -> Any:
    return page.locator(".entry.open .answer button").nth(1)


def test_desktop(opened, grounded):
    page = opened(grounded / "report.html")
    assert page.locator(".contents li").count() == N_PHOTOGRAPHS


def test_phone(opened, grounded):
    page = opened(grounded / "report.html", PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_phone_entry(opened, grounded):
    page = opened(grounded / "report.html", PHONE)
    second_phrase(page).scroll_into_view_if_needed()
    second_phrase(page).tap()
    assert page.locator(".answer .phrase.on").count() > 0


def test_dark(opened, grounded):
    page = opened(grounded / "report.html", DESKTOP | {"color_scheme": "dark"})
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 19, 22)"


def test_hover(opened, grounded):
    page = opened(grounded / "report.html")
    second_phrase(page).hover()
    assert page.locator(".caption").first.inner_text().startswith("Mask of")


def test_maps_side_by_side(opened, grounded):
    page = opened(grounded / "report.html")
    second_phrase(page).click()
    assert page.locator(".attention .figure:visible").count() == 2


def test_slider(opened, grounded):
    page = opened(grounded / "report.html")
    slider = page.get_by_label("Token of the answer").first
    for _ in range(3):
        slider.press("ArrowRight")
    assert "token 3 of" in page.locator(".caption").first.inner_text()


@pytest.fixture(scope="module")
def judged(shared_dir, grounded) -> Path:
    page = grounded / "judged.html"
    assert run("view", grounded, "--gt", shared_dir / TRUTH, "--out", page, "--no-open")[0] == 0
    return page


def test_worst_first(opened, judged):
    page = opened(judged)
    ious = [float(words.split()[-1]) for words in page.locator(".entry .head .badge").all_text_contents()]
    assert len(ious) > 3 and ious == sorted(ious)


def test_worst_first_on_a_phone(opened, judged):
    page = opened(judged, PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_nothing_matches(opened, grounded):
    page = opened(grounded / "report.html")
    page.get_by_label("Search words and names").fill("submarine")
    assert page.locator(".count").inner_text() == f"0 of {N_PHOTOGRAPHS} photographs"
