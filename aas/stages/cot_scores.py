"""`aas eval cot`: the answers of a visual chain of thought, and the boxes of what it looked at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aas.answering.judge import Judge, Verdict, judging
from aas.answering.server import server_at
from aas.datasets.coco import Findings, note
from aas.datasets.visual_cot import BoxedQuestion, read_boxed_questions
from aas.evaluations import report
from aas.metrics import bootstrap, check_installed
from aas.metrics.box_overlap import box_iou
from aas.metrics.captions import Caption, CaptionScorer
from aas.metrics.mean import mean_evidence
from aas.metrics.short_answers import is_exact
from aas.records import SecondLook
from aas.stages.cot_scores_options import NAMED, EvalCot
from aas.store.results import read_result
from aas.store.runs import RunFolder
from aas.store.status import open_run

ALL = "all"
FOUND_FROM_IOU = 0.5
Verdicts = Mapping[str, Verdict | Exception]  # by prompt


@dataclass(frozen=True)
class Row:
    """A question, how its chain ends (None: there is no result), and the number of its image."""

    asked: BoxedQuestion
    look: SecondLook | None
    image: int

    @property
    def answer(self) -> str:
        """Empty where there is none."""
        return "" if self.look is None else self.look.answer

    @property
    def prompt(self) -> str | None:
        """What a judge is asked; None where there is nothing to judge."""
        return (
            judging(self.asked.question, self.asked.answers, self.answer)
            if self.asked.answers and self.answer
            else None
        )


def eval_cot(options: EvalCot) -> int:
    """Print the table, write what was asked for; returns the exit code. ValueError or OSError where the options cannot
    work."""
    check_installed("pycocoevalcap")
    findings: Findings = {}
    run, description = open_run(options.results)
    if description["command"] != "cot":
        raise ValueError(
            f"--results {options.results} holds a run of `aas {description['command']}`, not of `aas cot`."
        )
    questions, problems = read_boxed_questions(options.questions)
    for problem in problems:
        note(findings, "boxes_without_pixels", problem)
    images = list(dict.fromkeys(one.image for one in questions))
    rows = _rows(run, questions, images, findings)
    verdicts = _verdicts(options, rows, findings)
    looked_for = description["arguments"].get("look") == "thought"  # a given box is no finding
    content = _content(options, rows, images, verdicts, looked_for) | {"reported": findings}
    content["counts"] |= {what: len(where) for what, where in findings.items()}
    return report.deliver(content, findings, report.table_of_groups(content), options)


def _rows(run: RunFolder, questions: Sequence[BoxedQuestion], images: Sequence[str], findings: Findings) -> list[Row]:
    """A question without a result counts as wrong, and is reported."""
    numbers, done = {image: i for i, image in enumerate(images)}, run.done_of(one.key for one in questions)
    rows = []
    for one in questions:
        look = None
        if one.key not in done:
            note(findings, "not_answered", one.key)
        else:
            try:
                look = read_result(run.item_path(one.key)).second_look
            except (ValueError, OSError) as error:
                note(findings, "unreadable_files", str(error))
        rows.append(Row(one, look, numbers[one.image]))
    if all(row.look is None for row in rows):
        raise ValueError(f"{run.path} holds no answer to any of the questions.")
    return rows


def _verdicts(options: EvalCot, rows: Sequence[Row], findings: Findings) -> Verdicts | None:
    """What the judge says; None where there is none."""
    if options.judge is None:
        return None
    server = server_at(options.judge, options.judge_model, options.in_flight, NAMED)
    judge = Judge(server, options.judgements or options.results / "judgements.jsonl")
    found = dict(judge.verdicts(prompt for row in rows if (prompt := row.prompt) is not None))
    for row in rows:
        said = found.get(row.prompt or "")
        if isinstance(said, Exception):
            note(findings, "not_judged", f"{row.asked.key}: {said}")
        elif said is not None and said.score is None:
            note(findings, "unreadable_judgements", f"{row.asked.key}: {said.reply!r}")
    return found


# ---------------------------------------------------------------------------------------------------- figures


def _content(
    options: EvalCot, rows: Sequence[Row], images: Sequence[str], verdicts: Verdicts | None, looked_for: bool
) -> dict[str, Any]:
    """What the JSON file holds."""
    scorer, n, groups = CaptionScorer(["ROUGE_L"]), len(images), _groups(rows)
    evidence = {name: _evidence(group, n, scorer, verdicts, looked_for) for name, group in groups.items()}
    return report.of_groups(evidence, n, options) | {
        "counts": {"images": n, "questions": {name: len(group) for name, group in groups.items()}},
        "settings": {"task": "cot", "tokenizer": "Java" if scorer.has_java else "Python"}
        | {"judge": options.judge, "resamples": options.n_resamples, "seed": options.seed},
        "answers": [_told(row, verdicts) for row in rows],
        "images": list(images),
        "evidence": evidence,
    }


def _groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """All, and those of each dataset where there are several."""
    datasets = list(dict.fromkeys(row.asked.dataset for row in rows))
    parts = {name or "other": [row for row in rows if row.asked.dataset == name] for name in datasets}
    return {ALL: list(rows)} | (parts if len(parts) > 1 else {})


def _evidence(
    rows: Sequence[Row], n_images: int, scorer: CaptionScorer, verdicts: Verdicts | None, looked_for: bool
) -> bootstrap.Evidence:
    """Means over questions; those whose answer or box is not known do not count."""
    right = [row for row in rows if row.asked.answers]
    captions = [Caption(row.answer, row.asked.answers) for row in right]
    rouge = scorer.evidence(captions)["ROUGE_L"]["values"] if captions else []
    columns: dict[str, list[tuple[Row, float]]] = {
        "exact_match": [(row, float(is_exact(row.answer, row.asked.answers))) for row in right],
        "ROUGE_L": list(zip(right, rouge, strict=True)),
    }
    if verdicts is not None:
        columns |= _judged(right, verdicts)
    if looked_for:
        ious = [(row, _iou(row)) for row in rows if row.asked.box_xyxy is not None]
        columns |= {"box_IoU": ious, "box_found": [(row, float(iou >= FOUND_FROM_IOU)) for row, iou in ious]}
    return {
        name: mean_evidence([value for _, value in found], [row.image for row, _ in found], n_images=n_images)
        for name, found in columns.items()
    }


def _judged(rows: Sequence[Row], verdicts: Verdicts) -> dict[str, list[tuple[Row, float]]]:
    """The scores that can be read, 0 where nothing was answered; and the share of those that cannot."""
    scores = [(row, _score(row, verdicts)) for row in rows if not isinstance(verdicts.get(row.prompt or ""), Exception)]
    return {
        "judge": [(row, score) for row, score in scores if score is not None],
        "judge_unreadable": [(row, float(score is None)) for row, score in scores],
    }


def _score(row: Row, verdicts: Verdicts) -> float | None:
    said = verdicts.get(row.prompt or "")
    return said.score if isinstance(said, Verdict) else 0.0


def _iou(row: Row) -> float:
    assert row.asked.box_xyxy is not None
    found = None if row.look is None else row.look.box_xyxy
    return 0.0 if found is None else box_iou(found, row.asked.box_xyxy)


def _told(row: Row, verdicts: Verdicts | None) -> dict[str, Any]:
    said = None if verdicts is None else verdicts.get(row.prompt or "")
    judged = {"judge": said.score} if isinstance(said, Verdict) else {}
    about = {"key": row.asked.key, "image": row.asked.image, "question": row.asked.question}
    return about | {"answer": None if row.look is None else row.look.answer, "truth": list(row.asked.answers)} | judged
