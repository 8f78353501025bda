"""Failures of many images, by what they have in common."""

import re
from collections.abc import Mapping

NUMBER = re.compile(r"\d+(?:\.\d+)?")


def by_cause(failures: Mapping[str, str]) -> dict[str, list[str]]:
    """Cause -> images, the most frequent first. `failures`: image -> reason, which names the image's file first."""
    found: dict[str, list[str]] = {}
    for image, reason in failures.items():
        found.setdefault(cause_of(image, reason), []).append(image)
    return dict(sorted(found.items(), key=lambda entry: -len(entry[1])))


def cause_of(image: str, reason: str) -> str:
    """`reason` without the image's name, and with N for every number."""
    name, _, rest = reason.partition(": ")
    is_name = rest and (name.endswith(image) or image.endswith(name) or "/" in name)
    return NUMBER.sub("N", rest if is_name else reason)
