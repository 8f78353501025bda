"""LaTeX in answers: formulas are no words, but words set in them are."""

import re
from collections.abc import Iterator

from aas.phrases.reading import Instead

# How a formula begins and ends, and what it cannot hold. A price is none: $5 and $6, $5-$10, US$5.
DOLLAR, NO_DOLLAR = r"(?<![\w$\\])\$", r"[^$\n]"
MARKS = (
    (r"\$\$", r"\$\$", r"[^$]"),
    (r"\\\[", r"\\\]", r"(?:(?!\\[\[\]])[\s\S])"),
    (r"\\\(", r"\\\)", r"(?:(?!\\[()])[\s\S])"),
    (rf"{DOLLAR}(?! )", r"(?<! )\$(?![\w$])", NO_DOLLAR),
)
LONGEST = 2000  # characters of a formula
SIGN = r"(?:\\[A-Za-z]|[\^_={}])"  # words beside it are names in a formula
WORD = r"(?=[^\W\d_]*[^\W\d_A-Z])[^\W\d_]{3}"  # not ABC, a triangle
SET_WORDS = r"\s*(?:\\boxed\{)?\\(?:text\w*|mbox|mathrm)\{([^{}\\]+)\}\}?\s*"  # \text{a dog}
ENVIRONMENT = r"(?:equation|align(?:ed|at)?|gather(?:ed)?|multline|split|array|cases|[pbvBV]?matrix)\*?"
COMMANDS = (
    r"\\(?:[dt]?frac|sqrt|times|cdot|div|pm|[lg]eq?|neq?|approx|circ|degree|angle|triangle|pi|theta|alpha|beta|gamma|"
    r"delta|[Rr]ightarrow|to|infty|sum|int|left|right|quad|math\w+|overline|underline)"
    r"(?![A-Za-z])(?:[\[{][^\[\]{}\n]*[\]}])*"
)


def _formulas() -> Iterator[tuple[re.Pattern[str], Instead]]:
    for start, end, inside in MARKS:
        is_formula = rf"(?:(?={inside}{{0,{LONGEST}}}?{SIGN})|(?!{inside}{{0,{LONGEST}}}?{WORD}))"
        yield re.compile(f"{start}{SET_WORDS}{end}"), ""
        yield re.compile(rf"{start}{is_formula}{inside}{{1,{LONGEST}}}{end}"), " "
    yield re.compile(rf"{DOLLAR} (?={NO_DOLLAR}*?(?:{SIGN}|[+<>])){NO_DOLLAR}+\$(?!\w)"), " "
    yield re.compile(rf"\\begin\{{{ENVIRONMENT}\}}[\s\S]{{0,{LONGEST}}}?\\end\{{{ENVIRONMENT}\}}"), " "
    yield re.compile(r"\\(?:boxed|text\w*|mbox)\{([^{}\\]*)\}"), ""
    yield re.compile(COMMANDS), " "


FORMULAS = list(_formulas())  # what is taken out, in this order, as in aas.phrases.markup
