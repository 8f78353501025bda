"""Training in two stages, on transformers' Trainer and peft: the projector first, then a LoRA on the LLM with it.

Only what is trained is in a checkpoint: projector, captioner and LoRA are one peft adapter, in both stages. Checkpoints
hold the Trainer's own state besides (optimizer.pt, scheduler.pt, rng_state.pth: tensors and numbers, which the Trainer
reads with `weights_only=True`); the model in the end is safetensors.
"""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.constants import DUMMY_TARGET_MODULES
from torch import Tensor, nn
from transformers import (
    LlavaForConditionalGeneration,
    LlavaProcessor,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer import TRAINER_STATE_NAME

from difflmm.checkpoint import load_checkpoint
from difflmm.data import (
    Collator,
    Conversations,
    EpochSampler,
    Row,
    Skipped,
    Texts,
    check_images,
    noise_seed,
    read_rows,
    summary,
)
from difflmm.new_models import new_difflmm, new_llava
from difflmm.recipe import Recipe

PROJECTOR = ("multi_modal_projector", "captioner")
LLM = "model.language_model"
CHECKPOINTS, RECIPE, SKIPPED, LOG = "checkpoints", "recipe.yaml", "skipped.jsonl", "log.jsonl"
ROOM = 32  # tokens that a conversation needs beside its image, at least


def train(recipe: Recipe) -> Path:
    """Trains as `recipe` says, from the last checkpoint in `recipe.out` if there is one; returns `recipe.out`.

    Leaves there the model (LoRA merged) and its processor in transformers' format, `checkpoints/`, `recipe.yaml`,
    `log.jsonl`, and `skipped.jsonl` if rows could not be used. Raises ValueError or FileNotFoundError for a recipe,
    data or a checkpoint that cannot be used.
    """
    last = checked_checkpoint(recipe)
    arguments = training_arguments(recipe)
    set_seed(recipe.seed)
    plan = _with_synthetic(recipe, arguments) if recipe.synthetic else recipe
    rows, skipped, digests = _usable_rows(plan, arguments)
    dtype = torch.bfloat16 if arguments.bf16 else torch.float32
    model, processor = starting_model(plan, dtype)
    data = conversations(plan, arguments, model, processor, rows, digests)
    skipped += data.skipped
    if not len(data):
        raise ValueError(f"{plan.data}: no row can be used. {summary(skipped)}")
    if arguments.should_save:
        _report(recipe, skipped, len(data))
    set_seed(recipe.seed)  # the LoRA begins the same, whatever was done before
    adapted = with_adapter(model, plan)
    arguments.ddp_find_unused_parameters = any(row.image is None for row in data.rows)
    trainer = StageTrainer(plan, adapted, arguments, data, Collator(_pad_id(processor), dtype))
    trainer.train(resume_from_checkpoint=last)
    if arguments.should_save:
        save(adapted, processor, recipe.out, dtype, recipe.keep_adapter)
    # A process that ends while another still saves, or with its connections open, may be taken for one that failed.
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
    return recipe.out


# --------------------------------------------------------------------------------------------------- beforehand


def training_arguments(recipe: Recipe) -> TrainingArguments:
    """Those of transformers, for this machine and, under torchrun or accelerate, all of its processes."""
    if recipe.tensorboard and find_spec("tensorboard") is None:
        raise ValueError("tensorboard: true needs tensorboard: pip install tensorboard")
    n_processes = int(os.environ.get("WORLD_SIZE", "1"))
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(recipe.out / "tensorboard")
    arguments = TrainingArguments(
        output_dir=str(recipe.out / CHECKPOINTS),
        num_train_epochs=recipe.epochs,
        max_steps=recipe.max_steps or -1,
        per_device_train_batch_size=recipe.device_batch_size,
        gradient_accumulation_steps=_batches_to_a_step(recipe, n_processes),
        learning_rate=recipe.projector_learning_rate,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        bf16=_is_bfloat16(recipe.precision),
        activation_checkpointing=recipe.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if recipe.gradient_checkpointing else None,
        dataloader_num_workers=recipe.workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not torch.accelerator.is_available(),
        remove_unused_columns=False,
        label_names=["labels"],
        logging_steps=recipe.log_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_steps=recipe.save_steps,
        save_total_limit=recipe.keep_checkpoints,
        report_to=["tensorboard"] if recipe.tensorboard else [],
        deepspeed=str(recipe.deepspeed) if recipe.deepspeed else None,
        seed=recipe.seed,
    )
    if n_processes == 1 and arguments.n_gpu > 1:  # otherwise the Trainer would split each batch over threads
        arguments._n_gpu = 1
    return arguments


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


def checked_checkpoint(recipe: Recipe) -> str | None:
    """The last one in `recipe.out`, if any; ValueError if the folder is another's."""
    folder, path = recipe.out / CHECKPOINTS, recipe.out / RECIPE
    if (recipe.out / "config.json").is_file():
        raise ValueError(f"{recipe.out} holds a finished model: remove it, or take another out.")
    if recipe.deepspeed is not None:
        _check_deepspeed(recipe.deepspeed)
    last = _last_whole(folder)
    if last is not None and path.is_file() and path.read_text(encoding="utf-8") != recipe.to_yaml():
        raise ValueError(f"{last} was made by another recipe ({path}): go on with that one, or take another out.")
    return last


def _last_whole(folder: Path) -> str | None:
    """The last checkpoint, but for one that was broken off: the Trainer's state is written last."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.rpartition("-")[2])):
        try:
            json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return str(checkpoint)
    return None


def _check_deepspeed(path: Path) -> None:
    if find_spec("deepspeed") is None:
        raise ValueError("deepspeed: pip install deepspeed")
    if not path.is_file():
        raise FileNotFoundError(f"deepspeed: {path}: no such file.")
    if json.loads(path.read_text(encoding="utf-8")).get("zero_optimization", {}).get("stage") == 3:
        raise ValueError(f"{path}: ZeRO-3 splits the weights, which then cannot be merged: take stage 2.")


def _with_synthetic(recipe: Recipe, arguments: TrainingArguments) -> Recipe:
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


def _usable_rows(recipe: Recipe, arguments: TrainingArguments) -> tuple[list[Row], list[Skipped], dict[Path, str]]:
    assert recipe.data is not None
    rows, malformed = read_rows(recipe.data, recipe.images, recipe.template == "plain")
    n_threads = max(1, recipe.workers)
    rows, broken, digests = check_images(rows, n_threads, arguments.process_index, arguments.world_size)
    if not rows:
        raise ValueError(f"{recipe.data}: no row can be used. {summary(malformed + broken)}")
    return rows, malformed + broken, digests


def _report(recipe: Recipe, skipped: list[Skipped], n_used: int) -> None:
    """What is trained on, into `recipe.out`; on stderr, how many rows are not."""
    recipe.out.mkdir(parents=True, exist_ok=True)
    (recipe.out / RECIPE).write_text(recipe.to_yaml(), encoding="utf-8")
    lines = [json.dumps({"row": each.at, "id": each.id, "error": each.error}) + "\n" for each in skipped]
    (recipe.out / SKIPPED).unlink(missing_ok=True)
    if lines:
        (recipe.out / SKIPPED).write_text("".join(lines), encoding="utf-8")
        told = f"{len(skipped)} of {len(skipped) + n_used} rows are skipped: {summary(skipped)}"
        print(f"{told}. See {recipe.out / SKIPPED}", file=sys.stderr)


# ------------------------------------------------------------------------------------------------------ a model


def starting_model(recipe: Recipe, dtype: torch.dtype) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """What training begins with; what is new in it is random."""
    if recipe.model is not None:
        return load_checkpoint(recipe.model, dtype=dtype)
    assert recipe.llm is not None
    if recipe.encoder == "clip":
        assert recipe.clip is not None
        return new_llava(recipe.llm, recipe.clip, dtype)
    assert recipe.diffusion is not None
    return new_difflmm(recipe.llm, recipe.diffusion, recipe.clip, dtype, **(recipe.encoder_options or {}))


def with_adapter(model: LlavaForConditionalGeneration, recipe: Recipe) -> PeftModel:
    """`model`, of which only what the stage trains has gradients, in float32: projector and captioner (with their
    positions), and in stage 2 a LoRA on every linear layer of the LLM."""
    modules = {name: name.rpartition(".")[2] for name, _ in model.named_modules()}
    llm = model.model.language_model
    linear = {modules[name] for name, of in llm.named_modules(prefix=LLM) if isinstance(of, nn.Linear)}
    config = LoraConfig(
        target_modules=DUMMY_TARGET_MODULES if recipe.stage == 1 else rf"{LLM}\..+\.({'|'.join(sorted(linear))})",
        modules_to_save=[name for name in PROJECTOR if name in modules.values()],
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
    )
    adapted = get_peft_model(model, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def conversations(
    recipe: Recipe,
    arguments: TrainingArguments,
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    rows: Sequence[Row],
    digests: dict[Path, str],
) -> Conversations:
    n_cells = model.config.image_seq_length
    if recipe.max_length < n_cells + ROOM:
        raise ValueError(f"max_length {recipe.max_length} is too little: an image alone takes {n_cells} tokens.")
    texts = Texts(processor, n_cells, recipe.max_length, recipe.template == "plain")
    is_diffusion = model.config.model_type == "difflmm"
    data = Conversations(list(rows), texts, digests, recipe.seed, needs_noise=is_diffusion)
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
    """The cache, with all images of `data` in it."""
    from difflmm.features import FeatureCache, fill, fingerprint

    image_processor, encoder = data.texts.processor.image_processor, model.model.vision_tower.to(arguments.device)
    cache = FeatureCache(folder, fingerprint(encoder, image_processor.to_json_string(), str(encoder.dtype)))
    paths = dict.fromkeys(row.image for row in data.rows if row.image)
    images = [(path, data.digests[path], noise_seed(data.digests[path], recipe.seed)) for path in paths]
    share = images[arguments.process_index :: arguments.world_size]
    autocast = torch.autocast(arguments.device.type, torch.bfloat16) if arguments.bf16 else nullcontext()
    fill(cache, share, data.pixels, encoder, autocast, recipe.device_batch_size, recipe.workers)
    if arguments.world_size > 1:
        torch.distributed.barrier()
    return cache


def _pad_id(processor: LlavaProcessor) -> int:
    """Any would do: it is masked."""
    return processor.tokenizer.pad_token_id or 0


# ----------------------------------------------------------------------------------------------------- training


class StageTrainer(Trainer):
    """transformers' Trainer with a rate for the projector and one for the LoRA, and our order of rows."""

    optimizer: torch.optim.Optimizer | None

    def __init__(
        self, recipe: Recipe, model: PeftModel, arguments: TrainingArguments, data: Conversations, collator: Collator
    ):
        super().__init__(model, arguments, data_collator=collator, train_dataset=data)
        self.recipe = recipe
        self.remove_callback(ProgressCallback)
        self.add_callback(Progress)
        self.add_callback(LogFile(recipe.out / LOG))

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            lora: list[nn.Parameter] = []
            others: list[nn.Parameter] = []
            for name, parameter in (model or self.model).named_parameters():
                if parameter.requires_grad:
                    (lora if ".lora_" in name else others).append(parameter)
            groups = [{"params": others, "lr": self.recipe.projector_learning_rate}]
            groups += [{"params": lora, "lr": self.recipe.lora_learning_rate}] if lora else []
            self.optimizer = torch.optim.AdamW(groups, weight_decay=self.recipe.weight_decay)
        return self.optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        return EpochSampler(
            self.train_dataset.lengths, self.recipe.batch_size if self.recipe.group_by_length else None, self.args.seed
        )

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """What is trained. The Trainer's own would pickle its arguments beside it."""
        if self.args.should_save:
            self.model.save_pretrained(output_dir, state_dict=state_dict, save_embedding_layers=False)


class Progress(ProgressCallback):
    """The loss beside the bar, on stderr; stdout is for results."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{logs['loss']:.4g}")


class LogFile(TrainerCallback):
    """One JSON line for each entry of the Trainer's log; after a resume as if there had been no break."""

    def __init__(self, path: Path):
        self.path = path

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            lines = [json.dumps(entry) + "\n" for entry in state.log_history]
            self.path.write_text("".join(lines), encoding="utf-8")


def save(
    adapted: PeftModel, processor: LlavaProcessor, out: Path, dtype: torch.dtype, keep_adapter: bool = False
) -> None:
    """The model with what was trained merged into it, and its processor; `config.json`, which makes the folder a model,
    comes last."""
    if keep_adapter:
        adapted.save_pretrained(str(out / "adapter"), save_embedding_layers=False)
    model = adapted.merge_and_unload().to(dtype)
    with TemporaryDirectory(dir=out, prefix=".") as part:
        model.save_pretrained(part)
        processor.save_pretrained(part)
        for file in sorted(Path(part).iterdir(), key=lambda file: file.name == "config.json"):
            file.replace(out / file.name)
