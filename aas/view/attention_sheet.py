"""A contact sheet of one answer's attention: a photograph for every token, before and after removing the token mean."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from aas.geometry import map_on_image, peak_xy, scaled_view
from aas.maps.mean import without_token_mean
from aas.records import Answer, AttentionMaps
from aas.view import shapes
from aas.view.colours import BLACK, WHITE
from aas.view.scaling import shown_image, shown_size_hw
from aas.view.text import font_of, one_line, shortened

TILE_PX, PER_ROW, GAP_PX, TEXT_PX = 176, 8, 6, 15
MAX_TOKENS = 240
GREY_SHARE, HEAT_SHARE = 0.45, 0.75  # of the photograph's brightness, of the heat's colour
PEAK_RGB = (0x00, 0xC8, 0xFF)


def draw(image: np.ndarray, answer: Answer, attention: AttentionMaps, title: str = "") -> Image.Image:
    """RGB: for each token the photograph twice, under its raw map and under the map minus the mean of all tokens.

    `image` uint8 [H, W, 3] RGB. Every map is scaled to its own largest value; the number is the share of the token's
    attention that went to the image. Layers and heads that were kept apart are averaged. The blue ring is the peak.
    """
    maps = attention.maps.mean(axis=tuple(range(attention.maps.ndim - 3)), dtype=np.float32)
    size_hw = shown_size_hw(image.shape[:2], TILE_PX, TILE_PX)
    photo = np.asarray(shown_image(image, size_hw).convert("L").convert("RGB"), np.float32) * GREY_SHARE
    scale_xy = size_hw[1] / image.shape[1], size_hw[0] / image.shape[0]
    view = scaled_view(attention.view, scale_xy)
    both = np.stack([maps, without_token_mean(maps)], axis=1)[:MAX_TOKENS]
    tiles = [
        _tile(photo, [map_on_image(grid_map, view, size_hw) for grid_map in pair], label, float(pair[0].sum()))
        for pair, label in zip(both, token_labels(answer), strict=False)
    ]
    rest = len(maps) - len(tiles)
    lines = [title, answer.question, answer.text, f"{rest} more tokens are not shown" if rest else ""]
    return _sheet(tiles, [line for line in lines if line])


def token_labels(answer: Answer) -> list[str]:
    """The characters that each token writes; a token that writes none is named by its id."""
    spans = zip(answer.token_spans, answer.token_ids, strict=True)
    return [answer.text[start:end] if end > start else f"#{token_id}" for (start, end), token_id in spans]


def _tile(photo: np.ndarray, pair: Sequence[np.ndarray], label: str, share: float) -> Image.Image:
    """One token: its word, then the photograph under each of the two maps."""
    height, width = photo.shape[:2]
    tile = Image.new("RGB", (width, 2 * (height + 2) + 2 * TEXT_PX), WHITE)
    font = font_of(TEXT_PX)
    number = f"{share:.3f}"
    pen = ImageDraw.Draw(tile)
    pen.text((width, TEXT_PX), number, font=font_of(TEXT_PX - 4), fill=(110, 110, 110), anchor="rm")
    pen.text((0, TEXT_PX), shortened(one_line(label), font, width - 42), font=font, fill=BLACK, anchor="lm")
    for i, image_map in enumerate(pair):
        picture = Image.fromarray(_heated(photo, image_map))
        x, y = peak_xy(image_map)
        shapes.paste_marker(picture, (x + 0.5, y + 0.5), 5, PEAK_RGB)
        tile.paste(picture, (0, 2 * TEXT_PX + i * (height + 2)))
    return tile


def _heated(photo: np.ndarray, image_map: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3]: the dark photograph, brighter and warmer where the map is high."""
    low, high = float(image_map.min()), float(image_map.max())
    low = max(low, 0.0) if high > 0 else low  # below the mean of all tokens there is nothing to see
    heat = np.clip((image_map - low) / max(high - low, 1e-12), 0, 1)
    colours = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1].astype(np.float32)
    return np.clip(photo * (1 - 0.5 * heat[..., None]) + colours * HEAT_SHARE, 0, 255).astype(np.uint8)


def _sheet(tiles: Sequence[Image.Image], lines: Sequence[str]) -> Image.Image:
    width, height = (tiles[0].size) if tiles else (TILE_PX, 0)
    n_columns = min(PER_ROW, max(len(tiles), 4))
    sheet_width = n_columns * (width + GAP_PX) + GAP_PX
    font = font_of(TEXT_PX)
    head = int(len(lines) * TEXT_PX * 1.5) + GAP_PX
    n_rows = -(-len(tiles) // n_columns)
    sheet = Image.new("RGB", (sheet_width, head + n_rows * (height + GAP_PX) + GAP_PX), WHITE)
    pen = ImageDraw.Draw(sheet)
    for i, line in enumerate(lines):
        text = shortened(one_line(line), font, sheet_width - 2 * GAP_PX)
        pen.text((GAP_PX, GAP_PX + (i + 0.5) * TEXT_PX * 1.5), text, font=font, fill=BLACK, anchor="lm")
    for i, tile in enumerate(tiles):
        row, column = divmod(i, n_columns)
        sheet.paste(tile, (GAP_PX + column * (width + GAP_PX), head + row * (height + GAP_PX)))
    return sheet
