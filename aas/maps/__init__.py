"""From what was captured to one map per token, a file for each way; and from these to one map per phrase.

A way is named `NAME` or `NAME:ARGUMENT` (docs/maps.md); `aas.registry.MAP_SOURCES` knows the names.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aas import registry

if TYPE_CHECKING:
    from aas.maps.source import Source

DEFAULT = "mean"


def source_named(name: str) -> "Source":
    """Raises ValueError or OSError for a source that is not known, or an argument that it does not understand."""
    kind, _, argument = name.strip().partition(":")
    return registry.load(registry.MAP_SOURCES, kind, "map source")(argument)  # type: ignore[no-any-return]


def names_of(maps: str | Sequence[str]) -> tuple[str, ...]:
    """`"mean,tam"`, or a list, as names; ValueError for none, or one twice."""
    names = tuple(name.strip() for name in (maps.split(",") if isinstance(maps, str) else maps))
    if not names or "" in names or len(set(names)) < len(names):
        raise ValueError(f"--maps {','.join(names)!r}: give one or more different names. `aas list maps` shows them.")
    return names


def subtracts_token_mean(name: str) -> bool:
    """Whether the mean over the answer's tokens is taken away from a source's maps before they point."""
    kind = name.partition(":")[0]
    return registry.load(registry.MAP_SOURCES, kind, "map source").minus_token_mean  # type: ignore[no-any-return]
