"""The confidence of an answer's phrases, and what kind of number it is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from aas.choices import ConfidenceKind
from aas.confidence.rule import embedded_rules
from aas.confidence.signals import Signals, signals_of
from aas.phrases.likelihood import token_probabilities
from aas.phrases.reasoning import tokens_of_answer
from aas.pointing.phrases import PointingOptions
from aas.records import Answer, AttentionMaps, Phrase

POINTING = ("merge", "words")  # what decides what a phrase's map is
NO_CONFIDENCE = (
    "--min-confidence needs how likely each word was to the model, which was not stored here: run `aas infer-attn` "
    "anew, into another folder."
)


@dataclass(frozen=True)
class Confidences:
    """Of each phrase a number from 0 to 1.

    `kind` says what it is. `calibrated`: the probability that the phrase names something in the picture, as measured on
    photographs that no model was trained on. `uncalibrated`: of the same rule, where that was not measured (given
    words, another question or setting): larger means more support, but it is no probability. `token`: no rule holds for
    the model or the map source; the model's own probability of the phrase's least likely token.
    """

    values: tuple[float, ...]
    kind: ConfidenceKind


@dataclass(frozen=True)
class AnswerOrigin:
    """Where an answer came from: whether the words were given, or the model's own, drawn at `temperature`; `all_heads`:
    whether the attention of all layers and heads was averaged."""

    is_given: bool
    temperature: float = 0.0
    all_heads: bool = True


@dataclass(frozen=True)
class Judge:
    """`model`: what the LMM is called, empty where it has no name; `options`: how phrases get their maps. How they get
    their masks does not matter. `least`: the confidence below which a phrase is left out, ValueError where it is not
    from 0 to 1."""

    model: str
    options: PointingOptions
    least: float | None = None

    def __post_init__(self) -> None:
        if self.least is not None and not 0 <= self.least <= 1:
            raise ValueError(f"--min-confidence {self.least}: give a number from 0 to 1.")

    def __call__(
        self,
        answer: Answer,
        attention: AttentionMaps,
        phrases: Sequence[Phrase],
        origin: AnswerOrigin,
    ) -> Confidences | None:
        """The confidence of each phrase; None where the words' own probabilities are not known (then ValueError where
        a least one is asked for).

        `attention`: of all sources that were captured, the one that pointed first.
        """
        likely = token_probabilities(answer, phrases)
        if likely is None:
            if self.least is not None:
                raise ValueError(NO_CONFIDENCE)
            return None
        rules, here = embedded_rules(), self.circumstances(answer.question, attention.alignment, origin)
        rule = rules.of(attention.sources) if rules.holds_for(here) else None
        if rule is not None:
            signals = self.signals(rule.maps, answer, attention, phrases)
            if all(rule.weights.keys() <= one.keys() for one in signals):
                values = tuple(round(rule(one), 4) for one in signals)
                return Confidences(values, "calibrated" if here == rules.made_with else "uncalibrated")
        return Confidences(likely, "token")

    def kept(self, found: Confidences | None, n: int) -> list[int]:
        """Which of `n` phrases are not left out."""
        if self.least is None or found is None:
            return list(range(n))
        return [i for i, value in enumerate(found.values) if value >= self.least]

    def circumstances(self, question: str, alignment: str, origin: AnswerOrigin) -> dict[str, Any]:
        """What decides whether a rule holds, and whether it is calibrated."""
        pointing = {name: getattr(self.options, name) for name in POINTING}
        return {"model": self.model, "question": question, "alignment": alignment} | vars(origin) | pointing

    def signals(
        self,
        maps: Sequence[str],
        answer: Answer,
        attention: AttentionMaps,
        phrases: Sequence[Phrase],
    ) -> list[Signals]:
        """Of each phrase, by the maps of these sources alone."""
        used = replace(attention, beside={name: attention.beside[name] for name in maps[1:]})
        counted = None if self.options.reasoning else tokens_of_answer(answer)
        return signals_of(answer, used, phrases, self.options.merge, counted)
