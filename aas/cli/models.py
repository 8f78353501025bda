"""`aas doctor` and `aas list`: what there is, and whether it works here."""

import json
from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from aas.cli.look import Command
from aas.cli.options import command_of, examples, usage_errors
from aas.stages.calibrate_options import Calibrate
from aas.stages.options import ModelOptions

Listed = Literal["models", "segmenters", "phrases", "presets", "maps", "heads", "datasets", "metrics", "formats"]


@dataclass(frozen=True, kw_only=True)
class Doctor(ModelOptions):
    """Say what this machine has, and check that a model's attention and geometry are right here."""

    model: Annotated[str | None, typer.Argument(help="An LMM, as for the other commands.")] = None  # type: ignore[assignment]
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ... Default: cuda if there is one.")] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        "doctor",
        cls=Command,
        epilog=examples("aas doctor", "aas doctor embedded", "aas doctor Qwen/Qwen3-VL-8B-Instruct --json"),
    )(command_of(Doctor, _doctor))
    app.command(
        "calibrate",
        cls=Command,
        epilog=examples(
            "aas calibrate Qwen/Qwen3-VL-8B-Instruct --images photos/ --answers captions.jsonl --out heads.json",
            "aas ground photo.jpg --model Qwen/Qwen3-VL-8B-Instruct --maps heads:heads.json",
        ),
    )(command_of(Calibrate, _calibrate))
    app.command("list", cls=Command, epilog=examples("aas list models", "aas list maps", "aas list presets --json"))(
        list_kind
    )


def _calibrate(options: Calibrate) -> int:
    from aas.stages.calibrate import calibrate

    return calibrate(options)


def _doctor(options: Doctor) -> int:
    from aas.doctor import as_text, doctor

    report, well = doctor(options.model, device=options.device, **options.loading())
    typer.echo(json.dumps(report, indent=1) if options.as_json else as_text(report))
    return 0 if well else 1


def list_kind(
    kind: Annotated[Listed, typer.Argument(help="What to list.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what can be named in the other commands."""
    from aas import catalogue

    with usage_errors():
        if as_json:
            typer.echo(json.dumps(catalogue.rows_of(kind), indent=1))
        else:
            catalogue.show(kind)
