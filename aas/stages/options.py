"""The options that stages share, in groups. A stage's options are a dataclass of some groups and fields of its own; its
command has exactly these. Nothing heavy is imported here: `aas --help` reads it."""

import os
from dataclasses import MISSING, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Option

from aas.choices import (
    HEAD_THRESHOLD,
    TRAINING_FREE,
    Alignment,
    Dtype,
    Kind,
    MaskChoice,
    Merge,
    PresetName,
    PromptKind,
    Quantize,
    ReadOut,
    Words,
)
from aas.engine.chunks import Chunk, chunk_said_by
from aas.maps import DEFAULT, calibrations_of
from aas.photographs import located
from aas.presets import DEFAULT_QUESTION, PAPER, preset_named
from aas.store.fingerprints import fingerprint

OF_FILES = (
    "model",
    "base",
    "adapter",
    "segmenter",
    "phrases",
    "answers",
    "questions",
    "attn",
    "tokenizer",
    "categories",
    "head",
)
# Options that runs of before do not have, and what stands for having none: such a run can be gone on with.
OF_LATE = {
    "maps": DEFAULT,
    "read_out": "argmax",
    "min_confidence": None,
    "head": None,
    "head_threshold": HEAD_THRESHOLD,
}
MODEL = partial(Option, rich_help_panel="Model")
ANSWER = partial(Option, rich_help_panel="Answer")
ATTENTION = partial(Option, rich_help_panel="Attention")
PHRASE = partial(Option, rich_help_panel="Phrases and prompts")
MASK = partial(Option, rich_help_panel="Masks")
RUN = partial(Option, rich_help_panel="How it runs")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """When and where results are made; none of it decides what they are."""

    num_chunks: Annotated[
        int | None, RUN(min=1, help="Split the images into so many parts … Default: as torchrun or SLURM's array says.")
    ] = None
    chunk_idx: Annotated[int | None, RUN(min=0, help="… and do this one (from 0).")] = None
    batch_size: Annotated[str, RUN(help="Images at once, or auto: halved where memory does not suffice.")] = "auto"
    workers: Annotated[int | None, RUN(min=0, help="Processes that read images. Default: by cores.")] = None
    device: Annotated[str | None, RUN(help="cpu, cuda, cuda:1, ... Default: cuda if there is one.")] = None
    gpus: Annotated[
        str | None, RUN(help="all, or numbers: 0,1,2. A process for each, over one queue; also names of devices.")
    ] = None
    workers_per_gpu: Annotated[int, RUN(min=1, help="With --gpus: so many processes for each, of small models.")] = 1
    engine: Annotated[
        Literal["local", "ray"], RUN(help="Who does the images: this machine, or actors of a Ray cluster.")
    ] = "local"
    actors: Annotated[
        str,
        RUN(metavar="N|MIN:MAX", help="With --engine ray: actors; above MIN one joins while all are busy."),
    ] = "1"
    address: Annotated[str | None, RUN(help="With --engine ray: the cluster's, or auto. Default: its own.")] = None
    only: frozenset[str] | None = None  # the keys that `aas retry` tries again

    def __post_init__(self) -> None:
        chunk = self.chunk
        if not 0 <= chunk.index < chunk.count:
            raise ValueError(f"--chunk-idx {chunk.index} must be at least 0 and below --num-chunks {chunk.count}.")
        if self.gpus is not None and self.device is not None:
            raise ValueError("--gpus and --device both say where models run: give one of them.")
        if self.engine == "ray" and self.gpus is not None:
            raise ValueError("--engine ray takes GPUs from the cluster: leave --gpus out, and give --actors.")
        if self.engine != "ray" and (self.address is not None or str(self.actors) != "1"):
            raise ValueError("--actors and --address are of --engine ray.")
        self.least_and_most_actors  # noqa: B018
        if self.batch_size != "auto" and (not self.batch_size.isdigit() or int(self.batch_size) == 0):
            raise ValueError(f"--batch-size {self.batch_size!r}: give auto or a number above 0.")

    @property
    def chunk(self) -> Chunk:
        """The part of the items that this process does."""
        if self.num_chunks is None and self.chunk_idx is None:
            return chunk_said_by(os.environ)
        return Chunk(self.num_chunks or 1, self.chunk_idx or 0)

    @property
    def least_and_most_actors(self) -> tuple[int, int]:
        """Of --actors; ValueError for what says neither."""
        parts = str(self.actors).split(":")  # a number in run.json of before
        if len(parts) > 2 or not all(part.isdecimal() for part in parts) or not 0 < int(parts[0]) <= int(parts[-1]):
            raise ValueError(f"--actors {self.actors!r}: give a number above 0, or MIN:MAX, as 2:16.")
        return int(parts[0]), int(parts[-1])

    def images_at_once(self, by_device: dict[str, int], device: str) -> int:
        """`by_device`: what auto stands for, by type of device; 1 where that is not named."""
        return by_device.get(device, 1) if self.batch_size == "auto" else int(self.batch_size)

    def by_item(self, is_small: bool, device: str) -> bool:
        """Whether each worker does whole images: with small models on a CPU, unless batches are asked for."""
        return is_small and device == "cpu" and self.batch_size in ("auto", "1")

    def inputs(self) -> dict[str, Any]:
        """What the results are made of: noted in run.json, and free to move between two starts."""
        return {}

    def given(self) -> dict[str, Any]:
        """What `aas retry` needs to make the same options again: those that are no defaults, as JSON has them."""
        mine = ("num_chunks", "chunk_idx", "only", "out")
        values = ((f, getattr(self, f.name)) for f in fields(self) if f.name not in mine)
        return {f.name: _as_json(value) for f, value in values if value != f.default}

    def noted(self) -> dict[str, Any]:
        """What run.json says of them beside those that decide."""
        inputs = {name: None if path is None else str(path) for name, path in self.inputs().items()}
        return {"inputs": inputs, "options": self.given()}

    def deciding(self) -> dict[str, Any]:
        """Those that decide what the results are: a run folder is filled with the same ones only."""
        elsewhere = {field.name for field in fields(RunOptions)} | set(self.inputs()) | {"out"}
        found = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in elsewhere}
        found |= self.stood_for()
        found = {name: value for name, value in found.items() if OF_LATE.get(name, MISSING) != value}
        return found | {"files": self.fingerprints()}

    def stood_for(self) -> dict[str, Any]:
        """What options that may be left out stand for, here."""
        return {}

    def fingerprints(self) -> dict[str, str]:
        """Option -> fingerprint of what it names here: other files of the same name make other results."""
        given = {name: getattr(self, name, None) for name in OF_FILES}
        given |= {f"maps {name}": file for name, file in calibrations_of(getattr(self, "maps", None)).items()}
        found = {name: fingerprint(Path(value)) for name, value in given.items() if value not in (None, "embedded")}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which LMM, and how it is loaded."""

    model: Annotated[str, MODEL(help="LMM: embedded, a Hugging Face id (id@revision) or a folder.")] = "embedded"
    base: Annotated[str | None, MODEL(help="Base LLM of a LoRA checkpoint in LLaVA's own format.")] = None
    adapter: Annotated[str | None, MODEL(help="LoRA adapter (peft) to merge into the model.")] = None
    dtype: Annotated[Dtype, MODEL(help="What it computes in.")] = "auto"
    quantize: Annotated[Quantize | None, MODEL(help="Round its weights, with bitsandbytes.")] = None
    device_map: Annotated[str | None, MODEL(help="auto spreads it over all GPUs, with accelerate.")] = None

    def loading(self) -> dict[str, Any]:
        """Arguments of `aas.lmms.load_lmm` beside the model and the device."""
        return {name: getattr(self, name) for name in ("base", "adapter", "dtype", "quantize", "device_map")}


@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """What is asked, and how the model answers."""

    question: Annotated[str, ANSWER(help="What to ask about each image.")] = DEFAULT_QUESTION
    answers: Annotated[
        Path | None,
        ANSWER(help='Given answers: JSON lines {"image": …, "answer": …}. With "question" only, asked.'),
    ] = None
    max_new_tokens: Annotated[
        int | None, ANSWER(min=1, help="Longest answer, in tokens. Default: the model's own limit, or 512.")
    ] = None
    temperature: Annotated[float, ANSWER(help="0 is greedy; above, tokens are drawn.")] = 0.0
    top_p: Annotated[float, ANSWER(help="Draw from the likeliest tokens of this total.")] = 1.0
    num_beams: Annotated[int, ANSWER(help="Must be 1: a beam search has no attention of its answer.")] = 1
    seed: Annotated[int, ANSWER(help="Of every image's own generator.")] = 0

    def check_answer(self) -> None:
        """Raises ValueError for options that cannot work."""
        if self.num_beams != 1:
            raise ValueError(
                "--num-beams: with beam search the rows of a step belong to beams that are dropped later, so there is "
                "no attention of the answer. Take --num-beams 1, or write the answers elsewhere and pass --answers."
            )
        if self.temperature < 0:
            raise ValueError("--temperature must not be negative; 0 is greedy.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"--top-p {self.top_p} must be above 0 and at most 1.")
        self.check_question()

    def check_question(self) -> None:
        """Raises ValueError where nothing is asked."""
        if not self.question.strip():
            raise ValueError("--question is empty.")


@dataclass(frozen=True, kw_only=True)
class AttentionOptions(AnswerOptions):
    """How the model answers, and which of its attention counts."""

    layers: Annotated[str, ATTENTION(help="all, or numbers: 0,1,-1.")] = "all"
    alignment: Annotated[Alignment, ATTENTION(help="The row that predicts the token, or the token's own.")] = "predict"
    view: Annotated[str | None, ATTENTION(help="Of models with several grids: its name, or combined.")] = None
    maps: Annotated[
        str, ATTENTION(metavar="NAME[,NAME]", help="Map sources (`aas list maps`); the first of them points.")
    ] = DEFAULT

    def asking(self) -> dict[str, Any]:
        """Arguments of `aas.asking.ask_options`, without heads and what is kept of them."""
        same = ("alignment", "view", "maps", "max_new_tokens", "temperature", "top_p", "seed")
        return {"layers": indices("--layers", self.layers)} | {name: getattr(self, name) for name in same}


@dataclass(frozen=True, kw_only=True)
class PhraseOptions:
    """Which phrases, which of their tokens, and what is shown to the segmenter."""

    phrases: Annotated[str, PHRASE(help="spaCy pipeline: embedded, a package name or a folder.")] = "embedded"
    preset: Annotated[
        PresetName | None, PHRASE(help="The published method, or what the authors' releases do. Default: paper.")
    ] = None
    merge: Annotated[Merge | None, PHRASE(help="Tokens of a phrase to one map. Default: the preset's.")] = None
    words: Annotated[Words, PHRASE(help="Tokens of the root word, or of the whole chunk.")] = "root"
    drop: Annotated[tuple[Kind, ...], PHRASE(help="Leave out pronouns, or the unseen (the image, a side).")] = ()
    reasoning: Annotated[bool, PHRASE(help="Ground what stands between <think> and </think> too.")] = False
    prompt: Annotated[PromptKind, PHRASE(help="Points at the map's peaks, or the map as a coarse mask.")] = "point"
    points: Annotated[int, PHRASE(min=1, help="Peaks that become points, at most.")] = 1
    negative_points: Annotated[int, PHRASE(min=0, help="Troughs that become negative points, at most.")] = 0
    read_out: Annotated[
        ReadOut, PHRASE(help="The first point: largest, centroid above the mean, or in the largest region above it.")
    ] = "argmax"

    @property
    def preset_used(self) -> PresetName:
        """The paper's, unless another is named."""
        return self.preset or PAPER

    @property
    def merge_used(self) -> Merge:
        """How the maps of a phrase's tokens become one."""
        return self.merge or preset_named(self.preset).merge


def head_file(name: str) -> str | None:
    """What `--head` names: a head, or nothing where masks are to be made without training."""
    return None if name == TRAINING_FREE else name


@dataclass(frozen=True, kw_only=True)
class MaskOptions:
    """Which segmenter, and which of its masks."""

    segmenter: Annotated[
        str,
        MASK(
            help="embedded, a Hugging Face id of a SAM, a folder, or a file as sam_vit_h_4b8939.pth; map: none, masks "
            "are what maps have above Otsu's threshold."
        ),
    ] = "embedded"
    mask_choice: Annotated[MaskChoice, MASK(help="Which of three masks.")] = "last"
    min_confidence: Annotated[
        float | None, MASK(min=0, max=1, help="Leave out phrases that the picture supports less (docs/maps.md).")
    ] = None
    head: Annotated[
        str | None,
        MASK(
            parser=head_file,
            metavar="NAME|FILE",
            help="Mask head that was trained on the model, which makes the masks: a file, a folder, a Hugging Face id "
            f"or a name (docs/heads.md). {TRAINING_FREE}, the default: none.",
        ),
    ] = None
    head_threshold: Annotated[
        float, MASK(help="With --head: a pixel's probability above which it belongs to the mask.")
    ] = HEAD_THRESHOLD

    def check_masks(self) -> None:
        """Raises ValueError for options that cannot go together."""
        if self.head is not None and self.mask_choice != "last":
            raise ValueError(f"--head makes one mask of a phrase: --mask-choice {self.mask_choice} has none to choose.")
        if not 0 < self.head_threshold < 1:
            raise ValueError(f"--head-threshold {self.head_threshold}: give a probability above 0 and below 1.")
        if self.head is None and self.head_threshold != HEAD_THRESHOLD:
            raise ValueError("--head-threshold is of --head, which is not given.")


IMAGES = partial(Option, parser=located, metavar="PLACE")  # `Path | Address`


def _as_json(value: Any) -> Any:
    return str(value.absolute()) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value


def indices(option: str, text: str) -> tuple[int, ...] | None:
    """`all` is None, `0,5,-2` numbers; ValueError for anything else."""
    if text == "all":
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{option} {text!r}: give all or numbers with commas between, like 0,5,-2.") from None
