"""The `aas` command: arguments only. Heavy imports happen inside the commands, so that `aas --help` is quick."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Ask a multimodal model about images and ground every noun phrase of its answer to a mask.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

MODEL_HELP = "LMM: `embedded`, a Hugging Face id (id@revision) or a folder."
SEGMENTER_HELP = "Segmenter: `embedded`, a Hugging Face id of a SAM or a folder."
PHRASES_HELP = "spaCy pipeline: `embedded`, a package name or a folder."


@app.callback()
def main() -> None:
    pass


@app.command(
    epilog="Examples:\n\n"
    "  aas ground photo.jpg\n\n"
    "  aas ground holiday/ --out grounded\n\n"
    '  aas ground photo.jpg --answer "a dog on a bench"\n\n'
    "  aas ground photo.jpg --model llava-hf/llava-1.5-7b-hf --segmenter facebook/sam-vit-huge"
)
def ground(
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.", metavar="IMAGE_OR_FOLDER...")],
    question: Annotated[str | None, typer.Option(help="Default: Describe the image in detail.")] = None,
    answer: Annotated[str | None, typer.Option(help="Ground these words instead of the model's own.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for NAME.json, NAME.png and report.html.")] = Path("grounded"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line per image.")] = False,
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = "embedded",
    segmenter: Annotated[str, typer.Option(help=SEGMENTER_HELP)] = "embedded",
    phrases: Annotated[str, typer.Option(help=PHRASES_HELP)] = "embedded",
    preset: Annotated[str, typer.Option(help="paper, reference-2024 or reference-2025.")] = "paper",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ... Default: cuda if there is one.")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer, in tokens. Default: the model's own limit, or 512.")
    ] = None,
) -> None:
    """Answer a question about each image and ground every noun phrase of the answer."""
    from aas.tasks.ground_files import ground_files

    try:
        code = ground_files(
            images,
            out,
            question=question,
            answer=answer,
            model=model,
            segmenter=segmenter,
            phrases=phrases,
            preset=preset,
            device=device,
            max_new_tokens=max_new_tokens,
            as_json=as_json,
        )
    except (ValueError, FileNotFoundError, NotADirectoryError, FileExistsError, PermissionError) as error:
        typer.echo(f"aas: {error}", err=True)
        raise typer.Exit(2) from error
    raise typer.Exit(code)


if __name__ == "__main__":
    app()
