"""From what was captured to one map per token, a file for each way; and from these to one map per phrase.

A way is named `NAME` or `NAME:ARGUMENT` (docs/maps.md); `aas.registry.MAP_SOURCES` knows the names.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aas import registry

if TYPE_CHECKING:
    from pathlib import Path

    from aas.maps.source import Source

DEFAULT = "mean"


def source_named(name: str) -> "Source":
    """Raises ValueError or OSError for a source that is not known, or an argument that it does not understand."""
    kind, _, argument = name.strip().partition(":")
    return registry.load(registry.MAP_SOURCES, kind, "map source")(argument)


def names_of(maps: str | Sequence[str]) -> tuple[str, ...]:
    """`"mean,tam"`, or a list, as names; ValueError for none, for one twice, and for one that is not known."""
    names = tuple(name.strip() for name in (maps.split(",") if isinstance(maps, str) else maps))
    if not names or "" in names or len(set(names)) < len(names):
        raise ValueError(f"--maps {','.join(names)!r}: give one or more different names. `aas list maps` shows them.")
    for name in names:
        registry.known(registry.MAP_SOURCES, name.partition(":")[0], "map source")
    return names


def subtracts_token_mean(name: str) -> bool:
    """Whether the mean over the answer's tokens is taken away from a source's maps before they point."""
    kind = name.partition(":")[0]
    return registry.load(registry.MAP_SOURCES, kind, "map source").minus_token_mean


def calibrations_of(maps: str | None) -> dict[str, "Path"]:
    """The files that `--maps` names, by what stands behind `heads:`; ValueError for a name that none has."""
    from aas.maps.calibration import calibration_file  # its imports are for those who need them

    parts = [part for name in (maps or "").split(",") for part in name.split("+") if "heads:" in part]
    files = {argument: calibration_file(argument) for argument in (part.rpartition("heads:")[2] for part in parts)}
    return {argument: file for argument, file in files.items() if file is not None}
