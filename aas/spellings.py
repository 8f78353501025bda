"""Ids, numbers and flags as JSON files spell them: 1 is also 1.0 or "1", 0.9 also "0.9", true also 1 or "true".

pandas writes whole numbers as 1.0 where a column has a gap; spreadsheets and CSV write everything as text. Each
function gives one value for all spellings of it, and None for what is none of its kind: who reads says so.
"""

import re
import sys
from typing import Any

MAX_EXACT = 2**53  # beyond it floats no longer tell whole numbers apart
_WHOLE = re.compile(r"(0|-?[1-9]\d*)(?:\.0*)?", re.ASCII)  # 007 is a name, not a number
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_FLAGS = {"true": True, "false": False, "yes": True, "no": False}


def id_of(value: Any) -> int | str | None:
    """A whole number, however it is spelled; otherwise the text without spaces around it."""
    if isinstance(value, str):
        text = value.strip()
        number = _WHOLE.fullmatch(text)
        return int(number[1]) if number and len(number[1]) < 100 else text or None
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= MAX_EXACT else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def id_text(value: Any) -> str | None:
    """`id_of` as text, which is how ids of two files are compared."""
    found = id_of(value)
    return None if found is None else str(found)


def number_of(value: Any) -> float | int | None:
    """A finite number."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if abs(value) <= sys.float_info.max else None  # false for NaN


def whole_of(value: Any) -> int | None:
    """A whole number that floats tell apart from its neighbours."""
    number = number_of(value)
    return int(number) if number is not None and abs(number) <= MAX_EXACT and number == int(number) else None


def flag_of(value: Any) -> bool | None:
    """True or false, also as 1 or 0, or as words."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _FLAGS:
        return _FLAGS[value.strip().lower()]
    return {0: False, 1: True}.get(whole_of(value))  # type: ignore[arg-type]
