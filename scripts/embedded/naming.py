"""Which thing of a photograph does a phrase name?"""

from collections.abc import Collection

from aas.phrases.categories import CategoryMatcher

THRESHOLD = 0.7  # vectors learned from captions find words of one scene similar, "street" and "bus" 0.5


def named_in_sight(
    matcher: CategoryMatcher, noun: str, in_sight: Collection[str], threshold: float = THRESHOLD
) -> str | None:
    """The category that `noun` names, where it is in sight; None otherwise.

    All of the matcher's categories compete, those that are not there too: a kitchen is none of a refrigerator.
    """
    best = matcher.best(noun, range(len(matcher.names)))
    if best is None or best[1] < threshold:
        return None
    name = matcher.names[best[0]]
    return name if name in in_sight else None
