"""The rule that makes one number of the signals: logistic, of weights that `scripts/embedded/fit_confidence.py` found
for the embedded LMM (checkpoints/embedded/confidence/rules.json says how)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import exp
from typing import Any

from aas.confidence.signals import Signals
from aas.paths import embedded_dir

FURTHEST = 3.0  # standard deviations: what lies beyond was hardly seen when the rule was made
RULES = "rules.json"


@dataclass(frozen=True)
class Rule:
    """p = 1 / (1 + exp(-(b + sum_s w_s z_s))), z_s = (signal s - its mean) / its deviation, cut at 3 on both sides.

    `maps`: the sources that its signals are of, the one that points first; `weights`: signal -> mean, deviation, w.
    """

    maps: tuple[str, ...]
    intercept: float
    weights: Mapping[str, tuple[float, float, float]]

    def __call__(self, signals: Signals) -> float:
        """From 0 to 1; KeyError where a signal is missing."""
        total = self.intercept
        for name, (mean, deviation, weight) in self.weights.items():
            total += weight * max(-FURTHEST, min(FURTHEST, (signals[name] - mean) / deviation))
        return 1 / (1 + exp(-total))


@dataclass(frozen=True)
class Rules:
    """`made_with`: the LMM and the settings that they were fitted with."""

    rules: tuple[Rule, ...]
    made_with: Mapping[str, Any]

    def holds_for(self, circumstances: Mapping[str, Any]) -> bool:
        """Whether the LMM is that one; what else differs only takes away that the rule is calibrated."""
        return circumstances["model"] == self.made_with["model"]

    def of(self, sources: Sequence[str]) -> Rule | None:
        """The rule of most sources that are all there, where the same one points; None without one."""
        usable = [rule for rule in self.rules if rule.maps[0] == sources[0] and set(rule.maps) <= set(sources)]
        return max(usable, key=lambda rule: len(rule.maps), default=None)


@cache
def embedded_rules() -> Rules:
    """Those that ship with the embedded models."""
    return rules_of(json.loads((embedded_dir("confidence") / RULES).read_text(encoding="utf-8")))


def rules_of(content: Mapping[str, Any]) -> Rules:
    """Of what a file of rules holds."""
    rules = [
        Rule(tuple(one["maps"]), one["intercept"], {name: tuple(of) for name, of in one["signals"].items()})
        for one in content["rules"]
    ]
    return Rules(tuple(rules), content["made_with"])
