"""What the viewer draws of one photograph, as text: pictures as data URIs, masks as run lengths, maps as bytes."""

import base64
import io
from typing import Any

import cv2
import numpy as np
from PIL import Image

from aas import rle
from aas.view.scaling import PIXELATED_BELOW_PX, shown_image, shown_mask, shown_size_hw

_JPEG_QUALITY = 78
_THUMB_SIDE_PX, _THUMB_QUALITY = 128, 60
# Of all maps of one kind together: long answers get coarser maps of their tokens, and a page stays small.
_MAP_BYTES = 60_000


def _uri(picture: Image.Image, kind: str, **options: object) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, optimize=True, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def photo_uri(image: np.ndarray, size_hw: tuple[int, int]) -> str:
    """`image` uint8 [H, W, 3] RGB as JPEG; as PNG where it has so few pixels that they show as squares."""
    picture = shown_image(image, size_hw).convert("RGB")
    if max(size_hw) < PIXELATED_BELOW_PX:
        return _uri(picture, "PNG")
    return _uri(picture, "JPEG", quality=_JPEG_QUALITY, progressive=True)


def thumb_uri(image: np.ndarray) -> str:
    """For the list of contents: a JPEG of a few kilobytes."""
    picture = shown_image(image, shown_size_hw(image.shape[:2], 1, _THUMB_SIDE_PX))
    return _uri(picture.convert("RGB"), "JPEG", quality=_THUMB_QUALITY)


def mask_runs(mask: np.ndarray, size_hw: tuple[int, int]) -> str:
    """bool [H, W] at its shown size, as COCO writes runs, but along the rows: a canvas has its pixels in this order."""
    inside = shown_mask(mask, size_hw) >= 0.5
    return rle.of_mask(np.asfortranarray(inside.T))["counts"]


def map_bytes(maps: np.ndarray) -> dict[str, Any]:
    """Maps float32 [n, h, w] as `size` [h, w] and `bytes`, base64 of uint8 [n, h, w]: 0 each one's least value, 255 its
    largest. Where they are many, their cells are averaged first."""
    grid = np.nan_to_num(np.asarray(maps, np.float32))
    height, width = grid.shape[1:]
    share = min(1.0, (_MAP_BYTES / max(1, grid.size)) ** 0.5)
    size_hw = max(1, int(height * share)), max(1, int(width * share))
    if size_hw != (height, width):
        smaller = [cv2.resize(one, size_hw[::-1], interpolation=cv2.INTER_AREA) for one in grid]
        grid = np.stack(smaller)
    low, high = (
        grid.min(axis=(1, 2), keepdims=True, initial=np.inf),
        grid.max(axis=(1, 2), keepdims=True, initial=-np.inf),
    )
    levels = ((grid - low) / np.maximum(high - low, 1e-12) * 255).round().astype(np.uint8)
    return {"size": list(size_hw), "bytes": base64.b64encode(levels.tobytes()).decode("ascii")}
