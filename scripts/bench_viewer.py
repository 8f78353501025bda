"""How quick the viewer is in Chromium: opening 1,000 photographs, and hovering over 30 masks on one of 4 megapixels.

    python scripts/bench_viewer.py [PHOTOGRAPH]

Prints how large the details of a photograph are beside the photo, and milliseconds of CPU time of the page's main
thread (wall time says more about what else the machine does): of a hover with the frame that shows it, of opening the
page until the first photographs are drawn, of a frame while scrolling.
"""

import json
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, sync_playwright

from aas.images import read_image
from aas.records import Answer, GroundedPhrase, Phrase, View
from aas.view.report import About, Report
from aas.view.report_entry import Entry, Maps, Panel, entry

N_PHOTOGRAPHS, N_MASKS, SIZE_HW, GRID_HW, N_TOKENS = 1000, 30, (1733, 2311), (24, 24), 200
HOVERS = """async (n) => {
  const buttons = [...document.querySelectorAll(".answer button")];
  for (let i = 0; i < n; i++) {
    buttons[i % buttons.length].dispatchEvent(new PointerEvent("pointerover", { bubbles: true, pointerType: "mouse" }));
    await new Promise(requestAnimationFrame);
  }
}"""
STROLLS = """async (n) => {
  const stage = document.querySelector(".stage"), box = stage.getBoundingClientRect();
  for (let i = 0; i < n; i++) {
    const clientX = box.left + (box.width * ((i * 37) % 100)) / 100;
    const clientY = box.top + (box.height * ((i * 61) % 100)) / 100;
    stage.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, pointerType: "mouse", clientX, clientY }));
    await new Promise(requestAnimationFrame);
  }
}"""
SCROLLS = """async (n) => {
  for (let i = 0; i < n; i++) {
    scrollBy(0, 160);
    await new Promise(requestAnimationFrame);
  }
}"""


def photograph(given: Path | None) -> np.ndarray:
    """uint8 [H, W, 3] of 4 megapixels: the given one, repeated or cut, or noise as smooth as a photograph's."""
    height, width = SIZE_HW
    if given is not None:
        image = read_image(given)
        copies = (-(-height // image.shape[0]), -(-width // image.shape[1]), 1)
        return np.tile(image, copies)[:height, :width]
    noise = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return noise.repeat(8, 0).repeat(8, 1)[:height, :width]


def scene(image: np.ndarray) -> Entry:
    """30 overlapping rough discs, of which ten are a quarter of the photograph, and an answer of 200 tokens."""
    rng, (height, width) = np.random.default_rng(1), SIZE_HW
    y, x = np.mgrid[:height, :width]
    text = " ".join(f"thing {i}" for i in range(N_MASKS))
    phrases, at = [], 0
    for i in range(N_MASKS):
        words, radius = f"thing {i}", (0.3 if i % 3 == 0 else 0.1) * width
        cx, cy = rng.uniform(0, width), rng.uniform(0, height)
        angle = np.arctan2(y - cy, x - cx)
        mask = np.hypot(x - cx, y - cy) < radius * (1 + 0.1 * np.sin(9 * angle) + 0.02 * np.sin(60 * angle))
        phrase = Phrase(words, (at, at + len(words)), (at, at + len(words)), (i,))
        phrases.append(GroundedPhrase(phrase, rng.random(GRID_HW, np.float32), (int(cx), int(cy)), mask, 0.5 + i / 100))
        at += len(words) + 1
    spans = tuple((min(i, len(text) - 1), min(i + 1, len(text))) for i in range(N_TOKENS))
    view = View(GRID_HW, (0.0, 0.0, float(width), float(height)))
    maps = Maps("attention", view, np.stack([one.map for one in phrases]), rng.random((N_TOKENS, *GRID_HW), np.float32))
    return entry(
        "photograph", image, [Panel(Answer("What is there?", text, (0,) * N_TOKENS, spans), phrases, maps=[maps])]
    )


def report(folder: Path, one: Entry, n: int) -> Path:
    """A page of `n` photographs, all alike."""
    found = Report(folder / "report.html", About("bench"))
    for i in range(n):
        name = f"photograph {i:04}"
        found.add(name, replace(one, summary=one.summary | {"name": name}))
    found.write()
    return found.path


class Watched:
    """A new page whose main thread's CPU time is counted: script, style, layout, painting, parsing."""

    def __init__(self, browser: Browser):
        self.page = browser.new_page(viewport={"width": 1280, "height": 900})
        self.session = self.page.context.new_cdp_session(self.page)
        self.session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def busy_ms(self) -> float:
        """So far."""
        found = self.session.send("Performance.getMetrics")["metrics"]
        return 1000 * next(one["value"] for one in found if one["name"] == "TaskDuration")

    def opening_ms(self, path: Path) -> float:
        """Until the first photographs are drawn."""
        self.page.goto(path.as_uri(), timeout=200_000)
        self.page.locator(".entry.open").first.wait_for()
        return self.busy_ms()

    def event_ms(self, code: str, n: int = 100) -> float:
        """For each of `n` events, with the frame that shows it."""
        before = self.busy_ms()
        self.page.evaluate(code, n)
        return (self.busy_ms() - before) / n


def main() -> None:
    """Measure, and print."""
    one = scene(photograph(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
    beside = len(json.dumps(one.details)) - len(one.details["photo"]) + len(json.dumps(one.summary))
    print(f"beside the photo: {beside / 1e3:.0f} kB a photograph; photo: {len(one.details['photo']) / 1e3:.0f} kB")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        watched = Watched(browser)
        watched.opening_ms(report(Path(folder), one, 1))
        for what, code in (("hovering over phrases", HOVERS), ("strolling over the photograph", STROLLS)):
            print(f"{what}: {watched.event_ms(code):.1f} ms an event")
        path, watched = report(Path(folder), one, N_PHOTOGRAPHS), Watched(browser)
        opening = watched.opening_ms(path)
        print(f"opening {N_PHOTOGRAPHS} photographs ({path.stat().st_size / 1e6:.1f} MB): {opening:.0f} ms")
        print(f"scrolling through them: {watched.event_ms(SCROLLS):.1f} ms a frame")
        browser.close()


if __name__ == "__main__":
    main()
