"""What is trained on: a recipe's rows and images, those that are made for it, and features that are kept."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor, TrainingArguments

from difflmm.data.conversations import Conversations
from difflmm.data.images import check_images, noise_seed
from difflmm.data.rows import Row, Skipped, read_rows, summary
from difflmm.data.tokens import RowTokenizer
from difflmm.recipe import Recipe

LEAST_TEXT = 32  # tokens that a conversation needs beside its image
NO_IMAGE = "no image, and stage 1 trains nothing but what reads images"


def with_synthetic(recipe: Recipe, arguments: TrainingArguments) -> Recipe:
    """The same recipe with models and data that are made for it."""
    from difflmm.synthetic import SIDE, write_models, write_pictures

    folder = recipe.out / "synthetic"
    with arguments.main_process_first():
        if arguments.should_save:
            write_models(folder)
            write_pictures(folder / "pictures")
    changes: dict[str, Any] = {"llm": str(folder / "llm"), "clip": str(folder / "clip"), "synthetic": False}
    changes |= {"data": folder / "pictures/data.json", "images": folder / "pictures"}
    if recipe.encoder == "diffusion":
        options = {"resolution": SIDE} | (recipe.encoder_options or {})
        changes |= {"diffusion": str(folder / "diffusion"), "encoder_options": options}
    return Recipe(**(asdict(recipe) | changes))


def usable_rows(recipe: Recipe, arguments: TrainingArguments) -> tuple[list[Row], list[Skipped], dict[Path, str]]:
    """Rows of `recipe.data` whose image can be read, the others, and each image's SHA-256. Raises ValueError or
    FileNotFoundError where there is no row to train on.

    In stage 1 rows without an image are left out: a batch of them alone has no gradient.
    """
    assert recipe.data is not None  # a Recipe has it, or is synthetic
    rows, skipped = read_rows(recipe.data, recipe.images, recipe.template == "plain")
    if recipe.stage == 1:
        skipped += [Skipped(row.index, row.id, NO_IMAGE) for row in rows if row.image is None]
        rows = [row for row in rows if row.image is not None]
    n_threads = max(1, recipe.workers)
    rows, broken, digests = check_images(rows, n_threads, arguments.process_index, arguments.world_size)
    skipped = sorted(skipped + broken, key=lambda each: each.index)
    if not rows:
        raise ValueError(f"{recipe.data}: no row can be used. {summary(skipped)}")
    return rows, skipped, digests


def conversations(
    recipe: Recipe,
    arguments: TrainingArguments,
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    rows: Sequence[Row],
    digests: dict[Path, str],
) -> Conversations:
    """`rows` for `model`; where the recipe keeps features, they are made here. Raises ValueError where the recipe does
    not fit the model."""
    n_cells = model.config.image_seq_length
    if recipe.max_length < n_cells + LEAST_TEXT:
        raise ValueError(f"max_length {recipe.max_length} is too little: an image alone takes {n_cells} tokens.")
    tokenize = RowTokenizer(processor, n_cells, recipe.max_length, recipe.template == "plain")
    is_diffusion = model.config.model_type == "difflmm"
    data = Conversations(list(rows), tokenize, digests, recipe.seed, needs_noise=is_diffusion)
    if recipe.features is not None:
        if not is_diffusion:
            raise ValueError(f"features are kept of a diffusion encoder, and {recipe.model} has none: leave it out.")
        data.features = _features(recipe.features, recipe, arguments, model, data)
    return data


def _features(
    folder: Path,
    recipe: Recipe,
    arguments: TrainingArguments,
    model: LlavaForConditionalGeneration,
    data: Conversations,
) -> Any:
    """The cache, with all images of `data` in it; each process makes its share."""
    from difflmm.data.features import FeatureCache, fill, fingerprint

    image_processor, encoder = data.tokenize.processor.image_processor, model.model.vision_tower.to(arguments.device)
    cache = FeatureCache(folder, fingerprint(encoder, image_processor.to_json_string(), str(encoder.dtype)))
    paths = dict.fromkeys(row.image for row in data.rows if row.image)
    images = [(path, data.digests[path], noise_seed(data.digests[path], recipe.seed)) for path in paths]
    share = images[arguments.process_index :: arguments.world_size]
    autocast = torch.autocast(arguments.device.type, torch.bfloat16) if arguments.bf16 else nullcontext()
    fill(cache, share, data.pixels, encoder, autocast, recipe.device_batch_size, recipe.workers)
    if arguments.world_size > 1:
        torch.distributed.barrier()
    return cache
