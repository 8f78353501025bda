"""Whether the models that are named are here, or can be had, before any of them is loaded."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from aas import registry
from aas.paths import embedded_dir, model_config, model_source


def all_here(model: Any = None, segmenter: Any = None, phrases: Any = None) -> None:
    """Raise one FileNotFoundError that names all that is missing; what is no name (a loaded model) is here, None is not
    wanted."""
    wanted: list[tuple[Any, Callable[[str], None]]] = [(model, _model), (segmenter, _segmenter), (phrases, _pipeline)]
    missing = []
    for name, look in wanted:
        if isinstance(name, str):
            try:
                look(name)
            except FileNotFoundError as error:
                missing.append(str(error))
    if missing:
        raise FileNotFoundError(" ".join(missing))


def _model(name: str) -> None:
    model_config(*model_source(name, "lmm"), "model", name)


def _segmenter(name: str) -> None:
    if not Path(name).is_file() and not registry.names_segmenter_class(name):
        model_config(*model_source(name, "segmenter"), "segmenter", name)


def _pipeline(name: str) -> None:
    if name == "embedded":
        embedded_dir("phrases")
    elif not Path(name).is_dir() and not _is_package(name):
        raise FileNotFoundError(
            f"No spaCy pipeline {name!r}: give `embedded`, a folder, or install it (python -m spacy download {name})."
        )


def _is_package(name: str) -> bool:
    """As spaCy says it; but importing spaCy takes longer than all else here."""
    try:
        distribution(name)
    except (PackageNotFoundError, ValueError):
        return False
    return True
