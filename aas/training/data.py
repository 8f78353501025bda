"""What a head learns from: photographs with phrases and their masks, of runs and of datasets, each read when it is
needed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from aas import registry, rle
from aas.datasets.expressions import Expression, ExpressionDataset, Target, concatenated
from aas.export.photograph import Found, Photograph, label_of, ready
from aas.export.results import Results
from aas.training.from_yaml import made


@dataclass(frozen=True)
class Lesson:
    """A photograph to learn from. `key`: no other of its source has it; `read` raises ValueError or OSError for what
    cannot be learned from."""

    key: str
    read: Callable[[], Photograph]


@dataclass(frozen=True)
class Source:
    """What a run or a dataset holds, and a line for each thing in it that cannot be used."""

    lessons: Sequence[Lesson]
    problems: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Described:
    """An entry of a recipe's `data`, of a dataset that `aas expressions` reads, whose other fields are its options.

    `images`: folder of its photographs; `n_photographs`: so many of them, evenly spread over the file; None: all.
    """

    dataset: str
    images: Path | None = None
    n_photographs: int | None = None

    def __post_init__(self) -> None:
        if self.n_photographs is not None and self.n_photographs < 1:
            raise ValueError("n_photographs is at least 1.")


@dataclass(frozen=True)
class DataSource:
    """A dataset, and where its photographs are."""

    dataset: ExpressionDataset
    images: Path
    n_photographs: int | None

    @classmethod
    def of(cls, entry: Mapping[str, Any], images: Path | None) -> Self:
        """As a recipe says it; `images`: the recipe's own. Raises ValueError for what does not fit."""
        own = Described.__dataclass_fields__
        about = made(Described, {key: value for key, value in entry.items() if key in own}, "an entry of data")
        kind = registry.load(registry.EXPRESSION_DATASETS, about.dataset, "dataset")
        options = {key: value for key, value in entry.items() if key not in own}
        dataset: ExpressionDataset = made(kind, options, f"dataset {about.dataset}", without=("say", "ask"))
        folder = about.images or images
        if folder is None:
            raise ValueError(f"dataset {about.dataset}: say where its photographs are, images.")
        if dataset.ask is not None:
            raise ValueError(f"dataset {about.dataset} asks questions: a head learns from the names of things.")
        return cls(dataset, folder, about.n_photographs)

    def read(self) -> Source:
        """A lesson for each text that says where its phrases stand; of expressions, all of one photograph are one text.
        Raises ValueError or OSError where the files are none of the dataset, or there is no folder of photographs."""
        if not self.images.is_dir():
            raise FileNotFoundError(f"images: {self.images}: no such folder.")
        found = self.dataset.read()
        texts = concatenated(found.items)
        some = [texts[i] for i in evenly(len(texts), self.n_photographs)]
        return Source([Lesson(one.id, partial(_photograph, one, self.images)) for one in some], found.problems)


def of_run(folder: Path, images: Path | None) -> Source:
    """The photographs of a run. Raises ValueError for a folder that is none with masks."""
    results = Results(folder, images)
    photographs = list(results)
    return Source([Lesson(one.key, partial(_itself, one)) for one in photographs], results.failures)


def _itself(photograph: Photograph) -> Photograph:
    return photograph


def evenly(n: int, n_wanted: int | None) -> Sequence[int]:
    """So many of `n` numbers from 0, evenly spread; all where fewer are there, or None wanted."""
    return range(n) if n_wanted is None or n_wanted >= n else [i * n // n_wanted for i in range(n_wanted)]


def _photograph(told: Expression, folder: Path) -> Photograph:
    """Phrases whose mask has no pixel are left out."""
    path = folder / told.image
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    source, size_hw = ready(path)
    found = []
    for (start, end), target in zip(told.spans or (), told.read_targets(), strict=True):
        _check(target, size_hw)
        if rle.area(target.mask):
            words = told.text[start:end]
            found.append(Found(words, label_of(words), target.mask, span=(start, end)))
    return Photograph(0, told.id, source, size_hw, told.text, found=tuple(found))


def _check(target: Target, size_hw: tuple[int, int]) -> None:
    if tuple(target.mask["size"]) != size_hw:
        raise ValueError(f"a mask of {target.mask['size']} pixels (h, w), the photograph has {list(size_hw)}")
    if target.ignore is not None:
        raise ValueError("it has pixels that do not count, which training does not know")
