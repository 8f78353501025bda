"""What capture costs: generation with and without it, in one run, interleaved.

    python scripts/bench_capture.py                                  a mid-size LLaVA on this machine
    python scripts/bench_capture.py --device cuda --shape 7b --batch-sizes 1,4,16,64

Ways: `sdpa`, plain generation, the floor; `ours`, answers in slots with capture; `hooked`, capture around plain
generation, as models have it that cannot write in slots; `replay`, the answer given, one pass; `eager`,
output_attentions=True, what is done elsewhere. Weights are random, answers have a fixed length. Times are medians of
ratios to the `sdpa` of the same round, on a CPU of its own seconds, whatever else runs; memory is the peak of torch's
allocations above the loaded model.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import gpu_shapes
import torch
from gpu_shapes import Shape, built, llava, photo
from peak_memory import peak_bytes

from aas.lmms.base import LMM
from aas.lmms.prepared import AskOptions, Prepared

MID_TEXT = {
    "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 10, "num_attention_heads": 12,
    "vocab_size": 13312,
}  # fmt: skip
MID_EYES = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 1}
SHAPES = {"mid": Shape(llava, MID_TEXT, MID_EYES), "7b": gpu_shapes.SHAPES["llava-1.5-7b"]}  # 24 x 24 image tokens
MEBIBYTE = 2**20


class Ways:
    """One model, one batch, several ways to get (or not to get) its attention."""

    def __init__(self, lmm: LMM, batch_size: int, n_new: int):
        self.lmm, self.n_new = lmm, n_new
        question = "Describe the image in detail, and say what every one of the people in it is doing."
        one = lmm.prepare(photo(), question)
        self.batch: list[Prepared] = [one] * batch_size
        self.options = AskOptions(n_new)
        self.inputs, self.columns = lmm.collated([one.inputs] * batch_size, [one.grids[0].positions] * batch_size)
        answer = torch.randint(5, 300, (n_new,), generator=torch.Generator().manual_seed(1))
        self.given = [replace(one, answer_ids=answer)] * batch_size

    def use(self, implementation: str) -> None:
        self.lmm.model.set_attn_implementation({"text_config": implementation})

    def ours(self) -> None:
        self.use("sdpa")
        self.lmm.run(self.batch, self.options)

    def hooked(self) -> None:
        self.use("sdpa")
        self.lmm.run(self.batch, replace(self.options, decoding="generate"))

    def replay(self) -> None:
        self.use("sdpa")
        self.lmm.run(self.given, self.options)

    def sdpa(self) -> None:
        self.use("sdpa")
        self._generate()

    def eager(self) -> None:
        self.use("eager")
        output = self._generate(output_attentions=True, return_dict_in_generate=True)
        columns = self.columns[0]
        [torch.stack([layer[:, :, -1, columns].float().mean(1) for layer in step]).mean(0).cpu()
         for step in output.attentions]  # fmt: skip

    @torch.inference_mode()
    def _generate(self, **arguments: object) -> object:
        return self.lmm.model.generate(**self.inputs, max_new_tokens=self.n_new, do_sample=False, **arguments)


def seconds(way: Callable[[], None], device: str) -> float:
    clock = time.perf_counter if device.startswith("cuda") else time.process_time
    start = clock()
    way()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return clock() - start


def bandwidth(device: str) -> float:
    """Bytes per second that this device reads, by copying: a copy reads and writes."""
    x = torch.empty(2**30, dtype=torch.uint8, device=device)
    y = torch.empty_like(x)
    times = [seconds(lambda: y.copy_(x) and None, device) for _ in range(6)]
    return 2 * x.numel() / min(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shape", choices=SHAPES, default="mid")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="default: bfloat16 on a GPU")
    parser.add_argument("--batch-sizes", default="1,4")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ways", default="sdpa,ours,hooked,replay,eager", help="of these, sdpa first")
    args = parser.parse_args()
    dtype = getattr(torch, args.dtype or ("bfloat16" if args.device.startswith("cuda") else "float32"))
    lmm = built(SHAPES[args.shape], args.device, dtype)
    weights = sum(p.numel() * p.element_size() for p in lmm.model.model.language_model.parameters())
    names = args.ways.split(",")
    print(f"{args.shape} on {args.device}, {dtype}, {args.new_tokens} new tokens, {torch.get_num_threads()} threads")
    for batch_size in map(int, args.batch_sizes.split(",")):
        ways = Ways(lmm, batch_size, args.new_tokens)
        times: dict[str, list[float]] = {name: [] for name in names}
        memory = {}
        for name in names:
            getattr(ways, name)()  # warm up
            memory[name] = peak_bytes(getattr(ways, name), args.device)
        for turn in range(args.rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                times[name].append(seconds(getattr(ways, name), args.device))
        print(f"batch {batch_size}")
        for name in names:
            ratio = statistics.median(t / floor for t, floor in zip(times[name], times["sdpa"], strict=True))
            each = statistics.median(times[name])
            print(
                f"  {name:7s} {each:8.3f} s  {ratio:5.2f} x sdpa  {batch_size / each:7.2f} images/s  "
                f"{memory[name] / MEBIBYTE:8.1f} MiB above the model, {memory[name] / memory['sdpa']:5.2f} x sdpa"
            )
        if args.device.startswith("cuda"):
            floor = args.new_tokens * weights / bandwidth(args.device)
            share = floor / statistics.median(times["ours"])
            print(f"  {share:.0%} of the decode roofline (weights read once per token)")


if __name__ == "__main__":
    main()
