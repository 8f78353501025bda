"""Files of the stores that fsspec knows: s3://, gs://, hf://, memory:// and more."""

from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, cast

from aas.loading import in_short
from aas.photographs.address import scheme_of
from aas.photographs.limits import LIST_SECONDS, ImageError, patiently
from aas.photographs.store import Facts, Store, read_at_most

# What stores say of a file that changes with its bytes, the surest first.
IDS = ("ETag", "etag", "md5Hash", "content_md5", "blob_id", "generation", "mtime", "LastModified", "last_modified",
       "updated", "created")  # fmt: skip


class Remote(Store):
    """Through fsspec; who may read is said as the store's own package wants it (environment, files of its own)."""

    def facts(self, url: str) -> Facts:
        return patiently(lambda: facts_of(_system(url, "info")), url)

    def opened(self, url: str) -> BinaryIO:
        system, path = system_and_path(url)
        return cast("BinaryIO", system.open(path, "rb"))

    def whole(self, url: str) -> bytes:
        def read() -> bytes:
            with self.opened(url) as file:
                return read_at_most(file, url)

        return patiently(read, url)

    def part(self, url: str, start: int, n_bytes: int) -> bytes:
        def read() -> bytes:  # without asking for the file's size first
            system, path = system_and_path(url)
            return cast("bytes", system.cat_file(path, start=start, end=start + n_bytes))

        return patiently(read, url)[:n_bytes] if n_bytes else b""

    def matching(self, pattern: str) -> list[str]:
        found = patiently(lambda: _system(pattern, "glob"), pattern, "listed", LIST_SECONDS)
        return sorted(f"{scheme_of(pattern)}://{path.lstrip('/')}" for path in found)

    def below(self, url: str) -> Iterator[tuple[str, Facts]]:
        found = patiently(lambda: _system(url, "find", detail=True), url, "listed", LIST_SECONDS)
        _, path = system_and_path(url)
        if not found:
            raise ImageError(f"{url}: no such file or folder")
        for name, info in found.items():
            yield name.removeprefix(path).strip("/"), facts_of(info)


def system_and_path(url: str) -> tuple[Any, str]:
    """Asked for each time: a process that was forked must not use its parent's. ImageError, with what to install, where
    a package or what it needs to be told is missing."""
    from fsspec.core import url_to_fs

    if "::" in url:
        raise ImageError(f"{url}: chains of URLs (::) are not followed")
    try:
        return cast("tuple[Any, str]", url_to_fs(url))
    except (ImportError, ValueError) as error:
        raise ImageError(f"{scheme_of(url)}:// cannot be read: {in_short(error)}") from error


def _system(url: str, does: str, **how: Any) -> Any:
    system, path = system_and_path(url)
    system.invalidate_cache()  # what it said before may have changed
    return getattr(system, does)(path, **how)


def facts_of(info: Mapping[str, Any]) -> Facts:
    """Of what fsspec says of a file."""
    told = next((str(info[name]) for name in IDS if info.get(name)), "")
    return Facts(info.get("size"), told)
