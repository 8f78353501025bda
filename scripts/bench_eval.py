"""What an evaluation costs: `aas eval gcg` as a user runs it, in a process of its own.

    python scripts/bench_eval.py                                    a synthetic set of GranD-f's size
    python scripts/bench_eval.py --gt-caption F --gt-mask F --results DIR --text-encoder ID

The synthetic set has 1,000 images of 640×480, five phrases each: blots as masks, predictions moved a little, labels and
captions of a small vocabulary, and an untrained text encoder of BERT base's size, whose cost does not depend on what
it has learned. Prints wall seconds and Python's peak memory, with Java (METEOR) and with a PATH that hides it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

WIDTH, HEIGHT, N_IMAGES, N_PHRASES = 640, 480, 1000, 5
NOUNS = ["dog", "cat", "man", "woman", "car", "bus", "tree", "street", "table", "chair", "horse", "boat", "sky", "cup"]
ADJECTIVES = ["red", "small", "large", "old", "wooden", "white", "black", "parked", "young", "green", "bright", "wet"]
PLACES = ["on the left", "in front", "by the water", "behind it", "in the background", "near the wall", "at the table"]


def synthetic_set(folder: Path) -> dict[str, Path]:
    """Files of `aas eval gcg` and a text encoder."""
    rng = np.random.default_rng(0)
    results = folder / "results"
    results.mkdir()
    images, words, shapes = [], [], []
    for number in range(N_IMAGES):
        key = f"image_{number:04d}"
        images.append({"id": key, "height": HEIGHT, "width": WIDTH})
        boxes = rng.uniform([0, 0, 40, 40], [WIDTH - 200, HEIGHT - 200, 200, 200], (N_PHRASES, 4))
        labels = [_phrase(rng) for _ in boxes]
        words.append({"id": number + 1, "image_id": key, "caption": _sentence(labels), "labels": labels})
        for box in boxes:
            mask = _blot(box)
            found = {"id": len(shapes) + 1, "image_id": key, "category_id": 1, "iscrowd": 0, "segmentation": mask}
            shapes.append(found | {"area": int(coco_mask.area(mask))})
        phrases = [label if rng.random() < 0.5 else _phrase(rng) for label in labels]
        answer = {
            "image_id": key,
            "caption": _sentence(phrases),
            "phrases": phrases,
            "pred_masks": [_blot(box + rng.normal(0, 12, 4)) for box in boxes],
            "scores": rng.random(N_PHRASES).tolist(),
        }
        (results / f"{key}.json").write_text(json.dumps(answer))
    for name, annotations in (("captions", words), ("masks", shapes)):
        (folder / f"{name}.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    _text_encoder(folder / "encoder")
    named = {"results": results, "gt-caption": folder / "captions.json", "gt-mask": folder / "masks.json"}
    return named | {"text-encoder": folder / "encoder"}


def _phrase(rng: np.random.Generator) -> str:
    return f"the {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} {rng.choice(PLACES)}"


def _sentence(phrases: list[str]) -> str:
    return f"There is {', '.join(phrases[:-1])} and {phrases[-1]}."


def _blot(box_xywh: np.ndarray) -> dict:
    x, y, width, height = box_xywh
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    wave = 1 + 0.1 * np.sin(7 * angles)
    outline = [x + width / 2 * (1 + wave * np.cos(angles)), y + height / 2 * (1 + wave * np.sin(angles))]
    (mask,) = coco_mask.frPyObjects([np.stack(outline, 1).ravel().tolist()], HEIGHT, WIDTH)
    return {"size": [HEIGHT, WIDTH], "counts": mask["counts"].decode()}


def _text_encoder(folder: Path) -> None:
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir()
    words = sorted({word for text in (*NOUNS, *ADJECTIVES, *PLACES, "the") for word in text.split()})
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    BertModel(BertConfig()).save_pretrained(folder)


def timed(options: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """(wall seconds, peak memory of Python in GB, Java not among it) of one `aas eval gcg`."""
    code = "import sys, resource; from aas.cli import app\ntry: app()\nfinally: "
    code += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, file=sys.stderr)"
    begin = time.perf_counter()
    command = [sys.executable, "-c", code, "eval", "gcg", *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(done.stderr)
    return seconds, float(done.stderr.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("results", "gt-caption", "gt-mask", "text-encoder"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    given = {name.replace("_", "-"): value for name, value in vars(parser.parse_args()).items() if name != "rounds"}
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        paths = given if given["results"] else synthetic_set(Path(folder))
        options = [word for name, value in paths.items() if value for word in (f"--{name}", str(value))]
        hidden = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if not (Path(p) / "java").exists())
        for label, path in (("with Java", os.environ["PATH"]), ("without Java", hidden)):
            runs = [timed(options, os.environ | {"PATH": path}) for _ in range(rounds)]
            seconds, memory = min(run[0] for run in runs), max(run[1] for run in runs)
            print(f"{label}: {seconds:.1f} s (best of {rounds}), {memory:.2f} GB")


if __name__ == "__main__":
    main()
