"""Whether files are those that a run began with, told without reading all of what is large."""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from aas.store.description import read_description

ENDS = 65_536  # bytes; the header of a safetensors file, and the last weights
NOTES = {".log", ".md", ".out", ".err"}  # no part of a model
OTHERS = ("checkpoint", "runs", "logs")  # folders that training leaves beside a model, and their beginnings
WHOLE = 50_000_000  # up to so many bytes a file is read as a whole
PROBES, PROBE = 1000, 256  # of a larger one so many places of so many bytes: a layer of a few million weights has one


def fingerprint(path: Path) -> str | None:
    """Of a file; of a folder of files (a model's, a spaCy pipeline's); of a run folder what it was asked and made of.
    None where there is nothing. When the files were written does not count."""
    found = sha256()
    try:
        if (path / "run.json").is_file():
            description = read_description(path / "run.json")
            found.update(json.dumps([description["command"], description["arguments"]], sort_keys=True).encode())
        else:
            for file in _files(path):
                name = file.relative_to(path).as_posix() if file != path else ""
                found.update(f"{name} {file.stat().st_size}\n".encode(errors="replace"))
                for part in _parts(file):
                    found.update(part)
    except (OSError, ValueError):
        return None  # whoever reads it will say what is wrong
    return found.hexdigest()[:16] if path.exists() else None


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from sorted(file for file in path.rglob("*") if file.is_file() and _counts(file.relative_to(path)))


def _counts(name: Path) -> bool:
    """Whether a file of a folder is a part of the model."""
    hidden = any(part.startswith(".") for part in name.parts)
    return not hidden and name.suffix not in NOTES and not any(part.startswith(OTHERS) for part in name.parts[:-1])


def _parts(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE:
            yield file.read()
            return
        yield file.read(ENDS)
        for i in range(1, PROBES):
            file.seek(i * size // PROBES)
            yield file.read(PROBE)
        file.seek(-ENDS, 2)
        yield file.read()
