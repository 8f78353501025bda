"""Phrase confidence of the embedded LMM: fit its rule, and measure it on photographs that it was not fitted on.

    python scripts/embedded/fit_confidence.py fit        # writes checkpoints/embedded/confidence/rules.json
    python scripts/embedded/fit_confidence.py table      # prints the tables of docs/evaluation.md

`fit`: the model's own answers to the 75 photographs for choosing. Of each phrase whose root word names a category of
COCO's, whether that is there: in the photograph's annotation or in one of its captions. A logistic rule with a ridge
for each set of map sources; cross-validated over photographs, and each signal alone. `table`: what
`aas eval hallucination` would say of the 75 photographs for the figures, by each rule.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from split import default_data_dir, kept_out
from tqdm import tqdm

from aas import Grounder, Grounding
from aas.confidence.judging import AnswerOrigin
from aas.confidence.rule import FURTHEST, RULES, Rule, embedded_rules
from aas.confidence.signals import Signals
from aas.evaluations.hallucination import FIRST, Case, Presence, as_table, compared
from aas.metrics.auc import area
from aas.paths import embedded_dir
from aas.phrases.likelihood import token_probabilities
from aas.presets import DEFAULT_QUESTION

SOURCES = ("mean", "tam", "attribution:signed")  # attention, state and what the answer is made of err independently
SIGNALS = {
    False: ("word", "peak", "entropy"),
    True: ("word", "peak", "entropy", "agreement", "margin"),
}
RIDGE = 3.0  # of standardised signals, in units of one phrase's log loss
N_FOLDS, N_SHUFFLES = 10, 5


@dataclass(frozen=True)
class Phrase:
    """A phrase that names a category, in the photograph of that id. `signals`: one for each set of sources; `others`:
    what else is known of it, by columns of a result."""

    image_id: int
    words: str
    category: str
    is_there: bool
    signals: Sequence[Signals]
    others: dict[str, float]


def files(data: Path, split: str) -> dict[int, Path]:
    """Image id -> photograph."""
    folder = data / "coco/images/val2017"
    return {i: folder / f"{i:012d}.jpg" for i in kept_out(data)[split == "figures"]}


def annotations(data: Path) -> tuple[Path, Path]:
    folder = data / "coco/annotations"
    return folder / "instances_subset_val2017.json", folder / "captions_subset_val2017.json"


def sets_of_sources(grounder: Grounder) -> list[tuple[str, ...]]:
    """What points by default alone; what `aas infer-attn` stores; and the first beside others."""
    (default,) = grounder.ask_options.maps
    return [(default,), (SOURCES[0],), (default, *SOURCES)]


def grounded(grounder: Grounder, path: Path, maps: tuple[str, ...]) -> Grounding:
    """The model's own answer, pointed at by the first of `maps`."""
    grounder.ask_options = replace(grounder.ask_options, maps=maps)
    return grounder(path, DEFAULT_QUESTION)


def signals_of(grounder: Grounder, grounding: Grounding, maps: tuple[str, ...]) -> Sequence[Signals]:
    """Of each phrase."""
    phrases = [one.phrase for one in grounding]
    return grounder.judge.signals(maps, grounding.answer, grounding.attention, phrases)


def phrases_of(grounder: Grounder, sets: Sequence[tuple[str, ...]], data: Path, split: str) -> list[Phrase]:
    """Of the model's own answers to a split's photographs."""
    presence = Presence(*annotations(data), "embedded", 0.7, {})
    widest = {maps[0]: maps for maps in sorted(sets, key=len)}  # by what points
    found = []
    for image_id, path in tqdm(files(data, split).items(), unit="photo"):
        by_first = {first: grounded(grounder, path, maps) for first, maps in widest.items()}
        grounding = by_first[sets[0][0]]
        phrases, scores = [one.phrase for one in grounding], [one.score for one in grounding]
        signals = [signals_of(grounder, by_first[maps[0]], maps) for maps in sets]
        likely = token_probabilities(grounding.answer, phrases) or ()
        named = presence.named_by(grounding.answer.text, [phrase.span for phrase in phrases])
        for i, category in enumerate(named):
            if category is not None:
                others = {"token_probabilities": likely[i], "scores": scores[i]}
                is_there, by_set = bool(presence.has(image_id, category)), [some[i] for some in signals]
                found.append(Phrase(image_id, phrases[i].text, category, is_there, by_set, others))
    return found


def fitted(maps: tuple[str, ...], names: Sequence[str], signals: Sequence[Signals], there: np.ndarray) -> Rule:
    """The rule of the least log loss on phrases that are `there` [n], or not, with a ridge on its weights."""
    values = np.array([[one[name] for name in names] for one in signals])
    mean, deviation = values.mean(0), values.std(0).clip(1e-6)
    cut = ((values - mean) / deviation).clip(-FURTHEST, FURTHEST)

    def loss(at: np.ndarray) -> float:
        log_odds = at[0] + cut @ at[1:]
        return float(np.logaddexp(0, np.where(there, -log_odds, log_odds)).sum() + RIDGE / 2 * (at[1:] ** 2).sum())

    intercept, *weights = minimize(loss, np.zeros(len(names) + 1)).x
    rows = zip(names, mean, deviation, weights, strict=True)
    return Rule(maps, _short(intercept), {name: (_short(m), _short(d), _short(w)) for name, m, d, w in rows})


def _short(value: float) -> float:
    return round(float(value), 5)


def auc(values: np.ndarray, there: np.ndarray) -> float:
    return float(area(values, there.astype(float), (~there).astype(float)))


def cross_validated(
    maps: tuple[str, ...], names: Sequence[str], cases: Sequence[Phrase], which: int
) -> dict[str, float]:
    """AUC and log loss of phrases of photographs that the rule was not fitted on."""
    there, images = np.array([one.is_there for one in cases]), np.array([one.image_id for one in cases])
    signals = [one.signals[which] for one in cases]
    aucs, losses = [], []
    for shuffle in range(N_SHUFFLES):
        order = np.random.default_rng(shuffle).permutation(np.unique(images))
        values = np.zeros(len(cases))
        for fold in range(N_FOLDS):
            held_out = np.isin(images, order[fold::N_FOLDS])
            used = [one for one, is_out in zip(signals, held_out, strict=True) if not is_out]
            rule = fitted(maps, names, used, there[~held_out])
            values[held_out] = [rule(one) for one, is_out in zip(signals, held_out, strict=True) if is_out]
        aucs.append(auc(values, there))
        losses.append(float(-np.log(np.where(there, values, 1 - values)).mean()))
    return {"AUC": round(float(np.mean(aucs)), 3), "log loss": round(float(np.mean(losses)), 3)}


def digest(name: str) -> str:
    """Of an embedded model's weights: rules are of these."""
    (weights,) = embedded_dir(name).glob("*.safetensors")
    return sha256(weights.read_bytes()).hexdigest()


def fit(data: Path, out: Path) -> None:
    grounder = Grounder()
    sets = sets_of_sources(grounder)
    cases = phrases_of(grounder, sets, data, "choose")
    there = np.array([one.is_there for one in cases])
    print(f"{len(cases)} phrases of {len({one.image_id for one in cases})} photographs; there: {there.mean():.3f}")
    rules: list[dict[str, Any]] = []
    for which, maps in enumerate(sets):
        names, signals = SIGNALS[len(maps) > 1], [one.signals[which] for one in cases]
        rule = fitted(maps, names, signals, there)
        alone = {name: round(auc(np.array([one[name] for one in signals]), there), 3) for name in names}
        held_out = cross_validated(maps, names, cases, which)
        print(f"{','.join(maps)}: cross-validated {held_out}; AUC of each signal alone {alone}")
        rules.append({"maps": list(maps), "intercept": rule.intercept, "signals": rule.weights}
                     | {"cross_validated": held_out, "alone": alone})  # fmt: skip
    made = {"how": "scripts/embedded/fit_confidence.py", "split": "choose", "phrases": len(cases),
            "photographs": len(files(data, "choose")), "there": round(float(there.mean()), 4), "ridge": RIDGE,
            "sha256": {"lmm": digest("lmm")}}  # fmt: skip
    with_these = grounder.judge.circumstances(DEFAULT_QUESTION, "predict", AnswerOrigin(is_given=False))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"made_with": with_these, "rules": rules, "made": made}, indent=1) + "\n")
    print(out)


def table(data: Path) -> None:
    """Of each rule, on the photographs for the figures."""
    rules = embedded_rules().rules
    images = sorted(files(data, "figures"))
    phrases = phrases_of(Grounder(), [rule.maps for rule in rules], data, "figures")
    for which, rule in enumerate(rules):
        values = [one.others | {FIRST: rule(one.signals[which])} for one in phrases]
        cases = [
            Case(images.index(one.image_id), one.words, one.category, one.is_there, of)
            for one, of in zip(phrases, values, strict=True)
        ]
        content = compared(cases, list(map(str, images)), ["calibrated"], 1000, 0)
        print(f"\n## --maps {','.join(rule.maps)}\n\n{as_table(content)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["fit", "table"])
    parser.add_argument("--data", type=Path, default=default_data_dir())
    parser.add_argument("--out", type=Path, default=embedded_dir("lmm").parent / "confidence" / RULES)
    args = parser.parse_args()
    if args.what == "fit":
        fit(args.data, args.out)
    else:
        table(args.data)


if __name__ == "__main__":
    main()
