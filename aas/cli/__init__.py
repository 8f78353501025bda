"""The `aas` command. Heavy imports happen inside the commands, so that `aas --help` is quick."""

from pathlib import Path
from typing import Annotated

import typer

from aas.cli import expressions as cli_expressions
from aas.cli import models, runs, stages
from aas.cli.look import group, show_messages
from aas.cli.options import usage_errors as _usage_errors
from aas.cli.show import show
from aas.version import __version__

app = group(
    "Ask a multimodal model about images and ground every noun phrase of its answer to a mask.", add_completion=True
)
stages.register(app)
runs.register(app)
models.register(app)
app.add_typer(show, name="show")


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_say_version, is_eager=True)
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only what failed.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also what the libraries say.")] = False,
) -> None:
    show_messages(quiet, verbose)


evaluation = typer.Typer(help="Figures against ground truth.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(evaluation, name="eval")
cli_expressions.register(app, evaluation, _usage_errors)
GT_HELP = "Ids may be numbers or strings, masks polygons or run lengths."
EVAL_JSON_HELP = "Write figures, intervals, counts and what `compare` needs."
CSV_HELP = "Write one row per image."
BOOTSTRAP_HELP = "Resamples of the images for the 95 % intervals; 0 for none."


@evaluation.callback()
def evaluation_main() -> None:
    pass


@evaluation.command(
    "gcg",
    epilog="Examples:\n\n"
    "  aas eval gcg --results masks --gt-caption test_gcg_coco_caption_gt.json --gt-mask test_gcg_coco_mask_gt.json\n\n"
    "  aas eval gcg --results masks --gt-caption CAPTIONS --gt-mask MASKS --protocol glamm --json run.json",
)
def eval_gcg(
    results: Annotated[Path, typer.Option(help="Folder of IMAGE_ID.json, as `aas segment gcg` writes them.")],
    gt_caption: Annotated[Path, typer.Option(help=f"GranD-f's captions and labels. {GT_HELP}")],
    gt_mask: Annotated[Path, typer.Option(help="GranD-f's masks.")],
    protocol: Annotated[str, typer.Option(help="glamm: as published; strict; both.")] = "both",
    text_encoder: Annotated[
        str, typer.Option(help="Of labels and phrases: a Hugging Face id, or a folder.")
    ] = "bert-base-uncased",
    json_file: Annotated[Path | None, typer.Option("--json", help=EVAL_JSON_HELP)] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help=CSV_HELP)] = None,
    bootstrap: Annotated[int, typer.Option(min=0, help=BOOTSTRAP_HELP)] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
    spice: Annotated[
        bool, typer.Option("--spice", help="SPICE too: needs Java 8, 8 GB of memory, and downloads 400 MB once.")
    ] = False,
) -> None:
    """AP, mIoU, mask recall, METEOR, CIDEr, BLEU and ROUGE-L of grounded captions."""
    with _usage_errors():
        protocols = {"glamm": ("glamm",), "strict": ("strict",), "both": ("glamm", "strict")}
        if protocol not in protocols:
            raise ValueError(f"--protocol {protocol!r}: give {', '.join(protocols)}.")
        from aas.evaluations import gcg as task

        arguments = task.EvalGcg(
            results=results,
            gt_caption=gt_caption,
            gt_mask=gt_mask,
            protocols=protocols[protocol],
            text_encoder=text_encoder,
            n_resamples=bootstrap,
            seed=seed,
            spice=spice,
            json_file=json_file,
            csv_file=csv_file,
        )
        code = task.eval_gcg(arguments)
    raise typer.Exit(code)


@evaluation.command(
    "instance",
    epilog="Examples:\n\n"
    "  aas eval instance --results instances/results.json --gt instances_val2017.json\n\n"
    "  aas eval instance --results instances --gt instances_val2017.json --json run.json --csv run.csv",
)
def eval_instance(
    results: Annotated[Path, typer.Option(help="COCO results file, or run folder of `aas segment instance`.")],
    gt: Annotated[Path, typer.Option(help=f"COCO instances. {GT_HELP}")],
    json_file: Annotated[Path | None, typer.Option("--json", help=EVAL_JSON_HELP)] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help=CSV_HELP)] = None,
    bootstrap: Annotated[int, typer.Option(min=0, help=BOOTSTRAP_HELP)] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
) -> None:
    """COCO's AP and AR over masks, point accuracy, and a table of categories."""
    from aas.evaluations import instance as task

    with _usage_errors():
        code = task.eval_instance(task.EvalInstance(results, gt, bootstrap, seed, json_file, csv_file))
    raise typer.Exit(code)


@evaluation.command("compare", epilog="Examples:\n\n  aas eval compare first.json second.json")
def eval_compare(
    first: Annotated[Path, typer.Argument(help="A: the --json of an evaluation …")],
    second: Annotated[Path, typer.Argument(help="B: … and of another one, of the same images.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the table as JSON.")] = None,
    bootstrap: Annotated[int, typer.Option(min=1, help="Resamples of the images, the same for both.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
) -> None:
    """Which of two runs is better, figure by figure, with paired intervals."""
    from aas.evaluations import compare as task

    with _usage_errors():
        code = task.eval_compare(first, second, bootstrap, seed, json_file)
    raise typer.Exit(code)
