"""A real browser for the tests of pages: Chromium, where one is installed."""

import shutil
from collections.abc import Iterator

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
WHY = "no Chromium here (apt-get install chromium)"
PATIENCE_MS = 120_000  # for a machine that does other things


def launched() -> Iterator:
    """A browser of Playwright's with the machine's own Chromium; skips the test where there is none."""
    programme = next(filter(None, map(shutil.which, NAMES)), None)
    if programme is None:
        pytest.skip(WHY)
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here (pip install playwright)")
    with playwright.sync_playwright() as found:
        browser = found.chromium.launch(executable_path=programme, args=["--no-sandbox"])
        yield browser
        browser.close()
