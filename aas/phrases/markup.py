"""Answers as models write them, with Markdown, tags, JSON, boxes and reasoning, to the words that a person reads.

A parser takes asterisks and coordinates for nouns. Of an answer without markup nothing changes.
"""

import html
import json
import re
from collections.abc import Iterator

from aas.phrases.formulas import FORMULAS
from aas.phrases.reading import Instead, Reading
from aas.phrases.reasoning import reasoning_spans
from aas.records import Answer

NAME = r"[A-Za-z_][\w:.-]*"
TAG = rf"""</?{NAME}(?:\s+{NAME}\s*=\s*(?:"[^"]*"|'[^']*'|[^\s<>"']+))*\s*/?>|<!--[^>]*-->"""
# Of chats and of models that mark things: <|im_end|>, ◁think▷, [SEG].
SPECIAL = (
    r"</?\|[^<>|\n]*\|?>|<[^<>|\s]*\|>|◁/?\w+▷|\[/?(?:SEG|LOC|BOX|POINT|REF|OBJ|INST|IMG|CLS|SEP|PAD|UNK|MASK)\d*\]"
)
NUMBER = r"[-+]?\d+(?:\.\d+)?"
# Two numbers or more in brackets of any kind and depth, maybe cut off: (12,34), [[12, 34, 56, 78]], {<12><34>}.
IN_BRACKETS = rf"[(\[{{][\s(\[{{<]{{0,9}}{NUMBER}(?:[\s,;<>()\[\]{{}}]+{NUMBER})+(?:[\s>)\]}}]*[)\]}}]|[\s,;>.]*\Z)"
BOX_TAG = r"(?:b?box\w*|point\w*|quad|poly\w*|coord\w*|loc\w*)"
# <loc0012>, <loc_12>, <patch_index_0044>, <12>; <box>12,34</box>.
PLACE = rf"<(?:[a-z]+_?)*_?\d+>|<{BOX_TAG}>[^<>A-Za-z]*</{BOX_TAG}>|{IN_BRACKETS}"
A_PLACE = re.compile(PLACE)
BREAK = "\x1e"  # where one thing ends and the next begins with no word between them


def _break_or_space(match: re.Match[str]) -> str:
    """A list of things has the next word right behind a place; in a sentence a space follows."""
    before, after = match.string[: match.start()][-1:], match.string[match.end() :][:1]
    is_between = bool(before.strip()) and after.isalnum() and A_PLACE.search(match.group())
    return BREAK if is_between else " "


def _unescaped(match: re.Match[str]) -> str:
    character = html.unescape(match.group()).replace("\xa0", " ")
    return character if len(character) == 1 else " "


def _lines(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.MULTILINE)


# What is taken out, in this order. Of a pattern with a group that group stays, else what stands beside it.
EDITS: list[tuple[re.Pattern[str], Instead]] = [
    *FORMULAS,
    (re.compile(r"!?\[([^\[\]]*)\]\([^()\s]*(?:\s+\"[^\"\n]*\")?\s*\)"), ""),  # a link keeps its words
    (re.compile(r"</(?:li|t[dhr]|h\d|div)>|<(?:li|t[dhr]|h\d|div|hr)>", re.IGNORECASE), BREAK),
    (re.compile(r"<br\s*/?>", re.IGNORECASE), "\n"),
    (re.compile(rf"(?:{PLACE}|{TAG}|{SPECIAL}|(?<=[)\]}}>])\s*[,;]\s*(?={PLACE}))+"), _break_or_space),
    (re.compile(r"<?https?://[^\s<>)\]]+>?"), " "),
    (_lines(r"^[ \t]*(?:```+|~~~+)[^\n`]*$\n?"), ""),  # fences of code
    (_lines(r"^[ \t]*\|?[ \t]*:?-{2,}:?[ \t]*(?:\|[ \t:-]*)+$\n?"), ""),  # the line below a table's head
    (_lines(r"^[ \t]*(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,}|={3,})$\n?"), ""),  # rules
    (_lines(r"^[ \t]*(?:>[ \t]?)+"), ""),  # quotes
    (_lines(r"^[ \t]*[-+*•‣◦▪▫●○■□–—][ \t]+(?:\[[ xX]\][ \t]+)?"), ""),  # bullets
    (_lines(r"^([ \t]*\d+[.)][ \t]+)?#{1,6}[ \t]+"), ""),  # headings
    (_lines(r"(?<=\S)[ \t]+#+[ \t]*$"), ""),
    (re.compile(r"\\(?=[\\`*_{}\[\]()#+.!~|>-])"), ""),
    (re.compile(r"(?<!\d)\*+|\*+(?!\d)|`+|~~"), ""),  # emphasis, also where its end was cut off
    (re.compile(r"(?<!\w)_+|_+(?!\w)"), ""),
    (re.compile(r"&(?:[A-Za-z]+|#\d+|#[xX][\dA-Fa-f]+);"), _unescaped),
]
# White space that only stands around what was taken out.
TIDYING: list[tuple[re.Pattern[str], Instead]] = [
    (re.compile(r"[ \t]+(?=[ \t\n])|(?<=\n)[ \t]+"), ""),
    (re.compile(r"(?<=\w)[ \t]+(?=[,.;:!?](?:\s|\Z))"), ""),
]
TABLE_ROW = _lines(r"^[ \t]*\|.*\|[ \t]*$")
JSON_START = re.compile(r"(?:\[\s*)?\{\s*\"[^\"\n]*\"\s*:|^\[\s*\"", re.MULTILINE)
STRING = re.compile(r'"((?:[^"\\]|\\.)*)"(\s*:)?', re.DOTALL)
JSON_ESCAPES: list[tuple[re.Pattern[str], Instead]] = [
    (re.compile(r"\\[bfnrt]"), " "),
    (re.compile(r"\\u[\dA-Fa-f]{4}"), lambda match: chr(int(match.group()[2:], 16))),
    (re.compile(r"\\(?=[\"\\/])"), ""),
]
# Keys that name no thing: {"dog": [12, 34, 56, 78]} does.
FIELDS = re.compile(r"b?box|point|coord|poly|mask|score|conf|label|name|\bid\b|type|class|categor|count|[xy]\d?$", re.I)


def readings(answer: Answer, *, reasoning: bool = False) -> list[Reading]:
    """The parts of an answer that are parsed each by itself, in reading order; of a plain answer one, all of it.

    A text in JSON is such a part, a cell of a table, and what stands right behind a place or a special token. What a
    model says between <think> and </think> is not its answer; with `reasoning` it is read too.
    """
    whole = Reading.of(answer.text)
    gaps = {start for start, end in answer.token_spans if start == end and _is_inside(answer.text, start)}
    if gaps:  # special tokens write nothing, and the words beside them touch
        whole = whole.marked(gaps, BREAK)
    parts = [part for said in _said(whole, reasoning) for part in _parts(said)]
    return [part for part in parts if part.text.strip()]


def _is_inside(text: str, i: int) -> bool:
    return 0 < i < len(text) and text[i - 1].isalnum() and text[i].isalnum()


def _said(whole: Reading, reasoning: bool) -> Iterator[Reading]:
    """The answer without its reasoning, or both, without the marks."""
    start = 0
    for (thought_start, thought_end), inner in reasoning_spans(whole.text):
        yield whole.part(start, thought_start)
        if reasoning:
            yield whole.part(*inner)
        start = thought_end
    yield whole.part(start, len(whole.text)) if start else whole


def _parts(said: Reading) -> Iterator[Reading]:
    """Prose, and the texts of JSON between it, all without markup."""
    start = 0
    while found := JSON_START.search(said.text, start):
        yield from _prose(said.part(start, found.start()))
        end = _end_of_json(said.text, found.start())
        yield from _texts(said.part(found.start(), end))
        start = end
    yield from _prose(said.part(start, len(said.text)) if start else said)


def _end_of_json(text: str, start: int) -> int:
    """Where it ends; of JSON that is cut off or wrong, the end of its fence or of the text."""
    try:
        return json.JSONDecoder(strict=False).raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        fence = text.find("```", start)
        return len(text) if fence < 0 else fence


def _texts(written: Reading) -> Iterator[Reading]:
    """The strings in JSON that are no keys; where there are none, the keys that may name a thing."""
    strings = list(STRING.finditer(written.text))
    values = [one for one in strings if not one.group(2)]
    for one in values or [one for one in strings if not FIELDS.search(one.group(1))]:
        yield from _prose(_edited(written.part(*one.span(1)), JSON_ESCAPES))


def _prose(written: Reading) -> Iterator[Reading]:
    edited = _edited(written, EDITS)
    if edited is not written:
        edited = _edited(edited, TIDYING)
    ends = {len(edited.text), *(i for i, c in enumerate(edited.text) if c == BREAK)}
    for row in TABLE_ROW.finditer(edited.text):
        ends |= {row.start(), row.end(), *(i for i in range(*row.span()) if edited.text[i] == "|")}
    if len(ends) == 1 and edited is written:
        yield written
        return
    start = 0
    for end in sorted(ends):
        yield edited.part(start, end)
        start = end + (edited.text[end : end + 1] in (BREAK, "|"))


def _edited(reading: Reading, edits: list[tuple[re.Pattern[str], Instead]]) -> Reading:
    for pattern, instead in edits:
        reading = reading.without(pattern, instead)
    return reading
