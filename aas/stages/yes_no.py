"""`aas eval yesno`: does a model see what is there, and nothing else? Asked of each thing, as POPE does."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from aas.datasets.coco import Findings, note
from aas.datasets.sources import find_sources
from aas.datasets.yes_no import Question, read_questions
from aas.evaluations import report
from aas.images import read_image
from aas.lmms import load_lmm
from aas.lmms.base import LMM
from aas.lmms.yes_no import FirstWord, first_words
from aas.loading import is_ours
from aas.metrics import bootstrap
from aas.metrics.yes_no import yes_no
from aas.photographs import File
from aas.stages.yes_no_options import EvalYesNo

OF_2014 = re.compile(r"^COCO_[a-z]+20\d\d_(?=\d{12}\.)")  # in front of the number that is the whole name since 2017
Groups = Mapping[str, Sequence[Question]]
Answers = Mapping[tuple[str, str], FirstWord]  # by image and question


def eval_yes_no(options: EvalYesNo) -> int:
    """Print the table, write what was asked for; returns the exit code. ValueError or OSError where the options cannot
    work."""
    findings: Findings = {}
    groups = _groups(options.gt)
    asked = _asked(question for questions in groups.values() for question in questions)
    files = _photographs(options, asked, findings)
    lmm = load_lmm(options.model, options.device, **options.loading())
    answers = _answers(lmm, options, asked, files, findings)
    if not answers:
        report.say_findings(findings)
        raise ValueError("No question was answered: there are no figures.")
    content = _content(groups, answers, options, findings)
    return report.deliver(content, findings, report.table_of_groups(content), options)


def _groups(files: Sequence[Path]) -> dict[str, list[Question]]:
    """The questions of each file, by its name, and behind them those of each of its settings, if it has several."""
    groups: dict[str, list[Question]] = {}
    for file in files:
        if file.stem in groups:
            raise ValueError(f"--gt {file}: another is called {file.stem} too, and figures go by name: rename one.")
        groups[file.stem] = questions = read_questions(file)
        settings = list(dict.fromkeys(question.setting for question in questions))
        for setting in settings if len(settings) > 1 else ():
            groups[f"{file.stem} {setting}"] = [one for one in questions if one.setting == setting]
    return groups


def _asked(questions: Iterable[Question]) -> dict[str, list[str]]:
    """Of each image what is asked, each once: settings and files share questions."""
    asked: dict[str, dict[str, None]] = {}
    for question in questions:
        asked.setdefault(question.image, {})[question.text] = None
    return {image: list(texts) for image, texts in asked.items()}


def _photographs(options: EvalYesNo, names: Iterable[str], findings: Findings) -> dict[str, File]:
    """The file of each image that is there, by its path, its name, or the name that COCO gave it in 2017."""
    by_key: dict[str, list[File]] = {}
    by_name: dict[str, list[File]] = {}
    for source in find_sources(options.images):
        by_key[source.key] = [source.path]
        by_name.setdefault(source.path.name, []).append(source.path)
    found = {}
    for name in names:
        last = Path(name).name
        paths = by_key.get(name) or by_name.get(last) or by_name.get(OF_2014.sub("", last)) or []
        if len(paths) > 1:
            raise ValueError(f"--images: {name} may be {paths[0]} or {paths[1]}: give a folder that has one of them.")
        if paths:
            found[name] = paths[0]
        else:
            note(findings, "missing_images", name)
    if not found:
        raise ValueError(f"--images {options.images}: none of the photographs that are asked about is there.")
    return found


def _answers(
    lmm: LMM, options: EvalYesNo, asked: Mapping[str, Sequence[str]], files: Mapping[str, File], findings: Findings
) -> dict[tuple[str, str], FirstWord]:
    """What the model says; an image that cannot be read, or asked about, is noted."""
    found: dict[tuple[str, str], FirstWord] = {}
    for image, path in tqdm(files.items(), unit="image"):
        try:
            pixels = read_image(path)
            ready = [lmm.prepare(pixels, options.asking(text)) for text in asked[image]]
            n = options.batch_size
            words = [one for i in range(0, len(ready), n) for one in first_words(lmm, ready[i : i + n])]
        except Exception as error:
            if not (is_ours(error) or isinstance(error, OSError)):
                raise
            note(findings, "unreadable_files", f"{image}: {error}")
            continue
        found |= {(image, text): word for text, word in zip(asked[image], words, strict=True)}
        for text, word in zip(asked[image], words, strict=True):
            if word.is_yes is None:
                note(findings, "unreadable_answers", f"{image}: {text} {word.first_token!r} …")
    return found


def _content(groups: Groups, answers: Answers, options: EvalYesNo, findings: Findings) -> dict[str, Any]:
    """What the JSON file holds."""
    images = list(dict.fromkeys(image for image, _ in answers))
    answered = {name: [one for one in group if (one.image, one.text) in answers] for name, group in groups.items()}
    evidence = {name: _evidence(group, answers, images) for name, group in answered.items()}
    return report.of_groups(evidence, len(images), options) | {
        "counts": {"images": len(images), "questions": {name: len(group) for name, group in answered.items()}}
        | {what: len(where) for what, where in findings.items()},
        "settings": {"task": "yesno", "model": options.model, "instruction": options.instruction}
        | {"resamples": options.n_resamples, "seed": options.seed},
        "answers": [{"image": image, "text": text, **vars(word)} for (image, text), word in answers.items()],
        "reported": findings,
        "images": images,
        "evidence": evidence,
    }


def _evidence(questions: Sequence[Question], answers: Answers, images: Sequence[str]) -> bootstrap.Evidence:
    places = {image: i for i, image in enumerate(images)}
    words = [answers[one.image, one.text] for one in questions]
    return yes_no(
        [one.is_yes for one in questions],
        [word.is_yes for word in words],
        [word.log_odds for word in words],
        [places[one.image] for one in questions],
        len(images),
    )
