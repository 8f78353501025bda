"""Figures while the LMM trains, on the photographs kept for choosing."""

from pathlib import Path

import cv2
import numpy as np
import torch
from caption_data import Photo, concept_of
from lmm_batches import Told, Words, batch_of
from lmm_losses import cells_of, cosines, smoothed, text_forward, token_loss
from lmm_model import GRID, QUESTIONS, SIDE
from pycocotools.coco import COCO
from torch import Tensor
from transformers import LlavaForConditionalGeneration


class Probe:
    """Held-out loss and pointing of the photographs kept for choosing. Masks are read here, for choosing only."""

    def __init__(self, photos: list[Photo], words: Words, data_dir: Path):
        coco = COCO(data_dir / "coco/annotations/instances_subset_val2017.json")
        names = {c["id"]: c["name"] for c in coco.dataset["categories"]}
        self.photos = photos
        self.batches, self.masks = [], []
        for photo in photos:
            masks: dict[str, np.ndarray] = {}
            for annotation in coco.imgToAnns[photo.image_id]:
                name = concept_of(names[annotation["category_id"]].split()[-1])
                mask = coco.annToMask(annotation).astype(bool)
                masks[name] = masks.get(name, False) | mask
            for person in ("man", "woman", "boy", "girl", "child", "player", "guy", "lady", "rider", "skier", "surfer"):
                if "person" in masks:
                    masks[person] = masks["person"]
            told = [Told(QUESTIONS[0], caption) for caption in photo.captions]
            self.batches.append(batch_of([(_resized(photo.pixels), told, np.zeros((4, 1)))], words, 0))
            self.masks.append({words.index[k]: v for k, v in masks.items() if k in words.index})
        self.words = words

    @torch.no_grad()
    def text_loss(self, model: LlavaForConditionalGeneration) -> dict[str, float]:
        """Of the captions without their photographs, nats per token."""
        model.eval()
        batches = [batch.to(model.device) for batch in self.batches]
        losses = [token_loss(model, text_forward(model, batch, None)[0], batch, 0).item() for batch in batches]
        model.train()
        return {"text_loss": float(np.mean(losses))}

    @torch.no_grad()
    def __call__(self, model: LlavaForConditionalGeneration, table: Tensor, language: bool = True) -> dict[str, float]:
        """`table` [n_concepts, width]: what the cells are compared with. Of words of captions with a mask: the share
        whose highest cell lies on it, by the cells' own scores, attention, and the image centre."""
        model.eval()
        hits: dict[str, list[bool]] = {"lens": [], "smooth_lens": [], "attention": [], "minus_mean": [], "centre": []}
        losses, small = [], []
        for kept, masks in zip(self.batches, self.masks, strict=True):
            batch = kept.to(table.device)
            cells = cells_of(model, batch.pixels)
            lens = cosines(cells, table)
            smooth = smoothed(lens)[0]
            maps = residual = None
            if language:
                hidden, all_maps = text_forward(model, batch, cells)
                assert all_maps is not None
                losses.append(token_loss(model, hidden, batch, 0).item())
                maps = all_maps[0]
                residual = maps.clone()
                for k in range(1, int(batch.segment.max()) + 1):
                    rows = (batch.segment[0] == k) & batch.answer[0]
                    residual[rows] -= maps[rows].mean(0)
            seen = set()
            for t, concept in enumerate(batch.concepts[0].tolist()):
                if concept not in masks or (batch.segment[0, t].item(), concept) in seen:
                    continue
                seen.add((batch.segment[0, t].item(), concept))
                mask = masks[concept]
                hits["lens"].append(_hit(lens[0, :, concept], mask))
                hits["smooth_lens"].append(_hit(smooth[:, concept], mask))
                hits["centre"].append(bool(mask[mask.shape[0] // 2, mask.shape[1] // 2]))
                small.append(mask.mean() < 0.3)
                if maps is not None and residual is not None:
                    hits["attention"].append(_hit(maps[t], mask))
                    hits["minus_mean"].append(_hit(residual[t], mask))
        model.train()
        figures = {name: float(np.mean(values)) for name, values in hits.items() if values}
        figures |= {f"{n}_small": float(np.mean(np.array(v)[small])) for n, v in hits.items() if v}
        return {"n": len(small), "loss": float(np.mean(losses or [0])), **figures}


def _resized(pixels: np.ndarray) -> np.ndarray:
    return cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


def _hit(cell_scores: Tensor, mask: np.ndarray) -> bool:
    y, x = divmod(int(cell_scores.argmax()), GRID)
    height, width = mask.shape
    return bool(mask[int((y + 0.5) / GRID * height), int((x + 0.5) / GRID * width)])
