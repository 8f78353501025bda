"""Which part of the items a process does: what it was told, or what a launcher of many processes says."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Chunk:
    """Part `index` (from 0) of `count`. `said_by`: the launcher that says so, if one does."""

    count: int = 1
    index: int = 0
    said_by: str = ""

    def within(self, outer: "Chunk") -> "Chunk":
        """Part of a part: of each task of an array all processes of torchrun."""
        names = " and ".join(filter(None, (outer.said_by, self.said_by)))
        return Chunk(outer.count * self.count, outer.index * self.count + self.index, names)


ALL = Chunk()


def chunk_said_by(environment: Mapping[str, str]) -> Chunk:
    """The part that torchrun and accelerate (RANK, WORLD_SIZE), a SLURM array, or both together say; all, if none does.

    Raises ValueError for what cannot be a part.
    """
    return _of_ranks(environment).within(_of_array(environment))


def _of_ranks(environment: Mapping[str, str]) -> Chunk:
    if not environment.keys() >= {"RANK", "WORLD_SIZE"}:
        return ALL
    rank, world_size = (_number(environment, name) for name in ("RANK", "WORLD_SIZE"))
    if not 0 <= rank < world_size:
        raise ValueError(f"RANK={rank} is not below WORLD_SIZE={world_size}: give --num-chunks and --chunk-idx.")
    return Chunk(world_size, rank, "RANK and WORLD_SIZE")


def _of_array(environment: Mapping[str, str]) -> Chunk:
    """Ids of an array need not begin at 0, nor follow each other (`--array=1-15:2`)."""
    name = "SLURM_ARRAY_TASK_"
    if not environment.keys() >= {f"{name}ID", f"{name}COUNT"}:
        return ALL
    task, count = (_number(environment, name + what) for what in ("ID", "COUNT"))
    first = _number(environment, f"{name}MIN", 0)
    step = _number(environment, f"{name}STEP", 1) or 1
    last = _number(environment, f"{name}MAX", first + step * (count - 1))
    index, rest = divmod(task - first, step)
    if rest or not 0 <= index < count or last != first + step * (count - 1):
        raise ValueError(
            f"Task {task} of an array of {count} that is no range: give --array=0-N, or --num-chunks and --chunk-idx."
        )
    return Chunk(count, index, "SLURM's array")


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, "")
    if not text and default is not None:
        return default
    if not text.strip().isdecimal():
        raise ValueError(f"{name}={text!r} is no number: mend it, or give --num-chunks and --chunk-idx.")
    return int(text)
