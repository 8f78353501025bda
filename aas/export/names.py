"""The classes of an export and their numbers."""

from collections.abc import Iterable, Iterator


class ClassNames:
    """Names of classes, numbered from 0 in the order in which they are first asked for, those of `known` before."""

    def __init__(self, known: Iterable[str] = ()):
        self._numbers = {name: i for i, name in enumerate(dict.fromkeys(known))}

    def number(self, name: str) -> int:
        """Of a class, which is new or known."""
        return self._numbers.setdefault(name, len(self._numbers))

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)
