"""Recipes: how a model is trained, as YAML, every value checked before anything is loaded.

A recipe is a frozen dataclass, as the options of every `aas` command are; those are checked by typer, which reads the
command line, and these by pydantic, since YAML has types of its own (it reads 1e-3 as text).
"""

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError
from pydantic.dataclasses import dataclass

EncoderOption = Literal[
    "resolution", "timestep", "up_block", "ensemble_size", "concat_clip", "implicit_caption", "positions"
]
Fraction = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Recipe:
    """One stage of training. Paths are relative to the current folder; models are folders or Hugging Face ids.

    What is begun with is `model`, or a new one of `llm`, `diffusion` and `clip`, or, if `synthetic`, a tiny random one
    with pictures of its own, made in `out`.
    """

    out: Path  # the model, and all about its training
    stage: Literal[1, 2]  # 1: projector and captioner. 2: also a LoRA on the LLM's linear layers

    model: str | None = None
    encoder: Literal["diffusion", "clip"] = "diffusion"  # clip: plain LLaVA-1.5
    llm: str | None = None
    diffusion: str | None = None
    clip: str | None = None
    encoder_options: dict[EncoderOption, int | bool] | None = None  # fields of DiffusionEncoderConfig
    synthetic: bool = False

    data: Path | None = None  # JSON in LLaVA's format
    images: Path | None = None  # the folder that its paths begin in
    template: Literal["plain", "chat"] = "chat"  # plain: image, answer, line break, as LLaVA's stage 1
    max_length: PositiveInt = 2048  # in tokens, the image's included; what is longer is cut off
    features: Path | None = None  # a folder that keeps what the diffusion encoder's untrained part makes

    epochs: PositiveFloat = 1.0
    max_steps: PositiveInt | None = None  # instead of epochs
    batch_size: PositiveInt = 128  # rows to a step, of all devices together
    device_batch_size: PositiveInt = 16  # rows at a time on one device
    group_by_length: bool = True
    projector_learning_rate: PositiveFloat = 2e-5  # the captioner's and the positions' too
    lora_learning_rate: PositiveFloat = 2e-4
    lora_rank: PositiveInt = 128
    lora_alpha: PositiveFloat = 256
    lora_dropout: Fraction = 0.05
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup: Fraction = 0.03  # share of all steps
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: NonNegativeFloat = 1.0
    seed: NonNegativeInt = 42

    precision: Literal["auto", "bfloat16", "float32"] = "auto"  # auto: bfloat16 where the device has it
    gradient_checkpointing: bool = False
    workers: NonNegativeInt = 4  # processes that read images
    deepspeed: Path | None = None  # its JSON
    log_steps: PositiveInt = 10
    save_steps: PositiveInt = 1000
    keep_checkpoints: PositiveInt = 1
    tensorboard: bool = False
    keep_adapter: bool = False  # out/adapter: what was trained, unmerged

    def __post_init__(self) -> None:
        needed = ("llm", "clip") if self.encoder == "clip" else ("llm", "diffusion")
        given = self.new_of()
        if [self.model is not None, bool(given), self.synthetic].count(True) != 1:
            raise ValueError(f"give one of: model; {' and '.join(needed)}; synthetic: true")
        if given and (missing := [name for name in needed if name not in given]):
            raise ValueError(f"a new model with encoder: {self.encoder} needs {' and '.join(missing)}")
        if self.encoder == "clip" and (self.diffusion or self.encoder_options or self.features):
            raise ValueError("encoder: clip takes no diffusion, encoder_options or features")
        if self.synthetic == (self.data is not None):
            raise ValueError("give data, a JSON file in LLaVA's format" if not self.synthetic else "synthetic has data")

    def new_of(self) -> dict[str, str]:
        """What a new model is made of: `llm`, `diffusion` and `clip`, those that are given."""
        parts = {"llm": self.llm, "diffusion": self.diffusion, "clip": self.clip}
        return {name: of for name, of in parts.items() if of is not None}

    def to_yaml(self) -> str:
        """As `read_recipe` reads it; values that are None are left out."""
        plain = {name: str(of) if isinstance(of, Path) else of for name, of in asdict(self).items()}
        return yaml.safe_dump({name: of for name, of in plain.items() if of is not None}, sort_keys=False)


def read_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """A recipe of a YAML file; `changes`: `key=value`, each instead of the file's. ValueError says what is wrong.

    A path as `recipes/tiny.yaml` that is not in the current folder is looked up among the recipes that ship.
    """
    path = _found(path)
    given = _mapping(path.read_text(encoding="utf-8"), str(path))
    for change in changes:
        if "=" not in change:
            raise ValueError(f"--set {change}: write key=value.")
        given |= _mapping(change.replace("=", ": ", 1), f"--set {change}")
    known = [field.name for field in fields(Recipe)]
    if unknown := sorted(map(str, given.keys() - set(known))):
        raise ValueError(f"{path}: unknown {', '.join(unknown)}. Known are {', '.join(known)}.")
    try:
        return Recipe(**given)
    except ValidationError as error:
        reasons = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}".removeprefix(": ") for e in error.errors()]
        raise ValueError(f"{path}: {'; '.join(reasons)}.") from error


def _found(path: Path) -> Path:
    if path.is_file():
        return path
    shipped = {Path("recipes", one.name): one for one in sorted(_shipped_folder().glob("*.yaml"))}
    if path not in shipped:
        raise FileNotFoundError(f"{path}: no such recipe. These ship: {', '.join(map(str, shipped))}.")
    return shipped[path]


def _shipped_folder() -> Path:
    """`recipes/` of a checkout is the package `difflmm.recipes` of an install (see setup.py)."""
    here = Path(__file__).resolve().parent
    return next((folder for folder in (here / "recipes", here.parent / "recipes") if folder.is_dir()), here / "recipes")


def _mapping(text: str, source: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{source} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{source} is not a list of keys and values.")
    return found
