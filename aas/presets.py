"""The method's published variants, by name."""

from dataclasses import dataclass

from aas.maps.merge import Merge


@dataclass(frozen=True)
class Preset:
    """`heads`: indices averaged in every layer (None = all), which capture takes; `merge`: how the tokens of a phrase
    become one map."""

    heads: tuple[int, ...] | None
    merge: Merge


PRESETS = {
    "paper": Preset(heads=None, merge="mean"),
    "reference-2024": Preset(heads=(-2,), merge="mean"),
    "reference-2025": Preset(heads=None, merge="max"),
}
