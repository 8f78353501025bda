"""Attention of chosen heads."""

from torch import Tensor

from aas.captured import Captured, Needs
from aas.maps.calibration import Calibration, calibration_file, read_calibration
from aas.maps.source import Source, checked_layers


class Heads(Source):
    """Attention of chosen heads: those of a calibration (`heads:FILE.json`, or `heads:NAME` of one that ships), or
    named by layer and head (`heads:14.24/14.13`).

    M[t, j] = sum_(l,h) w_lh A[l, h, q(t), j] / sum_(l,h) w_lh (arXiv 2503.06287; 2606.14703). The file holds
    {"heads": [[layer, head, weight], ...]}; a weight that is left out is 1.
    """

    minus_token_mean = True

    def __init__(self, argument: str = ""):
        path = calibration_file(argument)
        self.calibration = None if path is None else read_calibration(path)
        self.weights = _named(argument) if self.calibration is None else self.calibration.weights

    def calibrations(self) -> list[Calibration]:
        return [] if self.calibration is None else [self.calibration]

    def needs(self, n_layers: int, n_heads: int) -> Needs:
        layers, heads = (frozenset(place[i] for place in self.weights) for i in (0, 1))
        wrong = sorted(head for head in heads if not 0 <= head < n_heads)
        if wrong:
            raise ValueError(f"--maps heads: the model has {n_heads} heads, numbered from 0: no {wrong[0]}.")
        return Needs("heads", checked_layers(layers, n_layers), heads)

    def __call__(self, captured: Captured) -> Tensor:
        maps = [weight * captured.of_head(*place) for place, weight in self.weights.items()]
        return sum(maps) / sum(self.weights.values())  # type: ignore[return-value]


def _named(argument: str) -> dict[tuple[int, int], float]:
    try:
        found = [tuple(map(int, part.split("."))) for part in argument.split("/")]
        return {(layer, head): 1.0 for layer, head in found}
    except ValueError:
        raise ValueError(
            f"--maps heads:{argument}: name a calibration, heads:FILE.json, or heads by layer and "
            "head, heads:14.24/14.13."
        ) from None
