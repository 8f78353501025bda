"""The options of `aas eval cot`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from typer import Option

from aas.answering.address import checked_address
from aas.evaluations.report import ReportOptions

NAMED = ("--judge", "--judge-model")


@dataclass(frozen=True, kw_only=True)
class EvalCot(ReportOptions):
    """Answers of `aas cot`: exact match, ROUGE-L, a judge's score if there is one, and the IoU of boxes."""

    examples: ClassVar = (
        "aas eval cot --results thought --questions docvqa.json --json run.json",
        "aas eval cot --results thought --questions docvqa.json --judge http://localhost:8000/v1",
    )

    results: Annotated[Path, Option(help="Run folder of `aas cot`.")]
    questions: Annotated[Path, Option(help='The file that it was given, with the "answer" and "box" of each question.')]
    judge: Annotated[
        str | None,
        Option(
            metavar="URL", help="Ask a language model how right each answer is: a server, as http://localhost:8000/v1."
        ),
    ] = None
    judge_model: Annotated[str | None, Option(help="The server's name of its model. Default: the one that it has.")] = (
        None
    )
    judgements: Annotated[
        Path | None, Option(help="What the judge said, kept and read again. Default: RESULTS/judgements.jsonl.")
    ] = None
    in_flight: Annotated[int, Option(min=1, help="Questions that the judge has at once.")] = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.judge is not None:
            checked_address(self.judge, NAMED[0])
        elif self.judge_model is not None or self.judgements is not None or self.in_flight != 16:
            raise ValueError("--judge-model, --judgements and --in-flight are of --judge.")

    def run(self) -> int:
        """Print the table, write what was asked for; returns the exit code."""
        from aas.stages.cot_scores import eval_cot

        return eval_cot(self)
