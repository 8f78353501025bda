"""The whole way for one image: ask, find the noun phrases, point, segment."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from aas import rle
from aas.capture import Selection
from aas.devices import default_device
from aas.images import read_image, upright_rgb
from aas.lmms import load_lmm
from aas.lmms.base import AskOptions
from aas.phrases.parser import load_pipeline
from aas.pointing.masks import phrase_masks
from aas.pointing.phrases import PointingOptions, point_phrases
from aas.presets import PRESETS, Preset
from aas.records import Answer, AttentionMaps, GroundedPhrase, View
from aas.segmenters import load_segmenter
from aas.store.atomic import written
from aas.store.keys import quoted
from aas.store.results import Result, result_json, result_of, write_result
from aas.view import overlay

# Peaks that become points. The method takes one; the embedded models, whose maps and masks are both rough, draw better
# from three (mean IoU of phrases 0.29 -> 0.31 on the photographs for choosing, 0.39 -> 0.41 on those for the figures).
N_POINTS = 1
N_POINTS_EMBEDDED = 3
DEFAULT_QUESTION = "Describe the image in detail."
ImageLike = str | Path | Image.Image | np.ndarray


@dataclass(frozen=True)
class Grounding:
    """An answer about an image, its noun phrases and where they are.

    `image` uint8 [H, W, 3] RGB, upright: all points and masks are in its pixels. `name` is that of its
    files: the image's without extension, reserved characters percent-encoded, or `image`.
    """

    name: str
    image: np.ndarray
    answer: Answer
    phrases: tuple[GroundedPhrase, ...]
    view: View

    def item(self) -> dict[str, Any]:
        """The GCG item: plain JSON types, masks as COCO run lengths of the upright image."""
        return result_json(self.result())

    def result(self) -> Result:
        """What `save` writes."""
        return result_of(
            [one.phrase for one in self.phrases],
            [rle.of_mask(one.mask) for one in self.phrases],
            [one.point_xy for one in self.phrases],
            [one.score for one in self.phrases],
            image_id=self.name,
            question=self.answer.question,
            caption=self.answer.text,
        )

    def draw(self) -> Image.Image:
        """The photograph with coloured masks, points and labels, beside the answer in the same colours."""
        return overlay.draw(self.image, self.answer, self.phrases)

    def save(self, folder: str | Path) -> tuple[Path, Path]:
        """Write `NAME.json` and `NAME.png` into `folder`; returns their paths."""
        json_path, png_path = Path(folder) / f"{self.name}.json", Path(folder) / f"{self.name}.png"
        with written(png_path) as temporary:
            self.draw().save(temporary, format="PNG")
        write_result(json_path, self.result())
        return json_path, png_path


class Grounder:
    """Loads the three models once, then grounds images one by one.

    `model`, `segmenter` and `phrases` are `embedded`, a Hugging Face id, a local folder, a checkpoint file of
    segment-anything (segmenter), or the name of a spaCy pipeline (phrases). `base`: the base LLM, where `model` is a
    LoRA in LLaVA's own format. `preset`: `paper`, `reference-2024` or `reference-2025`. `n_points`: peaks of a phrase's
    map that become points for the segmenter, at most; by default one, and three with the embedded segmenter.
    """

    def __init__(
        self,
        model: str = "embedded",
        segmenter: str = "embedded",
        phrases: str = "embedded",
        *,
        base: str | None = None,
        preset: str = "paper",
        n_points: int | None = None,
        device: str | None = None,
        max_new_tokens: int | None = None,
    ):
        if preset not in PRESETS:
            raise ValueError(f"Unknown preset {preset!r}. Known: {', '.join(PRESETS)}.")
        self.preset: Preset = PRESETS[preset]
        self.max_new_tokens = max_new_tokens
        default = N_POINTS_EMBEDDED if segmenter == "embedded" else N_POINTS
        self.options = PointingOptions(self.preset.merge, n_positive=default if n_points is None else n_points)
        device = device or default_device()
        self.pipeline = load_pipeline(phrases)
        self.segmenter = load_segmenter(segmenter, device)
        self.lmm = load_lmm(model, device, base=base)

    def __call__(self, image: ImageLike, question: str | None = None, answer: str | None = None) -> Grounding:
        """Ask about an image (path, PIL image, or uint8 [H, W, 3] RGB) and ground the answer.

        With `answer` the given words are grounded (teacher forcing). Raises ImageError for an unusable image.
        """
        name, pixels = _as_pixels(image)
        options = AskOptions(self.max_new_tokens, selection=Selection(heads=self.preset.heads))
        said, maps = self.lmm.ask(pixels, question or DEFAULT_QUESTION, answer, options)
        return self.ground(name, pixels, said, maps)

    def ground(self, name: str, pixels: np.ndarray, answer: Answer, maps: AttentionMaps) -> Grounding:
        """The second half: from an answer and its maps to masks."""
        pointed = point_phrases(self.pipeline, answer, maps, self.options, pixels.shape[:2])
        found = phrase_masks(self.segmenter, self.segmenter.encode([pixels])[0], pointed, "last") if pointed else []
        grounded = tuple(
            GroundedPhrase(one.phrase, one.map, one.point_xy, masks.masks[0], float(masks.scores[0]))
            for one, masks in zip(pointed, found, strict=True)
        )
        return Grounding(name, pixels, answer, grounded, maps.view)


def _as_pixels(image: ImageLike) -> tuple[str, np.ndarray]:
    if isinstance(image, (str, Path)):
        return quoted(Path(image).stem), read_image(Path(image))
    if isinstance(image, Image.Image):
        return "image", upright_rgb(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"An image array must be uint8 [H, W, 3] RGB, not {image.dtype} {image.shape}.")
    return "image", image
