"""Files behind http(s) URLs. A web server lists no folders, and does not say when a file changed: what it sends today
is taken for what it sent yesterday."""

import io
from collections.abc import Iterator
from typing import Any, BinaryIO, cast
from urllib.parse import quote
from urllib.request import Request, urlopen

from aas.photographs import limits
from aas.photographs.limits import ImageError, check_bytes, max_bytes, patiently
from aas.photographs.store import Facts, Store

BUFFER_BYTES = 1 << 18  # of a file that is read in parts: a tar's headers and small photographs


class Web(Store):
    """Whole files, and parts of them where the server gives such."""

    def facts(self, url: str) -> Facts:
        return Facts(_Parts(url).size)

    def opened(self, url: str) -> BinaryIO:
        return cast("BinaryIO", io.BufferedReader(_Parts(url), BUFFER_BYTES))

    def part(self, url: str, start: int, n_bytes: int) -> bytes:
        return _Parts(url).between(start, start + n_bytes)

    def whole(self, url: str) -> bytes:
        return patiently(lambda: _whole(url), url, "downloaded")

    def matching(self, pattern: str) -> list[str]:
        raise ImageError(f"{pattern}: a web server lists no files; name each, or give a list of them (a text file)")

    def below(self, url: str) -> Iterator[tuple[str, Facts]]:
        yield "", Facts()  # it can only be a file


def _whole(url: str) -> bytes:
    with _asked(url) as answer:
        content = answer.read(max_bytes() + 1)
        check_bytes(len(content), url)
        told = answer.headers.get("Content-Length", "")
    if told.isdecimal() and len(content) < int(told):  # the library does not say so where it is asked for a number
        raise ConnectionError(f"cut off after {len(content)} of {told} bytes")
    return cast("bytes", content)


def _asked(url: str, **headers: str) -> Any:
    ascii_url = quote(url, safe="%/:=&?~#+!$,;'@()*[]")  # as browsers do with what people type
    request = Request(ascii_url, headers={"User-Agent": "aas"} | headers)  # some servers refuse urllib's own
    return urlopen(request, timeout=limits.TIMEOUT_SECONDS)


class _Parts(io.RawIOBase):
    """A file behind a URL that is read where it is wanted."""

    def __init__(self, url: str):
        super().__init__()
        self.url, self.place, self._size = url, 0, -1

    @property
    def size(self) -> int:
        """In bytes, as the server says."""
        if self._size < 0:
            self.between(0, 1)
        return self._size

    def between(self, start: int, stop: int) -> bytes:
        """Its bytes, as far as there are such."""
        return patiently(lambda: self._between(start, stop), self.url, "downloaded")

    def _between(self, start: int, stop: int) -> bytes:
        with _asked(self.url, Range=f"bytes={start}-{stop - 1}") as answer:
            told = answer.headers.get("Content-Range", "").rpartition("/")[2]
            if answer.status != 206 or not told.isdecimal():
                raise ImageError(f"{self.url}: the server gives no parts of files (Range): download it first")
            self._size = int(told)
            content = answer.read(stop - start)
        if len(content) < min(stop, self._size) - start:
            raise ConnectionError(f"cut off after {len(content)} bytes")
        return cast("bytes", content)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: 0}[whence]
        if whence == io.SEEK_END:
            self.place += self.size
        return self.place

    def tell(self) -> int:
        return self.place

    def readinto(self, buffer: Any) -> int:
        stop = min(self.place + len(buffer), self.size)
        content = self.between(self.place, stop) if stop > self.place else b""
        buffer[: len(content)] = content
        self.place += len(content)
        return len(content)
