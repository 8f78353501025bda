"""The pictures inside of report.html, as data URIs: photograph, masks, attention."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from PIL import Image

from aas.records import GroundedPhrase
from aas.view.colours import BLACK, PALETTE, colour_of
from aas.view.scaling import PIXELATED_BELOW_PX, inner_edge, shown_image, shown_mask
from aas.view.sharing import Thing

_FILL_ALPHA, _EDGE_ALPHA = 105, 245
_JPEG_QUALITY = 78
# The grid is interpolated as the point was found (bicubic) to about this size; the browser does the rest.
_HEAT_SIDE_PX = 96
_HEAT_LEVELS = 48
_HEAT_RGB = ((8, 6, 30), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191))
_HEAT_ALPHA = (120, 150, 185, 205, 220)


def _uri(picture: Image.Image, kind: str, **options: object) -> Markup:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, optimize=True, **options)
    return Markup(f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}")


def photo_uri(image: np.ndarray, size_hw: tuple[int, int]) -> Markup:
    """`image` uint8 [H, W, 3] RGB as JPEG; as PNG where it has so few pixels that they show as squares."""
    picture = shown_image(image, size_hw).convert("RGB")
    if max(size_hw) < PIXELATED_BELOW_PX:
        return _uri(picture, "PNG")
    return _uri(picture, "JPEG", quality=_JPEG_QUALITY, progressive=True)


def _mask_of(thing: Thing, phrases: Sequence[GroundedPhrase]) -> np.ndarray:
    return phrases[thing.phrases[0]].mask


def largest_first(phrases: Sequence[GroundedPhrase], shown: Sequence[Thing]) -> list[Thing]:
    """In the order in which masks are laid over each other: small ones stay visible."""
    return sorted(shown, key=lambda thing: -np.count_nonzero(_mask_of(thing, phrases)))


def _inside_and_edge(mask: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """bool [H, W] -> uint8 [h, w]: 0 outside, 1 inside, 2 the part of the inside that is the outline."""
    inside = shown_mask(mask, size_hw) >= 0.5
    edge = inner_edge(inside.astype(np.float32), 0 if max(size_hw) < PIXELATED_BELOW_PX else 2) > 0
    return inside.astype(np.uint8) + edge


def mask_uri(thing: Thing, phrases: Sequence[GroundedPhrase], size_hw: tuple[int, int]) -> Markup:
    """A picture of 2 bits per pixel: outside, inside and edge, in the thing's colour."""
    picture = Image.fromarray(_inside_and_edge(_mask_of(thing, phrases), size_hw))
    picture.putpalette([*colour_of(thing.colour)] * 3)
    return _uri(picture, "PNG", bits=2, transparency=bytes((0, _FILL_ALPHA, _EDGE_ALPHA)))


def rest_uri(phrases: Sequence[GroundedPhrase], shown: Sequence[Thing], size_hw: tuple[int, int]) -> Markup:
    """All masks in one picture, the smallest on top: tints that add up would hide both photograph and colours."""
    levels = np.zeros(size_hw, np.uint8)
    for thing in largest_first(phrases, shown):
        part = _inside_and_edge(_mask_of(thing, phrases), size_hw)
        levels = np.where(part > 0, part + 2 * (thing.colour % len(PALETTE)), levels).astype(np.uint8)
    picture = Image.fromarray(levels)
    picture.putpalette([*BLACK, *(channel for colour in PALETTE for channel in colour * 2)])
    return _uri(picture, "PNG", transparency=bytes((0, *(_FILL_ALPHA, _EDGE_ALPHA) * len(PALETTE))))


def heat_uri(grid_map: np.ndarray) -> Markup:
    """The attention map float32 [h, w], smooth and coloured, clearer where it is low."""
    grid = np.nan_to_num(np.asarray(grid_map, np.float32))
    height, width = grid.shape
    factor = max(1, _HEAT_SIDE_PX // max(height, width))
    smooth = Image.fromarray(grid).resize((width * factor, height * factor), Image.Resampling.BICUBIC)
    low, high = float(grid.min()), float(grid.max())
    shares = (np.asarray(smooth) - low) / max(high - low, 1e-12)
    levels = (shares.clip(0, 1) * (_HEAT_LEVELS - 1)).round().astype(np.uint8)
    picture = Image.fromarray(levels)
    stops, ramp = np.linspace(0, 1, len(_HEAT_RGB)), np.linspace(0, 1, _HEAT_LEVELS)
    channels = [np.interp(ramp, stops, values) for values in (*zip(*_HEAT_RGB, strict=True), _HEAT_ALPHA)]
    picture.putpalette(np.stack(channels[:3], axis=1).round().astype(np.uint8).ravel().tolist())
    return _uri(picture, "PNG", transparency=channels[3].round().astype(np.uint8).tobytes())
