"""`aas cot`: a visual chain of thought about each image, with a report of all of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import takewhile
from pathlib import PurePosixPath

from aas.answering.server import ServerError
from aas.cot.thinker import Chain, Question, Thinker
from aas.datasets.rows import complain
from aas.datasets.visual_cot import BoxedQuestion, read_boxed_questions
from aas.ground import Asked, Grounder, Request
from aas.grounding import Grounding
from aas.stages.cot_options import Cot
from aas.stages.ground import Carrying, Saving, carry
from aas.stages.ground_inputs import Found, Inputs
from aas.stages.ground_report import RunReport
from aas.store.keys import result_keys
from aas.store.runs import RunFolder
from aas.text import harmless


def cot(options: Cot) -> int:
    """Think about every image into the folder (NAME.json, NAME.png, NAME.safetensors, report.html); returns the exit
    code.

    Raises ValueError or OSError, before anything is written, where the options cannot work.
    """
    options = options.with_server()
    requests, saving = partial(_requests, options), partial(SavingThoughts, options.chain())
    fingerprint = None if options.questions is None else _fingerprint
    return carry(Carrying("cot", options, requests, fingerprint, saving, ThoughtReport))


class SavingThoughts(Saving):
    """Saves the grounding of each thought, with the answer."""

    def __init__(self, chain: Chain, grounder: Grounder, run: RunFolder, with_png: bool):
        super().__init__(grounder, run, with_png)
        self.thinker = Thinker(grounder, chain)
        self.nobody_answers: ServerError | None = None

    def fed(self, items: Iterable[Request]) -> Iterator[tuple[Request, Exception | None]]:
        """As they are: what a server is asked depends on what was found. Ends where it answered nobody."""
        for item in items:
            if self.nobody_answers is not None:
                raise self.nobody_answers
            yield item, None

    def prepare(self, item: Request) -> Asked:
        assert isinstance(item, Question)
        return self.thinker.prepare(item)

    def compute(self, batch: Sequence[Asked]) -> list[Grounding]:
        try:
            return self.thinker.compute(batch)
        except ServerError as error:
            self.nobody_answers = error
            raise


class ThoughtReport(RunReport):
    """Tells the answer behind the thought."""

    def said(self, grounding: Grounding) -> str:
        look = grounding.second_look
        answer = "" if look is None else harmless(look.answer)
        return f"{super().said(grounding)} → {answer}" if grounding.answer.text else answer


def _requests(options: Cot, inputs: Inputs, run: RunFolder) -> Sequence[Request]:
    """What is asked about each image; questions about no image of the run join what is missing."""
    if options.questions is None:
        keys = result_keys([found.path for found in inputs.images])
        return [Question(key, found.source, options.question) for key, found in zip(keys, inputs.images, strict=True)]
    questions, problems = read_boxed_questions(options.questions)
    complain(problems)
    by_name = _by_name(inputs.images)
    requests = []
    for one in questions:
        found = by_name(one.image)
        if found is None:
            inputs.missing.append(
                (one.key, f"{one.image}: in {options.questions}, but not among the images, or several are called so")
            )
        else:
            requests.append(Question(one.key, found.source, one.question, box_xyxy=one.box_xyxy))
    return requests


def _fingerprint(request: Question) -> str:
    return BoxedQuestion(request.key, str(request.image), request.question, box_xyxy=request.box_xyxy).fingerprint


def _by_name(images: Sequence[Found]) -> Callable[[str], Found | None]:
    """An image by a path that may begin elsewhere: the one that shares the longest end with it, if it is the only
    one."""
    of_last: dict[str, list[tuple[tuple[str, ...], Found]]] = {}
    for one in images:
        of_last.setdefault(one.path.name, []).append((PurePosixPath(one.shown).parts, one))

    def found(name: str) -> Found | None:
        path = PurePosixPath(name)
        shared = [(_n_shared(path.parts, others), one) for others, one in of_last.get(path.name, ())]
        most = max((n for n, _ in shared), default=0)
        best = [one for n, one in shared if n == most]
        return best[0] if len(best) == 1 else None

    return found


def _n_shared(one: Sequence[str], other: Sequence[str]) -> int:
    """Parts at the end that are the same."""
    return sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(reversed(one), reversed(other), strict=False)))
