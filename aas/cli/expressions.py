"""The commands for datasets of given expressions: `aas expressions …` and `aas eval …`. Arguments only."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from pathlib import Path
from typing import Annotated

import typer

Refs = Annotated[Path, typer.Option(help="Folder with refs(unc).p and instances.json, or the file refs(….p) itself.")]
Split = Annotated[str, typer.Option(help="val, testA, testB, test or train.")]
SplitBy = Annotated[str | None, typer.Option(help="unc, google or umd. Default: the only one there is.")]
Instances = Annotated[Path | None, typer.Option(help="Default: instances.json beside the refs.")]
Sentences = Annotated[str, typer.Option(help="Of each reference, or photograph: first or all.")]
Narratives = Annotated[Path, typer.Option(help="png_coco_val2017.json.")]
Panoptic = Annotated[Path, typer.Option(help="COCO's panoptic_val2017.json.")]
PanopticMasks = Annotated[
    Path | None, typer.Option(help="Its folder of PNG files. Default: panoptic_val2017/ beside it.")
]
Data = Annotated[Path, typer.Option(help="Folder of NAME.jpg and NAME.json, for instance ReasonSeg/val.")]
Out = Annotated[Path, typer.Option(help="File for `aas infer-attn --answers`.")]
Results = Annotated[Path, typer.Option(help="Run folder of `aas segment expressions`.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="File for the figures, as fractions of 1.")]
CsvFile = Annotated[Path | None, typer.Option("--csv", help="File with one line for each mask.")]


def register(app: typer.Typer, evaluation: typer.Typer, usage_errors: Callable[[], AbstractContextManager]) -> None:
    """Add the commands. `usage_errors` turns a user's mistake into one line and exit code 2."""
    expressions = typer.Typer(
        help="Datasets of given expressions, as the file that `aas infer-attn --answers` takes.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.add_typer(expressions, name="expressions")

    def add(to: typer.Typer, name: str, command: Callable[..., int], *examples: str) -> None:
        @wraps(command)
        def checked(*args: object, **kwargs: object) -> None:
            with usage_errors():
                code = command(*args, **kwargs)
            raise typer.Exit(code)

        to.command(name, epilog="\n\n".join(["Examples:", *(f"  {example}" for example in examples)]))(checked)

    refcoco = "refcoco --refs refcoco/ --split val"
    png = "png --narratives png_coco_val2017.json --panoptic panoptic_val2017.json"
    add(
        expressions,
        "refcoco",
        rows_of_refcoco,
        f"aas expressions {refcoco} --out refcoco.jsonl",
        f'aas expressions {refcoco} --out asked.jsonl --ask "Where is {{expression}}?"',
    )
    add(expressions, "png", rows_of_png, f"aas expressions {png} --out png.jsonl")
    add(expressions, "reasonseg", rows_of_reasonseg, "aas expressions reasonseg --data ReasonSeg/val --out rows.jsonl")
    add(evaluation, "refcoco", eval_refcoco, f"aas eval {refcoco} --results masks --json scores.json")
    add(evaluation, "png", eval_png, f"aas eval {png} --results masks --json scores.json")
    add(evaluation, "reasonseg", eval_reasonseg, "aas eval reasonseg --data ReasonSeg/val --results masks")


def rows_of_refcoco(
    refs: Refs,
    out: Out,
    split: Split = "val",
    split_by: SplitBy = None,
    sentences: Sentences = "all",
    instances: Instances = None,
    say: Annotated[str, typer.Option(help="The answer that is given.")] = "This image shows {expression}.",
    ask: Annotated[str | None, typer.Option(help="Ask this instead: the model answers.")] = None,
) -> int:
    """RefCOCO, RefCOCO+, RefCOCOg: each expression as a given answer, or as a question (--ask)."""
    from aas.datasets.expressions import asked_row, checked_template, given_row
    from aas.datasets.refcoco import read_refcoco
    from aas.evaluations.rows import write_rows

    say = checked_template(say, "--say")
    question = None if ask is None else checked_template(ask, "--ask")
    dataset = read_refcoco(refs, split, split_by=split_by, sentences=sentences, instances=instances)
    return write_rows(dataset, out, lambda one: asked_row(one, question) if question else given_row(one, say))


def rows_of_png(narratives: Narratives, panoptic: Panoptic, out: Out, panoptic_masks: PanopticMasks = None) -> int:
    """Panoptic narrative grounding: each caption as a given answer, with the characters of its phrases."""
    from aas.datasets.expressions import given_row
    from aas.datasets.png import read_png
    from aas.evaluations.rows import write_rows

    return write_rows(read_png(narratives, panoptic, panoptic_masks), out, given_row)


def rows_of_reasonseg(
    data: Data,
    out: Out,
    sentences: Sentences = "first",
    ask: Annotated[
        str, typer.Option(help="About a phrase that is no sentence.")
    ] = "What is {expression} in this image?",
) -> int:
    """ReasonSeg: questions, which the model answers."""
    from aas.datasets.expressions import asked_row, checked_template
    from aas.datasets.reasonseg import read_reasonseg
    from aas.evaluations.rows import write_rows

    question = checked_template(ask, "--ask")
    return write_rows(read_reasonseg(data, sentences), out, lambda one: asked_row(one, question))


def eval_refcoco(
    results: Results,
    refs: Refs,
    split: Split = "val",
    split_by: SplitBy = None,
    sentences: Sentences = "all",
    instances: Instances = None,
    json_file: JsonFile = None,
    csv_file: CsvFile = None,
) -> int:
    """RefCOCO, RefCOCO+, RefCOCOg: cIoU, gIoU, Pr@0.5."""
    from aas.datasets.refcoco import read_refcoco
    from aas.evaluations.expressions import evaluate, referring

    dataset = read_refcoco(refs, split, split_by=split_by, sentences=sentences, instances=instances)
    return evaluate(dataset, results, referring, json_file, csv_file)


def eval_png(
    results: Results,
    narratives: Narratives,
    panoptic: Panoptic,
    panoptic_masks: PanopticMasks = None,
    json_file: JsonFile = None,
    csv_file: CsvFile = None,
) -> int:
    """Panoptic narrative grounding: average recall, also of things, stuff, singular and plural phrases."""
    from aas.datasets.png import read_png
    from aas.evaluations.expressions import evaluate
    from aas.evaluations.expressions import narratives as scores

    return evaluate(read_png(narratives, panoptic, panoptic_masks), results, scores, json_file, csv_file)


def eval_reasonseg(
    results: Results, data: Data, sentences: Sentences = "first", json_file: JsonFile = None, csv_file: CsvFile = None
) -> int:
    """ReasonSeg: gIoU and cIoU; pixels that are to be ignored do not count."""
    from aas.datasets.reasonseg import read_reasonseg
    from aas.evaluations.expressions import evaluate, referring

    return evaluate(read_reasonseg(data, sentences), results, referring, json_file, csv_file)
