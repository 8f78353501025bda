"""The options of `aas infer-attn`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from aas.choices import Keep
from aas.maps import names_of
from aas.photographs import Address
from aas.stages.answering_options import ServedOptions
from aas.stages.options import ATTENTION, IMAGES, AttentionOptions, ModelOptions, indices
from aas.store.addresses import OF_RUN


@dataclass(frozen=True, kw_only=True)
class InferAttn(ServedOptions, AttentionOptions, ModelOptions):
    """Ask a model about many images and store the attention of every answer token."""

    images: Annotated[
        Path | Address,
        IMAGES(help="Folder, list (a text file), URL (s3://…), or tar or parquet shards ('data/*.tar')."),
    ]
    out: Annotated[Path, Option(help="Run folder or URL: one file per image. Started again, it goes on.", **OF_RUN)]
    ref_anno: Annotated[Path | None, Option(help="COCO or GranD-f annotation: take its images only.")] = None
    heads: Annotated[str, ATTENTION(help="all, or numbers: -2.")] = "all"
    keep: Annotated[Keep, ATTENTION(help="One map, the mean of layers and heads; or one a layer; or all.")] = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_answer()
        indices("--layers", self.layers), indices("--heads", self.heads), names_of(self.maps)

    def inputs(self) -> dict[str, Any]:
        return super().inputs() | {"images": self.images, "ref_anno": self.ref_anno, "answers": self.answers}

    def deciding(self) -> dict[str, Any]:
        return super().deciding() | {"given_answers": self.answers is not None}
