"""A stage for tests of many processes: it writes who did each item. A light module: each process imports it."""

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from aas.engine.stage import Plan, Stage
from aas.store.atomic import write_text


@dataclass(frozen=True)
class Number:
    key: str
    image: Path = Path("photo.jpg")


NUMBERS = [Number(f"{i:02}") for i in range(24)]


@dataclass
class Told(Stage):
    """Of the keys in `trouble`: "raise", or "kill" the process."""

    out: Path
    device: str
    trouble: dict[str, str] = field(default_factory=dict)

    def prepare(self, item):
        return item

    def compute(self, batch):
        for item in batch:
            if self.trouble.get(item.key) == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.trouble.get(item.key) == "raise":
                raise RuntimeError("no answer")
        time.sleep(1 if self.device == "slow" else 0.002)
        return batch

    def finish(self, item, result):
        write_text(self.out / f"{item.key}.json", f'"{self.device} {os.getpid()}"')


def load(out: Path, trouble: dict[str, str], device: str | None):
    if device == "broken":
        raise ValueError("no such device")
    if device == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return Told(out, str(device), trouble), Plan(2), {"versions": "some"}
