"""The options of `aas ground`: those of the two stages that it does at once."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from aas.choices import Dtype, Kind
from aas.maps import names_of
from aas.photographs import is_shard
from aas.presets import LEFT_OUT, maps_for, preset_named
from aas.stages.answering_options import ServedOptions
from aas.stages.options import (
    ANSWER,
    ATTENTION,
    MASK,
    PHRASE,
    AttentionOptions,
    MaskOptions,
    ModelOptions,
    PhraseOptions,
    indices,
)
from aas.store.addresses import OF_RUN


@dataclass(frozen=True, kw_only=True)
class Ground(ServedOptions, MaskOptions, PhraseOptions, AttentionOptions, ModelOptions):
    """Answer a question about each image and ground every noun phrase of the answer."""

    images: Annotated[
        tuple[str, ...],
        Argument(
            metavar="IMAGE...",
            help="Images, folders, URLs, tar and parquet shards, quoted patterns; - reads one from stdin.",
        ),
    ]
    answer: Annotated[str | None, ANSWER(help="Ground these words instead of the model's own.")] = None
    out: Annotated[
        Path, Option(help="Folder or URL for NAME.json, NAME.png and report.html. Started again, it goes on.", **OF_RUN)
    ] = Path("grounded")
    as_json: Annotated[bool, Option("--json", help="Print one JSON line per image.")] = False
    png: Annotated[bool, Option("--png/--no-png", help="NAME.png: the picture with its masks beside the answer.")] = (
        True
    )
    # A field of AttentionOptions that may also be left out, as `heads`.
    maps: Annotated[
        str | None,
        ATTENTION(
            metavar="NAME[,NAME]",
            help="Map sources (`aas list maps`); the first of them points. Default: mean, of the embedded LMM a sum of "
            "two, unless something else is said of attention, or a preset named.",
        ),
    ] = None  # type: ignore[assignment]
    heads: Annotated[str | None, ATTENTION(help="all, or numbers: -2. Default: the preset's.")] = None
    drop: Annotated[
        tuple[Kind, ...],
        PHRASE(help="Phrases without a mask: pronouns, the unseen (the image, a side)."),
    ] = LEFT_OUT
    keep_all: Annotated[bool, PHRASE(help="A mask for every phrase, pronouns and the unseen too.")] = False
    segmenter_dtype: Annotated[Dtype, MASK(help="What its image encoder computes in.")] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_answer()
        self.check_masks()
        if self.answer is not None and not self.answer.strip():
            raise ValueError("--answer is empty: give the words to ground, or leave it out to let the model answer.")
        if self.answer is not None and self.answers is not None:
            raise ValueError("--answer is for all images, --answers has one for each: give one of them.")
        if self.answer is not None and self.answers_from is not None:
            raise ValueError("--answer gives the words, --answers-from asks a server for them: give one of them.")
        indices("--layers", self.layers), indices("--heads", self.heads or "all"), names_of(self.maps_used)
        if self.heads == "all" and preset_named(self.preset).heads is not None:
            raise ValueError(f"--preset {self.preset} averages other heads than all: leave --heads out, or the preset.")

    def inputs(self) -> dict[str, Any]:
        return super().inputs() | {"answers": self.answers}

    def deciding(self) -> dict[str, Any]:
        left_out = ("images", "as_json", "png", "keep_all")
        found = {name: value for name, value in super().deciding().items() if name not in left_out}
        return found | {
            "drop": self.left_out,
            "given_answers": self.answers is not None,
        }

    def stood_for(self) -> dict[str, Any]:
        return {"maps": self.maps_used, "preset": self.preset_used}

    @property
    def maps_used(self) -> str:
        """Names of map sources, as `Grounder` chooses them."""
        if self.maps is not None:
            return self.maps
        layers = indices("--layers", self.layers)
        return maps_for("" if self.adapter else self.model, layers, self.heads, self.alignment, self.preset)

    @property
    def left_out(self) -> tuple[Kind, ...]:
        """Kinds of phrases that get no mask."""
        return () if self.keep_all else self.drop

    @property
    def is_one_photograph(self) -> bool:
        """Whether something is asked about one file, once, and this process alone does it."""
        is_alone = not self.workers and self.gpus is None and self.engine == "local"
        one = self.images[0]
        return is_alone and len(self.images) == 1 and self.answers is None and os.path.isfile(one) and not is_shard(one)

    def grounder(self) -> dict[str, Any]:
        """Arguments of `aas.Grounder`."""
        same = ("model", "segmenter", "phrases", "device", "segmenter_dtype", "preset", "merge", "words", "reasoning",
                "prompt", "read_out", "mask_choice", "min_confidence", "head", "head_threshold", "answers_from",
                "answers_model", "in_flight")  # fmt: skip
        return {
            **{name: getattr(self, name) for name in same},
            **self.loading(),
            **self.asking(),
            "heads": indices("--heads", self.heads) if self.heads else None,
            "drop": self.left_out,
            "n_points": self.points,
            "n_negative": self.negative_points,
            "batch_size": None if self.batch_size == "auto" else int(self.batch_size),
        }
