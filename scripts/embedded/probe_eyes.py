"""Which eyes see what captions speak of? Words of captions, read from an image encoder's frozen, pooled features.

    python scripts/embedded/probe_eyes.py --parts work/parts

Ridge regression from the mean of the features of 1,000 photographs to the words of their captions, judged on the other
training photographs (no kept-out one): the mean over words of the average precision with which photographs are ranked,
and the share of the words that two captions or more say among a photograph's 15 best.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from caption_data import Photo, concepts_in, find_concepts, load_photos
from imagenet_mobilenet import coral_tflite, load_imagenet
from lmm_model import to_pixels
from parts import load_backbone
from split import default_data_dir
from torch import Tensor

from aas.backbones import Backbone

N_TRAIN, N_BEST, MIN_SAID = 1000, 15, 5
RIDGE = 4000.0


def mobilenet(args: argparse.Namespace) -> Backbone:
    backbone = Backbone("mobilenet_v2")
    load_imagenet(backbone, coral_tflite(args.data))
    return backbone


def lite2(args: argparse.Namespace) -> Backbone:
    return load_backbone(Backbone("efficientnet_lite2"), args.parts / "efficientnet_lite2.safetensors")


def tuned(args: argparse.Namespace) -> Backbone:
    return load_backbone(Backbone("efficientnet_lite2"), args.tuned, "tower.backbone.")


EYES: dict[str, tuple[Callable[[argparse.Namespace], Backbone], int]] = {  # and the side of their input in pixels
    "MobileNetV2, ImageNet": (mobilenet, 224),
    "EfficientNet-Lite2, ImageNet": (lite2, 256),
    "EfficientNet-Lite2, tuned": (tuned, 448),
}


@torch.inference_mode()
def features(backbone: Backbone, photos: list[Photo], side: int) -> np.ndarray:
    """Mean of the last features, float64 [photographs, channels]."""
    parts: list[Tensor] = []
    for start in range(0, len(photos), 16):
        pictures = [
            cv2.resize(p.pixels, (side, side), interpolation=cv2.INTER_AREA) for p in photos[start : start + 16]
        ]
        parts.append(backbone.eval()(to_pixels(np.stack(pictures)))[32].mean((2, 3)))
    return torch.cat(parts).double().numpy()


def said(photos: list[Photo], concepts: list[str]) -> np.ndarray:
    """How many of a photograph's captions hold each concept, int [photographs, concepts]."""
    counts = [Counter(word for caption in photo.captions for word in set(concepts_in(caption))) for photo in photos]
    return np.array([[count[word] for word in concepts] for count in counts])


def ridge(x: np.ndarray, y: np.ndarray, strength: float) -> Callable[[np.ndarray], np.ndarray]:
    mean, std, level = x.mean(0), x.std(0) + 1e-6, y.mean(0)
    z = (x - mean) / std
    weights = np.linalg.solve(z.T @ z + strength * np.eye(z.shape[1]), z.T @ (y - level))
    return lambda new: (new - mean) / std @ weights + level


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    ranked = positive[np.argsort(-scores, kind="stable")]
    return float((np.cumsum(ranked)[ranked] / (np.flatnonzero(ranked) + 1)).mean())


def judged(x: np.ndarray, counts: np.ndarray, strength: float) -> tuple[float, float]:
    predict = ridge(x[:N_TRAIN], np.minimum(counts[:N_TRAIN], 1).astype(float), strength)
    scores, held_out = predict(x[N_TRAIN:]), counts[N_TRAIN:]
    words = np.flatnonzero((held_out > 0).sum(0) >= MIN_SAID)
    precision = np.mean([average_precision(scores[:, w], held_out[:, w] > 0) for w in words])
    best = np.zeros(scores.shape, bool)
    np.put_along_axis(best, np.argsort(-scores, axis=1)[:, :N_BEST], True, axis=1)
    twice = held_out >= 2
    return float(precision), float((best & twice).sum() / twice.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=default_data_dir())
    parser.add_argument("--parts", type=Path, required=True, help="folder that parts.py wrote")
    parser.add_argument("--tuned", type=Path, help="after_words.safetensors of train_lmm.py, to be judged too")
    parser.add_argument("--ridge", type=float, default=RIDGE)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    photos = [photo for photo in load_photos(args.data)[0] if photo.captions]
    photos = [photos[i] for i in np.random.default_rng(args.seed).permutation(len(photos))]
    concepts = find_concepts(photos)
    counts = said(photos, concepts)
    print(f"{len(photos)} photographs, {len(concepts)} words\n\n| eyes | average precision | recall |\n|---|---|---|")
    for name, (make, side) in EYES.items():
        if make is not tuned or args.tuned:
            precision, recall = judged(features(make(args), photos, side), counts, args.ridge)
            print(f"| {name} | {precision:.3f} | {recall:.3f} |", flush=True)


if __name__ == "__main__":
    main()
