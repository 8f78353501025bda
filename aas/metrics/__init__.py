"""Figures of what was grounded, each formula in a file of its own: data in, plain dictionaries and arrays out."""

from importlib.util import find_spec


def check_installed(*modules: str) -> None:
    """Raise ValueError where a library of the extra `eval` is missing."""
    missing = [name.replace("_", "-") for name in modules if find_spec(name) is None]
    if missing:
        raise ValueError(f'{" and ".join(missing)} not installed: pip install "attend-and-segment[eval]".')
