"""The options of `aas eval yesno`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from typer import Option

from aas.evaluations.report import ReportOptions
from aas.stages.options import ANSWER, RUN, ModelOptions


@dataclass(frozen=True, kw_only=True)
class EvalYesNo(ModelOptions, ReportOptions):
    """Ask whether things are in photographs (POPE, RePOPE): accuracy, precision, recall, F1, share of yes, AUC."""

    examples: ClassVar = (
        "aas eval yesno --gt coco_pope_random.json --gt coco_pope_popular.json --images val2014/ --json run.json",
        "aas eval yesno --gt pope.jsonl --gt repope.jsonl --images coco/ --model llava-hf/llava-1.5-7b-hf",
    )

    gt: Annotated[
        tuple[Path, ...],
        Option(help='JSON lines {"image": …, "text": …, "label": "yes"}, maybe with "setting". May be repeated.'),
    ]
    images: Annotated[Path, Option(help="Folder of the photographs, searched below too, or a list file.")]
    instruction: Annotated[
        str, ANSWER(help="A line behind each question, as models are used to it; empty for none.")
    ] = "Answer the question using a single word or phrase."
    batch_size: Annotated[int, RUN(min=1, help="Questions about one image at once.")] = 8
    device: Annotated[str | None, RUN(help="cpu, cuda, cuda:1, ... Default: cuda if there is one.")] = None

    def run(self) -> int:
        """Ask, print the table, write what was asked for; returns the exit code."""
        from aas.stages.yes_no import eval_yes_no

        return eval_yes_no(self)

    def asking(self, question: str) -> str:
        """What the model is asked."""
        return f"{question}\n{self.instruction}" if self.instruction.strip() else question
