"""How likely a model found the words of a phrase."""

from collections.abc import Sequence
from math import exp, log

from aas.phrases.alignment import overlapping
from aas.records import Answer, Phrase

LEAST_LOG_PROB = log(1e-6)


def least_log_prob(answer: Answer, phrase: Phrase) -> float | None:
    """The least log p of the tokens that write the phrase, 1e-6 at least; None where the model's own probabilities are
    not known."""
    if answer.token_log_probs is None:
        return None
    tokens = overlapping(answer.token_spans, phrase.span) or phrase.token_indices
    return max(LEAST_LOG_PROB, min((answer.token_log_probs[i] for i in tokens), default=0.0))


def token_probabilities(answer: Answer, phrases: Sequence[Phrase]) -> tuple[float, ...] | None:
    """The same of each phrase as a probability, to four digits."""
    found = [least_log_prob(answer, phrase) for phrase in phrases]
    return None if answer.token_log_probs is None else tuple(round(exp(one), 4) for one in found if one is not None)
