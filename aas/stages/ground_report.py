"""What people see of `aas ground` while it goes on: a line for each image, and the report."""

import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from tqdm import tqdm

from aas.ground import Request
from aas.grounding import Grounding
from aas.show.page import EMBEDDED_NOTICE, REPORT, facts_of, links_of
from aas.stages.ground_inputs import shown
from aas.stages.ground_options import Ground
from aas.store.keys import unquoted
from aas.store.runs import RunFolder
from aas.text import harmless
from aas.view import terminal
from aas.view.report import About, Report
from aas.view.report_entry import entry

REPORT_SHARE = 0.1  # of the time, at most, goes into reports of what is done so far

log = logging.getLogger(__name__)


class RunReport:
    """What people see of a run while it goes on: a line for each image, and the report of all that the folder holds.

    Everything is read from the files, so that what an earlier start has done is told in the same way.
    """

    def __init__(self, run: RunFolder, options: Ground):
        self.run, self.options = run, options
        notice = EMBEDDED_NOTICE if options.model == "embedded" else ""
        self.report = Report(run.path / REPORT, About(run.path.absolute().name, notice=notice))
        self.next_report = 0.0

    def show_what_is_there(self, requests: Sequence[Request]) -> None:
        """The folder's results: those that are asked for again are printed, all are in the report."""
        asked = {self.run.item_path(request.key): request for request in requests}
        for key, path in self.run.items().items() if self.run.path.is_dir() else ():
            self._show(key, asked.get(path))

    def show(self, request: Request) -> None:
        """Print what is new, and put it into the report, where time allows."""
        self._show(request.key, request)
        if time.monotonic() >= self.next_report:
            self.write()

    def _show(self, key: str, request: Request | None) -> None:
        path = self.run.item_path(key)
        try:
            found = Grounding.load(path)
        except (ValueError, OSError) as error:  # the photograph may be gone since
            log.warning("not in the report: %s", harmless(str(error)))
            return
        links = links_of(path, found.source, self.report.path)
        self.report.add(key, entry(unquoted(path.stem), found.image, [found.panel()], links=links))
        if request is not None:
            self._print(request, found)

    def _print(self, request: Request, grounding: Grounding) -> None:
        if self.options.as_json:
            as_given = {"image": shown(request)}
            line = json.dumps(as_given | grounding.item() | as_given, ensure_ascii=not _writes_utf8())
        else:
            line = f"{harmless(shown(request))}: {self.said(grounding)}"
        tqdm.write(line, file=sys.stdout)

    def said(self, grounding: Grounding) -> str:
        """What stands behind an image's name."""
        return terminal.coloured(grounding.answer, grounding.phrases, colour=sys.stdout.isatty())

    def write(self) -> None:
        """Every entry so far, by name."""
        start = time.monotonic()
        if self.run.description_path.is_file():
            self.report.about = replace(self.report.about, facts=facts_of(self.run, self.run.description()))
        self.report.write(list(self.run.failures().items()))
        self.next_report = time.monotonic() + (time.monotonic() - start) / REPORT_SHARE


def _writes_utf8() -> bool:
    """Whether stdout takes every character; what it escapes itself would be no JSON."""
    return sys.stdout.encoding.lower().replace("-", "") == "utf8"
