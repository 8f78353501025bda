"""Who is talking with the app: photographs and answers of each, a few of the last ones."""

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TypeVar

import numpy as np

from aas.grounding import Grounding
from aas.serve.editing import Editor
from aas.view.report_entry import Panel

MAX_SESSIONS, MAX_PHOTOGRAPHS, MAX_TURNS = 32, 4, 12  # the oldest go: what they hold lies in memory
T = TypeVar("T")


@dataclass
class Turn:
    """One answer: what was found, as it was corrected, and what corrects it.

    `question`: as it was asked here, "" for a sentence of one's own; `history`: what was said before it; `key`: its
    name in the run folder, once it is saved.
    """

    grounding: Grounding
    editor: Editor
    question: str = ""
    history: tuple[tuple[str, str], ...] = ()
    key: str | None = None

    @property
    def panel(self) -> Panel:
        """As the page shows it: above a sentence of one's own stands no question, whatever the model was shown."""
        found = self.grounding.panel()
        return replace(found, answer=replace(found.answer, question=self.question))

    @property
    def said(self) -> tuple[tuple[str, str], ...]:
        """The history of a question that follows it."""
        answer = self.grounding.answer
        return (*self.history, (answer.question, answer.text))


@dataclass
class Photo:
    """`name`: of the file, without suffix; `image` uint8 [H, W, 3] RGB, upright."""

    name: str
    image: np.ndarray


@dataclass
class Session:
    """One browser window."""

    photographs: "Kept[Photo]" = field(default_factory=lambda: Kept(MAX_PHOTOGRAPHS, "photograph", "give it once more"))
    turns: "Kept[Turn]" = field(default_factory=lambda: Kept(MAX_TURNS, "answer", "ask once more"))


class Kept(OrderedDict[str, T]):
    """The last `most` things by names that nobody guesses; ValueError, which says what to do, for one that went."""

    def __init__(self, most: int, what: str, advice: str):
        super().__init__()
        self.most, self.what, self.advice = most, what, advice
        self._changing = Lock()

    def put(self, thing: T) -> str:
        """Its name."""
        name = secrets.token_urlsafe(12)
        with self._changing:
            self[name] = thing
            while len(self) > self.most:
                self.popitem(last=False)
        return name

    def find(self, name: object) -> T:
        """What is used goes last."""
        with self._changing:
            if not isinstance(name, str) or name not in self:
                raise ValueError(f"This {self.what} is no longer kept here: {self.advice}.")
            self.move_to_end(name)
            return self[name]


def new_sessions() -> Kept[Session]:
    """Of all browser windows."""
    return Kept(MAX_SESSIONS, "page", "load it again")
