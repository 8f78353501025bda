"""A contact sheet of one answer's attention: a photograph for every token, before and after removing the token mean."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from aas.geometry import map_on_image, peak_xy, scaled_view
from aas.maps.mean import without_token_mean
from aas.phrases.reasoning import tokens_of_answer
from aas.records import Answer, AttentionMaps
from aas.view import shapes
from aas.view.colours import BLACK, WHITE
from aas.view.scaling import shown_image, shown_size_hw
from aas.view.text import one_line, shortened
from aas.view.writing import width_px, write

TILE_PX, PER_ROW, GAP_PX, TEXT_PX, SMALL_PX, LEGEND_PX = 176, 8, 6, 15, 11, 12
RANGE_PX = 16  # the line under a picture that says what its colours span
BAR_WH, NARROWEST_PX = (160, 12), 480
MAX_TOKENS = 240
GREY_SHARE, HEAT_SHARE = 0.45, 0.75  # of the photograph's brightness, of the heat's colour
PEAK_RGB, GREY = (0x00, 0xC8, 0xFF), (0x6E, 0x6E, 0x6E)


def draw(image: np.ndarray, answer: Answer, attention: AttentionMaps, title: str = "") -> Image.Image:
    """RGB: for each token the photograph twice, under its raw map and under the map minus the answer's mean.

    `image` uint8 [H, W, 3] RGB. Every map has its own scale: the colour bar runs from the first to the last number
    under the picture. The number beside the word is the share of the token's attention that went to the image. The blue
    ring is the peak. Layers and heads that were kept apart are averaged.
    """
    maps = attention.maps.mean(axis=tuple(range(attention.maps.ndim - 3)), dtype=np.float32)
    size_hw = shown_size_hw(image.shape[:2], TILE_PX, TILE_PX)
    photo = np.asarray(shown_image(image, size_hw).convert("L").convert("RGB"), np.float32) * GREY_SHARE
    scale_xy = size_hw[1] / image.shape[1], size_hw[0] / image.shape[0]
    view = scaled_view(attention.view, scale_xy)
    both = np.stack([maps, without_token_mean(maps, tokens_of_answer(answer))], axis=1)[:MAX_TOKENS]
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
    """One token: its word and the image's share, then the photograph under each of the two maps, and what they span."""
    height, width = photo.shape[:2]
    tile = Image.new("RGB", (width, 2 * (height + RANGE_PX) + 2 * TEXT_PX), WHITE)
    number = f"{share:.3f}"
    write(tile, (width, TEXT_PX), number, SMALL_PX, GREY, "rm")
    limit_px = width - width_px(number, SMALL_PX) - GAP_PX
    write(tile, (0, TEXT_PX), shortened(one_line(label), TEXT_PX, limit_px), TEXT_PX, BLACK)
    for i, image_map in enumerate(pair):
        low, high = _span(image_map)
        picture = Image.fromarray(_heated(photo, image_map, low, high))
        x, y = peak_xy(image_map)
        shapes.paste_marker(picture, (x + 0.5, y + 0.5), 5, PEAK_RGB)
        top = 2 * TEXT_PX + i * (height + RANGE_PX)
        tile.paste(picture, (0, top))
        write(tile, (0, top + height + RANGE_PX // 2), f"{low:.2g} … {high:.2g}", SMALL_PX, GREY)
    return tile


def _span(image_map: np.ndarray) -> tuple[float, float]:
    """The values at the two ends of the colours. Below the mean of all tokens there is nothing to see: from 0 on."""
    low, high = float(image_map.min()), float(image_map.max())
    return (max(low, 0.0) if high > 0 else low), high


def _heated(photo: np.ndarray, image_map: np.ndarray, low: float, high: float) -> np.ndarray:
    """uint8 [H, W, 3]: the dark photograph, brighter and warmer where the map is high."""
    heat = np.clip((image_map - low) / max(high - low, 1e-12), 0, 1)
    colours = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1].astype(np.float32)
    return np.clip(photo * (1 - 0.5 * heat[..., None]) + colours * HEAT_SHARE, 0, 255).astype(np.uint8)


def _draw_legend(sheet: Image.Image, middles_y: tuple[float, float]) -> None:
    """Two lines: the colour bar, and what the ring and the number beside the word are."""
    (width, height), (first_y, second_y) = BAR_WH, middles_y
    ramp = np.broadcast_to(np.linspace(0, 1, width, dtype=np.float32), (height, width))
    bar = _heated(np.full((height, width, 3), 128 * GREY_SHARE, np.float32), ramp, 0, 1)
    write(sheet, (GAP_PX, first_y), "lowest", LEGEND_PX, GREY)
    x = 2 * GAP_PX + width_px("lowest", LEGEND_PX)
    sheet.paste(Image.fromarray(bar), (round(x), round(first_y - height / 2)))
    write(sheet, (x + width + GAP_PX, first_y), "highest value: the numbers under a picture", LEGEND_PX, GREY)
    shapes.paste_marker(sheet, (GAP_PX + 5, second_y), 5, PEAK_RGB)
    share = "the peak; beside the word: the share of its attention that went to the image"
    write(sheet, (2 * GAP_PX + 10, second_y), share, LEGEND_PX, GREY)


def _sheet(tiles: Sequence[Image.Image], lines: Sequence[str]) -> Image.Image:
    width, height = (tiles[0].size) if tiles else (TILE_PX, 0)
    n_columns = min(PER_ROW, max(len(tiles), 4))
    sheet_width = max(n_columns * (width + GAP_PX) + GAP_PX, NARROWEST_PX)
    line_px = TEXT_PX * 1.5
    head = int((len(lines) + 2) * line_px) + GAP_PX
    n_rows = -(-len(tiles) // n_columns)
    sheet = Image.new("RGB", (sheet_width, head + n_rows * (height + GAP_PX) + GAP_PX), WHITE)
    for i, line in enumerate(lines):
        text = shortened(one_line(line), TEXT_PX, sheet_width - 2 * GAP_PX)
        write(sheet, (GAP_PX, GAP_PX + (i + 0.5) * line_px), text, TEXT_PX, BLACK)
    _draw_legend(sheet, (GAP_PX + (len(lines) + 0.5) * line_px, GAP_PX + (len(lines) + 1.5) * line_px))
    for i, tile in enumerate(tiles):
        row, column = divmod(i, n_columns)
        sheet.paste(tile, (GAP_PX + column * (width + GAP_PX), head + row * (height + GAP_PX)))
    return sheet
