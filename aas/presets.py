"""The method's published variants by name, and the defaults that its commands and `Grounder` share."""

from dataclasses import dataclass
from typing import get_args

from aas.choices import Alignment, Kind, Merge, PresetName, check
from aas.maps import DEFAULT

DEFAULT_QUESTION = "Describe the image in detail."
LEFT_OUT: tuple[Kind, ...] = ("pronouns", "unseen")  # phrases that get no mask unless they are asked for
# The method takes one point. The embedded models, whose maps and masks are both rough, draw better from three (mean IoU
# of phrases 0.29 -> 0.31 on the photographs for choosing, 0.39 -> 0.41 on those for the figures).
N_POINTS = 1
N_POINTS_EMBEDDED = 3
# The method's map is the mean of all attention. Of the embedded LMM this sum points better, on photographs for choosing
# and for the figures, and its masks are better too (docs/maps.md).
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


def n_points_for(segmenter: str, asked: int | None = None) -> int:
    """Peaks of a phrase's map that become points, at most, unless a number is asked for."""
    if asked is not None:
        return asked
    return N_POINTS_EMBEDDED if segmenter == "embedded" else N_POINTS
