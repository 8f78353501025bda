"""Words of a model, a file or a user, without what could do harm where they are shown."""

import unicodedata

# They turn the reading direction of what follows: with them a text can pretend to be another one.
_DIRECTION_MARKS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def harmless(text: str) -> str:
    """Without control characters (new lines and tabs stay), lone surrogates and direction overrides."""
    return "".join(c for c in text if c in "\n\t" or not _is_harmful(c))


def _is_harmful(character: str) -> bool:
    return unicodedata.category(character) in {"Cc", "Cs"} or character in _DIRECTION_MARKS
