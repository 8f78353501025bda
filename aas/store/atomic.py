"""Files appear whole or not at all."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

if TYPE_CHECKING:
    from PIL.Image import Image

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PART = ".part"  # ends the name of a file that is not whole yet
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def check_writable(folder: Path) -> None:
    """The OSError, with the name of `folder`, that writing into it would raise: told before the work, not after it.

    Nothing is left there, and the folder is not made.
    """
    if folder.parts and folder.parts[0].endswith(":"):  # `s3:`, as a path has it
        raise ValueError(f"{folder} looks like a URL, and here a folder of this machine is needed.")
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error


def check_target(file: Path | None) -> None:
    """As `check_writable`, of a file that will be written; None is none."""
    if file is not None:
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
        check_writable(file.parent)


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder, renamed to `path` when the block ends well, removed when it does not."""
    with _temporary(path.parent) as temporary:
        yield temporary
        _complete(temporary)
        temporary.replace(path)


def _complete(temporary: Path) -> None:
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.chmod(0o666 & ~_umask())


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """An empty file, gone afterwards. A process that is killed may leave it: its suffix keeps it from being taken for a
    result, and its lock, which ended with the process, tells that nobody needs it."""
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = _locked_file(folder)
    try:
        yield Path(name)
    finally:
        os.close(handle)
        Path(name).unlink(missing_ok=True)


def _locked_file(folder: Path) -> tuple[int, str]:
    while True:
        handle, name = tempfile.mkstemp(prefix=".", suffix=PART, dir=folder)
        with suppress(OSError):  # a file system without locks: nobody sweeps there
            if fcntl:
                fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:  # not swept before it was locked
            return handle, name
        os.close(handle)


def settle(folder: Path) -> None:
    """What was written into a folder is there after a power cut, too."""
    with suppress(OSError):  # Windows, and file systems that know no such thing
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sweep(folder: Path) -> None:
    """Remove temporary files that nobody is writing any more."""
    with os.scandir(folder) as entries:
        left = [Path(entry.path) for entry in entries if entry.name.startswith(".") and entry.name.endswith(PART)]
    for path in left if fcntl else ():
        with suppress(OSError), path.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """The whole text as UTF-8, or nothing. Halves of characters, as names that are no UTF-8 have, are written as JSON
    spells them (`\\udce9`)."""
    write_bytes(path, _encoded(text))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def write_bytes(path: Path, content: bytes) -> None:
    """All of `content`, or nothing."""
    with written(path) as temporary:
        temporary.write_bytes(content)


def write_png(path: Path, picture: "Image") -> None:
    """A picture as it is, or nothing."""
    with written(path) as temporary:
        picture.save(temporary, format="PNG")


def write_first(path: Path, text: str) -> bool:
    """As `write_text`, where no file is there; whether it was written. Of two processes at once one is the first."""
    with _temporary(path.parent) as whole:
        try:
            whole.write_bytes(_encoded(text))
            _complete(whole)
            os.link(whole, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            with locked(path.parent):  # a file system without links
                if path.exists():
                    return False
                whole.replace(path)
    return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Of all processes that ask for a folder's lock, one has it at a time. It ends with its process."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock", poll_interval=0.01):  # where locks are missing, a file that is there
        yield


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
