"""Run folders: what was asked (run.json), what is done (the items), what failed (failed.jsonl)."""

import json
import logging
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from aas.store.atomic import write_first, write_text
from aas.store.keys import quoted, unquoted
from aas.text import harmless

SCHEMA = 1
log = logging.getLogger(__name__)
MERGED = "results.json"
OWN_FILES = {"run.json", MERGED}


class RunFolder:
    """A folder of items that many processes may fill at once, killed and started again as often as it takes.

    An item is done when its file exists.
    """

    def __init__(self, path: Path, suffix: str):
        self.path, self.suffix = path, suffix
        self.description_path = path / "run.json"
        self.failed_path = path / "failed.jsonl"

    def item_path(self, key: str) -> Path:
        """The file of an item, whether it is there or not."""
        name = f"{quoted(key)}{self.suffix}"
        if name in OWN_FILES:  # an image may be called "run"
            name = f"%{ord(name[0]):02X}{name[1:]}"
        return self.path / name

    def items(self) -> dict[str, Path]:
        """Key -> file of every item that is done, by key."""
        with os.scandir(self.path) as entries:
            # Only files: to read from a named pipe would wait for ever.
            names = [entry.name for entry in entries if entry.name.endswith(self.suffix) and entry.is_file()]
        names = [name for name in names if name not in OWN_FILES and not name.startswith(".")]
        return dict(sorted((unquoted(name.removesuffix(self.suffix)), self.path / name) for name in names))

    def is_done(self, key: str) -> bool:
        """Whether its file is there."""
        return self.item_path(key).is_file()

    def begin(self, command: str, arguments: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Write run.json, or check that this folder's run was asked the same.

        `arguments` decide what the items are; `facts` (versions and the like) are noted only. Raises ValueError when
        the folder holds another run.
        """
        asked = {"schema": SCHEMA, "command": command, "arguments": dict(arguments)}
        text = _description_text(asked | dict(facts))
        if self.description_path.exists() or not write_first(self.description_path, text):
            there = self.description()
            self._check_same(there, command, arguments)
            if "n_images" in facts and there.get("n_images") != facts["n_images"]:  # photographs were added
                write_text(self.description_path, _description_text(there | {"n_images": facts["n_images"]}))

    def _check_same(self, there: Mapping[str, Any], command: str, arguments: Mapping[str, Any]) -> None:
        if there.get("command") != command:
            raise ValueError(
                f"{self.path} holds a run of `aas {there.get('command')}`; name another folder with --out."
            )
        if changed := list(_changes(there.get("arguments", {}), json.loads(json.dumps(arguments)))):
            raise ValueError(
                f"{self.path} holds a run with other arguments ({'; '.join(changed)}); repeat them to resume it, or "
                "name another folder with --out."
            )

    def description(self) -> dict[str, Any]:
        """run.json; ValueError where it is damaged."""
        try:
            return json.loads(self.description_path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{self.description_path} is damaged ({error}); delete it to begin anew.") from error

    def fail(self, key: str, error: str, image: str | None = None) -> None:
        """Add a line to failed.jsonl, and say so. `image`: what people call it, where that is not its key."""
        error = harmless(error)
        log.error("failed: %s", error)
        line = {"image": key, "error": error} if image is None else {"image": image, "error": error, "key": key}
        with self._locked(), self.failed_path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            # Behind a line that was cut off, a new one.
            start = "" if file.tell() == 0 or self.failed_path.read_bytes().endswith(b"\n") else "\n"
            file.write(start + json.dumps(line, ensure_ascii=False) + "\n")

    def failures(self) -> dict[str, str]:
        """The images that are not done, and why not; of each the last reason."""
        if not self.failed_path.exists():
            return {}
        lines = (json.loads(line) for line in self._failure_lines())
        return {line["image"]: line["error"] for line in lines if not self.is_done(_key(line))}

    def forget_failures(self, keys: Collection[str] | None = None) -> None:
        """Take the lines of `keys`, or all, out of failed.jsonl: they are tried again, or done."""
        if not self.failed_path.exists():
            return
        with self._locked():
            lines = [] if keys is None else list(self._failure_lines())
            kept = [line for line in lines if _key(json.loads(line)) not in (keys or ())]
            if kept:
                write_text(self.failed_path, "".join(kept))
            else:
                self.failed_path.unlink(missing_ok=True)

    def _failure_lines(self) -> Iterator[str]:
        # Lines as a file has them; `splitlines` would break a name at U+2028.
        with self.failed_path.open(encoding="utf-8", newline="\n") as file:
            yield from filter(_is_whole, file)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path / ".lock", poll_interval=0.01):
            yield


def _is_whole(line: str) -> bool:
    """A line of failed.jsonl that was cut off says nothing."""
    try:
        content = json.loads(line)
    except ValueError:
        return False
    return isinstance(content, dict) and {"image", "error"} <= content.keys()


def _description_text(description: Mapping[str, Any]) -> str:
    return json.dumps(description, indent=1, ensure_ascii=False) + "\n"


def _changes(former: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What is told of each argument that is another now. Of older runs no fingerprints are known, and options that they
    did not have count as off."""
    for name, value in now.items():
        if name == "files":
            changed = [one for one, new in value.items() if former.get(name, {}).get(one, new) != new]
            yield from (f"the content of --{one} is another" for one in changed)
        elif former.get(name) != value and (name in former or value):
            yield f"{name} was {former.get(name)!r} and is now {value!r}"


def _key(line: Mapping[str, str]) -> str:
    return line.get("key", line["image"])
