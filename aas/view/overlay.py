"""One picture of a grounding: the photograph with its masks, and beside it the answer in the same colours."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from aas.records import Answer, GroundedPhrase
from aas.view import panel, shapes
from aas.view.colours import WHITE, colour_of, ink_on
from aas.view.scaling import extent, grown, inner_edge, shown_image, shown_mask, shown_point, shown_size_hw
from aas.view.text import font_of, one_line, shortened, width_px

SHORTEST_SIDE_PX, LONGEST_SIDE_PX = 640, 1280
MASK_OPACITY = 0.45
_EDGE_OPACITY, _HALO_OPACITY = 0.95, 0.55
_LABEL_LETTERS = 18
# From a point to its label, in heights of its letters; a label is 1.5 high.
_LABEL_GAPS_EM = (0.75, 1.55, 2.35, 3.95, 5.55)
# Wider photographs leave no room for text at their right.
_WIDE_FROM = 1.9


def draw(image: np.ndarray, answer: Answer, phrases: Sequence[GroundedPhrase]) -> Image.Image:
    """The photograph with masks, points and labels; beside it (below, when it is wide) the answer and the scores.

    `image`: uint8 [H, W, 3] RGB; masks bool [H, W] and points in its pixels. The photograph is shown with a long side
    of 640 to 1280 pixels at the top left of the returned RGB picture.
    """
    photo = draw_photo(image, phrases)
    text_size_px = max(16, max(photo.size) // 55)
    wide = photo.width > _WIDE_FROM * photo.height
    text = panel.draw(answer, phrases, text_size_px, photo.size, wide)
    canvas_wh = (photo.width, photo.height + text.height) if wide else (photo.width + text.width, text.height)
    canvas = Image.new("RGB", (max(canvas_wh[0], text.width), max(canvas_wh[1], photo.height)), WHITE)
    canvas.paste(photo, (0, 0))
    canvas.paste(text, (0, photo.height) if wide else (photo.width, 0))
    return canvas


def draw_photo(image: np.ndarray, phrases: Sequence[GroundedPhrase]) -> Image.Image:
    """The left part of `draw`: RGB, the photograph at the shown size with masks, points and labels."""
    image_hw = (image.shape[0], image.shape[1])
    size_hw = shown_size_hw(image_hw, SHORTEST_SIDE_PX, LONGEST_SIDE_PX)
    plain = np.asarray(shown_image(image, size_hw).convert("RGB"), np.float32)
    pixels = plain.copy()
    # The largest mask first: smaller ones stay visible on top of it.
    for index in sorted(range(len(phrases)), key=lambda i: -np.count_nonzero(phrases[i].mask)):
        _tint(pixels, plain, shown_mask(phrases[index].mask, size_hw), index)
    photo = Image.fromarray(pixels.round().astype(np.uint8))
    points = [shown_point(phrase.point_xy, image_hw, size_hw) for phrase in phrases]
    label_size_px = max(14, max(size_hw) // 64)
    for index, point_xy in enumerate(points):
        shapes.paste_marker(photo, point_xy, label_size_px * 0.42, colour_of(index))
    _label(photo, phrases, points, label_size_px)
    return photo


def _tint(pixels: np.ndarray, plain: np.ndarray, cover: np.ndarray, index: int) -> None:
    """Paints the mask [h, w] in [0, 1] over float32 `pixels` [h, w, 3]: tinted inside, outlined at its edge.

    Tints do not add up: what is inside is the `plain` photograph in this mask's colour alone.
    """
    edge_px = max(2, max(cover.shape) // 400)
    box = extent(cover, margin_px=2)
    if box is None:
        return
    x0, y0, x1, y1 = box
    cover = cover[y0:y1, x0:x1, None]
    colour = np.array(colour_of(index), np.float32)
    patch = pixels[y0:y1, x0:x1]
    # A thin light line outside keeps a dark colour apart from a dark background.
    patch += (grown(cover[..., 0], 1)[..., None] - cover) * _HALO_OPACITY * (255 - patch)
    tinted = plain[y0:y1, x0:x1] * (1 - MASK_OPACITY) + colour * MASK_OPACITY
    patch += cover * (tinted - patch)
    patch += inner_edge(cover[..., 0], edge_px)[..., None] * _EDGE_OPACITY * (colour - patch)


def _label(
    photo: Image.Image, phrases: Sequence[GroundedPhrase], points: Sequence[tuple[float, float]], size_px: int
) -> None:
    """Writes "number phrase" near each point, only the number where the words would cover another label."""
    taken = [shapes.around(point_xy, size_px * 0.5) for point_xy in points]
    n_points = len(taken)
    font = font_of(size_px)
    for index, (phrase, point_xy) in enumerate(zip(phrases, points, strict=True)):
        number = str(index + 1)
        words = shortened(one_line(phrase.text), font, min(photo.width - 3 * size_px, _LABEL_LETTERS * size_px * 0.5))
        obstacles = taken[:index] + taken[index + 1 : n_points] + taken[n_points:]
        # Words only where they are seen to belong to their point; a number may stand further away.
        for label, n_gaps in ((f"{number} {words}".rstrip(), 1), (number, len(_LABEL_GAPS_EM))):
            gaps_px = [gap * size_px for gap in _LABEL_GAPS_EM[:n_gaps]]
            size_wh = (width_px(label, font) + size_px * 0.8, size_px * 1.5)
            box, overlap = shapes.best_place(point_xy, size_wh, photo.size, obstacles, gaps_px)
            if overlap == 0:
                break
        taken.append(box)
        _paste_label(photo, label, box, size_px, index)


def _paste_label(photo: Image.Image, label: str, box: shapes.Box, size_px: int, index: int) -> None:
    colour = colour_of(index)
    shapes.paste_rounded(photo, box, size_px * 0.35, colour, outline=WHITE)
    middle_xy = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    ImageDraw.Draw(photo).text(middle_xy, label, font=font_of(size_px), fill=ink_on(colour), anchor="mm")
