"""A recipe of `aas head train`: one YAML file."""

from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from aas import registry


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained, on what, and how.

    `out`: a folder. `runs`: folders of results (`aas ground`, `segment gcg`, `segment expressions`, `aas import`),
    whose masks are the truth; `images`: of their photographs; `validation`: runs that are only measured. `head`: of
    `registry.MASK_HEADS`, `head_settings` its own arguments; `views`: the grids whose maps are stacked. `segmenter`: a
    SAM whose copy redraws the masks of heads that do so, none if null. `question`: what stands in front of the text.

    `learning_rate` rises over the first `warmup` of all `steps` and falls along a cosine to 0; gradients are clipped to
    the norm `clip`. A step is one photograph a process. `precision`: no, bf16 or fp16.
    """

    out: Path
    runs: list[Path]
    images: Path
    validation: list[Path] = field(default_factory=list)
    head: str = "unet"
    head_settings: dict[str, Any] = field(default_factory=dict)
    views: int = 1
    model: str = "embedded"
    segmenter: str | None = "embedded"
    question: str = "Please give me a description of the image."
    steps: int = 1000
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    warmup: float = 0.03
    clip: float = 1.0
    precision: str = "no"
    save_steps: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        registry.known(registry.MASK_HEADS, self.head, "mask head")
        if self.steps < 1 or self.save_steps < 1 or not 0 <= self.warmup <= 1:
            raise ValueError("steps and save_steps are at least 1, warmup is a share from 0 to 1.")
        if self.precision not in ("no", "bf16", "fp16"):
            raise ValueError(f"precision {self.precision!r}: give no, bf16 or fp16.")
        if not self.runs:
            raise ValueError("runs: name at least one folder of results to learn from.")

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
        known = {one.name: one for one in fields(cls)}
        unknown = sorted(map(str, content.keys() - known.keys()))
        lacking = [name for name, one in known.items() if _is_needed(one) and name not in content]
        if unknown or lacking:
            what = f"does not know {unknown[0]}" if unknown else f"lacks {lacking[0]}"
            raise ValueError(f"{path}: a recipe {what}. It has: {', '.join(known)}.")
        try:
            return cls(**{name: _as(known[name].type, value) for name, value in content.items()})
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error


def _is_needed(one: Any) -> bool:
    return one.default is MISSING and one.default_factory is MISSING


def _as(kind: Any, value: Any) -> Any:
    """What YAML holds as the field's type; TypeError for another. YAML takes 1e-4 for a word."""
    if kind is float:
        return float(value)
    if kind is Path:
        return Path(value)
    if kind == list[Path]:
        if not isinstance(value, list):
            raise TypeError(f"{value!r}: give a list of folders.")
        return [Path(one) for one in value]
    if kind is int and (not isinstance(value, int) or isinstance(value, bool)):
        raise TypeError(f"{value!r}: give a whole number.")
    return value
