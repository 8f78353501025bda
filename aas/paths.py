"""Where the files that ship with the package are."""

from importlib.resources import files
from pathlib import Path


def embedded_dir(name: str) -> Path:
    """Folder of an embedded model: `lmm`, `segmenter` or `phrases`.

    `checkpoints/embedded` of a checkout is the package `aas.embedded` of an install (see setup.cfg);
    a checkout on the path without an install is found beside the package.
    """
    checkout = Path(__file__).resolve().parent.parent / "checkpoints" / "embedded"
    root = checkout if checkout.is_dir() else Path(str(files("aas.embedded")))
    folder = root / name
    if not folder.is_dir():
        raise FileNotFoundError(
            f"The embedded {name} is not at {folder}: reinstall aas, or train it with scripts/embedded."
        )
    return folder
