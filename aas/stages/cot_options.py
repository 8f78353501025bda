"""The options of `aas cot`: those of `aas ground`, and how the chain of thought goes."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from aas.choices import Look, Show, ThoughtWords
from aas.cot.prompts import INSTRUCTION
from aas.stages.ground_options import Ground
from aas.stages.options import ANSWER

if TYPE_CHECKING:
    from aas.cot.thinker import Chain

# Options of `aas ground` that a chain of thought has no use for.
NOT_HERE = ("answer", "answers", "drop", "keep_all", "reasoning", "min_confidence")
CHAIN = partial(Option, rich_help_panel="Chain of thought")


@dataclass(frozen=True, kw_only=True)
class Cot(Ground):
    """Ask which object matters, ground it, crop, and ask again with both images."""

    question: Annotated[str, ANSWER(help="What to ask about each image.")] = ""
    questions: Annotated[
        Path | None,
        ANSWER(
            help='Questions of single images: JSON lines {"image": …, "question": …, "box": [x0, y0, x1, y1]}, or a '
            "file of Visual CoT (docs/cot.md)."
        ),
    ] = None
    out: Annotated[Path, Option(help="Folder for NAME.json, NAME.png and report.html. Started again, it goes on.")] = (
        Path("thought")
    )
    look: Annotated[
        Look, CHAIN(help="Once more at the thing that the model names, the given box, or nothing but the whole image.")
    ] = "thought"
    thought_words: Annotated[
        ThoughtWords, CHAIN(help="Ground what names the object, or all words of the thought, as F-LMM does.")
    ] = "object"
    show: Annotated[Show, CHAIN(help="With the last question: both images, or the crop alone.")] = "both"
    crop_scale: Annotated[float, CHAIN(help="Sides of the crop, times those of the thing's box.")] = 1.0
    instruction: Annotated[str, CHAIN(help="A line behind the last question; empty for none.")] = INSTRUCTION
    thought_tokens: Annotated[int, CHAIN(min=1, help="Longest thought, in tokens.")] = 16
    max_new_tokens: Annotated[int | None, ANSWER(min=1, help="Longest answer, in tokens.")] = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.look == "given" and self.questions is None:
            raise ValueError("--look given looks at the boxes of a file: give it with --questions.")
        if self.look != "thought" and (self.head is not None or self.thought_words != "object"):
            raise ValueError("--head and --thought-words are of --look thought, where a thing is grounded.")
        if self.look == "whole" and (self.show != "both" or self.crop_scale != 1):
            raise ValueError("--show and --crop-scale are of a crop, which --look whole does not make.")

    def check_question(self) -> None:
        if bool(self.question.strip()) == (self.questions is not None):
            raise ValueError("Give --question, which is for all images, or --questions, a file of them.")

    def inputs(self) -> dict[str, Any]:
        return super().inputs() | {"questions": self.questions}

    def chain(self) -> "Chain":
        """How it goes."""
        from aas.cot.thinker import Chain

        names = ("look", "thought_words", "show", "crop_scale", "thought_tokens", "instruction")
        return Chain(answer_tokens=self.max_new_tokens or 32, **{name: getattr(self, name) for name in names})
