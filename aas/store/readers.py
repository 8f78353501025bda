"""The strict reader of each command's items."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from aas.store.attention import read_item
from aas.store.instances import read_instances
from aas.store.results import OURS, read_result

READERS: dict[str, Callable[[Path], Any]] = {  # command of run.json -> what reads and checks one of its files
    "infer-attn": read_item,
    "ground": partial(read_result, needs=OURS),
    "segment gcg": partial(read_result, needs=OURS),
    "segment expressions": partial(read_result, needs=OURS),
    "segment instance": read_instances,
}
