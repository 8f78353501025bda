"""One picture of a grounding: the photograph with its masks, and beside it the answer in the same colours."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from aas.choices import ConfidenceKind
from aas.records import Answer, GroundedPhrase
from aas.view import panel, shapes
from aas.view.colours import WHITE, colour_of, ink_on
from aas.view.scaling import extent, grown, inner_edge, shown_image, shown_mask, shown_point, shown_size_hw
from aas.view.sharing import Thing, things
from aas.view.text import one_line, shortened
from aas.view.writing import width_px, write

SHORTEST_SIDE_PX, LONGEST_SIDE_PX = 640, 1280
MASK_OPACITY = 0.45
_EDGE_OPACITY, _HALO_OPACITY = 0.95, 0.55
_LABEL_LETTERS = 18
# From a point to its label, in heights of its letters; a label is 1.5 high.
_LABEL_GAPS_EM = (0.75, 1.55, 2.35, 3.95, 5.55)
# Wider photographs leave no room for text at their right.
_WIDE_FROM = 1.9


def draw(
    image: np.ndarray,
    answer: Answer,
    phrases: Sequence[GroundedPhrase],
    left_out: Sequence[str] = (),
    confidence: ConfidenceKind | None = None,
) -> Image.Image:
    """The photograph with masks, points and labels; beside it (below, when it is wide) the answer and the scores.

    `image`: uint8 [H, W, 3] RGB; masks bool [H, W] and points in its pixels. `left_out`: phrases that were given no
    mask on purpose; `confidence`: what that of the phrases is. The photograph is shown with a long side of 640 to 1280
    pixels at the top left of the returned RGB picture.
    """
    shown = things(phrases)
    photo = draw_photo(image, phrases, shown)
    text_size_px = max(16, max(photo.size) // 55)
    wide = photo.width > _WIDE_FROM * photo.height
    text = panel.draw(panel.content(answer, phrases, shown, left_out, confidence), text_size_px, photo.size, wide)
    canvas_wh = (photo.width, photo.height + text.height) if wide else (photo.width + text.width, text.height)
    canvas = Image.new("RGB", (max(canvas_wh[0], text.width), max(canvas_wh[1], photo.height)), WHITE)
    canvas.paste(photo, (0, 0))
    canvas.paste(text, (0, photo.height) if wide else (photo.width, 0))
    return canvas


def draw_photo(
    image: np.ndarray, phrases: Sequence[GroundedPhrase], shown: Sequence[Thing] | None = None
) -> Image.Image:
    """The left part of `draw`: RGB, the photograph at the shown size with masks, points and labels.

    `shown`: which phrases are one thing, and its colour; `things(phrases)` by default.
    """
    shown = things(phrases) if shown is None else shown
    image_hw = (image.shape[0], image.shape[1])
    size_hw = shown_size_hw(image_hw, SHORTEST_SIDE_PX, LONGEST_SIDE_PX)
    photo = Image.fromarray(_with_masks(image, phrases, shown, size_hw))
    points = [
        [(shown_point(point_xy, image_hw, size_hw), label) for point_xy, label in thing.points(phrases)]
        for thing in shown
    ]
    label_size_px = max(14, max(size_hw) // 64)
    # Peaks over the other points, whichever thing these are of.
    for thing, its_points in zip(shown, points, strict=True):
        for point_xy, label in its_points[1:]:
            shapes.paste_further_marker(photo, point_xy, label_size_px * 0.26, colour_of(thing.colour), label == 1)
    for thing, its_points in zip(shown, points, strict=True):
        shapes.paste_marker(photo, its_points[0][0], label_size_px * 0.48, colour_of(thing.colour))
    labels = [(thing.colour, one_line(thing.words(phrases))) for thing in shown]
    _label(photo, labels, [[point_xy for point_xy, _ in its_points] for its_points in points], label_size_px)
    return photo


def _with_masks(
    image: np.ndarray, phrases: Sequence[GroundedPhrase], shown: Sequence[Thing], size_hw: tuple[int, int]
) -> np.ndarray:
    """uint8 [h, w, 3]: the photograph with its masks."""
    plain = np.asarray(shown_image(image, size_hw).convert("RGB"), np.float32)
    pixels = plain.copy()
    masks = [phrases[thing.phrases[0]].mask for thing in shown]
    # The largest mask first: smaller ones stay visible on top of it.
    for i in sorted(range(len(shown)), key=lambda i: -np.count_nonzero(masks[i])):
        _tint(pixels, plain, shown_mask(masks[i], size_hw), shown[i].colour)
    return pixels.round().astype(np.uint8)


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
    photo: Image.Image,
    labels: Sequence[tuple[int, str]],
    points: Sequence[Sequence[tuple[float, float]]],
    size_px: int,
) -> None:
    """Writes "number words" near each thing's peak, only the number where the words would cover another label.

    `labels`: colour and words of each thing; `points`: all its points, the peak first.
    """
    peaks = [shapes.around(its_points[0], size_px * 0.5) for its_points in points]
    further = [shapes.around(point_xy, size_px * 0.35) for its_points in points for point_xy in its_points[1:]]
    taken: list[shapes.Box] = []
    limit_px = min(photo.width - 3 * size_px, _LABEL_LETTERS * size_px * 0.5)
    for i, (colour, words) in enumerate(labels):
        number = str(colour + 1)
        obstacles = [*peaks[:i], *peaks[i + 1 :], *further, *taken]
        # Words only where they are seen to belong to their point; a number may stand further away.
        whole = f"{number} {shortened(words, size_px, limit_px)}".rstrip()
        for label, n_gaps in ((whole, 1), (number, len(_LABEL_GAPS_EM))):
            gaps_px = [gap * size_px for gap in _LABEL_GAPS_EM[:n_gaps]]
            size_wh = (width_px(label, size_px) + size_px * 0.8, size_px * 1.5)
            box, overlap = shapes.best_place(points[i][0], size_wh, photo.size, obstacles, gaps_px)
            if overlap == 0:
                break
        taken.append(box)
        _paste_label(photo, label, box, size_px, colour)


def _paste_label(photo: Image.Image, label: str, box: shapes.Box, size_px: int, index: int) -> None:
    colour = colour_of(index)
    shapes.paste_rounded(photo, box, size_px * 0.35, colour, outline=WHITE)
    middle_xy = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    write(photo, middle_xy, label, size_px, ink_on(colour), "mm")
