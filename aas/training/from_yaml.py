"""What YAML holds as a dataclass: a name that is not known, or is lacking, and a value of another kind are told."""

from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def made(kind: type[T], content: Mapping[Any, Any], what: str, without: Collection[str] = ()) -> T:
    """Of names and values; `what` it is called in messages, `without`: fields that are not set here. Raises ValueError
    for what does not fit."""
    known = {one.name: one for one in fields(kind) if one.name not in without}  # type: ignore[arg-type]
    unknown = sorted(map(str, content.keys() - known.keys()))
    lacking = [name for name, one in known.items() if _is_needed(one) and name not in content]
    if unknown or lacking:
        problem = f"does not know {unknown[0]}" if unknown else f"lacks {lacking[0]}"
        raise ValueError(f"{what} {problem}. It has: {', '.join(known)}.")
    hints = get_type_hints(kind)
    return kind(**{name: _named(name, hints[name], value) for name, value in content.items()})


def _is_needed(one: Any) -> bool:
    return one.default is MISSING and one.default_factory is MISSING


def _named(name: str, kind: Any, value: Any) -> Any:
    try:
        return _as(kind, value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error


def _as(kind: Any, value: Any) -> Any:
    """A value as a field's type; TypeError or ValueError for another. YAML takes 1e-4 for a word."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return None if value is None else _as(_of_union(parts, value), value)
    if origin is list:
        if not isinstance(value, list):
            raise TypeError(f"{value!r}: give a list.")
        return [_as(parts[0], one) for one in value]
    if origin is Literal:
        if value not in parts:
            raise ValueError(f"{value!r}: give {', '.join(map(str, parts))}.")
        return value
    return _plain(origin or kind, value)


def _of_union(parts: tuple[Any, ...], value: Any) -> Any:
    """The one that a value may be: a mapping, or else the one that is none."""
    wanted = [one for one in parts if one is not type(None)]
    return next((one for one in wanted if (get_origin(one) is dict) == isinstance(value, dict)), wanted[0])


def _plain(kind: Any, value: Any) -> Any:
    if kind is float and not isinstance(value, bool):
        return float(value)
    words = {int: "a whole number", str: "a word", bool: "true or false", Path: "a file or folder", dict: "names"}
    is_right = isinstance(value, str if kind is Path else kind) and (kind is bool or not isinstance(value, bool))
    if not is_right:
        raise TypeError(f"{value!r}: give {words.get(kind, 'a number')}.")
    return Path(value) if kind is Path else value
