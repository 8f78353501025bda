"""Small random sets for the evaluations: files of ground truth and answers, with ties and empty masks."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from transformers import BertConfig, BertModel, BertTokenizerFast

WORDS = ["a", "the", "dog", "cat", "red", "car", "two", "table", "chair", "man", "on", "with", "sits", "of", "tree"]
HEIGHT, WIDTH = 40, 60

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def coco_figures(truth: dict[str, Any], detections: list[dict[str, Any]]) -> dict[str, float]:
    """The judge: pycocotools on copies of both."""
    truth, detections = json.loads(json.dumps([truth, detections]))
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = truth
        gt.createIndex()
        run = COCOeval(gt, gt.loadRes(detections), "segm")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return dict(zip(FIGURES, run.stats.tolist(), strict=True))


def encoded(mask: np.ndarray) -> dict[str, Any]:
    found = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": found["counts"].decode()}


def random_mask(rng: np.random.Generator) -> np.ndarray:
    """A rectangle, now and then nothing."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    if rng.random() > 0.05:
        x, y = rng.integers(0, WIDTH - 12), rng.integers(0, HEIGHT - 12)
        mask[y : y + rng.integers(3, 30), x : x + rng.integers(3, 40)] = True
    return mask


def near(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The mask moved by a few pixels, or as it is, so that IoUs tie."""
    shift = rng.integers(0, 4, 2) * rng.integers(0, 2)
    return np.roll(mask, shift, (0, 1))


def phrase(rng: np.random.Generator, n: int = 2) -> str:
    return " ".join(rng.choice(WORDS, rng.integers(1, n + 1)))


def write_gcg_set(folder: Path, seed: int, n_images: int = 12) -> dict[str, Path]:
    """`answers/`, `captions.json`, `masks.json`; numbers as strings for ids, so that their order is that of text."""
    rng = np.random.default_rng(seed)
    ids = [str(i) for i in rng.permutation(np.arange(5, 5 + n_images))]
    images = [{"id": key, "height": HEIGHT, "width": WIDTH} for key in ids]
    words: list[dict[str, Any]] = []
    shapes: list[dict[str, Any]] = []
    (folder / "answers").mkdir(parents=True)
    for key in ids:
        true = [random_mask(rng) for _ in range(rng.integers(1, 6))]
        labels = [phrase(rng) for _ in true]
        words.append({"id": len(words) + 1, "image_id": key, "caption": phrase(rng, 9) + ".", "labels": labels})
        for mask in true:
            entry = {"id": len(shapes) + 1, "image_id": key, "category_id": 1, "area": int(mask.sum()), "iscrowd": 0}
            shapes.append(entry | {"segmentation": encoded(mask)})
        said = [i for i in range(len(true)) for _ in range(rng.integers(0, 3))]
        masks = [near(true[i], rng) for i in said] + [random_mask(rng)] * int(rng.integers(0, 2))
        answer = {
            "image_id": key,
            "caption": phrase(rng, 9),
            "phrases": [labels[i] if rng.random() < 0.6 else phrase(rng) for i in said]
            + ["thing"] * (len(masks) - len(said)),
            "pred_masks": [encoded(mask) for mask in masks],
            "scores": rng.random(len(masks)).round(2).tolist(),
        }
        (folder / "answers" / f"{key}.json").write_text(json.dumps(answer))
    paths = {"results": folder / "answers", "gt_caption": folder / "captions.json", "gt_mask": folder / "masks.json"}
    paths["gt_caption"].write_text(json.dumps({"images": images, "annotations": words}))
    categories = [{"id": 1, "name": "object"}]
    paths["gt_mask"].write_text(json.dumps({"images": images, "annotations": shapes, "categories": categories}))
    return paths


def write_text_encoder(folder: Path) -> Path:
    """A BERT so small and so random that similarities spread to both sides of 0.5."""
    folder.mkdir(parents=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=1.0,
    )
    BertModel(config).save_pretrained(folder)
    return folder
