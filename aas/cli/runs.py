"""`aas view`, `status`, `verify`, `retry`, `merge` and `shard`: run folders."""

import json
from pathlib import Path
from typing import Annotated

import typer

from aas.cli.look import Command
from aas.cli.options import examples, usage_errors
from aas.cli.stages import STAGES
from aas.store import spools
from aas.store.addresses import Spooled, folder_at

Folder = Annotated[Path, typer.Argument(help="Run folder, or its URL.", metavar="RUN", parser=folder_at)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        "view",
        cls=Command,
        epilog=examples(
            "aas view grounded",
            "aas view masks --gt instances_val2017.json      (worst first)",
            "aas view masks other-masks --gt instances_val2017.json",
        ),
    )(view)
    app.command("status", cls=Command, epilog=examples("aas status run", "aas status s3://bucket/run"))(status)
    app.command("verify", cls=Command, epilog=examples("aas verify run"))(verify)
    app.command("retry", cls=Command, epilog=examples("aas retry run"))(retry)
    app.command("merge", cls=Command, epilog=examples("aas merge instances", "aas merge here/ there/ whole/"))(merge)
    app.command("shard", cls=Command, epilog=examples("aas shard run", "aas shard --back run"))(shard)


def view(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="A run folder or URL, or two to be compared.", parser=folder_at),
    ],
    gt: Annotated[
        Path | None, typer.Option(help="COCO or GranD-f masks, to stand beside those found; the worst come first.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the photographs. Default: as in run.json.")] = None,
    out: Annotated[Path | None, typer.Option(help="The page to write. Default: RUN/report.html.")] = None,
    opened: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
) -> None:
    """Look at a run: photographs, answers, masks and maps in one page that needs no network."""
    from aas.show.view import view as view_runs

    with usage_errors(), spools.opened(folders):
        code = view_runs(folders, gt, images, out, opened)
    raise typer.Exit(code)


def status(folder: Folder, as_json: AsJson = False) -> None:
    """Say how far a run is, and what failed."""
    from aas.store import status as runs

    with usage_errors(), spools.opened([folder]):
        found = runs.status(folder)
    typer.echo(json.dumps(found, indent=1) if as_json else runs.status_text(folder, found))


def verify(folder: Folder) -> None:
    """Read every item of a run and name those that are damaged."""
    from aas.store import status as runs

    with usage_errors(), spools.opened([folder]):
        wrong = runs.verify(folder)
        first = runs.open_run(folder)[0].first()
    for line in wrong:
        typer.echo(line)
    advice = f": delete them{first} and run the command again." if wrong else "."
    typer.echo(f"{len(wrong)} damaged{advice}", err=True)
    raise typer.Exit(1 if wrong else 0)


def retry(folder: Folder) -> None:
    """Try the images that failed once more, with the options that the run began with."""
    from aas.stages.retry import retry as retry_failed

    with usage_errors(), spools.opened([folder]):
        code = retry_failed(folder, STAGES)
    raise typer.Exit(code)


def merge(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR... OUT", help="Run folders, or URLs.", parser=folder_at)
    ],
) -> None:
    """Put run folders that were filled apart into one, the last that is named; of `segment instance` also all results
    into one file, results.json, for which its folder alone is enough."""
    from aas.store.combine import combine
    from aas.store.merge import merge as merge_results

    with usage_errors(), spools.opened(folders, folders[-1]):
        *parts, out = folders
        run = combine(parts, out) if parts else None
        is_one_file = run is None or run.description()["command"] == "segment instance"
        typer.echo(merge_results(out) if is_one_file else out)


def shard(
    folder: Folder,
    back: Annotated[bool, typer.Option("--back", help="Give each item a file of its own again.")] = False,
) -> None:
    """Put the items of a run into shards, 256 in a file, as a run of more than 10,000 does by itself. Every command
    reads both."""
    from aas.store import sharding

    with usage_errors():
        if isinstance(folder, Spooled):
            raise ValueError(f"{folder}: shards are made in a folder of this machine: `aas merge {folder} here`.")
        n_items, wrong = (sharding.unshard if back else sharding.shard)(folder)
    for line in wrong:
        typer.echo(line)
    left = " shards stay: they are damaged" if back else " stay files: they are damaged, or not as aas writes them"
    typer.echo(f"{n_items} items" + (f", {len(wrong)}{left}" if wrong else ""), err=True)
    raise typer.Exit(1 if wrong else 0)
