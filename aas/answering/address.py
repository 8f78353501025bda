"""Where the server is, as people name it. Nothing heavy is imported here: the options check it."""

from urllib.parse import urlsplit

KEY = "AAS_ANSWERS_KEY"  # the environment variable with the server's key; no other is looked at


def checked_address(address: str, option: str = "--answers-from") -> str:
    """`http://HOST:PORT/v1` without a slash at its end; ValueError, which names the `option`, for what is none, and for
    one with a key in it."""
    try:
        parts = urlsplit(address)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        is_one = False
    if not is_one or any(character.isspace() for character in address):
        raise ValueError(f"{option} {_without_key(address)!r}: give the server's address, http://HOST:PORT/v1.")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            f"{option} takes an address alone, without a password, a ? or a #: it is written down with the results. A "
            f"key goes into the environment variable {KEY}."
        )
    return address.rstrip("/")


def _without_key(address: str) -> str:
    return address.rpartition("@")[2]
