"""How a visual chain of thought ends, as JSON in a result: `{"answer": …, "box": [x0, y0, x1, y1], "crop": …}`."""

from typing import Any

from aas.records import PixelBox, SecondLook
from aas.store import values


def look_json(look: SecondLook) -> dict[str, Any]:
    """Plain JSON types."""
    boxes = {"box": look.box_xyxy, "crop": look.crop_xyxy}
    return {"answer": look.answer} | {name: None if box is None else list(box) for name, box in boxes.items()}


def look_of(content: Any) -> SecondLook:
    """ValueError for what is none."""
    if not isinstance(content, dict):
        raise ValueError(f"{content!r} is no object with an answer")
    answer = values.named("answer", content.get("answer"), values.text)
    return SecondLook(answer, *(values.named(name, content.get(name), _box) for name in ("box", "crop")))


def _box(value: Any) -> PixelBox | None:
    if value is None:
        return None
    four = values.listed(value, values.index)
    if len(four) != 4 or four[0] >= four[2] or four[1] >= four[3]:
        raise ValueError(f"{value!r} is no box x0, y0, x1, y1")
    return four[0], four[1], four[2], four[3]
