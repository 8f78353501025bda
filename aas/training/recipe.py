"""A recipe of `aas head train`: one YAML file."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from aas import registry
from aas.training.data import DataSource, Source, of_run
from aas.training.from_yaml import made

Entry = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained, on what, and how.

    `out`: a folder. `runs`: folders of results (`aas ground`, `segment gcg`, `segment expressions`, `aas import`),
    whose masks are the truth; `data`: datasets that `aas expressions` reads, each a mapping of `dataset`, its options,
    `images` and `n_photographs`; all of them together are learned from. `images`: of their photographs, where they say
    no other folder; `validation`: runs and datasets that are only measured. `cache`: keep what was captured, or capture
    it anew at each step. `head`: of `registry.MASK_HEADS`, `head_settings` its own arguments; `views`: the grids whose
    maps are stacked. `segmenter`: a SAM whose copy redraws the masks of heads that do so, none if null. `question`:
    what stands in front of the text.

    A step is `batch_size` photographs a process, whose losses are averaged; `epochs` says how many `steps` by the
    number of photographs. `learning_rate` rises over the first `warmup` of all steps and falls along a cosine to 0;
    gradients are clipped to the norm `clip`.
    """

    out: Path
    runs: list[Path] = field(default_factory=list)
    data: list[Entry] = field(default_factory=list)
    images: Path | None = None
    validation: list[Path | Entry] = field(default_factory=list)
    cache: bool = True
    head: str = "unet"
    head_settings: dict[str, Any] = field(default_factory=dict)
    views: int = 1
    model: str = "embedded"
    segmenter: str | None = "embedded"
    question: str = "Please give me a description of the image."
    batch_size: int = 1
    steps: int = 1000
    epochs: float | None = None
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    warmup: float = 0.03
    clip: float = 1.0
    precision: Literal["no", "bf16", "fp16"] = "no"
    save_steps: int = 500
    tensorboard: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        registry.known(registry.MASK_HEADS, self.head, "mask head")
        if min(self.batch_size, self.steps, self.save_steps) < 1 or not 0 <= self.warmup <= 1:
            raise ValueError("batch_size, steps and save_steps are at least 1, warmup is a share from 0 to 1.")
        if self.epochs is not None and self.epochs <= 0:
            raise ValueError("epochs: give more than 0.")
        if not self.runs and not self.data:
            raise ValueError("runs, data: name at least one folder of results or one dataset to learn from.")
        for one in (*self.data, *self.validation):
            if isinstance(one, dict):
                DataSource.of(one, self.images)

    def sources(self) -> tuple[list[Source], list[Source]]:
        """What is learned from, and what is only measured. Raises ValueError or OSError for what is not there."""
        learned = [*map(self._source, self.runs), *map(self._source, self.data)]
        return learned, [*map(self._source, self.validation)]

    def _source(self, one: Path | Entry) -> Source:
        return DataSource.of(one, self.images).read() if isinstance(one, dict) else of_run(one, self.images)

    def for_photographs(self, n: int, n_processes: int = 1) -> Self:
        """With as many steps as its epochs of `n` photographs take."""
        if self.epochs is None:
            return self
        steps = round(self.epochs * n / (n_processes * self.batch_size))
        return replace(self, steps=max(1, steps), epochs=None)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises ValueError for what is no recipe, OSError for what is not there."""
        import yaml

        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeError) as error:
            raise ValueError(f"{path} is no YAML ({str(error).splitlines()[0]}).") from error
        if not isinstance(content, dict):
            raise ValueError(f"{path} is no recipe: give names and values, `steps: 1000`.")
        if {"steps", "epochs"} <= content.keys():
            raise ValueError(f"{path}: give steps or epochs, not both.")
        try:
            return made(cls, content, "a recipe")
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
