"""The `difflmm` command: arguments only. Heavy imports happen inside the commands."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from difflmm import cli_train
from difflmm.cli_train import Base
from difflmm.usage import Command, Group, usage_errors

app = typer.Typer(
    help="An LMM with a diffusion encoder: train it, talk with it, convert checkpoints, look at them.",
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Source = Annotated[
    str, typer.Argument(help="Checkpoint: a folder or Hugging Face id (id@revision), in our format or the authors'.")
]
Dtype = Annotated[Literal["auto", "float32", "bfloat16", "float16"], typer.Option(help="auto is the checkpoint's own.")]


@app.command(
    cls=Command,
    epilog="Examples:\n\n"
    "  difflmm convert difflmm-lora/ difflmm-7b --base lmsys/vicuna-7b-v1.5\n\n"
    "  difflmm convert liuhaotian/llava-v1.5-7b llava-7b --dtype bfloat16",
)
def convert(
    source: Source,
    out: Annotated[Path, typer.Argument(help="New folder, in transformers' format.")],
    base: Base = None,
    dtype: Dtype = "auto",
) -> None:
    """Write a checkpoint in transformers' format, LoRA merged and towers inside."""
    with usage_errors():
        from difflmm.checkpoint import convert as convert_checkpoint

        convert_checkpoint(source, out, base, dtype)
    typer.echo(out)


@app.command(
    cls=Command,
    epilog="Examples:\n\n  difflmm info difflmm-7b\n\n  difflmm info difflmm-lora/ --base vicuna-7b/ --json",
)
def info(
    source: Source,
    base: Base = None,
    dtype: Dtype = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a checkpoint's parameters, memory and grids."""
    with usage_errors():
        from difflmm.checkpoint import load_checkpoint
        from difflmm.info import as_text, describe

        model, _ = load_checkpoint(source, base, dtype)
    found = describe(model)
    typer.echo(json.dumps(found, indent=1) if as_json else as_text(found))


app.command(cls=Command, epilog=cli_train.TRAIN_EXAMPLES)(cli_train.train)
app.command(cls=Command, epilog=cli_train.CHAT_EXAMPLES)(cli_train.chat)

if __name__ == "__main__":  # torchrun -m difflmm.cli
    app()
