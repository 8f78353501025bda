"""`aas view`: the page of one run, of its masks beside the truth, or of two runs side by side."""

import os
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from aas.metrics.pairing import greedy_ious
from aas.progress import bar_for
from aas.records import Answer, GroundedPhrase
from aas.show.page import REPORT, facts_of, links_of, notice_of
from aas.show.runs import Found, StoredRun
from aas.show.stored import Truths, coloured_as, ious_of
from aas.store.addresses import Spooled
from aas.store.atomic import check_target
from aas.store.spools import ahead
from aas.text import harmless
from aas.view.report import About, Report
from aas.view.report_entry import Entry, Panel, entry
from aas.view.sharing import Thing, things

MAX_RUNS = 2
TRUTH = "Ground truth"


def view(
    folders: Sequence[Path], truth: Path | None, images: Path | None, out: Path | None, is_opened: bool = True
) -> int:
    """Write the page (RUN/report.html, or `out`), print its path, open it; returns the exit code.

    `truth`: COCO or GranD-f masks, to stand beside what was found, the worst first. Of two runs the images are shown
    that both have. `images`: where the photographs are, from run.json if None.
    """
    if len(folders) > MAX_RUNS:
        raise ValueError(f"One run, or {MAX_RUNS} to be compared, and not {len(folders)}.")
    runs = [StoredRun(folder, images) for folder in folders]
    page = out or folders[0] / REPORT
    check_target(page)
    truths = Truths(truth)
    for run in runs:
        run.file_names |= truths.file_names
    report = Report(page, _about(runs, truth is not None))
    failures = _filled(report, runs, truths)
    report.write(failures)
    print(page)
    if is_opened and _has_screen() and not isinstance(page, Spooled):
        webbrowser.open(page.absolute().as_uri())
    return 3 if failures else 0


def _has_screen() -> bool:
    """Without one, `webbrowser` may find a browser for terminals, which knows no JavaScript."""
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _about(runs: Sequence[StoredRun], has_truth: bool) -> About:
    names = _names(runs)
    facts = facts_of(runs[0].run, runs[0].description)
    if len(runs) > 1:
        each = [facts_of(run.run, run.description) for run in runs]
        told = zip("AB", names, each, strict=False)
        facts = [(letter, " · ".join((run, *map(" ".join, its)))) for letter, run, its in told]
    sort = "+B − A" if len(runs) > 1 and has_truth else "+IoU" if len(runs) > 1 or has_truth else ""
    return About(" and ".join(names), facts, notice_of(runs[0].description), sort)


def _names(runs: Sequence[StoredRun]) -> list[str]:
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.run.path) for run in runs]


def _filled(report: Report, runs: Sequence[StoredRun], truths: Truths) -> list[tuple[str, str]]:
    """Adds all images; what could not be shown, and why. ValueError where of none of them anything is true."""
    keys = set.intersection(*(set(run.run.items()) for run in runs))
    if not keys:
        raise ValueError(f"{' and '.join(str(run.run.path) for run in runs)}: no image to show.")
    failures, names, judged = list(runs[0].run.failures().items()), _names(runs), list[bool]()
    entries = ahead(sorted(keys), runs[0].run.item_path)
    for key in tqdm(entries, total=len(keys), unit="image", **bar_for(len(keys))):
        try:
            one = _entry(key, [run.find(key) for run in runs], names, truths, report.path)
            report.add(key, one)
            judged.append(len(one.summary["panels"]) > len(runs))
        except (ValueError, OSError) as error:
            failures.append((key, str(error)))
            tqdm.write(f"failed: {harmless(str(error))}", file=sys.stderr)
    if truths.annotation is not None and judged and not any(judged):
        raise ValueError(f"--gt {truths.annotation} has masks of none of these images: it has other ids and names.")
    return failures


def _entry(key: str, found: Sequence[Found], names: Sequence[str], truths: Truths, page: Path) -> Entry:
    """One image: what was found by each run, and what is true."""
    first = found[0]
    image_hw = (first.image.shape[0], first.image.shape[1])
    if any(one.image.shape != first.image.shape for one in found):
        raise ValueError(f"{first.item} and {found[1].item} are about images of different sizes.")
    true = truths.of(first.image_id, image_hw)
    panels = [one.panel for one in found]
    if len(found) > 1 or true is not None:
        panels = [
            replace(one, title=name if len(found) > 1 else "Found") for one, name in zip(panels, names, strict=True)
        ]
    if true is not None:
        panels.append(Panel(Answer("", "", (), ()), true, TRUTH, is_found=False))
    panels, figures = _side_by_side(panels) if len(panels) > 1 else (panels, {})
    return entry(key, first.image, panels, figures, links_of(first.item, first.photograph, page))


def _side_by_side(panels: Sequence[Panel]) -> tuple[list[Panel], Mapping[str, float]]:
    """The panels, their masks in the colours of those that they are paired with in the first, all but the last with
    their IoUs with the last; the image's figures."""
    shown = [_things_of(panel) for panel in panels]
    to_last = [
        ious_of(panel.phrases, its, panels[-1].phrases, shown[-1])
        for panel, its in zip(panels[:-1], shown[:-1], strict=True)
    ]
    to_first = [
        ious_of(panels[0].phrases, shown[0], panel.phrases, its)
        for panel, its in zip(panels[1:-1], shown[1:-1], strict=True)
    ]
    others = zip(shown[1:], [*to_first, to_last[0]], strict=True)
    coloured = [shown[0], *(coloured_as(shown[0], its, ious) for its, ious in others)]
    told = [replace(panel, shown=its) for panel, its in zip(panels, coloured, strict=True)]
    for i, ious in enumerate(to_last):
        told[i] = replace(told[i], figures={**told[i].figures, "IoU": _best(ious, shown[i], panels[i].phrases)})
    scores = [_mean_iou(ious) for ious in to_last]
    if len(scores) == 1:
        return told, {"IoU": scores[0]}
    return told, {"IoU of A": scores[0], "IoU of B": scores[1], "B − A": scores[1] - scores[0]}


def _things_of(panel: Panel) -> list[Thing]:
    """True masks are things by themselves."""
    return things(panel.phrases) if panel.is_found else [Thing((i,), i) for i in range(len(panel.phrases))]


def _best(ious: np.ndarray, shown: Sequence[Thing], phrases: Sequence[GroundedPhrase]) -> list[float]:
    """Of each phrase the IoU of its mask with the other side's mask that fits it best."""
    best = ious.max(axis=1, initial=0.0)
    found = np.zeros(len(phrases))
    for thing, value in zip(shown, best, strict=True):
        found[list(thing.phrases)] = value
    return found.tolist()


def _mean_iou(ious: np.ndarray) -> float:
    """Over the other side's masks, each with the one that it is paired with; 0 for those without."""
    return float(sum(greedy_ious(ious))) / ious.shape[1] if ious.shape[1] else 0.0
