"""What a run folder asks of an object store: the names that are there, whole objects from it and to it.

An object is there whole or not at all, and nothing is appended to it, locked or renamed.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from aas import registry
from aas.photographs import ImageError
from aas.photographs.address import scheme_of
from aas.photographs.limits import LIST_SECONDS, patiently
from aas.photographs.remote import facts_of, system_and_path
from aas.photographs.store import Facts

AT_ONCE = 16  # objects on their way
READS_ONLY = ("http", "https", "hf", "webhdfs")  # stores of photographs that take no results, or show half of one
T = TypeVar("T")
U = TypeVar("U")


class StoreError(OSError):
    """A store cannot be reached, or refuses; the message names the place and says why."""


class NotSent(StoreError):
    """Results could not be sent, and wait here."""


class Objects:
    """Those below a URL, by their names relative to it. Raises ValueError for a URL that cannot hold results, and
    StoreError, after three tries where the trouble may pass, for whatever the store cannot do."""

    def __init__(self, url: str):
        self.url, self._system = url, (0, None, "")
        stores = [scheme for scheme in registry.PHOTOGRAPH_STORES if scheme not in READS_ONLY]
        if scheme_of(url) not in stores or not url.partition("://")[2].strip("/"):
            known = ", ".join(f"{scheme}://" for scheme in stores)
            raise ValueError(f"{url}: results are kept in a folder of this machine, or below a name of {known}")

    def listed(self) -> dict[str, Facts]:
        """Of all that is there its size, and what changes with its bytes; nothing where nothing was written yet."""
        system, path = self._asked()

        def find() -> dict[str, Facts]:
            system.invalidate_cache()  # what it said before may have changed
            found = system.find(path, detail=True)
            return {
                name[len(path) + 1 :]: facts_of(told) for name, told in found.items() if name.startswith(f"{path}/")
            }

        return self._tried(find, self.url, "listed")

    def read(self, name: str) -> bytes:
        """All of an object. FileNotFoundError where there is none."""
        system, path = self._asked()
        try:
            return self._tried(lambda: system.cat_file(f"{path}/{name}"), f"{self.url}/{name}", "read")
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise FileNotFoundError(error.__cause__.errno, "no such object", f"{self.url}/{name}") from error
            raise

    def read_all(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Names and objects, some fetched at once; those that are gone by now are left out."""

        def read(name: str) -> tuple[str, bytes | None]:
            with suppress(FileNotFoundError):
                return name, self.read(name)
            return name, None

        return ((name, content) for name, content in together(read, names) if content is not None)

    def write(self, files: Mapping[str, Path]) -> None:
        """Name -> the file whose bytes the object gets, many at once. A file that is gone by now is passed over."""
        system, path = self._asked()

        def put(name: str) -> None:
            def call() -> None:
                try:
                    system.put_file(os.fspath(files[name]), f"{path}/{name}")
                except FileNotFoundError:
                    if files[name].exists():  # then it is the store that misses something
                        raise

            self._tried(call, f"{self.url}/{name}", "written")

        list(together(put, files))

    def remove(self, names: Iterable[str]) -> None:
        """What is gone already is passed over."""
        system, path = self._asked()

        def remove(name: str) -> None:
            def call() -> None:
                with suppress(FileNotFoundError):
                    system.rm_file(f"{path}/{name}")

            self._tried(call, f"{self.url}/{name}", "written")

        list(together(remove, names))

    def _asked(self) -> tuple[Any, str]:
        """Once for each process: one that was forked must not use its parent's."""
        if self._system[0] != os.getpid():
            try:
                system, path = system_and_path(self.url)
                self._system = (os.getpid(), system, path.rstrip("/"))
            except ImageError as error:
                raise ValueError(str(error)) from error
        return self._system[1], self._system[2]

    def _tried(self, call: Callable[[], T], name: str, verb: str) -> T:
        try:
            return patiently(call, name, verb, LIST_SECONDS)
        except ImageError as error:
            is_missing = isinstance(error.__cause__, FileNotFoundError) and verb != "read"
            said = f"{name}: cannot be {verb} (no such bucket: make it first)" if is_missing else str(error)
            raise StoreError(said) from error.__cause__


def together(call: Callable[[T], U], entries: Iterable[T]) -> Iterator[U]:
    """What `call` gives of each, in their order, some at once."""
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        yield from pool.map(call, entries)
    finally:
        pool.shutdown(cancel_futures=True)
