"""The `difflmm` command: arguments only. Heavy imports happen inside the commands."""

import json
from pathlib import Path
from typing import Annotated

import typer

from difflmm import cli_train
from difflmm.usage import usage_errors

app = typer.Typer(
    help="An LMM with a diffusion encoder: train it, talk with it, convert checkpoints, look at them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SOURCE_HELP = "Checkpoint: a folder or Hugging Face id (id@revision), in our format or the authors'."
BASE_HELP = "Base LLM of a LoRA in the authors' format."
DTYPE_HELP = "auto (the checkpoint's own), float32, bfloat16 or float16."


@app.callback()
def main() -> None:
    pass


@app.command(
    epilog="Examples:\n\n"
    "  difflmm convert difflmm-lora/ difflmm-7b --base lmsys/vicuna-7b-v1.5\n\n"
    "  difflmm convert liuhaotian/llava-v1.5-7b llava-7b --dtype bfloat16"
)
def convert(
    source: Annotated[str, typer.Argument(help=SOURCE_HELP)],
    out: Annotated[Path, typer.Argument(help="New folder, in transformers' format.")],
    base: Annotated[str | None, typer.Option(help=BASE_HELP)] = None,
    dtype: Annotated[str, typer.Option(help=DTYPE_HELP)] = "auto",
) -> None:
    """Write a checkpoint in transformers' format, LoRA merged and towers inside."""
    from difflmm.checkpoint import convert as convert_checkpoint

    with usage_errors():
        convert_checkpoint(source, out, base, dtype)
    typer.echo(out)


@app.command(epilog="Examples:\n\n  difflmm info difflmm-7b\n\n  difflmm info difflmm-lora/ --base vicuna-7b/ --json")
def info(
    source: Annotated[str, typer.Argument(help=SOURCE_HELP)],
    base: Annotated[str | None, typer.Option(help=BASE_HELP)] = None,
    dtype: Annotated[str, typer.Option(help=DTYPE_HELP)] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a checkpoint's parameters, memory and grids."""
    from difflmm.checkpoint import load_checkpoint
    from difflmm.info import as_text, describe

    with usage_errors():
        model, _ = load_checkpoint(source, base, dtype)
    found = describe(model)
    typer.echo(json.dumps(found, indent=1) if as_json else as_text(found))


app.command(epilog=cli_train.TRAIN_EXAMPLES)(cli_train.train)
app.command(epilog=cli_train.CHAT_EXAMPLES)(cli_train.chat)

if __name__ == "__main__":  # torchrun -m difflmm.cli
    app()
