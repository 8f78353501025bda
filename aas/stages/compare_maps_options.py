"""The options of `aas compare maps`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Option

from aas.choices import ReadOut
from aas.maps import names_of
from aas.presets import DEFAULT_QUESTION
from aas.stages.options import ANSWER, ATTENTION, MASK, PHRASE, RUN, ModelOptions
from aas.store.atomic import check_target


@dataclass(frozen=True, kw_only=True)
class CompareMaps(ModelOptions):
    """Compare map sources on photographs with masks or boxes: points, maps and masks, with paired intervals."""

    images: Annotated[Path, Option(help="Folder of the photographs.")]
    gt: Annotated[Path, Option(help="COCO instances: the photographs, categories, and masks or boxes.")]
    maps: Annotated[
        str,
        ATTENTION(metavar="NAME,NAME", help="Map sources (`aas list maps`); the others are held against the first."),
    ] = "mean,tam,attribution:attention,fused"
    read_out: Annotated[ReadOut, PHRASE(help="What the point of a map is.")] = "argmax"
    question: Annotated[str, ANSWER(help="What to ask about each image.")] = DEFAULT_QUESTION
    answers: Annotated[Path | None, ANSWER(help="Given answers, as for infer-attn. Default: the model's own.")] = None
    phrases: Annotated[str, PHRASE(help="spaCy pipeline with word vectors, which name categories.")] = "embedded"
    category_thresh: Annotated[float, PHRASE(help="Least cosine between a phrase and its category.")] = 0.7
    segmenter: Annotated[str, MASK(help="Whose masks are measured too.")] = "embedded"
    no_masks: Annotated[bool, MASK(help="Measure points and maps alone.")] = False
    no_deletion: Annotated[
        bool, ATTENTION(help="Leave out the deletion test, which takes a pass for each phrase and source.")
    ] = False
    costs: Annotated[int, RUN(min=0, help="Photographs on which each source is timed alone; 0 for none.")] = 3
    device: Annotated[str | None, RUN(help="cpu, cuda, cuda:1, ... Default: cuda if there is one.")] = None
    json_file: Annotated[Path | None, Option("--json", help="Write figures, differences and every phrase.")] = None
    page: Annotated[
        Path | None, Option(help="Write a page, as map-report.html: each photograph with all sources side by side.")
    ] = None
    n_resamples: Annotated[
        int, Option("--bootstrap", min=1, help="Resamples of the photographs, the same for all sources.")
    ] = 1000
    seed: Annotated[int, RUN(min=0, help="Of the resamples, and of the random cells of the deletion test.")] = 0

    def __post_init__(self) -> None:
        names = names_of(self.maps)
        if any(name.partition(":")[0] == "blackbox" for name in names):
            raise ValueError("--maps blackbox asks of each phrase in passes of its own: it is not compared here.")
        check_target(self.json_file)
        check_target(self.page)
