"""Whether an answer of a few words is one of the right ones, to the letter."""

import re
import string
from collections.abc import Sequence

ARTICLES = re.compile(r"\b(?:a|an|the)\b")
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def is_exact(answer: str, truth: Sequence[str]) -> bool:
    """Whether the two are the same as SQuAD compares them (arXiv 1606.05250)."""
    return any(_plain(answer) == _plain(one) for one in truth)


def _plain(text: str) -> str:
    """Without case, punctuation, articles and further spaces; what is nothing else, as it stands."""
    lowered = text.casefold().translate(NO_PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", lowered).split()) or " ".join(text.split())
