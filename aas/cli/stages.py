"""`aas ground`, `cot`, `infer-attn` and `segment`: their options are their dataclasses' fields."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import typer

from aas.cli.look import Command
from aas.cli.options import command_of, examples
from aas.imports import collector_paused
from aas.phrases.apart import pipeline_apart
from aas.stages.cot_options import NOT_HERE, Cot
from aas.stages.ground_options import Ground
from aas.stages.infer_attn_options import InferAttn
from aas.stages.options import RunOptions
from aas.stages.segment_options import Segment


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        "ground",
        cls=Command,
        epilog=examples(
            "aas ground photo.jpg",
            "aas ground holiday/ --out grounded",
            "aas ground data/train-00000.parquet s3://bucket/photos --out elsewhere  (docs/scaling.md)",
            'aas ground photo.jpg --answer "a dog on a bench" --out given',
            "aas ground photo.jpg --answers-from http://localhost:8000/v1 --out served  (docs/answers.md)",
            "aas ground photo.jpg --maps fused --read-out region --out fused        (docs/maps.md)",
            "aas ground photo.jpg --model llava-hf/llava-1.5-7b-hf --segmenter facebook/sam-vit-huge --out large",
        ),
    )(command_of(Ground, _ground))
    app.command(
        "cot",
        cls=Command,
        epilog=examples(
            'aas cot photo.jpg --question "What colour is the cup?" --model Qwen/Qwen3-VL-8B-Instruct',
            "aas cot viscot/ --questions docvqa.json --out thought --model Qwen/Qwen3-VL-8B-Instruct",
            "aas cot viscot/ --questions docvqa.json --out alone --look whole         (the question alone, to compare)",
            "aas cot viscot/ --questions docvqa.json --out served --answers-from http://localhost:8000/v1",
            "aas eval cot --results thought --questions docvqa.json --json run.json   (docs/cot.md)",
        ),
    )(command_of(Cot, _cot, without=NOT_HERE))
    app.command(
        "infer-attn",
        cls=Command,
        epilog=examples(
            "aas infer-attn --images photos/ --out run",
            "aas infer-attn --images val2017/ --ref-anno val2017.json --out run --model Qwen/Qwen3-VL-8B-Instruct",
            "aas infer-attn --images photos/ --out run --answers answers.jsonl       (teacher forcing)",
            "aas infer-attn --images photos/ --out run --answers-from http://localhost:8000/v1  (docs/answers.md)",
            "aas infer-attn --images photos/ --out run --maps mean,tam,attribution  (docs/maps.md)",
            "aas infer-attn --images 's3://bucket/shards/*.tar' --out run            (docs/scaling.md)",
            "aas infer-attn --images photos/ --out s3://bucket/run                  (docs/scaling.md)",
            "aas infer-attn --images photos/ --out run --num-chunks 8 --chunk-idx 0  (one of eight processes)",
        ),
    )(command_of(InferAttn, _infer_attn))
    app.command(
        "segment",
        cls=Command,
        epilog=examples(
            "aas segment gcg --attn run --images photos/ --out masks",
            "aas segment instance --attn run --images val2017/ --ref-anno instances_val2017.json --out instances",
            "aas segment expressions --attn run --images val2017/ --answers refcoco.jsonl --out masks",
            "aas segment gcg --attn run --images photos/ --out masks --maps tam",
            "aas segment gcg --attn authors/ --images photos/ --out masks --tokenizer liuhaotian/llava-v1.5-7b",
        ),
    )(command_of(Segment, _segment))


def _ground(options: Ground) -> int:
    with pipeline_apart(options.phrases) if options.is_one_photograph else nullcontext():
        with collector_paused():
            from aas.stages.ground import ground

        return ground(options)


def _cot(options: Cot) -> int:
    from aas.stages.cot import cot

    return cot(options)


def _infer_attn(options: InferAttn) -> int:
    with collector_paused():
        from aas.stages.infer_attn import infer_attn

    return infer_attn(options)


def _segment(options: Segment) -> int:
    with collector_paused():
        from aas.stages.segment import segment

    return segment(options)


STAGES: dict[str, tuple[type[RunOptions], Callable[[Any], int]]] = {  # command -> its options, and what carries it out
    "ground": (Ground, _ground),
    "cot": (Cot, _cot),
    "infer-attn": (InferAttn, _infer_attn),
    "segment": (Segment, _segment),
}
