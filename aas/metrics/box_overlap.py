"""What two boxes have in common."""

from pycocotools import mask as coco_mask

from aas.records import BoxXyxy


def box_iou(one: BoxXyxy, other: BoxXyxy) -> float:
    """Intersection over union of two boxes, each with an area."""
    (x0, y0, x1, y1), (u0, v0, u1, v1) = one, other
    return float(coco_mask.iou([[x0, y0, x1 - x0, y1 - y0]], [[u0, v0, u1 - u0, v1 - v0]], [0])[0, 0])
