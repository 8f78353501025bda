"""Phrases that name nothing one could point at. English words; of other languages only pronouns are known."""

from collections.abc import Callable

from spacy.tokens import Span

from aas.choices import Kind

# Places in a picture and the picture itself: nothing to see unless something is said of them ("a red top").
# fmt: off
PLACES = {
    "background", "bottom", "center", "centre", "corner", "distance", "foreground", "frame", "front", "image", "left",
    "middle", "photo", "photograph", "picture", "right", "scene", "setting", "shot", "side", "top", "view",
}
# Never to be seen, whatever is said of them.
ABSTRACT = {
    "addition", "ambiance", "ambience", "atmosphere", "attention", "charm", "composition", "contrast", "depth",
    "emphasis", "feel", "feeling", "focus", "idea", "impression", "interest", "mood", "moment", "presence", "sense",
    "variety", "vibe", "way",
}
# fmt: on


def is_pronoun(chunk: Span) -> bool:
    """`it`, `which`, `that`, `one another`."""
    return chunk.root.pos_ == "PRON"


def is_unseen(chunk: Span) -> bool:
    """`the image`, `the left side`, `a sense of depth`; not `a framed picture`."""
    if chunk.root.lower_ in ABSTRACT:
        return True
    said = [word.lower_ for word in chunk if word.is_alpha and not word.is_stop and word.pos_ not in ("DET", "PRON")]
    return chunk.root.lower_ in PLACES and all(word in PLACES for word in said)


TESTS: dict[Kind, Callable[[Span], bool]] = {"pronouns": is_pronoun, "unseen": is_unseen}
