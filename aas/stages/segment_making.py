"""What worker processes of `aas segment` make of a job: a photograph with its phrases and their prompts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from aas.images import ImageError, read_image
from aas.phrases.categories import CategoryMatcher
from aas.phrases.parser import load_pipeline
from aas.pointing.phrases import Pointed, point_phrases, prompted
from aas.records import Answer, AttentionMaps, Phrase
from aas.stages.segment_arguments import Segment
from aas.stages.segment_expressions import phrases_of
from aas.stages.segment_jobs import Annotation, SegmentJob, image_of
from aas.store import reference
from aas.store.attention import read_item


@dataclass(frozen=True)
class Made:
    """What a worker made of a job: a photograph with prompts, or the reason why there is none."""

    job: SegmentJob
    image: np.ndarray | None = None
    caption: str = ""
    question: str = ""
    pointed: tuple[Pointed, ...] = ()
    categories: tuple[tuple[int, str], ...] = ()  # id and name for each phrase of `pointed`, in the instance task
    error: str = ""


class Maker(Dataset):
    """From a job to a photograph with its phrases and their prompts. Needs no segmenter."""

    def __init__(self, arguments: Segment, annotation: Annotation | None):
        self.arguments, self.annotation = arguments, annotation
        self.options = arguments.pointing(mask_side=256)  # which the segmenter decides
        self.pipeline = load_pipeline(arguments.phrases)
        self.jobs: Sequence[SegmentJob] = ()
        self.tokenizer = None if arguments.tokenizer is None else reference.load_tokenizer(arguments.tokenizer)
        self.matcher: CategoryMatcher | None = None
        if arguments.task == "instance":
            self.category_ids, names = self._categories()
            self.matcher = CategoryMatcher(self.pipeline, names)

    def _categories(self) -> tuple[list[int], list[str]]:
        """Ids and names that phrases may be given: the annotation's, or those that a file lists."""
        assert self.annotation is not None
        listed = {entry["name"]: entry["id"] for entry in self.annotation.categories}
        if self.arguments.categories in ("present", "all"):
            wanted = list(listed)
        else:
            path = Path(self.arguments.categories)
            if not path.is_file():
                raise ValueError(f"--categories {self.arguments.categories!r}: give present, all, or a file of names.")
            wanted = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            unknown = [name for name in wanted if name not in listed]
            if unknown:
                raise ValueError(f"--categories {path}: {unknown[0]!r} is no category of {self.arguments.ref_anno}.")
        if not wanted:
            raise ValueError(f"{self.arguments.ref_anno} lists no categories.")
        return [listed[name] for name in wanted], wanted

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, index: int) -> Made:
        job = self.jobs[index]
        try:
            return self.make(job)
        except (ImageError, ValueError) as error:
            return Made(job, error=str(error))
        except Exception as error:  # whatever one image's trouble is, it costs nobody else's result
            return Made(job, error=f"{job.image}: {type(error).__name__}: {error}")

    def make(self, job: SegmentJob) -> Made:
        image = read_image(image_of(job))
        answer, attention = self._read(job.item, image.shape[:2])
        if job.row is None:
            pointed = point_phrases(self.pipeline, answer, attention, self.options, image.shape[:2])
        else:
            phrases = phrases_of(job.row, self.pipeline, answer, self.options.words)
            pointed = prompted(phrases, attention, self.options, image.shape[:2])
        made = Made(job, image, answer.text, answer.question, tuple(pointed))
        return made if self.matcher is None else self._categorized(made)

    def _read(self, path: Path, image_hw: tuple[int, int]) -> tuple[Answer, AttentionMaps]:
        if path.suffix == reference.SUFFIX:
            return self._read_reference(path, image_hw)
        item = read_item(path)
        if item.image_hw != image_hw:
            raise ValueError(f"{path} is about an image of another size than the one in --images.")
        if item.attention.maps.ndim != 3:
            raise ValueError(f"{path} keeps layers or heads apart: segmenting needs one map per token (--keep mean).")
        return item.answer, item.attention

    def _read_reference(self, path: Path, image_hw: tuple[int, int]) -> tuple[Answer, AttentionMaps]:
        if self.tokenizer is None:
            raise ValueError(f"{path}: items of the reference hold ids only: name their tokenizer with --tokenizer.")
        return reference.read_answer(path, image_hw, self.tokenizer, self.arguments.fit)

    def _categorized(self, made: Made) -> Made:
        """Only the phrases that name a category, with it."""
        assert self.matcher is not None and self.annotation is not None
        among: Sequence[int] = range(len(self.category_ids))
        if self.arguments.categories == "present":
            present = self.annotation.present.get(made.job.image_id, frozenset())
            among = [i for i in among if self.category_ids[i] in present]
        kept, categories = [], []
        for one in made.pointed:
            best = self.matcher.best(_root_word(made.caption, one.phrase), among)
            if best is not None and best[1] >= self.arguments.category_thresh:
                kept.append(one)
                categories.append((self.category_ids[best[0]], self.matcher.names[best[0]]))
        return replace(made, pointed=tuple(kept), categories=tuple(categories))


def _root_word(caption: str, phrase: Phrase) -> str:
    return caption[slice(*phrase.root_span)]
