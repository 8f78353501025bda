"""Short questions that a caption answers, by its parse: colours, numbers, places, what is held and what is done.

"A man riding a red bike on the beach." -> ("What color is the bike?", "Red."), ("What is the man riding?", "A red
bike."), ("Where is the man?", "On the beach."), ("What is the man doing?", "Riding a red bike on the beach."), …
"""

from collections.abc import Iterator

from spacy.tokens import Doc, Token

COLOURS = {
    "red", "green", "blue", "yellow", "white", "black", "brown", "orange", "pink", "purple", "grey", "gray", "silver",
    "golden", "tan", "beige",
}  # fmt: skip
PLACES = {"on", "in", "at", "near", "under", "behind", "beside", "inside", "above", "by", "over"}
ASKED = {"on", "in", "under", "behind", "near", "beside", "above"}  # of these: "What is on the table?"
NUMBERS = {"two", "three", "four", "five", "six", "seven", "eight"}
HELD = {  # forms, since lemmatizers take "riding" for "rid" too
    "holding", "riding", "wearing", "eating", "carrying", "reading", "flying", "watching", "throwing", "catching",
    "hitting", "using", "pulling", "cutting", "drinking",
}  # fmt: skip
VAGUE = {
    "picture", "photo", "photograph", "image", "view", "shot", "couple", "group", "bunch", "front", "top", "back",
    "side", "middle", "background", "foreground", "way", "order", "air", "distance", "time", "variety", "pile",
    "position", "event", "sort", "kind", "type", "piece", "lot", "set", "pair",
}  # fmt: skip
LONGEST = 9  # words of an answer


def _text(tokens: list[Token]) -> str:
    return "".join(t.text_with_ws for t in tokens).strip(" ,.;")


def _subtree(token: Token, without: Token | None = None) -> list[Token]:
    left_out = set(without.subtree) if without is not None else set()
    return [t for t in token.subtree if t not in left_out]


def _answer(tokens: list[Token]) -> str | None:
    """`Red.`, or None where it is empty or too long to be one."""
    text = _text(tokens)
    if not text or len(text.split()) > LONGEST:
        return None
    return text[0].upper() + text[1:] + "."


def _name(noun: Token) -> str | None:
    """`the old bus`'s head with its compounds: "city bus"; None where a question about it says nothing."""
    if noun.pos_ not in ("NOUN",) or noun.lemma_.lower() in VAGUE:
        return None
    words = [t for t in noun.lefts if t.dep_ == "compound"] + [noun]
    return " ".join(t.lower_ for t in words)


def _thing(noun: Token) -> list[Token]:
    """The noun with what stands before it and "of …": no clause, no place."""
    kept = [t for child in noun.lefts for t in child.subtree] + [noun]
    return kept + [t for child in noun.rights if child.dep_ == "prep" and child.lower_ == "of" for t in child.subtree]


def _is(noun: Token) -> str:
    return "are" if noun.tag_ in ("NNS", "NNPS") else "is"


def _subject(verb: Token) -> Token | None:
    """Who does it: "a man riding", "a man is riding"."""
    if verb.dep_ in ("acl", "relcl") and verb.head.pos_ == "NOUN":
        return verb.head
    return next((t for t in verb.lefts if t.dep_ == "nsubj" and t.pos_ == "NOUN"), None)


def _of_noun(noun: Token, name: str) -> Iterator[tuple[str, str | None]]:
    for word in noun.lefts:
        if word.dep_ == "amod" and word.lower_ in COLOURS and not list(word.children):
            yield f"What color {_is(noun)} the {name}?", _answer([word])
        if word.dep_ == "nummod" and word.lower_ in NUMBERS:
            yield f"How many {name} are there?", _answer([word])


def _of_place(place: Token) -> Iterator[tuple[str, str | None]]:
    where = next((t for t in place.rights if t.dep_ == "pobj"), None)
    thing = _subject(place.head) if place.head.pos_ == "VERB" else place.head
    if where is None or thing is None:
        return
    name, there = _name(thing), _name(where)
    if name and there:
        yield f"Where {_is(thing)} the {name}?", _answer([place, *_thing(where)])
        if place.lower_ in ASKED and place.dep_ == "prep":
            yield f"What is {place.lower_} the {there}?", _answer(_thing(thing))


def _of_verb(verb: Token) -> Iterator[tuple[str, str | None]]:
    who = _subject(verb)
    name = _name(who) if who is not None else None
    if who is None or name is None or verb.tag_ != "VBG":
        return
    doing = _subtree(verb)
    yield f"What {_is(who)} the {name} doing?", _answer([t for t in doing if t.i >= verb.i])
    what = next((t for t in verb.rights if t.dep_ == "dobj"), None)
    if what is not None and verb.lower_ in HELD and _name(what):
        yield f"What {_is(who)} the {name} {verb.lower_}?", _answer(_thing(what))


def questions_of(caption: Doc) -> list[tuple[str, str]]:
    """(question, answer) pairs, in the order of the caption's words; `caption` is parsed."""
    found: list[tuple[str, str | None]] = []
    for token in caption:
        name = _name(token)
        if name:
            found += _of_noun(token, name)
        if token.dep_ == "prep" and token.lower_ in PLACES:
            found += _of_place(token)
        if token.pos_ == "VERB":
            found += _of_verb(token)
    return [(question, answer) for question, answer in found if answer]
