"""What a run is made of beside its recipe, by fingerprints: whether it goes on with the same after a break."""

import json
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from torch import Tensor
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from difflmm.data.conversations import Conversations
from difflmm.recipe import Recipe
from difflmm.train.adapter import PROJECTOR

SOURCES = "sources.json"
ENDS = 64  # numbers at the beginning and the end of each weight: a model trained anew has others everywhere


def sources_of(
    recipe: Recipe, model: LlavaForConditionalGeneration, processor: LlavaProcessor, data: Conversations
) -> dict[str, str]:
    """What is trained, and on what, each as a short fingerprint, by the words that an error has for it.

    What a new model has at random is left out: a checkpoint holds it.
    """
    is_new = recipe.model is None
    weights = (
        (name, weight)
        for name, weight in model.state_dict().items()
        if not (is_new and any(part in name for part in PROJECTOR))
    )
    images = (data.digests[row.image] if row.image else "" for row in data.rows)
    settings = (processor.image_processor.to_json_string(), str(processor.chat_template))
    return {
        "number of rows": str(len(data)),
        "rows of the data": _digest(json.dumps(row.texts) for row in data.rows),
        "images": _digest(images),
        "model": _digest(f"{name} {list(weight.shape)} {_ends(weight)}" for name, weight in weights),
        "tokenizer or processor": _digest([*settings, processor.tokenizer.backend_tokenizer.to_str()]),
        "precision": str(model.dtype).removeprefix("torch."),
        "deepspeed settings": _digest([recipe.deepspeed.read_text(encoding="utf-8")] if recipe.deepspeed else []),
    }


def check_sources(out: Path, checkpoint: str | None, found: dict[str, str]) -> None:
    """ValueError where `checkpoint` in `out` was made of something else than `found`, unless nothing is noted of it."""
    path = out / SOURCES
    if checkpoint is None or not path.is_file():
        return
    try:
        noted = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): remove it to go on without the check.") from error
    changed = [what for what, value in found.items() if noted.get(what, value) != value]
    if changed:
        told = ", ".join(_told(what, noted, found) for what in changed)
        raise ValueError(
            f"{checkpoint} was made with other {told}: put back what it was made with, take another out, or remove "
            f"{Path(checkpoint).parent} to begin again."
        )


def note_sources(out: Path, found: dict[str, str]) -> None:
    """Into `out`, at once or not at all."""
    part = out / f".{SOURCES}.part"
    part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    part.replace(out / SOURCES)


def _told(what: str, noted: dict[str, str], found: dict[str, str]) -> str:
    is_plain = what in ("number of rows", "precision")
    return f"{what} ({noted[what]} then, {found[what]} now)" if is_plain else what


def _digest(parts: Iterable[str]) -> str:
    found = sha256()
    for part in parts:
        found.update(part.encode("utf-8", "surrogatepass") + b"\n")
    return found.hexdigest()[:16]


def _ends(weight: Tensor) -> list[float]:
    flat = weight.flatten()
    return [*flat[:ENDS].tolist(), *flat[-ENDS:].tolist()]
