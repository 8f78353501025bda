"""Files of this machine: shards that lie in a folder."""

import os
import time
from collections.abc import Iterator
from glob import glob
from typing import BinaryIO

from aas.photographs.limits import ImageError
from aas.photographs.store import Facts, Store, read_at_most

FRESH_SECONDS = 2  # file systems keep times of so many seconds: within them a file may change and look the same


class Local(Store):
    """By their paths."""

    def facts(self, url: str) -> Facts:
        if not os.path.isfile(url):  # to read from a named pipe would wait for ever
            raise ImageError(f"{url}: no such file")
        found = os.stat(url)
        is_fresh = time.time() - max(found.st_mtime, found.st_ctime) < FRESH_SECONDS
        return Facts(found.st_size, None if is_fresh else f"{found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}")

    def opened(self, url: str) -> BinaryIO:
        return open(url, "rb")

    def matching(self, pattern: str) -> list[str]:
        return sorted(path for path in glob(pattern, recursive=True) if os.path.isfile(path))

    def below(self, url: str) -> Iterator[tuple[str, Facts]]:
        raise NotImplementedError("folders of this machine are listed by aas.images")

    def whole(self, url: str) -> bytes:
        with self.opened(url) as file:
            return read_at_most(file, url)
