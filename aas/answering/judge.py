"""A judge: how right answers are, by a language model behind a server. What it said is kept: it is asked once."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from aas.answering.feed import ask_all
from aas.answering.protocol import Wanted
from aas.answering.server import Server
from aas.spellings import number_of
from aas.store.atomic import locked
from aas.store.lines import add_lines, whole_lines

WANTED = Wanted(max_tokens=512)  # room for a judge that reasons first
PROMPT = """How right is the answer to a question about a photograph? You see the question, the true answers, of \
which any will do, and the answer to be judged. Other words for the same thing are right; further words that are not \
wrong do no harm.

Question: {question}
True answers: {truth}
Answer: {answer}

Reply with one line, "score: x", where x is a number from 0 (wrong) to 1 (right)."""
SCORE = re.compile(r"score[\"'*]*\s*(?:[:=]|is)\s*[\"'*]*\s*(-?[\d.]*\d)(?![\d%/]|\.\d)", re.IGNORECASE)


def judging(question: str, truth: Sequence[str], answer: str) -> str:
    """What the judge is asked, without line ends of the texts' own."""
    question, answer, *truth = (" ".join(text.split()) for text in (question, answer, *truth))
    return PROMPT.format(question=question, truth=" | ".join(truth), answer=answer)


@dataclass(frozen=True)
class Verdict:
    """What the judge said."""

    reply: str

    @property
    def score(self) -> float | None:
        """From 0 to 1, the last that it gives, since what it writes first may be how it thinks; None where no such
        number can be read."""
        found = SCORE.findall(self.reply)
        number = number_of(found[-1]) if found else None
        return None if number is None or not 0 <= number <= 1 else float(number)


@dataclass(frozen=True)
class Judge:
    """`server`: who judges; `kept`: a file of JSON lines of what it said, to which each new reply is added."""

    server: Server
    kept: Path

    def verdicts(self, prompts: Iterable[str]) -> Iterator[tuple[str, Verdict | Exception]]:
        """Of each of the prompts, once, what the judge says, or why it says nothing; in any order.

        Raises ServerError where it answers nobody.
        """
        known, asked = self._known(), dict.fromkeys(prompts)
        yield from ((prompt, Verdict(known[key])) for prompt in asked if (key := self._key(prompt)) in known)
        waiting = [prompt for prompt in asked if self._key(prompt) not in known]
        for prompt, said in ask_all(self.server, WANTED, waiting, lambda prompt: (None, prompt)):
            if isinstance(said, Exception):
                yield prompt, said
                continue
            self._keep(prompt, said.text)
            yield prompt, Verdict(said.text)

    def _key(self, prompt: str) -> str:
        return sha256(f"{self.server.model}\0{prompt}".encode("utf-8", "backslashreplace")).hexdigest()

    def _known(self) -> dict[str, str]:
        lines = whole_lines(self.kept, lambda line: all(isinstance(line.get(name), str) for name in ("key", "reply")))
        return {line["key"]: line["reply"] for line in lines}

    def _keep(self, prompt: str, reply: str) -> None:
        with locked(self.kept.parent):
            add_lines(self.kept, [{"key": self._key(prompt), "judge": self.server.model, "reply": reply}])
