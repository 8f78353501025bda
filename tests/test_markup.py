"""Of an answer a parser reads what a person reads: the same phrases as of the same words without markup."""

import time

import pytest

from aas.ground import Grounder
from aas.phrases.markup import readings
from aas.phrases.parser import load_pipeline, noun_chunks, noun_phrases
from aas.phrases.referent import referent
from aas.records import Answer
from aas.stages.ground_options import Ground
from aas.stages.segment import pointing_options
from tests import tiny

PIPELINE = load_pipeline("embedded")


def answer(text: str) -> Answer:
    """Each character is a token."""
    return Answer("", text, tuple(range(len(text))), tuple((i, i + 1) for i in range(len(text))))


def found(text: str, **options):
    said = answer(text)
    return [(one.text, text[slice(*one.root_span)]) for one in noun_phrases(PIPELINE, said, **options)]


# As models write them, and the same words retyped without markup: each line is parsed by itself.
WRITTEN = {
    # From shared/cases/models/markdown_phrases.
    "heading": ("### Description:\nA **man** in a **red shirt** is holding a **white cup**.",
                ["Description:\nA man in a red shirt is holding a white cup."]),
    "bold list": ("The man wears a **black hat**, a **white shirt** and **blue jeans**.",
                  ["The man wears a black hat, a white shirt and blue jeans."]),
    "number": ("1. **Foreground**: A **golden retriever** lies on the __green grass__.",
               ["1. Foreground: A golden retriever lies on the green grass."]),
    "bullets": ("- **Dog**: A brown dog with a *red collar*.\n- **Bench**: A `wooden bench`.",
                ["Dog: A brown dog with a red collar.\nBench: A wooden bench."]),
    "bare boxes": ("the dog(12,34),(56,78) sits on a bench(1,2),(3,4)", ["the dog sits on a bench"]),
    "box tags": ("<ref>the dog</ref><box>[[12, 34, 56, 78]]</box>", ["the dog"]),
    "reasoning": ("<think>Got it. Maybe there is a cat?</think>\n\nA dog sits on a bench.", ["A dog sits on a bench."]),
    "fenced JSON": ('```json\n[\n\t{"bbox_2d": [12, 34, 56, 78], "label": "brown dog"}\n]\n```', ["brown dog"]),
    # Others of the kind.
    "reasoning begun in the prompt": ("There may be a cat.</think>A dog.", ["A dog."]),
    "reasoning cut off": ("<think>A cat sits on a", []),
    "reasoning of Kimi": ("◁think▷A cat?◁/think▷A dog.", ["A dog."]),
    "nested bullets, a task": ("* A dog\n  - [x] a red ball\n+ a bench", ["A dog\na red ball\na bench"]),
    "cut off in bold": ("A dog on a **red rug", ["A dog on a red rug"]),
    "quote and rule": ("> A *brown* dog sits.\n\n---\n\nA cat runs.", ["A brown dog sits.\n\n\nA cat runs."]),
    "table": ("| Thing | Where |\n|:--|---|\n| A **dog** | a bench |", ["Thing", "Where", "A dog", "a bench"]),
    "links": ("![A dog](a.png) on [a bench](https://x.org/b_c) of https://x.org.", ["A dog on a bench of."]),
    "HTML": ("<b>A dog</b>, <i class='x'>a cat</i>.<br>A bench &amp; a rug.", ["A dog, a cat.\nA bench & a rug."]),
    "HTML list": ("<ul><li>A dog</li><li>A cat</li></ul>", ["A dog", "A cat"]),
    "Florence": ("dog<loc_1><loc_2><loc_3><loc_4>red bench<loc_5><loc_6><loc_7><loc_8>", ["dog", "red bench"]),
    "Kosmos": ("<phrase>A dog</phrase><object><patch_index_0044><patch_index_0863></object> on a rug.",
               ["A dog on a rug."]),
    "GLaMM": ("<p> A dog </p> [SEG] sits on <p> a bench </p> [SEG].", ["A dog sits on a bench."]),
    "MiniGPT": ("<p>A dog</p> {<12><34><56><78>} on <p>a rug</p>.", ["A dog on a rug."]),
    "Molmo": ('<points x1="1.5" y1="2" alt="two dogs">two dogs</points> near a cat', ["two dogs near a cat"]),
    "Shikra": ("The dog [0.12,0.34,0.56,0.78] sees a cat [[1,2,3,4;5,6,7,8]], a hat.", ["The dog sees a cat, a hat."]),
    "a box cut off": ("A dog sits on a bench [0.12, 0.34, 0.", ["A dog sits on a bench"]),
    "words of special tokens": ("<|begin_of_box|>A dog<|end_of_box|><|im_end|></s>", ["A dog"]),
    "JSON cut off": ('[{"label": "brown dog", "bbox": [1, 2, 3, 4]}, {"label": "a cat", "bb', ["brown dog", "a cat"]),
    "JSON of names": ('{"dog": [1, 2, 3, 4], "red bench": [5, 6, 7, 8]}', ["dog", "red bench"]),
    "JSON in prose": ('I see {"label": "a dog", "score": 0.9} and a cat.', ["I see", "a dog", "and a cat."]),
    "formulas": (r"A dog $\frac{a}{b}$ and \( x^2 + y \) a cat \[ E = mc^2 \] run.", ["A dog and a cat run."]),
    "a formula of lines": ("The circle\n$$\nA = \\pi r^2\n$$\nis red.", ["The circle\n\nis red."]),
    "an environment": ("A dog \\begin{align*} x &= 2 \\end{align*} sits.", ["A dog sits."]),
    "commands alone": (r"A dog eats \frac{1}{2} a cake \times.", ["A dog eats a cake."]),
    "names in formulas": ("The triangle $ABC$ has a red side $x$.", ["The triangle has a red side."]),
    "words set as formulas": (r"It is $\boxed{\text{a brown dog}}$, \boxed{a cat}.", ["It is a brown dog, a cat."]),
    "an answer in a box": (r"\[ \text{the red mug} \]", ["the red mug"]),
    "list in JSON": ('["a dog", "a **red** bench"]', ["a dog", "a red bench"]),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_phrases_are_those_of_the_words_without_markup(name):
    text, plain = WRITTEN[name]
    expected = [(chunk.text, chunk.root.text) for line in plain for chunk in noun_chunks(PIPELINE(line))]
    assert found(text) == expected
    assert not plain or expected


PLAIN = [
    "A dog, two cats (brown) and a 5*3 grid sit near the man's snake_case sign: x < 5 and y > 3.",
    "The #1 jersey - a red one - costs $5; see [1], e.g. 3 tiles (2019).\nA 1920s car.",
    "A $5 hat, a US$6 cup, a $20-$30 bag and two $1,000 prizes + a 6$ toy cost $5, not $6.",
    "A folder C:\\Users\\dog and the word a $ b $ c lie there.",
    "« Un chien » … 一只棕色的狗 坐在 长椅上。 🙂",
]


@pytest.mark.parametrize("text", PLAIN)
def test_of_plain_words_nothing_changes(text):
    (reading,) = readings(answer(text))
    assert reading.text == text and reading.places == answer(text).token_spans
    assert found(text) == [(c.text, c.root.text) for c in noun_chunks(PIPELINE(text))]


def test_reasoning_is_grounded_if_asked():
    text = "<think>Maybe there is a cat?</think>\n\nA dog sits."
    assert found(text, reasoning=True) == [("a cat", "cat"), ("A dog", "dog")]


def test_marks_have_no_part_in_a_phrase():
    text = "I see a **big** <b>red</b> hat(1,2) here."
    (_, phrase) = noun_phrases(PIPELINE, answer(text), words="chunk")
    assert phrase.text == "a big red hat" and text[slice(*phrase.span)] == "a **big** <b>red</b> hat"
    assert "".join(text[i] for i in phrase.token_indices).replace(" ", "") == "abigredhat"


def test_where_a_special_token_wrote_nothing_words_end():
    said = Answer("", "a doga cat", (1, 2, 3, 4, 5), ((0, 1), (1, 5), (5, 5), (5, 6), (6, 10)))
    assert [(one.text, one.token_indices) for one in noun_phrases(PIPELINE, said)] == [("a dog", (1,)), ("a cat", (4,))]


def test_nothing_without_a_letter_or_digit_is_a_phrase():
    assert found("*** \n--- …\n\n** | ") == []


def test_what_was_asked_about_is_not_in_the_reasoning():
    text = "<think>The cat is a tool.</think>It is **the mug**."
    phrase = referent(PIPELINE, answer(text))
    assert (phrase.text, text[slice(*phrase.span)]) == ("the mug", "the mug")
    assert referent(PIPELINE, answer("<think>The cat")) is None


PIECES = ["[", "((1,2),", "<a b=", "**", "![a](", '{"a": ', "| a ", "<|", "&a", "\\", "<12>,", "<think>", "</think>",
          "$", "$a ", "$ = ", r"\(", r"\[ x ", r"$\frac", r"\begin{array}"]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
def test_the_time_is_bounded(piece):
    start = time.perf_counter()
    readings(answer(piece * (12_000 // len(piece))))
    assert time.perf_counter() - start < 3


def test_every_way_takes_reasoning():
    said = "<think>Is there a cat?</think>A dog sits."
    options = Ground(images=("a.png",), answer=said, reasoning=True)
    assert options.grounder()["reasoning"] and pointing_options(options, 256).reasoning
    for reasoning, expected in ((False, ["A dog"]), (True, ["a cat", "A dog"])):
        grounding = Grounder(reasoning=reasoning)(tiny.a_photo(), answer=said)
        assert [phrase.text for phrase in grounding.phrases] == expected
