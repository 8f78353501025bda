"""Which categories of a COCO annotation the phrases of an image name: the instance task's own step."""

from collections.abc import Sequence
from pathlib import Path

from spacy.language import Language

from aas.phrases.categories import CategoryMatcher
from aas.pointing.phrases import Pointed
from aas.spellings import id_text
from aas.stages.segment_jobs import Annotation
from aas.stages.segment_options import Segment
from aas.text import read_lines

Category = tuple[int | str, str]  # id and name


class Categories:
    """Those that phrases may be given: the annotation's, or those that a file lists.

    Raises ValueError where there are none, or the pipeline has no word vectors.
    """

    def __init__(self, options: Segment, annotation: Annotation, pipeline: Language):
        self.options, self.present = options, annotation.present
        chosen = annotation.categories
        if options.categories not in ("present", "all"):
            chosen = _listed_in(options, annotation.categories)
        if not chosen:
            raise ValueError(f"{options.ref_anno} lists no categories.")
        self.ids = [category for category, _ in chosen]
        self.keys = [id_text(category) for category in self.ids]
        self.matcher = CategoryMatcher(pipeline, [name for _, name in chosen])

    def of(self, image_id: str | int, caption: str, pointed: Sequence[Pointed]) -> list[tuple[Pointed, Category]]:
        """Only the phrases that name a category, with it."""
        among = range(len(self.ids))
        if self.options.categories == "present":
            present = self.present.get(str(id_text(image_id)), frozenset())
            candidates = [i for i in among if self.keys[i] in present]
        else:
            candidates = list(among)
        named = []
        for one in pointed:
            best = self.matcher.best(one.phrase.root_in(caption), candidates)
            if best is not None and best[1] >= self.options.category_thresh:
                named.append((one, (self.ids[best[0]], self.matcher.names[best[0]])))
        return named


def _listed_in(options: Segment, known: Sequence[Category]) -> list[Category]:
    """All of the names that the file lists, in its order; several categories may have one name."""
    path = Path(options.categories)
    if not path.is_file():
        raise ValueError(f"--categories {options.categories!r}: give present, all, or a file of names.")
    wanted = [line.strip() for line in read_lines(path) if line.strip()]
    chosen = [[category for category in known if category[1] == name] for name in wanted]
    for name, found in zip(wanted, chosen, strict=True):
        if not found:
            raise ValueError(f"--categories {path}: {name!r} is no category of {options.ref_anno}.")
    return [category for found in chosen for category in found]
