"""`aas show attn` and `aas show masks`: pictures of what a run stored."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from aas.choices import Fit
from aas.cli.look import Command, group
from aas.cli.options import examples, usage_errors

show = group("Pictures of what a run stored.")
Photographs = Annotated[Path | None, typer.Option(help="Folder of the photographs. Default: as in run.json.")]


def _exit_with(run: Callable[[], int]) -> None:
    with usage_errors():
        code = run()
    raise typer.Exit(code)


@show.command(
    "attn",
    cls=Command,
    epilog=examples(
        "aas show attn run/photo.jpg.safetensors",
        "aas show attn run --out sheets",
        "aas show attn photo.pth --images photos/ --tokenizer liuhaotian/llava-v1.5-7b",
    ),
)
def show_attn(
    items: Annotated[list[Path], typer.Argument(help="Items of `aas infer-attn`, or run folders.")],
    out: Annotated[Path, typer.Option(help="Folder for one PNG per item.")] = Path("sheets"),
    images: Photographs = None,
    tokenizer: Annotated[str | None, typer.Option(help="For the authors' items (.pth): names their words.")] = None,
    fit: Annotated[Fit, typer.Option(help="Of those items: how images became square.")] = "pad",
) -> None:
    """Draw each token's attention over the photograph, before and after removing the token mean."""
    from aas.show.attn import show_attn

    _exit_with(lambda: show_attn(items, out, images, tokenizer, fit))


@show.command(
    "masks",
    cls=Command,
    epilog=examples(
        "aas show masks masks/ --out pictures",
        "aas show masks instances/ --gt instances_val2017.json --only 139",
    ),
)
def show_masks(
    folder: Annotated[Path, typer.Argument(help="Run folder of `aas segment` or `aas import`.")],
    out: Annotated[Path, typer.Option(help="Folder for one PNG per image, and a contact sheet.")] = Path("pictures"),
    images: Photographs = None,
    gt: Annotated[Path | None, typer.Option(help="COCO or GranD-f masks. Default: the run's --ref-anno.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Id of an image to show; may be repeated.")] = None,
) -> None:
    """Draw each image with its ground truth, its masks, and the answer."""
    from aas.show.masks import show_masks

    _exit_with(lambda: show_masks(folder, out, images, gt, only))
