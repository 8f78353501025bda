"""Which words are the address of something that is no local file."""

from glob import has_magic
from pathlib import Path

from aas import registry


class Address(str):
    """A URL that photographs are taken from. `pathlib` would make one slash of its two."""

    __slots__ = ()


def scheme_of(text: str) -> str:
    """The scheme of a URL in small letters; nothing for a path."""
    scheme, separator, _ = text.partition("://")
    return scheme.lower() if separator else ""


def is_url(text: str) -> bool:
    """Whether `text` is fetched from elsewhere, or out of a shard, and not a path: of the schemes that are known here
    only, so that no file's words make any other reader open anything."""
    return scheme_of(text) in (*registry.PHOTOGRAPH_STORES, *registry.PHOTOGRAPH_SHARDS)


def is_web(text: str) -> bool:
    """Whether a browser may follow it."""
    return scheme_of(text) in ("http", "https")


def path_of(text: str) -> str:
    """Of a URL or path what names the file: without a web address's query."""
    return text.partition("?")[0].partition("#")[0] if is_web(text) else text


def is_pattern(text: str) -> bool:
    """Whether it may stand for several files."""
    return "*" in text if is_web(text) else has_magic(text)  # of which a question mark begins the query


def located(text: str | Path) -> Path | Address:
    """What people give for a place of photographs."""
    return Address(text) if isinstance(text, str) and "://" in text else Path(text)
