"""Where a model thinks aloud: what stands between such marks is not its answer."""

import re
from collections.abc import Iterator

from aas.records import Answer

Span = tuple[int, int]

THOUGHT = r"(?:think|thinking|thought|reasoning)"
# Of Qwen, GLM and DeepSeek: <think>; of Kimi: ◁think▷; of Magistral: [THINK]; others: <|begin_of_thought|>.
MARK = re.compile(
    rf"[<◁]/?(?:seed:)?{THOUGHT}[>▷]|<\|/?(?:(?:begin|start|end)_(?:of_)?)?{THOUGHT}\|>|(?-i:\[/?THINK\])",
    re.IGNORECASE,
)


def _ends(mark: re.Match[str]) -> bool:
    return "/" in mark.group() or "end_" in mark.group().lower()


def reasoning_spans(text: str) -> Iterator[tuple[Span, Span]]:
    """Half-open, in characters: each reasoning with its marks, and without. Its beginning can stand in the prompt, its
    end be cut off."""
    marks = list(MARK.finditer(text))
    if marks and _ends(marks[0]):
        yield (0, marks[0].end()), (0, marks[0].start())
        marks = marks[1:]
    begun: re.Match[str] | None = None
    for mark in marks:
        if _ends(mark):
            start = begun or mark
            yield (start.start(), mark.end()), (start.end(), max(start.end(), mark.start()))
            begun = None
        else:
            begun = begun or mark
    if begun:
        yield (begun.start(), len(text)), (begun.end(), len(text))


def tokens_of_answer(answer: Answer) -> list[int] | None:
    """Indices of the tokens that do not write its reasoning; None where that is all of them, or none would be left."""
    thoughts = [span for span, _ in reasoning_spans(answer.text)]
    kept = [
        i
        for i, (start, end) in enumerate(answer.token_spans)
        if not any(first <= start and end <= last and (start < last or first == last) for first, last in thoughts)
    ]
    return kept if 0 < len(kept) < len(answer.token_spans) else None
