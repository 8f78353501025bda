"""`aas slurm`: a script for SLURM that shares a command out among the tasks of an array."""

import shlex
from dataclasses import dataclass
from typing import Annotated

import typer

from aas.cli.look import Command
from aas.cli.options import command_of, examples
from aas.cli.stages import STAGES

SCRIPT = """#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --array=0-{last}
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={cpus}
#SBATCH --time={time}
{more}#SBATCH --signal=USR1@{notice}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.log

# Each task does its own part, which SLURM's variables tell, of the folder of --out, which all of them must see. It is
# told {notice} seconds before its time is up, finishes its batch and ends with code {code}: then it is queued again.
srun {command}
code=$?
if [ "$code" -eq {code} ]; then
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit "$code"
"""


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """Print a job script that fills one run folder with an array of tasks, each queued again until it is done.

    Behind -- stands the command as it would be typed.
    """

    command: Annotated[tuple[str, ...], typer.Argument(metavar="-- COMMAND...", help="ground, infer-attn or segment.")]
    tasks: Annotated[int, typer.Option(min=1, help="Of the array; each has one part of the images.")] = 8
    gpus: Annotated[int, typer.Option(min=0, help="For each task.")] = 1
    cpus: Annotated[int, typer.Option(min=1, help="For each task; half of them read images.")] = 8
    time: Annotated[str, typer.Option(help="For each task, as SLURM has it.")] = "04:00:00"
    notice: Annotated[int, typer.Option(min=1, help="Seconds before the end at which a task is told.")] = 120
    partition: Annotated[str | None, typer.Option(help="Where to queue it.")] = None
    account: Annotated[str | None, typer.Option(help="Who pays.")] = None

    def __post_init__(self) -> None:
        if self.words[1] not in STAGES:
            raise ValueError(f"Behind -- stands one of {', '.join(STAGES)}, with its options, not {self.words[1]!r}.")
        if any(word.split("=")[0] in ("--num-chunks", "--chunk-idx") for word in self.command):
            raise ValueError("Leave --num-chunks and --chunk-idx out: each task takes its part from SLURM.")

    @property
    def words(self) -> tuple[str, ...]:
        """The command, with or without `aas` before it."""
        return self.command if self.command[0] == "aas" and len(self.command) > 1 else ("aas", *self.command)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "slurm",
        cls=Command,
        epilog=examples(
            "aas slurm --tasks 8 -- infer-attn --images photos/ --out run",
            "aas slurm --tasks 2 --time 01:00:00 -- segment gcg --attn run --images photos/ --out masks",
        ),
    )(command_of(Slurm, slurm))


def slurm(options: Slurm) -> int:
    """Print the script."""
    from aas.engine.stopping import CODE

    given = {"gpus-per-task": options.gpus, "partition": options.partition, "account": options.account}
    script = SCRIPT.format(
        name=f"aas-{options.words[1]}",
        last=options.tasks - 1,
        cpus=options.cpus,
        time=options.time,
        more="".join(f"#SBATCH --{name}={value}\n" for name, value in given.items() if value),
        notice=options.notice,
        command=shlex.join(options.words),
        code=CODE,
    )
    typer.echo(script, nl=False)
    return 0
