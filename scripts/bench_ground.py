"""Seconds and memory of `aas ground` with the embedded models, stage by stage, on a 640 x 480 photograph.

python scripts/bench_ground.py [--runs 5] [--threads 2]
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from statistics import median

import cv2

started = time.perf_counter()


def seconds(call: Callable[[], object], runs: int) -> float:
    """Median seconds of `call`, after one call to warm up."""
    call()
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    import torch
    from skimage import data

    import aas

    torch.set_num_threads(args.threads)
    grounder = aas.Grounder()
    print(f"from start to loaded: {time.perf_counter() - started:.2f} s")
    photo = cv2.resize(data.coffee(), (640, 480))
    options = grounder.ask_options
    answer, maps = grounder.lmm.ask(photo, "Describe the image in detail.", options=options)
    grounding = grounder(photo)
    with tempfile.TemporaryDirectory() as folder:
        stages = {
            f"answer and maps ({len(answer.token_ids)} tokens)": lambda: grounder.lmm.ask(
                photo, "Describe the image.", options=options
            ),
            f"phrases, points, masks ({len(grounding.phrases)} phrases)": lambda: grounder.ground(photo, answer, maps),
            "picture and JSON": lambda: grounding.save(folder),
            "all of it": lambda: grounder(photo).save(folder),
        }
        for name, call in stages.items():
            print(f"{name}: {seconds(call, args.runs):.2f} s")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
