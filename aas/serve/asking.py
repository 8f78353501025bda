"""An answer as the page sees it: one state after the other, each the whole of what is there so far."""

import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any

from aas.ground import Grounder
from aas.grounding import Grounding
from aas.lmms.prepared import History
from aas.records import Answer, GroundedPhrase
from aas.serve.editing import Editor
from aas.serve.models import Models
from aas.serve.sessions import Photo, Session, Turn
from aas.store.keys import quoted
from aas.view.report_entry import LONGEST_SIDE_PX, Panel, panel_entry
from aas.view.scaling import shown_size_hw

MAX_CHARACTERS = 4000  # of a question, or of a sentence to ground
WORDS_SECONDS = 0.08  # between two states that differ by words alone
State = dict[str, Any]


def answered(models: Models, session: Session, wish: dict[str, Any]) -> Iterator[State]:
    """States of one answer, the last "done".

    `wish`: `photo`, `choice`, and `question` or `answer`; `after`: the answer that a question follows, if it does.
    Raises ValueError or OSError for what cannot be answered.
    """
    photo = session.photographs.find(wish.get("photo"))
    question, answer = _words(wish, "question"), _words(wish, "answer")
    if not question and not answer:
        raise ValueError("Write a question, or a sentence of your own to ground.")
    history = session.turns.find(wish["after"]).said if wish.get("after") else ()
    grounder = models.grounder(models.chosen(wish.get("choice")))
    if answer:
        yield _state("writing", photo, Panel(Answer(question, answer, (), ()), ()))
        grounding = grounder(photo.image, question or None, answer)
    else:
        grounding = yield from _streamed(grounder, photo, question, history)
    grounding = replace(grounding, name=quoted(photo.name))
    turn = Turn(grounding, _editor(grounder, photo), question, history)
    yield _state("done", photo, turn.panel) | {"turn": session.turns.put(turn)}


def _editor(grounder: Grounder, photo: Photo) -> Editor:
    """With the embedding that the answer's masks were made of."""
    (embedding,) = grounder.encoded.of({id(photo.image): photo.image}).values()
    return Editor(grounder.segmenter, embedding, grounder.mask_choice)


def _words(wish: dict[str, Any], name: str) -> str:
    words = wish.get(name) or ""
    if not isinstance(words, str):
        raise ValueError(f"The {name} is no text.")
    if len(words) > MAX_CHARACTERS:
        raise ValueError(f"The {name} has {len(words)} characters; {MAX_CHARACTERS} are taken.")
    return words.strip()


def _streamed(grounder: Grounder, photo: Photo, question: str, history: History) -> Generator[State, None, Grounding]:
    """States while it is written; returns the grounding."""
    text, phrases, last = "", list[GroundedPhrase](), 0.0
    for event in grounder.stream(photo.image, question, history):
        if isinstance(event, Grounding):
            return event
        if isinstance(event, str):
            text += event
        else:
            phrases.append(event)
        if isinstance(event, GroundedPhrase) or time.monotonic() - last > WORDS_SECONDS:
            last = time.monotonic()
            yield _state("writing", photo, Panel(Answer(question, text, (), ()), tuple(phrases)))
    raise AssertionError("a stream ends with the grounding")


def _state(state: str, photo: Photo, panel: Panel) -> State:
    return {"state": state} | told(photo.image.shape[:2], panel)


def told(image_hw: tuple[int, int], panel: Panel) -> State:
    """An answer as the viewer takes it: its words, and what is drawn."""
    one = panel_entry(panel, image_hw, shown_hw(image_hw))
    return {"told": one.summary, "drawn": one.details}


def shown_hw(image_hw: tuple[int, int]) -> tuple[int, int]:
    """The size at which the page shows a photograph of this size, and its masks."""
    return shown_size_hw(image_hw, 1, LONGEST_SIDE_PX)
