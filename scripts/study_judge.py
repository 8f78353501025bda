"""The judging of scripts/study_difflmm.py: where a model's attention points, and how well it expects captions."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluate import Evaluation, photographs
from pycocotools.coco import COCO
from study_towers import Photo
from torch.nn import functional as F
from tqdm import tqdm

from aas import Grounder
from aas.lmms.prepared import AskOptions
from aas.metrics.bootstrap import LEVEL, resamples
from aas.metrics.mean import mean
from aas.phrases.categories import CategoryMatcher
from aas.store.atomic import write_text
from difflmm.checkpoint import load_checkpoint
from difflmm.data.batches import Collator
from difflmm.data.conversations import Conversations
from difflmm.data.images import check_images
from difflmm.data.rows import Row
from difflmm.data.tokens import IGNORE, RowTokenizer

QUESTION = "Describe the image in detail."
CATEGORY_THRESH = 0.7  # as scripts/embedded/evaluate.py has it
N_NEW_TOKENS = 80  # about five captions, as a training answer has
N_RESAMPLES = 2000
SMALL_AREA = 0.3  # of the picture

Result = dict[str, Any]  # what `Judge` found of one model
Rows = list[tuple[int, float, float]]  # photograph, sum, number: of the things whose mean is wanted


class Judge:
    """Judges models on `photos` (with masks; `small`: the folder of their small copies, which the losses take)."""

    def __init__(self, data_dir: Path, small: Path, photos: list[Photo]):
        self.data_dir, self.small, self.photos = data_dir, small, photos
        self.coco = COCO(data_dir / "coco/annotations/instances_subset_val2017.json")

    def __call__(self, model: Path, found: Path) -> Result:
        """Is kept in the file `found`, and read from there if it is there."""
        if not found.is_file():
            result = self._points(model) | {"loss": self._loss(model, 0), "loss of another": self._loss(model, 1)}
            write_text(found, json.dumps(result))
        return json.loads(found.read_text())

    def _points(self, model: Path) -> Result:
        """The cases of the photographs' captions, given, and of the model's own answers; and those answers."""
        grounder = Grounder(str(model))
        matcher = CategoryMatcher(grounder.pipeline, [category["name"] for category in self.coco.dataset["categories"]])
        own, given = (Evaluation(grounder, matcher, CATEGORY_THRESH, 0, segments=False) for _ in range(2))
        answers, ids = {}, [photo.image_id for photo in self.photos]
        seen = tqdm(photographs(self.coco, self.data_dir, ids), "Judging", len(ids))
        for photo, (image_id, pixels, things) in zip(self.photos, seen, strict=True):
            answer, maps = grounder.lmm.ask(pixels, QUESTION, options=AskOptions(N_NEW_TOKENS))
            answers[image_id] = answer.text
            own.add(image_id, pixels, answer, maps, things)
            for caption in photo.captions:
                given.add(image_id, pixels, *grounder.lmm.ask(pixels, QUESTION, caption), things)
        cases = {"given": [vars(case) for case in given.cases], "own": [vars(case) for case in own.cases]}
        return cases | {"answers": answers}

    @torch.inference_mode()
    def _loss(self, model_folder: Path, shift: int) -> Rows:
        """Of each caption: the summed loss of its tokens in nats, and their number; with the picture of the photograph
        that is `shift` further. The end token is left out: in training it comes behind five captions."""
        model, processor = load_checkpoint(str(model_folder), dtype=torch.float32)
        rows: list[Row] = []
        image_ids: list[int] = []
        for i, photo in enumerate(self.photos):
            image = self.small / self.photos[(i + shift) % len(self.photos)].small_file
            rows += [Row(len(rows) + j, "", image, (QUESTION, text)) for j, text in enumerate(photo.captions)]
            image_ids += [photo.image_id] * len(photo.captions)
        texts = RowTokenizer(processor, model.config.image_seq_length, 512, plain=False)
        digests = check_images(rows, 1)[2]
        data = Conversations(rows, texts, digests, 0, needs_noise=model.config.model_type == "difflmm")
        collate, sums = Collator(0, torch.float32), []
        for start in range(0, len(data), 16):
            batch = collate([data[i] for i in range(start, min(start + 16, len(data)))])
            labels = batch.pop("labels")[:, 1:]
            labels = labels.where(labels != processor.tokenizer.eos_token_id, IGNORE)
            logits = model.eval()(**batch).logits[:, :-1]
            losses = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORE, reduction="none").sum(1)
            sums += list(zip(losses.tolist(), (labels != IGNORE).sum(1).tolist(), strict=True))
        return [(i, total, n) for i, (total, n) in zip(image_ids, sums, strict=True)]


# ------------------------------------------------------------------------------------------------------------ figures


class Bootstrap:
    """Means with 95 % intervals over photographs; all, and differences of two, are of the same resamples."""

    def __init__(self, image_ids: Iterable[int]):
        self.index = {image_id: i for i, image_id in enumerate(image_ids)}
        self.weights = resamples(len(self.index), N_RESAMPLES, seed=0)

    def __call__(self, rows: Rows, minus: Rows | None = None) -> dict[str, float | None]:
        """Mean of `rows`, or how much more that is than the mean of `minus`; None where there are no rows."""
        drawn = self._means(rows) - (0 if minus is None else self._means(minus))
        if np.isnan(drawn[0]):
            return dict.fromkeys(("mean", "low", "high"))
        low, high = np.nanpercentile(drawn[1:], LEVEL)
        return {"mean": float(drawn[0]), "low": float(low), "high": float(high)}

    def _means(self, rows: Rows) -> np.ndarray:
        """float64 [1 + N_RESAMPLES], the first is of all photographs."""
        sums = np.zeros((len(self.index), 2))
        for image_id, *of_row in rows:
            sums[self.index[image_id]] += of_row
        return mean("mean", {"values": sums[:, 0], "n": sums[:, 1]}, self.weights)["mean"]


def hits(source: str, method: str, largest: float = 1.1, less: str | None = None) -> Callable[[list[Result]], Rows]:
    """Of each phrase, whether the method's point is right (or how much more it is so than that of `less`); of things
    that fill less than `largest` of the picture."""

    def rows(results: list[Result]) -> Rows:
        cases = [case for result in results for case in result[source] if case["area"] < largest]
        return [(case["image_id"], case["hit"][method] - (case["hit"][less] if less else 0.0), 1) for case in cases]

    return rows


def losses(name: str, less: str | None = None) -> Callable[[list[Result]], Rows]:
    """Of each caption."""

    def rows(results: list[Result]) -> Rows:
        pairs = [pair for one in results for pair in zip(one[name], one[less or name], strict=True)]
        return [(image_id, total - (other if less else 0.0), n) for (image_id, total, n), (_, other, _) in pairs]

    return rows


METHODS = ("attention", "raw", "centre", "random")
FIGURES = {f"given, {method}": hits("given", method) for method in METHODS}
FIGURES |= {f"given, small, {method}": hits("given", method, SMALL_AREA) for method in METHODS}
FIGURES |= {f"own, {method}": hits("own", method) for method in METHODS}
FIGURES |= {f"{of}, attention less centre": hits(of, "attention", less="centre") for of in ("given", "own")}
FIGURES |= {"loss": losses("loss"), "loss, another's picture": losses("loss of another")}
FIGURES |= {"worth of the picture": losses("loss of another", less="loss")}
TABLES = (
    ("given, attention", "given, small, attention", "own, attention", "own, centre"),
    ("given, attention less centre", "own, attention less centre"),
    ("loss", "loss, another's picture", "worth of the picture"),
)


def summarise(results: dict[str, list[Result]], image_ids: list[int]) -> dict[str, dict[str, Any]]:
    """`results`: by arm, of each seed. The figures of each arm over all its seeds and of each of its `seeds`, and of
    each arm but the first less the first. `n`: phrases or captions, of all seeds; of a thing that fills less than
    SMALL_AREA of its picture if `small`."""
    bootstrap, figures, first = Bootstrap(image_ids), {}, next(iter(results))
    for arm, of in results.items():
        found: dict[str, Any] = {}
        for name, rows in FIGURES.items():
            seeds = [bootstrap(rows([one]))["mean"] for one in of]
            found[name] = {**bootstrap(rows(of)), "n": len(rows(of)), "seeds": seeds}
        figures[arm] = found
    for arm in [arm for arm in results if arm != first]:
        pairs = {name: (rows(results[arm]), rows(results[first])) for name, rows in FIGURES.items()}
        figures[f"{arm} less {first}"] = {name: bootstrap(*pair) for name, pair in pairs.items()}
    return figures


def tables(figures: dict[str, dict[str, Any]]) -> str:
    """Markdown: means with intervals, and in brackets those of each seed."""
    first = next(iter(figures.values()))
    points = {method: {f: first[f.replace("attention", method)] for f in TABLES[0][:2]} for method in METHODS[2:]}
    parts = []
    for columns in TABLES:
        rows = figures | points if columns is TABLES[0] else figures
        lines = [_line("", *columns), "|---" * (len(columns) + 1) + "|"]
        for name, found in rows.items():
            if found.keys() & set(columns):
                lines.append(_line(name, *[_cell(found.get(column)) for column in columns]))
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(of: dict[str, Any] | None) -> str:
    if of is None or of["mean"] is None:
        return ""
    text = f"{of['mean']:.3f} [{of['low']:.3f}, {of['high']:.3f}]"
    seeds = ["none" if seed is None else f"{seed:.3f}" for seed in of.get("seeds", [])]
    return f"{text} ({', '.join(seeds)})" if seeds else text
