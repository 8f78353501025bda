"""How quick a click is in `aas serve`, in Chromium: from the click on the photograph to the mask that follows it.

    python scripts/bench_app.py [PHOTOGRAPH]

Prints, over 20 clicks after a first one, the least and the median of: what passes until the page has drawn the mask,
the CPU time of Python (server, decoder, and the few of Playwright's own), and that of the page's main thread. With the
embedded models, on one core.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from skimage import data

from aas.serve.app import launched
from aas.serve.models import Models
from aas.serve.options import Serve
from aas.serve.service import Service

N_CLICKS = 20
SENTENCE = "a cup of coffee on a saucer beside a spoon"
# Clicks at a place of the stage, and waits until the line below tells another score, which is said once it is drawn.
CLICK = """async ([x, y]) => {
  const stage = document.querySelector(".editing .stage"), line = document.querySelector(".editing .picture .line");
  const box = stage.getBoundingClientRect(), began = performance.now();
  line.textContent = "";
  const at = { clientX: box.left + x * box.width, clientY: box.top + y * box.height };
  stage.dispatchEvent(new MouseEvent("click", { bubbles: true, ...at }));
  while (!line.textContent) await new Promise((goOn) => setTimeout(goOn, 1));
  await new Promise(requestAnimationFrame);
  return performance.now() - began;
}"""


def editing(page: Page, address: str, photograph: Path) -> None:
    """Opens the page, and the correction of the first mask of a sentence."""
    page.goto(address)
    page.get_by_label("Choose a photograph").set_input_files(photograph)
    page.locator(".drop.full img").wait_for()
    page.get_by_role("button", name="Ground my sentence").click()
    page.locator("textarea").fill(SENTENCE)
    page.get_by_role("button", name="Ground", exact=True).click()
    page.locator(".turn:not(.writing)").wait_for()
    page.get_by_role("button", name="Correct masks").click()


def clicks(page: Page) -> list[tuple[float, float, float]]:
    """Of each click milliseconds: that passed, of Python, of the page."""
    session, found = page.context.new_cdp_session(page), []
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def busy_ms() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return 1000 * next(one["value"] for one in metrics if one["name"] == "TaskDuration")

    for i in range(N_CLICKS + 1):
        at = [0.1 + 0.8 * ((i * 0.37) % 1), 0.1 + 0.8 * ((i * 0.61) % 1)]
        of_page, of_python = busy_ms(), time.process_time()
        passed = page.evaluate(CLICK, at)
        found.append((passed, 1000 * (time.process_time() - of_python), busy_ms() - of_page))
    return found[1:]


def main() -> None:
    """Measure, and print."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        photograph = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder) / "coffee.png"
        if len(sys.argv) < 2:
            Image.fromarray(data.coffee()).save(photograph)
        (Path(folder) / "uploads").mkdir()
        options = Serve(out=Path(folder) / "served")
        app, addresses = launched(options, Service(Models(options), Path(folder) / "uploads", options.out))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 1300})
            page.set_default_timeout(200_000)
            editing(page, addresses[0], photograph)
            found = clicks(page)
            browser.close()
        app.close(verbose=False)
    for name, values in zip(
        ("passed", "Python's CPU time", "the page's CPU time"), zip(*found, strict=True), strict=True
    ):
        print(f"{name}: {min(values):.0f} ms at least, {median(values):.0f} ms in the median of {N_CLICKS} clicks")


if __name__ == "__main__":
    main()
