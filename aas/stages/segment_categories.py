"""Which categories of a COCO annotation the phrases of an image name: the instance task's own step."""

from collections.abc import Sequence
from pathlib import Path

from spacy.language import Language

from aas.phrases.categories import CategoryMatcher
from aas.pointing.phrases import Pointed
from aas.stages.segment_jobs import Annotation
from aas.stages.segment_options import Segment
from aas.text import read_lines

Category = tuple[int, str]  # id and name


class Categories:
    """Those that phrases may be given: the annotation's, or those that a file lists.

    Raises ValueError where there are none, or the pipeline has no word vectors.
    """

    def __init__(self, options: Segment, annotation: Annotation, pipeline: Language):
        self.options, self.present = options, annotation.present
        listed = {entry["name"]: entry["id"] for entry in annotation.categories}
        names = list(listed) if options.categories in ("present", "all") else _listed_in(options, listed)
        if not names:
            raise ValueError(f"{options.ref_anno} lists no categories.")
        self.ids = [listed[name] for name in names]
        self.matcher = CategoryMatcher(pipeline, names)

    def of(self, image_id: str | int, caption: str, pointed: Sequence[Pointed]) -> list[tuple[Pointed, Category]]:
        """Only the phrases that name a category, with it."""
        among = range(len(self.ids))
        if self.options.categories == "present":
            present = self.present.get(image_id, frozenset())
            candidates = [i for i in among if self.ids[i] in present]
        else:
            candidates = list(among)
        named = []
        for one in pointed:
            best = self.matcher.best(caption[slice(*one.phrase.root_span)], candidates)
            if best is not None and best[1] >= self.options.category_thresh:
                named.append((one, (self.ids[best[0]], self.matcher.names[best[0]])))
        return named


def _listed_in(options: Segment, known: dict[str, int]) -> list[str]:
    path = Path(options.categories)
    if not path.is_file():
        raise ValueError(f"--categories {options.categories!r}: give present, all, or a file of names.")
    wanted = [line.strip() for line in read_lines(path) if line.strip()]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ValueError(f"--categories {path}: {unknown[0]!r} is no category of {options.ref_anno}.")
    return wanted
