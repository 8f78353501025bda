"""What two boxes have in common."""

from collections.abc import Sequence


def box_iou(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes x0, y0, x1, y1, each with an area."""
    sides = [min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1)]
    common = max(sides[0], 0.0) * max(sides[1], 0.0)
    return common / (_area(one) + _area(other) - common)


def _area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
