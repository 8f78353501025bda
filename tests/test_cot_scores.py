"""`aas eval cot`: questions with boxes as files have them, answers and boxes scored, and a judge over HTTP."""

import json
from pathlib import Path

import numpy as np
import pytest

from aas.answering import server as served
from aas.answering.judge import SCORE, Judge, Verdict, judging
from aas.answering.server import Server
from aas.datasets.visual_cot import BoxedQuestion, read_boxed_questions
from aas.evaluations import report
from aas.metrics import captions
from aas.metrics.box_overlap import box_iou
from aas.metrics.short_answers import is_exact
from aas.records import SecondLook
from aas.store.results import Result, write_result
from aas.store.runs import RunFolder
from tests import command, tiny
from tests.answer_server import Answering, running

ASKS = "Please provide the bounding box coordinate of the region that can help you answer the question better."


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(served, "FIRST_PAUSE_S", 0.01)


# ---- questions -----------------------------------------------------------------------------------------


def lines(path: Path, *entries: object) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in entries))
    return path


def test_the_three_layouts(tmp_path):
    benchmark = {
        "dataset": "cub",
        "question_id": 7,
        "image": ["cot/cub/a.jpg", "cot/cub/a.jpg###[141, 87, 397, 298]"],
        "conversations": [
            {"value": f"<image>\nIs it blue? {ASKS}"},
            {"value": "[0.1, 0.2, 0.3, 0.4]"},
            {"value": "No"},
        ],
    }
    training = {
        "image": "b.jpg",
        "question": "Who?",
        "answer": 5,
        "possible_answers": ["5", "five"],
        "bboxs": [[1, 20, 30, 40], [10.5, 2, 50, "30"]],
        "dataset": "vsr",
    }
    ours = {"id": "x", "image": "c.jpg", "question": "Where?", "box": [0, 0, 4, 5]}
    expected = [
        BoxedQuestion("cub-7", "cot/cub/a.jpg", "Is it blue?", ("No",), (141, 87, 397, 298), "cub"),
        BoxedQuestion("b.jpg", "b.jpg", "Who?", ("5", "five"), (1, 2, 50, 40), "vsr"),
        BoxedQuestion("x", "c.jpg", "Where?", (), (0, 0, 4, 5)),
    ]
    assert read_boxed_questions(lines(tmp_path / "q.jsonl", benchmark, training, ours)) == (expected, [])
    (tmp_path / "q.json").write_text(json.dumps([benchmark, training, ours], indent=1))
    assert read_boxed_questions(tmp_path / "q.json") == (expected, [])


def test_the_published_files(shared_dir):
    """A hundredth of the boxes of docvqa has no pixel: the questions stay, without a box."""
    folder = shared_dir / "data/visual_cot"
    cub, none_wrong = read_boxed_questions(folder / "cub.json")
    docvqa, wrong = read_boxed_questions(folder / "docvqa.json")
    assert (len(cub), len(none_wrong), len(docvqa), len(wrong)) == (492, 0, 888, 8)
    assert {one.answers for one in cub} == {("Yes",), ("No",)} and not any(ASKS in one.question for one in docvqa)
    assert sum(one.box_xyxy is None for one in docvqa) == 8 and "docvqa-128" in wrong[0]


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([], "holds no questions"),
        (["text"], "line 1: an object"),
        ([{"image": "a.jpg"}], '"question" is missing'),
        ([{"image": "a.jpg", "question": "Q", "box": [1, 2, 3]}], "is no box"),
        ([{"image": "a.jpg", "question": "Q", "box": [1, 2, 3, None]}], "is no box"),
        ([{"image": "a.jpg", "question": "Q", "answer": " "}], '"answer" is missing'),
        ([{"image": ["a.jpg", "a.jpg###[1, 2"], "question": "Q"}], None),
        ([{"image": ["a.jpg", "a.jpg###[1, 2,]"], "question": "Q"}], "not valid JSON"),
        ([{"image": "a.jpg", "question": "Q"}, {"image": "a.jpg", "question": "R"}], "line 2: a.jpg is there twice"),
        ([{"image": "a.jpg", "question": "\ud83d"}], "no text"),
    ],
)
def test_unusable_questions_name_their_line(tmp_path, entries, reason):
    path = lines(tmp_path / "q.jsonl", *entries)
    if reason is None:
        assert read_boxed_questions(path)[0][0].box_xyxy is None
        return
    with pytest.raises(ValueError, match=reason.replace("[", r"\[")):
        read_boxed_questions(path)


# ---- figures -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "truth", "is_right"),
    [
        ("The Dog.", ["dog"], True),
        ("24,26,435", ["24.26.435"], True),
        ("a theme", ["theme"], True),
        ("two dogs", ["dog", "Two  dogs!"], True),
        ("dog", ["dogs"], False),
        ("", ["?"], False),
        ("!", ["?"], False),
        ("the", ["a"], False),
    ],
)
def test_exact_match(answer, truth, is_right):
    assert is_exact(answer, truth) is is_right


def test_box_iou_is_that_of_pixels():
    drawn = np.random.default_rng(0)
    for _ in range(50):
        boxes = [np.sort(drawn.integers(0, 12, (2, 2)), axis=0) + np.array([[0], [1]]) for _ in range(2)]
        masks = np.zeros((2, 13, 13), bool)
        for mask, ((x0, y0), (x1, y1)) in zip(masks, boxes, strict=True):
            mask[y0:y1, x0:x1] = True
        expected = (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()
        assert box_iou(*(box.ravel() for box in boxes)) == pytest.approx(expected)


# ---- the judge -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("score: 1", 1.0),
        ("Score: 0.25.", 0.25),
        ("The score is 0", 0.0),
        ('{"score": 0.5}', 0.5),
        ("**Score:** .75", 0.75),
        ("score: 0.2? No.\nscore: 0.8", 0.8),
        ("score: 7", None),
        ("score: -1", None),
        ("score: 80%", None),
        ("score: 0.85%", None),
        ("score: 1/10", None),
        ("score: 1.2.3", None),
        ("It is right.", None),
    ],
)
def test_what_a_judge_says(reply, score):
    assert Verdict(reply).score == score, SCORE.findall(reply)


def saying(judge: dict[str, str], asked: list[str]):
    """A server's manner: by the answer that is to be judged; 400 for others."""

    def manner(request: dict) -> tuple[int, object]:
        prompt = request["messages"][0]["content"]
        asked.append(prompt)
        reply = next((said for answer, said in judge.items() if f"Answer: {answer}\n" in prompt), None)
        return (400, {"error": "no"}) if reply is None else (200, {"choices": [{"message": {"content": reply}}]})

    return manner


def test_a_judge_is_asked_once(tmp_path):
    """In words alone; what it said is kept, a line each, and what failed is asked again."""
    prompts = [judging("Who?", ["dog"], answer) for answer in ("a dog", "a\ncat", "x", "a dog")]
    asked: list[str] = []
    manner = saying({"a dog": "score: 1", "a cat": "hm"}, asked)
    with running(Answering(tiny.family("llava"), manner=manner)) as server:
        judge = Judge(Server(server.address, "tiny"), tmp_path / "kept.jsonl")
        first = dict(judge.verdicts(prompts))
        assert [first[one].score for one in prompts[:2]] == [1.0, None]
        assert isinstance(first[prompts[2]], ValueError) and len(first) == 3
        asked.clear()
        (tmp_path / "kept.jsonl").open("a").write('{"key": "cut')
        again = dict(judge.verdicts(prompts))
    assert set(asked) == {prompts[2]} and [again[one] for one in prompts[:2]] == [first[one] for one in prompts[:2]]
    assert len(set(map(judge._key, prompts))) == 3 != len(prompts)


# ---- the command ---------------------------------------------------------------------------------------

TRUTH = [
    {"id": "a", "image": "0.png", "question": "Who?", "answer": "dog", "box": [0, 0, 10, 10], "dataset": "one"},
    {"id": "b", "image": "0.png", "question": "What?", "answer": "a red cup", "box": [0, 0, 10, 10], "dataset": "one"},
    {"id": "c", "image": "1.png", "question": "Where?", "answer": "there", "box": [0, 0, 10, 10], "dataset": "two"},
    {"id": "d", "image": "2.png", "question": "Why?", "dataset": "two"},
    {"id": "e", "image": "2.png", "question": "When?", "answer": "now", "box": [9, 9, 1, 1], "dataset": "two"},
]
LOOKS = {
    "a": SecondLook("The dog", (0, 0, 10, 5), (0, 0, 16, 16)),
    "b": SecondLook("a cup", None, (0, 0, 90, 60)),
    "d": SecondLook("because", (0, 0, 1, 1), (0, 0, 16, 16)),
    "e": SecondLook("then", (0, 0, 1, 1), (0, 0, 16, 16)),
}


@pytest.fixture
def scored(tmp_path, monkeypatch):
    monkeypatch.setattr(captions, "java_works", lambda: False)  # a second for each start; the words are the same

    def run(*arguments: object, look: str = "thought") -> tuple[int, str, dict]:
        folder = RunFolder(tmp_path / "thought", ".json")
        folder.path.mkdir(exist_ok=True)
        folder.begin("cot", {"look": look}, {"n_images": 5})
        for key, second in LOOKS.items():
            write_result(folder.item_path(key), Result(key, "", (), (), second_look=second))
        truth, scores = lines(tmp_path / "q.jsonl", *TRUTH), tmp_path / "scores.json"
        command_line = ("eval", "cot", "--results", folder.path, "--questions", truth, "--json", scores, *arguments)
        code, output = command.run(*command_line)
        return code, output, json.loads(scores.read_text()) if scores.is_file() else {}

    return run


def test_figures_by_hand(scored):
    """An answer that is not there is wrong; a question whose answer or box is not known does not count."""
    code, output, found = scored("--bootstrap", 50)
    assert code == 3 and "1 not answered: c" in output and "1 boxes without pixels" in output
    # "The dog" has one word of two in common with "dog", all of its; "a cup" two of "a red cup", in order (beta 1.2).
    f = [(1 + 1.44) * p * r / (r + 1.44 * p) for p, r in ((1 / 2, 1), (1, 2 / 3))]
    assert found["figures"]["one"]["ROUGE_L"] == pytest.approx(sum(f) / 2)
    figures = found["figures"]["all"]
    assert figures["exact_match"] == pytest.approx(1 / 4) and figures["ROUGE_L"] == pytest.approx(sum(f) / 4)
    assert figures["box_IoU"] == pytest.approx(0.5 / 3) and figures["box_found"] == pytest.approx(1 / 3)
    assert found["counts"]["questions"] == {"all": 5, "one": 2, "two": 3}
    low, high = found["intervals"]["all"]["exact_match"]
    assert 0 <= low <= 1 / 4 <= high <= 1
    assert "judge" not in figures and "| exact_match" in output
    again = report.of_groups(found["evidence"], len(found["images"]), report.ReportOptions(n_resamples=0))
    assert again["figures"] == found["figures"] and again["intervals"] == {}


def test_given_boxes_are_no_finding(scored):
    _, _, found = scored("--bootstrap", 0, look="given")
    assert set(found["figures"]["all"]) == {"exact_match", "ROUGE_L"}


def test_the_judge_of_the_command(scored, tmp_path):
    """Readable scores are averaged, unreadable ones counted, failures told; a second start asks what failed alone."""
    asked: list[str] = []
    says = {"The dog": "score: 0.5", "a cup": "who knows"}
    with running(Answering(tiny.family("llava"), manner=saying(says, asked))) as server:
        code, output, found = scored("--judge", server.address, "--bootstrap", 0)
        assert code == 3 and "1 not judged: e" in output and "1 unreadable judgements: b" in output
        assert found["figures"]["all"]["judge"] == pytest.approx(0.5 / 2), "a, and c, which was not answered"
        assert found["figures"]["all"]["judge_unreadable"] == pytest.approx(1 / 3)
        assert [one.get("judge", "-") for one in found["answers"]] == [0.5, None, "-", "-", "-"]
        asked.clear()
        says["then"] = "score: 1"
        found = scored("--judge", server.address, "--judge-model", "tiny", "--bootstrap", 0)[2]
        assert len(asked) == 1 and found["figures"]["all"]["judge"] == pytest.approx(1.5 / 3)
    assert len((tmp_path / "thought/judgements.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--judge", "localhost"), "--judge 'localhost': give the server's address"),
        (("--judge-model", "x"), "are of --judge"),
        (("--judge", "http://127.0.0.1:9/v1"), "cannot be reached"),
    ],
)
def test_a_judge_that_is_none(scored, arguments, reason):
    code, output, _ = scored(*arguments)
    assert code == 2 and reason in output


def test_a_run_of_another_command_is_refused(tmp_path):
    RunFolder(tmp_path, ".json").begin("ground", {}, {})
    code, output = command.run("eval", "cot", "--results", tmp_path, "--questions", lines(tmp_path / "q", *TRUTH))
    assert code == 2 and "a run of `aas ground`, not of `aas cot`" in output
