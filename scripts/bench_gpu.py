"""How near one GPU comes to its roofline at 7B, beside the reference way, in under six minutes.

    python scripts/bench_gpu.py --quick               90 seconds: LLaVA-1.5-7B at batch 1 and 128, SAM ViT-H
    python scripts/bench_gpu.py                       all shapes, batch 1 to 128, photographs from files
    python scripts/bench_gpu.py --tiny --device cpu   does the script run? tiny shapes on this machine

Weights are random, of the published shapes (gpu_shapes.py), photographs are noise, answers have a fixed length. Ways:

- `ours`: answers and their maps;
- `one_layer`: the same with the maps of one layer, so that nearly all that capture costs is left out;
- `plain`: transformers' own `generate`, without capture;
- `reference`: what is done elsewhere, one image at once with eager attention and output_attentions;
- `files`: `aas infer-attn` from JPEG files to attention items.

Of SAM `ours` is the encoder and a mask for each of eight phrases, `reference` transformers' own calls in float32, one
photograph at once. A way is warmed up once; times are medians. What is counted as work, and the roofline, says
gpu_roofline.py. Results are written after each row, so that a run that is cut off keeps them. A row that fails, as for
lack of memory, is listed with the reason and ends only larger batches of its way.
"""

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from gpu_report import Report, Row
from gpu_roofline import PREFILL_SHARE, Peaks, least_of, peaks_of, sam_flops, seconds
from gpu_shapes import SHAPES, lmm_of, sam_of
from gpu_ways import Answers, Masks, profiled
from peak_memory import peak_bytes

from aas.engine.stage import is_out_of_memory
from aas.lmms.base import LMM
from aas.loading import in_short
from aas.segmenters.sam import SamSegmenter

GIBIBYTE = 2**30
SEGMENTER = "sam-vit-h"
MOST_PHOTOGRAPHS = 32  # in one batch of SAM's encoder, which is busy with fewer


@dataclass(frozen=True)
class Bench:
    """What rows are made with; `ends`: when no more are begun, by time.monotonic."""

    options: argparse.Namespace
    batch_sizes: Sequence[int]
    peaks: Peaks
    ends: float
    report: Report

    @property
    def device(self) -> str:
        return self.options.device

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.device.startswith("cuda") else torch.float32

    def row(self, model: str, way: str, batch: int, make: Callable[[], Row]) -> bool:
        """One row, whatever becomes of it; whether it was measured."""
        if time.monotonic() > self.ends:
            made: Row = {"failed": "not run: out of time"}
        else:
            try:
                made = make()
            except Exception as error:  # whatever it is, the other rows are worth having
                made = {"failed": "out of memory" if is_out_of_memory(error) else in_short(error)}
        if "failed" in made:
            self.free()
        self.report.add({"model": model, "way": way, "batch": batch} | made)
        return "failed" not in made

    def by_batch(self, model: str, way: str, make: Callable[[int], Row]) -> int:
        """A row for each batch size, until one fails; the largest that was measured, or 1."""
        widest = 1
        for batch in self.batch_sizes:
            if not self.row(model, way, batch, partial(make, batch)):
                break
            widest = batch
        return widest

    def free(self) -> None:
        """Lets go of what a row that failed, or a model, still holds."""
        gc.collect()
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def timed(self, call: Callable[[], object]) -> float:
        """Median seconds of `call`, which is warm."""
        return statistics.median(seconds(call, self.device) for _ in range(self.options.rounds))

    def peak(self, call: Callable[[], object]) -> float:
        """Of a first call the peak memory above what is there, in GiB."""
        return peak_bytes(call, self.device) / GIBIBYTE


# ------------------------------------------------------------------------------------------------- answers


def bench_lmm(bench: Bench, name: str) -> None:
    """All rows of a model, those first that say most."""
    loaded: list[LMM] = []
    if not bench.row(name, "build", 0, lambda: _built(bench, name, loaded)):
        return
    lmm = loaded.pop()
    widest = bench.by_batch(name, "ours", partial(answers_row, bench, lmm, "ours"))
    bench.row(name, "reference", 1, lambda: answers_row(bench, lmm, "reference", 1))
    bench.row(name, "one_layer", widest, lambda: answers_row(bench, lmm, "one_layer", widest))
    bench.row(name, "profile", widest, lambda: _profile(bench, name, lmm, widest))
    bench.by_batch(name, "plain", partial(answers_row, bench, lmm, "plain"))
    if not bench.options.quick:
        bench.row(name, "files", widest, lambda: files_row(bench, lmm, widest))


def _built(bench: Bench, name: str, loaded: list[LMM]) -> Row:
    start = time.monotonic()
    loaded.append(lmm_of(name, bench.device, bench.dtype, bench.options.tiny))
    return {"seconds": time.monotonic() - start, "weights_gib": loaded[0].model.get_memory_footprint() / GIBIBYTE}


def answers_row(bench: Bench, lmm: LMM, way: str, batch: int) -> Row:
    """Answers of `batch` images, and what of the roofline that is. A second run, of one token, tells the prefill."""
    n_new = bench.options.new_tokens
    asked = Answers(lmm, batch, n_new)
    call, prefill = getattr(asked, way), getattr(Answers(lmm, batch, 1), way)
    peak, took = bench.peak(call), bench.timed(call)
    prefill()  # its buffers may be others
    first = bench.timed(prefill)
    step = max(took - first, 1e-9) / max(1, n_new - 1)
    least = least_of(lmm, asked.inputs, n_new)
    return {
        "seconds": took,
        "images_per_s": batch / took,
        "tokens_per_s": batch * n_new / took,
        "peak_gib": peak,
        "prompt_tokens": asked.inputs["input_ids"].shape[1],
        "prefill_s": first,
        "step_ms": 1e3 * step,
        "prefill_flops_per_s": least.prefill_flops / first,
        "decode_flops_per_s": least.step_flops / step,
        "decode_bytes_per_s": least.step_bytes / step,
        "of_roofline": least.seconds(bench.peaks, n_new) / took,
    }


def files_row(bench: Bench, lmm: LMM, batch: int) -> Row:
    """`aas infer-attn` over files, its workers included: beside `ours` of the same batch it shows a GPU that waits."""
    n = 4 * batch
    with tempfile.TemporaryDirectory() as folder:
        took = Answers(lmm, batch, bench.options.new_tokens).from_files(Path(folder), n)
    return {"seconds": took, "images": n, "images_per_s": n / took}


def _profile(bench: Bench, name: str, lmm: LMM, batch: int) -> Row:
    """Where a few steps spend their time."""
    asked = Answers(lmm, batch, min(8, bench.options.new_tokens))
    bench.report.profile(name, batch, profiled(asked.ours, bench.device))
    return {}


# --------------------------------------------------------------------------------------------------- masks


def bench_sam(bench: Bench) -> None:
    """All rows of SAM ViT-H."""
    loaded: list[SamSegmenter] = []
    tiny, sizes = bench.options.tiny, {min(size, MOST_PHOTOGRAPHS) for size in bench.batch_sizes}
    if bench.row(SEGMENTER, "build", 0, lambda: loaded.append(sam_of(bench.device, bench.dtype, tiny)) or {}):
        segmenter = loaded.pop()
        bench = replace(bench, batch_sizes=sorted(sizes))
        bench.by_batch(SEGMENTER, "ours", partial(masks_row, bench, segmenter, "ours"))
        bench.row(SEGMENTER, "reference", 1, lambda: masks_row(bench, segmenter, "reference", 1))


def masks_row(bench: Bench, segmenter: SamSegmenter, way: str, batch: int) -> Row:
    """Eight masks on each of `batch` photographs, at their size on the CPU."""
    asked = Masks(segmenter, batch)
    call = getattr(asked, way)
    peak, took = bench.peak(call), bench.timed(call)
    row = {"seconds": took, "images_per_s": batch / took, "peak_gib": peak}
    if way == "reference":
        return row
    encoding = bench.timed(asked.encode)
    model = segmenter.model
    flops = batch * sam_flops(model.config.vision_config, model.vision_encoder)
    least = flops / (PREFILL_SHARE * bench.peaks.flops)
    return row | {"prefill_s": encoding, "prefill_flops_per_s": flops / encoding, "of_roofline": least / took}


def asked_for(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--quick", action="store_true", help="LLaVA-1.5 and SAM, batch 1 and 128, in 90 seconds")
    given.add_argument("--tiny", action="store_true", help="tiny shapes, to try the script")
    given.add_argument("--device", default="cuda")
    given.add_argument("--models", nargs="*", choices=[*SHAPES, SEGMENTER], help="default: all")
    given.add_argument("--batch-sizes", type=int, nargs="*", help="default: 1 8 32 128")
    given.add_argument("--new-tokens", type=int, default=64)
    given.add_argument("--rounds", type=int, default=2)
    given.add_argument("--seconds", type=float, help="after which no row is begun. Default: 330, or 80 with --quick")
    given.add_argument("--out", type=Path, default=Path("bench_gpu"), help="folder of bench_gpu.json and bench_gpu.md")
    return given.parse_args(arguments)


def run(options: argparse.Namespace) -> Report:
    """All that was asked for, in the order in which it is worth most."""
    ends = time.monotonic() + (options.seconds or (80 if options.quick else 330))
    peaks, (first, *others) = peaks_of(options.device), SHAPES
    name = torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else "CPU"
    report = Report(options.out, name, peaks, {"tiny": options.tiny, "new_tokens": options.new_tokens})
    sizes = options.batch_sizes or ([1, 128] if options.quick else [1, 8, 32, 128])
    bench = Bench(options, sizes, peaks, ends, report)
    for model in options.models or [first, SEGMENTER, *([] if options.quick else others)]:
        bench_sam(bench) if model == SEGMENTER else bench_lmm(bench, model)
        bench.free()
    return report


if __name__ == "__main__":
    run(asked_for())
