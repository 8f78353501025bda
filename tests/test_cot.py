"""`aas cot`: a thought, its thing, a crop, the question once more; on a tiny LLaVA and a tiny SAM."""

import json
import pickle
from base64 import b64decode
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from spacy.language import Language

import aas
from aas import rle
from aas.cot import prompts, thinker
from aas.cot.regions import box_of, crop_around
from aas.cot.thinker import Chain, Thinker
from aas.cot.thoughts import Named, first_sentence
from aas.images import as_pixels
from aas.lmms.prepared import AskOptions
from aas.lmms.several_images import inputs_of
from aas.lmms.writing import begun, first_words, write
from aas.phrases.alignment import decode_with_spans
from aas.phrases.parser import load_pipeline
from aas.records import Answer
from aas.stages.cot import SavingThoughts, ThoughtReport
from aas.stages.cot_options import Cot
from aas.stages.ground import Carrying
from aas.stages.ground_inputs import requests_of
from aas.store.results import read_result
from tests import command, tiny
from tests.answer_server import Answering, running
from tests.tiny import segmenters

ASKED = "What is it?"


@pytest.fixture(scope="module")
def pipeline() -> Language:
    return load_pipeline("embedded")


# ---- regions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "scale", "expected"),
    [
        ((20, 30, 60, 70), 1.0, (20, 30, 60, 70)),
        ((20, 30, 60, 70), 1.5, (10, 20, 70, 80)),
        ((20, 30, 61, 70), 0.5, (30, 40, 51, 60)),
        ((50, 50, 52, 51), 1.0, (43, 42, 59, 59)),  # at least 16 pixels about its middle (51, 50.5)
        ((0, 0, 2, 2), 1.0, (0, 0, 16, 16)),
        ((98, 78, 100, 80), 1.0, (84, 64, 100, 80)),
        ((-50, -50, 150, 130), 1.0, (0, 0, 100, 80)),
        ((20.4, 30.6, 60.2, 70.9), 1.0, (20, 30, 61, 71)),
    ],
)
def test_crops(box, scale, expected):
    assert crop_around(box, (80, 100), scale) == expected


def test_crops_of_any_box_have_pixels():
    """Boxes in, beside and across images of any size: never empty, never outside, 16 pixels where there are so many."""
    drawn = np.random.default_rng(0)
    for _ in range(300):
        height, width = drawn.integers(1, 60, 2).tolist()
        x, y, w, h = drawn.uniform(-80, 80, 4)
        x0, y0, x1, y1 = crop_around((x, y, x + abs(w) + 0.1, y + abs(h) + 0.1), (height, width), drawn.uniform(0.1, 4))
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
        assert x1 - x0 >= min(16, width) and y1 - y0 >= min(16, height)


def test_nothing_has_no_box():
    assert box_of(np.zeros((4, 5), bool)) is None
    assert box_of(np.eye(4, 5, dtype=bool)) == (0, 0, 4, 4)


# ---- thoughts ------------------------------------------------------------------------------------------


def thought(own: str) -> tuple[Answer, int]:
    """What is told behind the beginning, and how many tokens that is."""
    tokenizer = tiny.byte_level_tokenizer()
    first = tokenizer.encode(f" {prompts.BEGINNING}", add_special_tokens=False)
    ids = [*first, *tokenizer.encode(own, add_special_tokens=False), 2]
    text, spans = decode_with_spans(tokenizer, ids)
    return Answer(ASKED, text, tuple(ids), tuple(spans)), len(first)


@pytest.mark.parametrize(
    ("own", "which", "named"),
    [
        (" the old dog on a bench.", "object", "the old dog"),
        (" on a wooden bench.", "object", "a wooden bench"),
        (" the old dog on a bench.", "all", "the old dog on a bench"),
        (".", "all", None),
        ("", "object", None),
    ],
)
def test_which_words_are_grounded(pipeline, own, which, named):
    """Never the words that were written for the model; their characters and tokens are those of the whole answer."""
    answer, n_given = thought(own)
    found = Named(pipeline, n_given, which, "chunk")(answer)
    assert [one.text for one in found] == ([] if named is None else [named])
    for one in found:
        assert answer.text[slice(*one.span)] == one.text and min(one.token_indices) >= n_given
        written = "".join(answer.text[slice(*answer.token_spans[i])] for i in one.token_indices)
        assert written.strip() == one.text


@pytest.mark.parametrize(
    ("said", "kept"),
    [(" a dog. It barks.", "a dog."), (" 3.5 dogs", "3.5 dogs"), (" a dog\nA cat", "a dog"), (" no end", "no end")],
)
def test_a_thought_ends_with_its_sentence(said, kept):
    tokenizer = tiny.byte_level_tokenizer()
    ids = tokenizer.encode(said, add_special_tokens=False)
    assert tokenizer.decode(first_sentence(tokenizer, ids)).strip() == kept


# ---- the chain -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A model and a segmenter, and two photographs."""
    folder = tmp_path_factory.mktemp("cot")
    photos = tiny.photographs(folder / "photos", [(60, 90), (90, 60)])
    return {
        "photos": photos,
        "model": tiny.saved(tiny.family("llava"), folder / "lmm"),
        "segmenter": segmenters.saved("sam", folder / "sam"),
    }


@pytest.fixture(scope="module")
def grounder(folders, pipeline) -> aas.Grounder:
    return aas.Grounder(tiny.family("llava"), str(folders["segmenter"]), pipeline)


def test_the_chain_is_its_steps(grounder):
    """Each step by itself, with the parts that other tests hold against independent ones."""
    photo, lmm = tiny.a_photo((60, 90)), grounder.lmm
    found = Thinker(grounder, Chain(thought_tokens=6, answer_tokens=4))(photo, ASKED)
    prepared = lmm.prepare(photo, f"{ASKED}\n{prompts.THINK}")
    first = first_words(lmm, prompts.BEGINNING, prepared)
    (own,) = write(lmm, [begun(lmm, prepared, first)], AskOptions(max_new_tokens=6))
    ids = [*first.tolist(), *first_sentence(lmm.tokenizer, own.tolist())]
    assert found.answer.token_ids == tuple(ids) and found.answer.question == ASKED
    assert found.answer.text.startswith(prompts.BEGINNING)
    again = lmm.run([lmm.prepare(photo, f"{ASKED}\n{prompts.THINK}", answer_ids=ids)])[0][1]
    np.testing.assert_allclose(found.attention.maps, again.maps, rtol=1e-5)

    look, (phrase,) = found.second_look, found.phrases
    assert look.box_xyxy == rle.box_xyxy(phrase.mask)
    x0, y0, x1, y1 = look.crop_xyxy
    shown = [(prompts.WHOLE, photo), (prompts.PART, photo[y0:y1, x0:x1])]
    (last,) = write(lmm, [inputs_of(lmm, shown, f"{ASKED}\n{prompts.INSTRUCTION}")], AskOptions(max_new_tokens=4))
    assert look.answer == " ".join(decode_with_spans(lmm.tokenizer, last.tolist())[0].split())


def test_a_server_thinks_and_answers(grounder, folders, pipeline):
    """What it says is asked for with the images of each step; the model reads the thought, begun or not."""
    photo, lmm = tiny.a_photo((60, 90)), grounder.lmm
    for says in ("the big old dog. It barks.", f"{prompts.BEGINNING} the big old dog."):
        with running(Answering(lmm, says=says)) as server:
            served = aas.Grounder(lmm, str(folders["segmenter"]), pipeline, answers_from=server.address)
            found = Thinker(served, Chain())(photo, ASKED)
        assert found.answer.text == f"{prompts.BEGINNING} the big old dog." and found.answer.question == ASKED
        assert [one.phrase.text for one in found.phrases] == ["the big old dog"]
        first, last = (one["messages"][0]["content"] for one in server.seen)
        assert [part["type"] for part in first] == ["image_url", "text"] and prompts.BEGIN in first[1]["text"]
        assert [part["type"] for part in last] == ["text", "image_url"] * 2 + ["text"]
        assert (last[0]["text"], last[2]["text"]) == (prompts.WHOLE, prompts.PART)
        assert last[4]["text"] == f"{ASKED}\n{prompts.INSTRUCTION}" and server.seen[1]["max_tokens"] == 32
        x0, y0, x1, y1 = found.second_look.crop_xyxy
        assert as_pixels(b64decode(last[3]["image_url"]["url"].partition("base64,")[2])).shape == (y1 - y0, x1 - x0, 3)
        assert found.second_look.answer == says
    told = lmm.run([lmm.prepare(photo, f"{ASKED}\n{prompts.THINK}", answer_ids=found.answer.token_ids)])[0][1]
    np.testing.assert_allclose(found.attention.maps, told.maps, rtol=1e-5)
    with running(Answering(lmm, says="Yes.")) as server:
        served = aas.Grounder(lmm, str(folders["segmenter"]), pipeline, answers_from=server.address)
        assert Thinker(served, Chain("whole"))(photo, ASKED).second_look.answer == "Yes."
    assert len(server.seen) == 1 and server.seen[0]["messages"][0]["content"][1]["text"].startswith(ASKED)


def test_a_batch_is_its_singles(grounder):
    thinking = Thinker(grounder, Chain(thought_tokens=6, answer_tokens=4))
    asked = [thinker.Question(str(i), tiny.a_photo(hw, i), ASKED) for i, hw in enumerate([(60, 90), (90, 60)])]
    together = thinking.compute([thinking.prepare(one) for one in asked])
    for one, found in zip(asked, together, strict=True):
        alone = thinking(one.source, ASKED)
        assert (alone.answer, alone.second_look) == (found.answer, found.second_look)


def test_where_to_look(grounder):
    """The given box, with the crop alone; and the question alone, which is asked as it stands."""
    photo, lmm, options = tiny.a_photo((60, 90)), grounder.lmm, AskOptions(max_new_tokens=4)
    given = Thinker(grounder, Chain(look="given", show="crop", answer_tokens=4, instruction=""))
    found = given(photo, ASKED, (10.5, 20, 40, 50)).second_look
    assert (found.box_xyxy, found.crop_xyxy) == ((10, 20, 40, 50),) * 2
    crop = lmm.ask(photo[20:50, 10:40], ASKED, options=options)[0]
    assert found.answer == " ".join(crop.text.split())
    whole = Thinker(grounder, Chain(look="whole", answer_tokens=4, instruction=""))(photo, ASKED)
    assert (whole.second_look.box_xyxy, whole.second_look.crop_xyxy, len(whole)) == (None, None, 0)
    assert whole.second_look.answer == " ".join(lmm.ask(photo, ASKED, options=options)[0].text.split())
    for box, reason in ((None, "no box is given"), ((95, 0, 99, 9), "no pixel of an image of 90 x 60")):
        with pytest.raises(ValueError, match=reason):
            given(photo, ASKED, box)


def test_an_empty_mask_is_looked_at_as_a_whole(grounder, monkeypatch):
    thinking = Thinker(grounder, Chain(thought_tokens=6, answer_tokens=2))
    compute = grounder.compute

    def empty(*given):
        return [
            replace(one, phrases=tuple(replace(phrase, mask=np.zeros_like(phrase.mask)) for phrase in one.phrases))
            for one in compute(*given)
        ]

    monkeypatch.setattr(grounder, "compute", empty)
    look = thinking(tiny.a_photo((60, 90)), ASKED).second_look
    assert look.box_xyxy is None and look.crop_xyxy == (0, 0, 90, 60)


def test_a_thought_of_an_image_is_told(grounder, monkeypatch):
    """A model that writes its own image token, as random ones do."""
    monkeypatch.setattr(thinker, "write", lambda *_: [torch.tensor([grounder.lmm.model.config.image_token_id])])
    with pytest.raises(ValueError, match="holds the model's image token"):
        Thinker(grounder)(tiny.a_photo(), ASKED)


def test_models_that_cannot_are_refused_at_once(pipeline):
    one_image = aas.Grounder(tiny.family("chameleon"), "map", pipeline)
    with pytest.raises(ValueError, match=r"takes one image.*--show crop"):
        Thinker(one_image)
    Thinker(one_image, Chain(show="crop"))
    with pytest.raises(ValueError, match="no thought is begun"):
        Thinker(aas.Grounder(tiny.family("florence2"), "map", pipeline), Chain(show="crop"))


# ---- the command ---------------------------------------------------------------------------------------


@pytest.fixture
def cot(folders, tmp_path):
    def run(*arguments: object, out: str = "out") -> tuple[int, str, Path]:
        models = ("--model", folders["model"], "--segmenter", folders["segmenter"], "--device", "cpu", "--workers", 0)
        tokens = ("--thought-tokens", 6, "--max-new-tokens", 4)
        code, output = command.run("cot", folders["photos"], "--out", tmp_path / out, *models, *tokens, *arguments)
        assert "Traceback" not in output
        return code, output, tmp_path / out

    return run


def test_the_stage_can_be_sent_elsewhere():
    """To processes of other GPUs, or to a Ray cluster."""
    options = Cot(images=("photos",), question=ASKED)
    task = Carrying("cot", options, requests_of, None, partial(SavingThoughts, options.chain()), ThoughtReport)
    assert pickle.loads(pickle.dumps(task)).saving.args == (options.chain(),)


def questions(folder: Path, *rows: dict) -> Path:
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_command(cot, tmp_path):
    """A result for each question, with a picture; a photograph that is not there costs nobody else's; the same command
    does only what is missing, and another question of the same name is refused."""
    rows = [
        {"id": "a", "image": "data/0.png", "question": ASKED, "box": [10, 10, 40, 40]},
        {"id": "b", "image": "data/1.png", "question": "Who?"},
        {"id": "c", "image": "data/9.png", "question": "Where?"},
    ]
    code, output, out = cot("--questions", questions(tmp_path, *rows))
    assert code == 3 and "data/9.png" in (out / "failed.jsonl").read_text()
    for key in ("a", "b"):
        found = aas.Grounding.load(out / f"{key}.json")
        assert found.second_look == read_result(out / f"{key}.json").second_look
        assert Image.open(out / f"{key}.png").width > 640
    assert output.count("→") == 2
    assert command.run("retry", out)[0] == 3, "it is still not there"
    first = (out / "a.json").read_bytes()
    (out / "b.json").unlink()
    code, output, _ = cot("--questions", questions(tmp_path, *rows[:2]))
    assert code == 0 and "1 done, 1 were there, 0 failed" in output and (out / "a.json").read_bytes() == first
    assert command.run("verify", out)[0] == 0
    assert command.run("view", out, "--no-open")[0] == 0 and (out / "report.html").is_file()
    code, output, _ = cot("--questions", questions(tmp_path, rows[0] | {"question": "Why?"}))
    assert code == 2 and "something else was asked of a" in output


def test_a_server_that_refuses_everybody_ends_the_run(cot, tmp_path):
    """What was found before stays."""
    rows = [{"id": str(i), "image": f"{i % 2}.png", "question": ASKED} for i in range(6)]
    refuses = [False] * 2 + [True] * 99  # the thought and the answer of the first
    with running(Answering(tiny.family("llava"), says="a dog.")) as server:
        server.manner = lambda asked: (401, "no key") if refuses[len(server.seen) - 1] else None
        asked = ("--questions", questions(tmp_path, *rows), "--answers-from", server.address)
        code, output, out = cot(*asked)
        assert code == 2 and "AAS_ANSWERS_KEY" in output and len(server.seen) < 12
        assert sorted(path.name for path in out.glob("[0-9].json")) == ["0.json"]


def test_given_boxes_fail_alone(cot, tmp_path):
    rows = [
        {"id": "a", "image": "0.png", "question": ASKED, "box": [10, 10, 40, 40]},
        {"id": "b", "image": "1.png", "question": ASKED},
        {"id": "c", "image": "1.png", "question": ASKED, "box": [40, 10, 10, 40]},
    ]
    code, output, out = cot("--questions", questions(tmp_path, *rows), "--look", "given", "--no-png")
    assert code == 3 and output.count("no box is given") == 2 and "[40.0, 10.0, 10.0, 40.0] of c has no pixel" in output
    assert [path.stem for path in sorted(out.glob("[abc].json"))] == ["a"]
    assert aas.Grounding.load(out / "a.json").second_look.crop_xyxy == (10, 10, 40, 40)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "Give --question, which is for all images, or --questions"),
        (("--question", ASKED, "--questions", "q.jsonl"), "Give --question, which"),
        (("--question", ASKED, "--look", "given"), "--look given looks at the boxes"),
        (("--question", ASKED, "--crop-scale", 0), "--crop-scale 0.0"),
        (("--question", ASKED, "--look", "whole", "--show", "crop"), "which --look whole does not make"),
        (("--question", ASKED, "--look", "whole", "--thought-words", "all"), "are of --look thought"),
    ],
)
def test_options_that_do_not_go_together(cot, arguments, reason):
    code, output, out = cot(*arguments)
    assert code == 2 and reason in output and not out.exists()
