"""Training in two stages, on transformers' Trainer and peft: the projector first, then a LoRA on the LLM with it.

folder.py is the folder of a run, arguments.py the recipe as the Trainer's arguments, inputs.py what is trained on,
adapter.py the model and what of it is trained, sources.py whether a run goes on with what it began with, trainer.py the
steps.
"""

from pathlib import Path

import torch
from transformers import set_seed

from difflmm.data.batches import Collator
from difflmm.data.rows import summary
from difflmm.files import check_writable
from difflmm.recipe import Recipe
from difflmm.train.adapter import save, starting_model, with_adapter
from difflmm.train.arguments import training_arguments
from difflmm.train.folder import checked_checkpoint, note
from difflmm.train.inputs import conversations, usable_rows, with_synthetic
from difflmm.train.sources import check_sources, note_sources, sources_of
from difflmm.train.trainer import StageTrainer


def train(recipe: Recipe) -> Path:
    """Trains as `recipe` says, from the last checkpoint in `recipe.out` if there is one; returns `recipe.out`.

    Leaves there the model (LoRA merged) and its processor in transformers' format, `checkpoints/`, `recipe.yaml`,
    `log.jsonl`, and `skipped.jsonl` if rows could not be used. Raises ValueError or FileNotFoundError for a recipe,
    data or a checkpoint that cannot be used.
    """
    last = checked_checkpoint(recipe)
    check_writable(recipe.out)
    arguments = training_arguments(recipe)
    set_seed(recipe.seed)
    plan = with_synthetic(recipe, arguments) if recipe.synthetic else recipe
    rows, skipped, digests = usable_rows(plan, arguments)
    dtype = torch.bfloat16 if arguments.bf16 else torch.float32
    model, processor = starting_model(plan, dtype)
    data = conversations(plan, arguments, model, processor, rows, digests)
    skipped += data.skipped
    if not len(data):
        raise ValueError(f"{plan.data}: no row can be used. {summary(skipped)}")
    sources = sources_of(plan, model, processor, data)
    check_sources(recipe.out, last, sources)
    if arguments.should_save:
        note(recipe, skipped, len(data))
        note_sources(recipe.out, sources)
    set_seed(recipe.seed)  # the LoRA begins the same, whatever was done before
    adapted = with_adapter(model, plan)
    arguments.ddp_find_unused_parameters = any(row.image is None for row in data.rows)
    collator = Collator(processor.tokenizer.pad_token_id or 0, dtype)
    trainer = StageTrainer(plan, adapted, arguments, data, collator)
    trainer.train(resume_from_checkpoint=last)
    if arguments.should_save:
        save(adapted, processor, recipe.out, dtype, recipe.keep_adapter)
    # A process that ends while another still saves, or with its connections open, may be taken for one that failed.
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
    return recipe.out
