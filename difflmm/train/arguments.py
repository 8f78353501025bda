"""A recipe as transformers' arguments, for this machine and its processes."""

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from difflmm.recipe import Recipe
from difflmm.train.folder import CHECKPOINTS


def training_arguments(recipe: Recipe) -> TrainingArguments:
    """Those of transformers, for this machine and, under torchrun or accelerate, all of its processes.

    Raises ValueError or FileNotFoundError for a batch that cannot be split, and for libraries or files that are not
    there.
    """
    if recipe.tensorboard and find_spec("tensorboard") is None:
        raise ValueError("tensorboard: true needs tensorboard: pip install tensorboard")
    if recipe.deepspeed is not None:
        _check_deepspeed(recipe.deepspeed)
    n_processes = int(os.environ.get("WORLD_SIZE", "1"))
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(recipe.out / "tensorboard")
    arguments = TrainingArguments(
        output_dir=str(recipe.out / CHECKPOINTS),
        gradient_accumulation_steps=_batches_to_a_step(recipe, n_processes),
        remove_unused_columns=False,
        label_names=["labels"],
        seed=recipe.seed,
        **_optimization(recipe),
        **_machine(recipe),
        **_logs_and_checkpoints(recipe),
    )
    if n_processes == 1 and arguments.n_gpu > 1:  # otherwise the Trainer would split each batch over threads
        arguments._n_gpu = 1
    return arguments


def _optimization(recipe: Recipe) -> dict[str, Any]:
    return {
        "num_train_epochs": recipe.epochs,
        "max_steps": recipe.max_steps or -1,
        "per_device_train_batch_size": recipe.device_batch_size,
        "learning_rate": recipe.projector_learning_rate,
        "lr_scheduler_type": recipe.schedule,
        "warmup_steps": recipe.warmup,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
    }


def _machine(recipe: Recipe) -> dict[str, Any]:
    return {
        "bf16": _is_bfloat16(recipe.precision),
        "activation_checkpointing": recipe.gradient_checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": False} if recipe.gradient_checkpointing else None,
        "dataloader_num_workers": recipe.workers,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "use_cpu": not torch.accelerator.is_available(),
        "deepspeed": str(recipe.deepspeed) if recipe.deepspeed else None,
    }


def _logs_and_checkpoints(recipe: Recipe) -> dict[str, Any]:
    return {
        "logging_steps": recipe.log_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "save_steps": recipe.save_steps,
        "save_total_limit": recipe.keep_checkpoints,
        "report_to": ["tensorboard"] if recipe.tensorboard else [],
    }


def _batches_to_a_step(recipe: Recipe, n_processes: int) -> int:
    """On each device."""
    n_batches, rest = divmod(recipe.batch_size, recipe.device_batch_size * n_processes)
    if rest:
        raise ValueError(
            f"batch_size {recipe.batch_size} is not a multiple of device_batch_size {recipe.device_batch_size} x "
            f"{n_processes} processes."
        )
    return n_batches


def _is_bfloat16(precision: str) -> bool:
    if precision == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bfloat16"


def _check_deepspeed(path: Path) -> None:
    if find_spec("deepspeed") is None:
        raise ValueError("deepspeed: pip install deepspeed")
    if not path.is_file():
        raise FileNotFoundError(f"deepspeed: {path}: no such file.")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"deepspeed: {path} is not JSON ({error}).") from error
    if settings.get("zero_optimization", {}).get("stage") == 3:
        raise ValueError(f"{path}: ZeRO-3 splits the weights, which then cannot be merged: take stage 2.")
