"""The commands `difflmm train` and `difflmm chat`: arguments only, heavy imports inside. difflmm.cli registers them."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from difflmm.usage import usage_errors

TRAIN_EXAMPLES = (
    "Examples:\n\n"
    "  difflmm train --config recipes/tiny.yaml\n\n"
    "  difflmm train --config recipes/difflmm-stage1.yaml --set out=trained/stage1 --set device_batch_size=8\n\n"
    "  torchrun --nproc-per-node 8 -m difflmm.cli train --config recipes/difflmm-stage2.yaml"
)
CHAT_EXAMPLES = (
    "Examples:\n\n"
    "  difflmm chat --model trained/tiny --image photo.jpg\n\n"
    '  echo "What is in the picture?" | difflmm chat --model trained/tiny --image photo.jpg'
)

Base = Annotated[str | None, typer.Option(help="Base LLM of a LoRA in the authors' format.")]


def train(
    config: Annotated[Path, typer.Option(help="A recipe, as recipes/tiny.yaml.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, instead of the recipe's.", metavar="KEY=VALUE")
    ] = None,
) -> None:
    """Train a DiffLMM or LLaVA as a recipe says; the same command again goes on where it was stopped."""
    with usage_errors():
        from difflmm.recipe import read_recipe

        recipe = read_recipe(config, changes or ())  # a wrong one is told before torch is there
        from difflmm.train import train as run

        done = run(recipe)
    if int(os.environ.get("RANK", "0")) == 0:
        typer.echo(done)


def chat(
    model: Annotated[str, typer.Option(help="A folder or Hugging Face id (id@revision).")],
    base: Base = None,
    image: Annotated[Path | None, typer.Option(help="What the conversation is about.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the diffusion encoder's noise.")] = 0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 512,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ... Default: cuda if there is one.")] = None,
) -> None:
    """Talk with a model about an image. Questions come from the keyboard, or line by line from a pipe."""
    with usage_errors():
        import torch

        from difflmm.chat import HELP, Chat, converse
        from difflmm.checkpoint import load_checkpoint

        device = _usable(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        loaded, processor = load_checkpoint(model, base, dtype)
        talk = Chat(loaded.to(device).eval(), processor, max_new_tokens, seed)
        if image is not None:
            talk.look_at(image)
    if sys.stdin.isatty():
        typer.echo(HELP, err=True)
    converse(talk, iter(_line, ""))


def _usable(device: str) -> str:
    """`device`; ValueError, before anything is loaded, where this machine has none of that name."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ValueError(f"No device {device!r} on this machine: give cpu, cuda, cuda:1, ...") from error
    if torch.device(device).type == "meta":
        raise ValueError("The device meta computes nothing: give cpu, cuda, cuda:1, ...")
    return device


def _line() -> str:
    """The next of stdin, empty at its end; at a keyboard, with a prompt."""
    if sys.stdin.isatty():
        typer.echo("> ", nl=False, err=True)
    return sys.stdin.readline()
