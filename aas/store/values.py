"""What a JSON value must be to belong to a result: each function gives the value back as the result has it, or raises
ValueError."""

from collections.abc import Callable
from typing import Any, get_args

from aas import rle
from aas.choices import ConfidenceKind
from aas.rle import Rle
from aas.spellings import id_of, number_of, whole_of

Check = Callable[[Any], Any]


def text(value: Any) -> str:
    """ValueError for what is no text; so are all below."""
    return _must(isinstance(value, str), value, "text")


def an_id(value: Any) -> str | int:
    """Text, or a whole number."""
    found = value if isinstance(value, str) else id_of(value)
    _must(found is not None, value, "an id, text or a whole number")
    return found  # type: ignore[return-value]


def number(value: Any) -> float:
    """Finite."""
    return _must(not isinstance(value, str) and number_of(value) is not None, value, "a finite number")


def share(value: Any) -> float:
    """From 0 to 1."""
    return _must(0 <= number(value) <= 1, value, "a number from 0 to 1")


def confidence_kind(value: Any) -> ConfidenceKind:
    """One of its words."""
    return _must(value in get_args(ConfidenceKind), value, f"one of {', '.join(get_args(ConfidenceKind))}")


def whole(value: Any) -> int:
    """A whole number."""
    return _whole(value, "a whole number")


def index(value: Any) -> int:
    """A whole number, 0 or more."""
    found = _whole(value, "a whole number from 0")
    return _must(found >= 0, found, "a whole number from 0")


def flag(value: Any) -> bool:
    """True or false."""
    return _must(isinstance(value, bool), value, "true or false")


def flag_number(value: Any) -> int:
    """0 or 1."""
    found = _whole(value, "0 or 1")
    return _must(found in (0, 1), found, "0 or 1")


def mask(value: Any) -> Rle:
    """COCO run lengths that fill their size, compressed. Polygons, whose image has no size here, are none."""
    return rle.compressed(value, (0, 0))


def point_xy(value: Any) -> tuple[Any, ...]:
    """Two numbers, not far outside of every picture."""
    return _must(len(listed(value, _place)) == 2, tuple(value), "two numbers, x and y")


def _place(value: Any) -> float:
    return _must(abs(number(value)) <= rle.MAX_SIDE, value, "a place in a picture")


def labelled_points(value: Any) -> tuple[Any, ...]:
    """Rows of x, y and label."""
    return listed(value, _labelled_point)


def _labelled_point(value: Any) -> tuple[Any, ...]:
    three = listed(value, _place)
    return _must(len(three) == 3 and three[2] in (0, 1), three, "x, y and a label, 1 or 0")


def span(value: Any) -> tuple[Any, ...]:
    """A start, and an end that is not before it."""
    two = listed(value, index)
    return _must(len(two) == 2 and two[0] <= two[1], two, "a start and an end")


def indices(value: Any) -> tuple[Any, ...]:
    """A list of indices."""
    return listed(value, index)


def listed(value: Any, check: Check) -> tuple[Any, ...]:
    """A list whose entries are all right."""
    return tuple(map(check, _must(isinstance(value, list), value, "a list")))


def column(name: str, value: Any, check: Check) -> tuple[Any, ...]:
    """A list whose entries are all right; an error says which is not, from 1."""
    entries = _must(isinstance(value, list), value, f"a list of {name}")
    return tuple(named(f"{name} {i}", entry, check) for i, entry in enumerate(entries, start=1))


def named(name: str, value: Any, check: Check) -> Any:
    """`check(value)`; its error names the key."""
    try:
        return check(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: {error}") from error


def _whole(value: Any, wanted: str) -> int:
    """Also of 1.0, which is how some programs write 1."""
    found = None if isinstance(value, str) else whole_of(value)
    _must(found is not None, value, wanted)
    return found  # type: ignore[return-value]


def _must(holds: bool, value: Any, wanted: str) -> Any:
    if not holds:
        shown = repr(value)
        raise ValueError(f"{shown if len(shown) <= 60 else f'{shown[:60]}…'} is not {wanted}")
    return value
