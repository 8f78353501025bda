"""The options of `aas calibrate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from aas.stages.options import RUN, ModelOptions


@dataclass(frozen=True, kw_only=True)
class Calibrate(ModelOptions):
    """Find the heads of a model that look at what is spoken of, without labels, for `--maps heads:FILE`."""

    model: Annotated[str, Argument(help="An LMM, as for the other commands.")]
    images: Annotated[Path, Option(help="Folder of photographs …")]
    answers: Annotated[Path, Option(help='… and what is said of them: JSON lines {"image": …, "answer": …}.')]
    out: Annotated[Path, Option(help="The calibration, a JSON file.")]
    heads: Annotated[int | None, Option(min=1, help="How many are kept. Default: 4 % of all, at least 3.")] = None
    limit: Annotated[int, Option(min=8, max=200, help="Photographs at most.")] = 200
    device: Annotated[str | None, RUN(help="cpu, cuda, cuda:1, ... Default: cuda if there is one.")] = None
    seed: Annotated[int, RUN(min=0, help="Of which photographs share a mosaic.")] = 0

    def __post_init__(self) -> None:
        if self.out.suffix != ".json":
            raise ValueError(f"--out {self.out}: name a file that ends with .json.")
        folder = Path(self.model)
        if folder.is_dir() and self.out.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"--out {self.out}: in the model's own folder it would make another model of it.")
