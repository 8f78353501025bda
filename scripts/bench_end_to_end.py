"""From a photograph to the masks of its answer, our way and the reference's, with the same weights, in one process.

    python scripts/bench_end_to_end.py --images photos/ --n 100
    python scripts/bench_end_to_end.py --n 10                     photographs that scikit-image comes with

The reference asks one photograph at a time with eager attention and `output_attentions`, keeps all matrices until the
answer is there, upsamples each phrase's map to find its largest pixel, and gives SAM one point at a time. Ours is a
call of `Grounder` with one point and the last mask; it draws the embedded segmenter's masks without specks, which the
reference does not. Photographs are read before, models are loaded, nothing is written. Seconds are those of this
process's CPU, whatever else runs.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from skimage import data
from torch.nn import functional as F
from transformers import SamImageProcessorPil

from aas import Grounder
from aas.images import as_pixels
from aas.maps.mean import without_token_mean
from aas.maps.merge import phrase_map
from aas.paths import model_source
from aas.phrases.alignment import decode_with_spans
from aas.pointing.phrases import phrases_for
from aas.presets import DEFAULT_QUESTION
from aas.records import Answer

HELD = ("astronaut", "cat", "coffee", "rocket", "chelsea", "colorwheel")


@dataclass(frozen=True)
class Found:
    """Of one photograph: the answer, the points (x, y) of its phrases, and their masks bool [H, W]."""

    text: str
    points: list[tuple[int, int]]
    masks: list[np.ndarray]


class Reference:
    """The same models, one photograph and one point at a time."""

    def __init__(self, grounder: Grounder, segmenter: str):
        self.grounder, self.lmm, self.sam = grounder, grounder.lmm, grounder.segmenter.model
        self.processor = SamImageProcessorPil.from_pretrained(model_source(segmenter, "segmenter")[0])

    def __call__(self, image: np.ndarray) -> Found:
        prepared = self.lmm.prepare(image, DEFAULT_QUESTION)
        positions = prepared.grids[0].positions
        with self.lmm.eager():
            inputs, columns = self.lmm.collated([prepared.inputs], [positions])
            output = self.lmm.generate(
                inputs, do_sample=False, output_attentions=True, return_dict_in_generate=True,
                max_new_tokens=self.lmm.max_new_tokens,
            )  # fmt: skip
        rows = [torch.stack([layer[0, :, -1].float().mean(0) for layer in step]).mean(0) for step in output.attentions]
        view = prepared.grids[0].view
        maps = torch.stack([row[columns[0]] for row in rows]).unflatten(1, view.size_hw).cpu().numpy()
        token_ids = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
        text, spans = decode_with_spans(self.lmm.tokenizer, token_ids)
        answer = Answer(DEFAULT_QUESTION, text, tuple(token_ids), tuple(spans))
        phrases, _ = phrases_for(self.grounder.pipeline, answer, self.grounder.pointing)
        residual = without_token_mean(maps)
        points = [self._point(phrase_map(residual, one.token_indices, "mean"), image.shape[:2]) for one in phrases]
        return Found(text, points, list(self._masks(image, points)))

    def _point(self, grid: np.ndarray, image_hw: tuple[int, int]) -> tuple[int, int]:
        """Of a map over the whole photograph, stretched: as the embedded LMM sees it."""
        large = F.interpolate(torch.from_numpy(grid)[None, None], image_hw, mode="bicubic", align_corners=False)
        y, x = divmod(int(large.flatten().argmax()), image_hw[1])
        return x, y

    @torch.inference_mode()
    def _masks(self, image: np.ndarray, points: list[tuple[int, int]]) -> Iterator[np.ndarray]:
        inputs = self.processor(images=image, input_data_format="channels_last", return_tensors="pt")
        sizes = inputs["original_sizes"].tolist(), inputs["reshaped_input_sizes"].tolist()
        scale = torch.tensor([sizes[1][0][1] / image.shape[1], sizes[1][0][0] / image.shape[0]])
        segmenter = self.grounder.segmenter
        features = segmenter.decoder_features(segmenter.image_features(inputs["pixel_values"].to(self.sam.device)))
        for point in points:
            where = (torch.tensor(point, dtype=torch.float32) * scale)[None, None, None].to(self.sam.device)
            output = self.sam(input_points=where, multimask_output=True, **features)
            (candidates,) = self.processor.post_process_masks([output.pred_masks[0]], *sizes)
            yield candidates[0, -1].cpu().numpy()


def ours(grounder: Grounder, image: np.ndarray) -> Found:
    """A call, and what a reader of its result looks at."""
    grounding = grounder(image)
    phrases = grounding.phrases
    return Found(grounding.answer.text, [one.point_xy for one in phrases], [one.mask for one in phrases])


def photographs(folder: Path | None, n: int) -> list[np.ndarray]:
    """uint8 [H, W, 3] each."""
    if folder is None:
        return [getattr(data, HELD[i % len(HELD)])()[..., :3] for i in range(n)]
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[:n]
    return [as_pixels(path) for path in paths]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of photographs")
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--segmenter", default="embedded")
    args = parser.parse_args()
    grounder = Grounder(args.model, args.segmenter, maps="mean", n_points=1, mask_choice="last")
    reference = Reference(grounder, args.segmenter)
    images = photographs(args.images, args.n)
    seconds: dict[str, float] = {"ours": 0.0, "reference": 0.0}
    same: dict[str, list[bool]] = {"answers": [], "points": []}
    ious: list[float] = []
    ours(grounder, images[0]), reference(images[0])  # warm up
    for image in images:
        start = time.process_time()
        one = ours(grounder, image)
        between = time.process_time()
        other = reference(image)
        seconds["reference"] += time.process_time() - between
        seconds["ours"] += between - start
        same["answers"].append(one.text == other.text)
        same["points"] += [a == b for a, b in zip(one.points, other.points, strict=False)]
        ious += [(a & b).sum() / max(1, (a | b).sum()) for a, b in zip(one.masks, other.masks, strict=False)]
    for way, total in seconds.items():
        print(f"{way:9s} {total / len(images):7.3f} CPU seconds a photograph, {len(images)} photographs")
    print(f"ratio {seconds['reference'] / seconds['ours']:.2f}")
    print(*(f"same {what}: {np.mean(values):.1%}" for what, values in same.items()), sep="; ")
    print(f"IoU of ours with the reference's masks, mean: {np.mean(ious):.3f}")


if __name__ == "__main__":
    main()
