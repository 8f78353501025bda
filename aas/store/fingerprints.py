"""Whether files are those that a run began with: told by their sizes, beginnings and ends, which costs no time."""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

ENDS = 65_536  # bytes; the header of a safetensors file, and the last weights
NOTES = {".log", ".md", ".out", ".err"}  # no part of a model
WHOLE = 50_000_000  # up to so many bytes a file is read as a whole


def fingerprint(path: Path) -> str | None:
    """Of a file; of a folder of files (a model's); of a run folder what it was asked and made of. None where there is
    nothing. When the files were written does not count."""
    found = sha256()
    try:
        if (path / "run.json").is_file():
            description = json.loads((path / "run.json").read_text(encoding="utf-8"))
            found.update(json.dumps([description["command"], description["arguments"]], sort_keys=True).encode())
        else:
            for file in _files(path):
                found.update(f"{file.name if file != path else ''} {file.stat().st_size}\n".encode(errors="replace"))
                found.update(_read(file))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # whoever reads it will say what is wrong
    return found.hexdigest()[:16] if path.exists() else None


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        files = (file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        yield from sorted(file for file in files if file.suffix not in NOTES)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        if path.stat().st_size <= WHOLE:
            return file.read()
        start = file.read(ENDS)
        file.seek(-ENDS, 2)
        return start + file.read()
