"""`aas serve` without a browser: what the page may ask of Python, with the embedded models."""

import base64
import io
import json
import re
import socket
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from aas import rle
from aas.export.results import Results
from aas.grounding import Grounding
from aas.presets import MAPS_EMBEDDED
from aas.serve.editing import pixels_of
from aas.serve.models import Choice, Models
from aas.serve.options import Serve
from aas.serve.ports import free_port
from aas.serve.service import Service
from aas.serve.sessions import Kept
from aas.serve.waiting import FORGOTTEN_SECONDS, MAX_WAITING, Waiting
from aas.show.runs import StoredRun
from aas.store.runs import RunFolder
from aas.store.status import verify

ROOT = Path(__file__).parent.parent
SENTENCE = "a cup of coffee on a saucer beside a spoon"


@pytest.fixture(scope="module")
def models() -> Models:
    return Models(Serve())


class Page:
    """A browser window, without one."""

    def __init__(self, service: Service):
        self.service, self.session = service, service.begin({})["session"]

    def __call__(self, method: str, /, **wish) -> dict:
        return getattr(self.service, method)({"session": self.session, **wish})

    def take(self, content: bytes, name: str) -> dict:
        path = self.service.uploads / "upload.bin"
        path.write_bytes(content)
        found = self("take", path=str(path), name=name)
        assert not path.exists()
        return found

    def photo(self, image: np.ndarray | None = None, name: str = "coffee.png") -> str:
        return self.take(png(data.coffee() if image is None else image), name)["photo_id"]

    def states(self, **wish) -> list[dict]:
        return list(self.service.ask({"session": self.session, **wish}))

    def ask(self, **wish) -> dict:
        return self.states(**wish)[-1]


def png(image: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def page(models, tmp_path_factory) -> Page:
    return Page(Service(models, tmp_path_factory.mktemp("uploads"), tmp_path_factory.mktemp("out") / "served"))


@pytest.fixture(scope="module")
def answered(page) -> str:
    return page.ask(photo=page.photo(name="my cup.png"), answer=SENTENCE)["turn"]


@pytest.fixture
def turn(page, answered) -> str:
    """An answer of one's own, to be changed."""
    turns = page.service.sessions.find(page.session).turns
    return turns.put(replace(turns.find(answered)))


def grounding(page: Page, turn: str) -> Grounding:
    return page.service.sessions.find(page.session).turns.find(turn).grounding


def at(phrase, image: np.ndarray) -> list[list[float]]:
    """A phrase's own points, as the page has them."""
    height, width = image.shape[:2]
    return [[(x + 0.5) / width, (y + 0.5) / height, label] for (x, y), label in phrase.prompt_points]


# ---- asking --------------------------------------------------------------------------------------------------


def test_an_answer_streams_in_and_ends_as_a_call_does(page, models):
    states = page.states(photo=page.photo(), question="Describe the image.")
    assert [one["state"] for one in states] == ["writing"] * (len(states) - 1) + ["done"] and len(states) > 3
    texts = ["".join(words for words, _ in one["told"]["pieces"]) for one in states]
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    assert any(one["drawn"]["masks"] for one in states[:-1]), "masks come while it is written"
    expected = models.grounder(models.first)(data.coffee(), "Describe the image.")
    found = grounding(page, states[-1]["turn"])
    assert (found.answer, found.labels, found.name) == (expected.answer, expected.labels, "coffee")
    np.testing.assert_array_equal(found.masks, expected.masks)
    assert [one["text"] for one in states[-1]["told"]["phrases"]] == expected.labels
    assert found.confidence_kind == "uncalibrated", "the rule of the embedded models, for another question"


def test_a_sentence_of_ones_own(page, turn):
    found = grounding(page, turn)
    assert found.labels == ["a cup", "coffee", "a saucer", "a spoon"] and found.answer.text == SENTENCE


def test_above_a_sentence_of_ones_own_stands_no_question(page):
    """Though the model was shown one, which the result says."""
    states = page.states(photo=page.photo(), answer="a cup")
    turn = states[-1]["turn"]
    points = at(grounding(page, turn)[0], data.coffee())
    states.append(page("correct", turn=turn, phrase=0, points=points, accept=True))
    assert [one["told"]["question"] for one in states] == [""] * len(states)
    assert grounding(page, turn).answer.question == "Describe the image in detail."
    asked = page.states(photo=page.photo(), answer="a cup", question="What is it?")
    assert [one["told"]["question"] for one in asked] == ["What is it?"] * len(asked)


def test_masks_of_maps_alone_are_not_corrected(tmp_path, models):
    alone = Models(Serve(segmenter=("map",)))
    alone._lmms = models._lmms
    page = Page(Service(alone, tmp_path, tmp_path / "served"))
    turn = page.ask(photo=page.photo(), answer="a cup")["turn"]
    told = page("correct", turn=turn, phrase=0, points=[[0.5, 0.5, 1]])
    assert told == {"error": "These masks are made of maps, which no point changes: ask with another segmenter."}


def test_a_question_follows_what_was_said(page, turn, models, monkeypatch):
    seen, lmm = [], models.grounder(models.first).lmm
    monkeypatch.setattr(lmm, "run", lambda batch, *_: seen.extend(batch) or 1 / 0)  # before it answers
    page.ask(photo=page.photo(), question="Is it hot?", after=turn)
    words = lmm.tokenizer.decode(seen[0].inputs["input_ids"][0])
    assert re.search(
        f"Describe the image in detail.*assistant\n{SENTENCE}.*user\nIs it hot.*assistant\n", words, re.DOTALL
    )
    assert page.ask(photo=page.photo(), question="?", after="gone")["error"].startswith("This answer is no longer kept")


def test_choices(page, models):
    assert models.choices["model"] == ["embedded"] and models.choices["maps"][:2] == [MAPS_EMBEDDED, "mean"]
    assert models.first == Choice("embedded", "embedded", MAPS_EMBEDDED)
    choice = {"maps": "tam", "preset": "reference-2025"}
    found = grounding(page, page.ask(photo=page.photo(), answer="a cup", choice=choice)["turn"])
    assert found.attention.sources == ("tam",)
    one, other = models.grounder(models.first), models.grounder(models.chosen(choice))
    assert one.lmm is other.lmm and one.segmenter is other.segmenter and other.pointing.merge == "max"
    assert one.pointing.n_positive == other.pointing.n_positive == 1
    refused = page.ask(photo=page.photo(), answer="a cup", choice={"model": "somebody/else"})
    assert refused["error"] == "No model 'somebody/else' here: choose one of embedded."


def test_a_question_knows_its_place(page, turn):
    def place(session: str, number: int = 1) -> int:
        return page.service.place({"session": session, "number": number})["before"]

    waiting = page.service.waiting
    with waiting.answered("a 1"):
        assert [place(one) for one in "abcb"] == [0, 1, 2, 1]
    assert [place(one) for one in "cb"] == [1, 0], "who is answered is gone"
    with waiting.answered("b 1"):
        assert [place("c"), place("c", 2)] == [1, 2]
        waiting._last_seen["c 1"] -= FORGOTTEN_SECONDS + 1
        assert place("c", 2) == 1, "a page that does not ask any more is not waited for"
    with waiting.answered("c 2"):
        pass
    states = page.service.ask({"session": page.session, "number": 3, "photo": page.photo(), "answer": "a cup"})
    next(states)
    assert place("d") == 1
    states.close()
    assert place("d") == 0, "its page left it"
    assert place(page.session, 3) is None, "a page that hears no end of its answer learns that there was one"


def test_a_question_that_was_not_taken_is_said(page):
    waiting = Waiting()
    for i in range(MAX_WAITING):
        waiting.before(i)
    assert waiting.before(MAX_WAITING - 1) == MAX_WAITING - 1
    with pytest.raises(ValueError, match="32 questions wait already"):
        waiting.before("one more")
    with waiting.answered(0):
        assert waiting.before("one more") == MAX_WAITING


# ---- what goes wrong is a line, and ends nothing ----------------------------------------------------------------


def test_a_bad_image_is_one_line(page):
    for content, words in ((b"", "empty"), (b"no image", "not an image"), (png(data.coffee())[:5000], "cut off")):
        error = page.take(content, "holiday <b>.jpg")["error"]
        assert error.startswith("holiday <b>.jpg: ") and words in error
        assert "\n" not in error and str(page.service.uploads) not in error
    assert "photo_id" in page.take(png(data.coffee()), "coffee.png")


def test_no_file_but_uploads_is_read(page):
    outside = page.service.uploads.parent / "secret.png"
    outside.write_bytes(png(data.coffee()))
    for path in (outside, page.service.uploads / ".." / "secret.png", "", None, 3):
        assert page("take", path=str(path) if path else path, name="a.png")["error"].startswith("Choose a photograph")
    assert outside.exists()


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"photo": "gone", "question": "?"}, "This photograph is no longer kept here: give it once more."),
        ({"question": " "}, "Write a question, or a sentence of your own to ground."),
        ({"question": "x" * 4001}, "The question has 4001 characters; 4000 are taken."),
        ({"question": ["x"]}, "The question is no text."),
    ],
)
def test_what_cannot_be_asked(page, wish, words):
    assert page.states(**{"photo": page.photo(), **wish}) == [{"state": "failed", "error": words}]


def test_a_fault_of_our_own_is_said_and_logged(page, models, caplog, monkeypatch):
    monkeypatch.setattr(models, "grounder", lambda _: 1 / 0)
    error = page.ask(photo=page.photo(), question="?")["error"]
    assert error.startswith("Something is wrong in the app itself (ZeroDivisionError") and "Traceback" in caplog.text
    monkeypatch.undo()
    assert page.ask(photo=page.photo(), answer="a cup")["state"] == "done"  # the next one is answered


def test_pages_do_not_see_each_other(page, turn):
    other = Page(page.service)
    assert other("save", turn=turn)["error"] == "This answer is no longer kept here: ask once more."
    assert page("save", session="nobody", turn=turn)["error"] == "This page is no longer kept here: load it again."


def test_the_oldest_go():
    kept: Kept[int] = Kept(2, "number", "count again")
    one, two = kept.put(1), kept.put(2)
    assert kept.find(one) == 1  # used: it goes last
    kept.put(3)
    assert kept.find(one) == 1
    with pytest.raises(ValueError, match="no longer kept"):
        kept.find(two)


def test_a_port_that_is_taken():

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} of 127.0.0.1 is taken: name another one with --port"):
            free_port(port)
    assert 7860 <= free_port(None) < 7960


# ---- correcting ---------------------------------------------------------------------------------------------------


def test_points_correct_a_mask(page, turn):
    image = data.coffee()
    before = grounding(page, turn)
    same = page("correct", turn=turn, phrase=0, points=at(before[0], image), accept=True)
    np.testing.assert_array_equal(grounding(page, turn).masks, before.masks)
    points = [[0.9, 0.9, 1], [0.5, 0.5, 0]]
    seen = page("correct", turn=turn, phrase=0, points=points)
    assert grounding(page, turn)[0].points_xy == before[0].points_xy, "looking changes nothing"
    kept = page("correct", turn=turn, phrase=0, points=points, accept=True)
    after = grounding(page, turn)
    assert after[0].prompt_points == (((540, 360), 1), ((300, 200), 0)) and after[0].point_xy == (540, 360)
    assert after[0].mask[360, 540] and after[0].score == seen["score"] and (after[0].mask != before[0].mask).any()
    np.testing.assert_array_equal(after.masks[1:], before.masks[1:])
    assert kept["drawn"]["masks"][0]["runs"] == seen["runs"] != same["drawn"]["masks"][0]["runs"]


def test_a_click_is_one_call_of_the_decoder(page, turn, models, monkeypatch):
    image = data.coffee()
    monkeypatch.setattr(models.grounder(models.first).segmenter, "encode", None)
    assert "runs" in page("correct", turn=turn, phrase=0, points=at(grounding(page, turn)[0], image))


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"points": [[0.5, 0.5, 0]]}, r"Set at least one \+ point, on the thing itself\."),
        ({"points": [[0.5, 0.5, 1]] * 65}, r"64 points are enough: take some away\."),
        ({"points": [[0.5, 1.5, 1]]}, "A point is x and y between 0 and 1, "),
        ({"points": [[0.5, True, 1]]}, "A point is x and y between 0 and 1, "),
        ({"points": "here"}, "A point is x and y between 0 and 1, "),
        ({"phrase": 4}, "There is no phrase 4 in this answer"),
        ({"phrase": -1}, "There is no phrase -1 in this answer"),
    ],
)
def test_points_that_cannot_be(page, turn, wish, words):
    error = page("correct", **{"turn": turn, "phrase": 0, "points": [[0.5, 0.5, 1]], **wish})["error"]
    assert re.match(words, error)


def test_points_lie_on_pixels():
    assert pixels_of([[0, 0, 1], [1, 1, 0], [0.5, 0.49, 1]], (200, 100)) == [(0, 0, 1), (99, 199, 0), (50, 98, 1)]


# ---- out of the app -------------------------------------------------------------------------------------------------


def test_saved_answers_are_a_run_that_others_read(page, turn, answered):
    image, out = data.coffee(), page.service.out
    page("correct", turn=turn, phrase=0, points=[[0.9, 0.9, 1]], accept=True)
    assert page("save", turn=turn)["saved"] == str(out / "my cup.json")
    page("correct", turn=turn, phrase=1, points=[[0.1, 0.9, 1]], accept=True)
    page("save", turn=turn)  # again: under the same name
    assert page("save", turn=answered)["saved"] == str(out / "my cup-2.json")

    found, mine = Grounding.load(out / "my cup.json"), grounding(page, turn)
    np.testing.assert_array_equal(found.masks, mine.masks)
    np.testing.assert_array_equal(found.image, image)
    assert found[0].prompt_points == (((540, 360), 1),) and found.answer == mine.answer
    assert verify(out) == []
    assert StoredRun(out).find("my cup").panel.maps
    exported = {one.key: one for one in Results(out)}
    assert set(exported) == {"my cup", "my cup-2"}
    np.testing.assert_array_equal(rle.decoded(exported["my cup"].found[0].mask), mine.masks[0])


def test_a_folder_of_another_run_is_refused(page, turn, tmp_path, monkeypatch):
    RunFolder(tmp_path / "other", ".json").begin("ground", {}, {})
    monkeypatch.setattr(page.service, "out", tmp_path / "other")
    assert "holds a run of `aas ground`; name another folder with --out" in page("save", turn=turn)["error"]


def test_downloads(page, turn):
    mine = grounding(page, turn)
    found = {kind: page("download", turn=turn, kind=kind) for kind in ("json", "png", "coco")}
    content = {kind: base64.b64decode(one["base64"]) for kind, one in found.items()}
    assert [one["name"] for one in found.values()] == ["my cup.json", "my cup.png", "my cup.coco.json"]
    assert [one["type"] for one in found.values()] == ["application/json", "image/png", "application/json"]
    assert json.loads(content["json"]) == mine.item() and json.loads(content["coco"]) == mine.to_coco()
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content["png"]))), np.asarray(mine.draw()))
    assert page("download", turn=turn, kind="exe")["error"] == "No download 'exe': json, png or coco."
