"""The method's published variants by name, and the defaults that its commands and `Grounder` share."""

from dataclasses import dataclass
from typing import get_args

from aas.choices import Alignment, Kind, Merge, PresetName, check
from aas.maps import DEFAULT

DEFAULT_QUESTION = "Describe the image in detail."
LEFT_OUT: tuple[Kind, ...] = ("pronouns", "unseen")  # phrases that get no mask unless they are asked for
# The method's map is the mean of all attention. Of the embedded LMM this sum points better, and has better masks
# (docs/maps.md).
MAPS_EMBEDDED = "fused:mean+cosine"


@dataclass(frozen=True)
class Preset:
    """`heads`: indices averaged in every layer (None = all), which capture takes; `merge`: how the tokens of a phrase
    become one map."""

    heads: tuple[int, ...] | None
    merge: Merge


PAPER: PresetName = "paper"
PRESETS: dict[PresetName, Preset] = {
    "paper": Preset(heads=None, merge="mean"),
    "reference-2024": Preset(heads=(-2,), merge="mean"),
    "reference-2025": Preset(heads=None, merge="max"),
}
assert set(PRESETS) == set(get_args(PresetName))


def preset_named(name: str | None) -> Preset:
    """The paper's where none is named; ValueError for a name that is none."""
    name = name or PAPER
    check("preset", name, PresetName)
    return PRESETS[name]  # type: ignore[index]


def maps_for(
    lmm: str,
    layers: object = None,
    heads: object = None,
    alignment: Alignment = "predict",
    preset: PresetName | None = None,
) -> str:
    """The map source, unless some are asked for. `lmm`: its name; the others as in `Grounder`, None for what is not
    said. Where anything is said of attention or of the method, the maps are the method's."""
    is_said = layers is not None or heads is not None or alignment != "predict" or preset is not None
    return MAPS_EMBEDDED if lmm == "embedded" and not is_said else DEFAULT
