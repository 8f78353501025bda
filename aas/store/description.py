"""run.json: what a run was asked, and whether a later start is asked the same."""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from aas.spellings import MAX_EXACT
from aas.text import read_text

SCHEMA = 1


def described(command: str, arguments: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The content of run.json."""
    return {"schema": SCHEMA, "command": command, "arguments": dict(arguments), **facts}


def as_text(description: Mapping[str, Any]) -> str:
    """As it is written."""
    return json.dumps(description, indent=1, ensure_ascii=False) + "\n"


def read_description(path: Path) -> dict[str, Any]:
    """run.json; ValueError, which names it, where it is damaged."""
    try:
        content = json.loads(read_text(path))
        _check(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to begin anew.") from error
    return content


def _check(content: Any) -> None:
    if not isinstance(content, dict) or not isinstance(content.setdefault("command", ""), str):
        raise ValueError("it names no command")
    arguments = content.setdefault("arguments", {})
    if not isinstance(arguments, dict) or not isinstance(arguments.get("files", {}), dict):
        raise ValueError("its arguments are no object")
    n_images = content.setdefault("n_images", None)
    if n_images is not None and not (type(n_images) is int and 0 <= n_images <= MAX_EXACT):
        raise ValueError(f"n_images is {n_images!r}")


def changes(former: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str]) -> Iterator[str]:
    """What is told of each argument that is another now. Of older runs no fingerprints are known, and options that they
    did not have count as off. Files of the options in `free` may change."""
    for name, value in json.loads(json.dumps(now)).items():
        if name == "files":
            known = value | former.get(name, {})
            changed = [one for one, new in value.items() if known[one] != new and one not in free]
            yield from (f"the content of --{one} is another" for one in changed)
        elif former.get(name) != value and (name in former or value):
            yield f"{name} was {former.get(name)!r} and is now {value!r}"
