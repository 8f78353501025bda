"""What the page may ask of Python: plain JSON in, plain JSON out. A mistake comes back as `error`, one line."""

import base64
import mimetypes
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import wraps
from pathlib import Path, PurePosixPath
from typing import Any

from aas.images import read_image
from aas.serve import saving
from aas.serve.asking import State, answered, shown_hw, told
from aas.serve.editing import pixels_of
from aas.serve.errors import said
from aas.serve.models import Models
from aas.serve.sessions import Kept, Photo, Session, Turn, new_sessions
from aas.serve.waiting import Waiting
from aas.view.report_entry import entry
from aas.view.report_pictures import mask_runs

Wish = dict[str, Any]


def _told_errors(method: Callable[[Any, Wish], Wish]) -> Callable[[Any, Any], Wish]:
    @wraps(method)
    def answer(self: Any, wish: Any) -> Wish:
        try:
            return method(self, wish if isinstance(wish, dict) else {})
        except Exception as error:
            return {"error": said(error)}

    return answer


class Service:
    """One for all pages. `uploads`: the folder in which photographs arrive, and no other file is read; `out`: the run
    folder in which answers are saved. Each wish but that of `begin` has the page's own `session`."""

    def __init__(self, models: Models, uploads: Path, out: Path):
        self.models, self.uploads, self.out = models, uploads.resolve(), out
        self.sessions: Kept[Session] = new_sessions()
        self.waiting = Waiting()

    @_told_errors
    def begin(self, wish: Wish) -> Wish:
        """A page's session."""
        return {"session": self.sessions.put(Session())}

    @_told_errors
    def take(self, wish: Wish) -> Wish:
        """The photograph that was uploaded as `path` and is called `name`: kept, and as the viewer shows it."""
        session, path = self._session(wish), Path(str(wish.get("path"))).resolve()
        if not path.is_relative_to(self.uploads) or not path.is_file():
            raise ValueError("Choose a photograph, or drop one on the page.")
        name = PurePosixPath(str(wish.get("name") or "image"))
        try:
            image = read_image(path)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), name.name)) from error
        finally:
            path.unlink(missing_ok=True)  # its pixels are enough
        shown = entry(name.stem, image, [])
        kept = session.photographs.put(Photo(name.stem or "image", image))
        return {"photo_id": kept, **shown.summary, "photo": shown.details["photo"]}

    def ask(self, wish: Wish) -> Iterator[State]:
        """States of an answer, see `aas.serve.asking`; the last is "done" or "failed"."""
        try:
            with self.waiting.answered(_question(wish)):
                yield from answered(self.models, self._session(wish), wish)
        except Exception as error:
            yield {"state": "failed", "error": said(error)}

    @_told_errors
    def place(self, wish: Wish) -> Wish:
        """How many questions are answered before the page's own of this `number`; None where it was answered."""
        return {"before": self.waiting.before(_question(wish))}

    @_told_errors
    def correct(self, wish: Wish) -> Wish:
        """The mask of phrase number `phrase` of the answer `turn` by other `points`; with `accept` the answer keeps it,
        and comes back whole."""
        turn = self._turn(wish)
        index, grounding = wish.get("phrase"), turn.grounding
        if type(index) is not int or not 0 <= index < len(grounding):
            raise ValueError(f"There is no phrase {index!r} in this answer.")
        image_hw = grounding.image.shape[:2]
        points = pixels_of(wish.get("points"), image_hw)
        phrase = turn.editor.edited(grounding[index], grounding.view, points)
        if wish.get("accept"):
            phrases = (*grounding.phrases[:index], phrase, *grounding.phrases[index + 1 :])
            turn.grounding = replace(grounding, phrases=phrases)
            return told(image_hw, turn.panel)
        return {"runs": mask_runs(phrase.mask, shown_hw(image_hw)), "score": phrase.score}

    @_told_errors
    def save(self, wish: Wish) -> Wish:
        """Write an answer into the run folder."""
        return {"saved": str(saving.save(self._turn(wish), self.out)), "folder": str(self.out)}

    @_told_errors
    def download(self, wish: Wish) -> Wish:
        """An answer as a file of the `kind` json, png or coco."""
        name, content = saving.as_file(self._turn(wish).grounding, str(wish.get("kind")))
        kind = mimetypes.guess_type(name)[0]
        return {"name": name, "type": kind, "base64": base64.b64encode(content).decode("ascii")}

    def _session(self, wish: Wish) -> Session:
        return self.sessions.find(wish.get("session"))

    def _turn(self, wish: Wish) -> Turn:
        return self._session(wish).turns.find(wish.get("turn"))


def _question(wish: Wish) -> str:
    """A name of the question among all that wait."""
    return f"{wish.get('session')} {wish.get('number')}"
