"""Run folders: what was asked (run.json), what is done (the items), what failed (failed.jsonl)."""

import errno
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from aas.store.addresses import Spooled
from aas.store.atomic import locked, sweep, write_first, write_text
from aas.store.description import as_text, changes, described, read_description
from aas.store.heartbeats import WORKERS, forget_killed
from aas.store.keys import quoted, unquoted
from aas.store.lines import add_lines, lines_text, whole_lines
from aas.store.made_of import Files, MadeOf
from aas.store.shards import FOLDER as SHARDS
from aas.store.shards import RESULT, is_there, shards_of
from aas.store.spools import names_at
from aas.text import harmless

log = logging.getLogger(__name__)
MERGED = "results.json"
OWN_FILES = {"run.json", MERGED}
FEW = 3  # are named in a message
GONE = (errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.EHOSTDOWN)  # of a network folder that vanished


class RunFolder:
    """A folder of items that many processes may fill at once, killed and started again as often as it takes.

    An item is done when its file exists.
    """

    def __init__(self, path: Path, suffix: str):
        self.path, self.suffix = path, suffix
        self.description_path = path / "run.json"
        self.failed_path = path / "failed.jsonl"
        self.made_of = MadeOf(path)

    def item_path(self, key: str) -> Path:
        """The file of an item, whether it is there or not, or in a shard (`shards.is_there`)."""
        return self.path / self.item_name(key)

    def item_name(self, key: str) -> str:
        """The name of its file."""
        name = f"{quoted(key)}{self.suffix}"
        # An image may be called "run".
        return f"%{ord(name[0]):02X}{name[1:]}" if name in OWN_FILES else name

    def items(self) -> dict[str, Path]:
        """Key -> file of every item that is done, by key; those in shards have none, but go by its path."""
        return dict(sorted((unquoted(name.removesuffix(self.suffix)), self.path / name) for name in self._names()))

    def n_done(self) -> int:
        """How many items are done."""
        return len(self._names())

    def loose(self) -> set[str]:
        """The names of items that have a file of their own, here or at the run's URL."""
        with os.scandir(self.path) as entries:
            # Only files: to read from a named pipe would wait for ever.
            names = [entry.name for entry in entries if entry.name.endswith(self.suffix) and entry.is_file()]
        names += [name for name in names_at(self.path) if name.endswith(self.suffix)]
        return {name for name in names if name not in OWN_FILES and not name.startswith(".")}

    def _names(self) -> set[str]:
        in_shards = shards_of(self.path).names()
        return self.loose().union(name for name in in_shards if name.endswith(self.suffix))

    def done_of(self, keys: Iterable[str]) -> dict[str, str]:
        """Those of `keys` that are done, and the names of their files; of many it is faster to look into the folder
        once than to ask for each."""
        if not self.path.is_dir():
            return {}
        loose, in_shards = self.loose(), shards_of(self.path).names()
        return {key: name for key in keys if (name := self.item_name(key)) in in_shards or name in loose}

    def is_done(self, key: str) -> bool:
        """Whether it has a file, of its own or in a shard."""
        return is_there(self.item_path(key))

    def begin(
        self,
        command: str,
        arguments: Mapping[str, Any],
        facts: Mapping[str, Any],
        asked: Mapping[str, str] | None = None,
    ) -> None:
        """Write run.json, or check that this folder's run was asked the same.

        `arguments` decide what the items are; `facts` (versions and the like) are noted only. `asked`: key ->
        fingerprint of what is asked of that item alone, as by a line of --answers: lines may be added, and those that
        failed may change. Raises ValueError when the folder holds another run.
        """
        text = as_text(described(command, arguments, facts))
        if self.description_path.exists() or not write_first(self.description_path, text):
            there = self.description()
            self._check_same(there, command, arguments)
            if "n_images" in facts and there.get("n_images") != facts["n_images"]:  # photographs were added
                write_text(self.description_path, as_text(there | {"n_images": facts["n_images"]}))
        self._check_asked(asked or {})

    def _check_same(self, there: Mapping[str, Any], command: str, arguments: Mapping[str, Any]) -> None:
        if there["command"] != command:
            raise ValueError(f"{self.path} holds a run of `aas {there['command']}`; name another folder with --out.")
        changed = list(changes(there["arguments"], arguments, ()))
        if changed and self.made_of.knows_what_was_asked():  # then each line is looked at by itself
            changed = list(changes(there["arguments"], arguments, {"answers", "questions"}))
        if changed:
            raise ValueError(
                f"{self.path} holds a run with other arguments ({'; '.join(changed)}); repeat them to resume it, or "
                "name another folder with --out."
            )

    def _check_asked(self, asked: Mapping[str, str]) -> None:
        if not asked:
            return
        names = {self.item_name(key): key for key in asked}
        failed = {self.item_name(_key(line)) for line in self._failed()}
        others = self.made_of.others_asked({name: asked[key] for name, key in names.items()}, failed)
        if others:
            raise ValueError(
                f"{self.path} holds a run in which something else was asked of {_few([names[one] for one in others])} "
                "(--answers, --questions or --ref-anno was changed). Lines may be added; for changed ones name another "
                "folder with --out."
            )

    def check_files(self, files: Iterable[tuple[str, Files]]) -> None:
        """ValueError where items that are done, each by its file's name, are of files that are others now."""
        changed = self.made_of.others(files)
        if changed:
            raise ValueError(
                f"{self.path} holds results of other files: changed since is the {_few(changed)}. Delete these items "
                f"to have them made anew{self.first()}, or name another folder with --out."
            )

    def first(self) -> str:
        """What to do before an item can be deleted, if anything, in brackets."""
        if isinstance(self.path, Spooled):
            return " (of one in a shard, the shard's .index.jsonl)" if shards_of(self.path).numbers() else ""
        return f" (`aas shard --back {self.path}` first)" if shards_of(self.path).numbers() else ""

    def check_there(self) -> None:
        """OSError where the folder that was begun is gone: it would be made anew, where a network's folder was
        mounted."""
        if not self.description_path.exists():
            raise OSError(errno.ESTALE, "the run folder is gone", str(self.path))

    def note_files(self, key: str, files: Files) -> None:
        """What the item is made of, for later starts. OSError where the folder is gone: a file takes long to read."""
        told = self.made_of.told_of(self.item_name(key), files)
        self.check_there()
        self.made_of.add([told])

    def note_result(self, key: str) -> None:
        """The bytes that were written of it, for `aas verify`."""
        self.note_files(key, {RESULT: self.item_path(key)})

    def description(self) -> dict[str, Any]:
        """run.json; ValueError where it is damaged."""
        return read_description(self.description_path)

    def sweep(self) -> None:
        """Take away what processes that were killed left there."""
        if self.path.is_dir():
            for folder in filter(Path.is_dir, (self.path, self.path / SHARDS, self.path / WORKERS)):
                sweep(folder)
            forget_killed(self.path)

    def fail(self, key: str, error: str, image: str | None = None) -> None:
        """Add a line to failed.jsonl, and say so. `image`: what people call it, where that is not its key."""
        error = harmless(error)
        log.error("failed: %s", error)
        line = {"image": key, "error": error} if image is None else {"image": image, "error": error, "key": key}
        with locked(self.path):
            add_lines(self.failed_path, [line])

    def failures(self) -> dict[str, str]:
        """The images that are not done, and why not; of each the last reason."""
        return {line["image"]: line["error"] for line in self._open_failures()}

    def failed_keys(self) -> set[str]:
        """Of the images that are not done, and were tried."""
        return {_key(line) for line in self._open_failures()}

    def _open_failures(self) -> list[dict[str, Any]]:
        lines = list(self._failed())
        done = self.done_of(map(_key, lines)) if lines else set()
        return [line for line in lines if _key(line) not in done]

    def forget_failures(self, keys: Collection[str] | None = None) -> None:
        """Take the lines of `keys`, or all, out of failed.jsonl: they are tried again, or done."""
        if not self.failed_path.exists():
            return
        with locked(self.path):
            kept = [line for line in self._failed() if keys is not None and _key(line) not in keys]
            if kept:
                write_text(self.failed_path, lines_text(kept))
            else:
                self.failed_path.unlink(missing_ok=True)

    def _failed(self) -> Iterator[dict[str, Any]]:
        return whole_lines(self.failed_path, lambda line: all(isinstance(value, str) for value in _named(line)))


def _named(line: Mapping[str, Any]) -> list[Any]:
    return [line.get("image"), line.get("error"), line.get("key", "")]


def _few(names: Collection[str]) -> str:
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(list(names)[:FEW]) + more


def _key(line: Mapping[str, str]) -> str:
    return line.get("key", line["image"])
