"""The strict reader of each command's items."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from aas.store.attention import ItemError, read_item
from aas.store.instances import read_instances
from aas.store.keys import ATTENTION_SUFFIX
from aas.store.results import OURS, read_result
from aas.store.shards import is_there


def read_grounding(path: Path) -> None:
    """A result of `aas ground`, `cot` or `serve`, and the maps beside it."""
    result, beside = read_result(path, OURS), path.with_suffix(ATTENTION_SUFFIX)
    if is_there(beside):
        maps = read_item(beside).phrase_maps
        if maps is not None and len(maps) != len(result.phrases):
            raise ItemError(f"{path}: {len(result.phrases)} phrases, and {len(maps)} maps of phrases beside it")


READERS: dict[str, Callable[[Path], Any]] = {  # command of run.json -> what reads and checks one of its files
    "infer-attn": read_item,
    "ground": read_grounding,
    "cot": read_grounding,
    "serve": read_grounding,
    "segment gcg": partial(read_result, needs=OURS),
    "segment expressions": partial(read_result, needs=OURS),
    "segment instance": read_instances,
    "import": partial(read_result, needs=OURS),
}
