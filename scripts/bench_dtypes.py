"""What fewer bits cost in map accuracy: the maps of the same words, read in other numbers, against float32.

    python scripts/bench_dtypes.py --images photos                              the embedded model's folder
    python scripts/bench_dtypes.py --images photos --model llava-hf/llava-1.5-7b-hf --device cuda --quantize 8bit 4bit

The float32 model answers; every other reads the answer once. Of each token: its map less the answer's mean map, as it
points, correlated with the one in float32; and whether its largest cell is the same one.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from aas.images import list_images, read_image
from aas.lmms import load_lmm
from aas.lmms.base import LMM
from aas.lmms.prepared import AskOptions
from aas.paths import embedded_dir
from aas.presets import DEFAULT_QUESTION

Asked = tuple[np.ndarray, tuple[int, ...], np.ndarray]  # photograph, answer's tokens, maps in float32 [T, h, w]


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--images", type=Path, required=True)
    given.add_argument("--model", default=str(embedded_dir("lmm")), help="`embedded` itself is always float32")
    given.add_argument("--device", default="cpu")
    given.add_argument("--dtype", nargs="*", default=["bfloat16", "float16"])
    given.add_argument("--quantize", nargs="*", default=[], choices=["8bit", "4bit"])
    given.add_argument("--compile", action="store_true", help="one more: float32, each layer by torch.compile")
    given.add_argument("--n", type=int, default=20, help="photographs")
    given.add_argument("--max-new-tokens", type=int, default=64)
    options = given.parse_args()
    photos = [read_image(path) for path in list_images(options.images)[: options.n]]
    reference = load_lmm(options.model, options.device, dtype="float32")
    asked = [answered(reference, photo, options.max_new_tokens) for photo in photos]
    print("| numbers | weights, MB | correlation: median | least | same largest cell |\n|---|---|---|---|---|")
    print(row("float32", reference, asked))
    del reference
    for how in [{"dtype": name} for name in options.dtype] + [{"quantize": name} for name in options.quantize]:
        print(row(*how.values(), load_lmm(options.model, options.device, **how), asked))
    if options.compile:
        print(row("float32, torch.compile", compiled(load_lmm(options.model, options.device, dtype="float32")), asked))


def compiled(lmm: LMM) -> LMM:
    """The layers of the language model, each by itself; `aas` compiles none."""
    for layer in lmm.model.get_decoder().layers:
        layer.compile(dynamic=True)
    return lmm


def answered(lmm: LMM, photo: np.ndarray, longest: int) -> Asked:
    answer, attention = lmm.ask(photo, DEFAULT_QUESTION, options=AskOptions(longest))
    return photo, answer.token_ids, attention.maps


def row(name: str, lmm: LMM, asked: list[Asked]) -> str:
    """A line of the table."""
    pairs = [pair for one in asked for pair in compared(lmm, *one)]
    correlations, same = (np.array(values) for values in zip(*pairs, strict=True))
    megabytes = lmm.model.get_memory_footprint() / 1e6
    least = correlations.min()
    return f"| {name} | {megabytes:.0f} | {np.median(correlations):.5f} | {least:.5f} | {same.mean():.1%} |"


def compared(lmm: LMM, photo: np.ndarray, token_ids: tuple[int, ...], maps: np.ndarray) -> Iterator[tuple[float, bool]]:
    """Of each token the correlation with its map in float32, and whether the largest cell is the same."""
    prepared = lmm.prepare(photo, DEFAULT_QUESTION, answer_ids=token_ids)
    ((_, attention),) = lmm.run([prepared])
    for mine, theirs in zip(attention.maps - attention.maps.mean(0), maps - maps.mean(0), strict=True):
        yield float(np.corrcoef(mine.ravel(), theirs.ravel())[0, 1]), bool(mine.argmax() == theirs.argmax())


if __name__ == "__main__":
    main()
