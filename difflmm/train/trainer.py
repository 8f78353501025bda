"""transformers' Trainer, where ours differs from it, and what it tells of its steps.

Its checkpoints hold the Trainer's own state (optimizer.pt, scheduler.pt, rng_state.pth: tensors and numbers, which the
Trainer reads with `weights_only=True`) beside what is trained.
"""

import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import (
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from difflmm.data.batches import Collator, EpochSampler
from difflmm.data.conversations import Conversations
from difflmm.recipe import Recipe
from difflmm.train.folder import LOG


class StageTrainer(Trainer):
    """transformers' Trainer with a rate for the projector and one for the LoRA, and our order of rows."""

    optimizer: torch.optim.Optimizer | None

    def __init__(
        self, recipe: Recipe, model: PeftModel, arguments: TrainingArguments, data: Conversations, collator: Collator
    ):
        super().__init__(model, arguments, data_collator=collator, train_dataset=data)
        self.recipe = recipe
        self.remove_callback(ProgressCallback)  # before ours, which is one too
        self.add_callback(Progress)
        self.add_callback(LogFile(recipe.out / LOG))

    def training_step(self, *of_trainer: Any, **kwargs: Any) -> Tensor:
        """ValueError where the loss is no number: nothing that comes after it, or is saved, would be of use."""
        loss = super().training_step(*of_trainer, **kwargs)
        if not loss.isfinite():
            raise ValueError(
                f"The loss of step {self.state.global_step + 1} is {loss.item()}: try precision: float32, a lower "
                f"learning rate, or max_grad_norm. Checkpoints in {self.args.output_dir} are of steps before it."
            )
        return loss

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW: of projector and captioner, which are always trained, and of the LoRA, if there is one."""
        if self.optimizer is None:
            trained = [(name, of) for name, of in (model or self.model).named_parameters() if of.requires_grad]
            lora = [of for name, of in trained if ".lora_" in name]
            others = [of for name, of in trained if ".lora_" not in name]
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

    def on_log(self, *of_trainer: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """The Trainer calls it every `log_steps`."""
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{logs['loss']:.4g}")


class LogFile(TrainerCallback):
    """One JSON line for each entry of the Trainer's log; after a resume as if there had been no break."""

    def __init__(self, path: Path):
        self.path = path

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The Trainer calls it every `log_steps`."""
        if state.is_world_process_zero:
            lines = [json.dumps(entry) + "\n" for entry in state.log_history]
            self.path.write_text("".join(lines), encoding="utf-8")
