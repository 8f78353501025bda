"""A photograph and what was found on it, as every exporter takes it."""

import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from aas import rle
from aas.choices import ConfidenceKind
from aas.images import as_pixels
from aas.images.pixels import ORIENTATION, opened
from aas.photographs import File, Member, is_url
from aas.rle import Rle
from aas.store.atomic import write_png, written
from aas.store.keys import quoted
from aas.store.results import PointXY
from aas.text import harmless

SUFFIX_OF_FORMAT = {"JPEG": ".jpg", "PNG": ".png"}  # what every tool reads; all else becomes PNG
ARTICLES = ("a", "an", "the")
NO_CHARACTERS = {0xFFFE: None, 0xFFFF: None}
UPRIGHT = (0, 1)  # EXIF orientations; 0 is none


@dataclass(frozen=True)
class Found:
    """One thing on a photograph: the phrase of the answer that names it, its class, and its mask.

    `span`: the phrase's characters in the caption, half-open; `point_xy` pixels; `score`: the segmenter's, of the mask;
    `confidence`: how far the picture supports the phrase. None: not known.
    """

    phrase: str
    label: str
    mask: Rle
    score: float | None = None
    point_xy: PointXY | None = None
    span: tuple[int, int] | None = None
    confidence: float | None = None

    @property
    def told_score(self) -> float | None:
        """What goes into the one place that a tool has for a score: the confidence, where there is one."""
        return self.score if self.confidence is None else self.confidence

    @property
    def mask_score(self) -> dict[str, float]:
        """The segmenter's score by that name, where it has lost its place."""
        return {} if self.score is None or self.confidence is None else {"mask_score": self.score}

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return rle.area(self.mask)

    @property
    def box_xywh(self) -> tuple[int, int, int, int]:
        """The smallest box around the mask, in pixels: left, top, width, height."""
        left, top, width, height = (round(float(value)) for value in coco_mask.toBbox(self.mask))
        return left, top, width, height


@dataclass(frozen=True)
class Photograph:
    """One photograph of a run. `id`: its number, `key`: what the run calls it; both unique in the run.

    `source`: an upright JPEG or PNG file, or pixels, uint8 [H, W, 3] RGB (see `ready`). `size_hw`: as all masks are.
    `confidence_kind`: what the confidences of `found` are; None where they have none.
    """

    id: int | str
    key: str
    source: Path | np.ndarray
    size_hw: tuple[int, int]
    caption: str = ""
    question: str = ""
    found: tuple[Found, ...] = ()
    confidence_kind: ConfidenceKind | None = None

    @property
    def kind(self) -> dict[str, str]:
        """`confidence_kind` by its name, as formats keep it beside the caption; nothing where it is None."""
        return {} if self.confidence_kind is None else {"confidence_kind": self.confidence_kind}

    @property
    def name(self) -> str:
        """That of its files, without suffix."""
        return quoted(self.key) or "image"

    @cached_property
    def file_name(self) -> str:
        """What its copy is called."""
        if not isinstance(self.source, Path):
            return f"{self.name}.png"
        with opened(self.source, str(self.source)) as image:
            return self.name + SUFFIX_OF_FORMAT[image.format or ""]

    @property
    def own_name(self) -> str:
        """What its file is called, where it is one; else what a copy would be."""
        return self.source.name if isinstance(self.source, Path) else self.file_name

    def put(self, folder: Path, link: bool = False) -> None:
        """Write `file_name` into `folder`: the file as it is (`link`: a symbolic link to it), or pixels as PNG."""
        target = folder / self.file_name
        folder.mkdir(parents=True, exist_ok=True)
        if not isinstance(self.source, Path):
            write_png(target, Image.fromarray(self.source))
        elif link:
            target.symlink_to(os.path.relpath(self.source.resolve(), folder.resolve()))
        else:
            with written(target) as temporary:
                shutil.copyfile(self.source, temporary)


def ready(source: str | File) -> tuple[Path | np.ndarray, tuple[int, int]]:
    """A file that other tools see as it is seen here, an upright JPEG or PNG; of any other image and of a URL the
    pixels. And the image's height and width. Raises ImageError or OSError for what is no image."""
    if not isinstance(source, Member) and not is_url(str(source)):
        with opened(Path(source), str(source)) as image:
            if image.format in SUFFIX_OF_FORMAT and image.getexif().get(ORIENTATION, 1) in UPRIGHT:
                return Path(source), (image.height, image.width)
    pixels = as_pixels(source)
    return pixels, (pixels.shape[0], pixels.shape[1])


def label_of(phrase: str) -> str:
    """A phrase as the name of a class: small letters, no article in front, and as `shown`."""
    words = shown(phrase).lower().split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in ARTICLES else words) or "thing"


def shown(name: str) -> str:
    """One space between words, and nothing that XML and YAML cannot hold or that does harm where it is shown."""
    return " ".join(harmless(name).translate(NO_CHARACTERS).split())


def span_in(caption: str, one: Found, start: int = 0) -> tuple[int, int] | None:
    """The characters of a phrase in the caption: its own span, or the first place with its words from `start` on."""
    if one.span is not None and one.span[0] < one.span[1]:
        return one.span
    at = caption.lower().find(one.phrase.lower(), start) if one.phrase else -1
    return None if at < 0 else (at, min(at + len(one.phrase), len(caption)))
