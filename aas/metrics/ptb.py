"""Words of captions without Java: what the Penn Treebank tokenizer of COCO's caption evaluation makes of such text.

Written from that tokenizer's output. How often the two agree is stated in docs/evaluation.md.
"""

import re

# Behind these a full stop is part of the word; behind others it is punctuation.
_ABBREVIATIONS = (
    "mr mrs ms dr st ave blvd rd etc inc corp co ltd bros jr sr vs mt ft gen gov sen rep capt lt sgt prof "
    "jan feb apr aug sept sep oct nov dec dept univ calif"
)
_SPLIT_WORDS = {
    "cannot": "can not",
    "gonna": "gon na",
    "gotta": "got ta",
    "wanna": "wan na",
    "gimme": "gim me",
    "lemme": "lem me",
    "'tis": "'t is",
    "'twas": "'t was",
    "y'all": "y' all",
}
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_REWRITTEN = str.maketrans(
    {"‘": "`", "’": "'", "“": '"', "”": '"', "–": " -- ", "—": " -- ", "…": " ... ", "€": "$", "£": "#", "½": "1/2"}
)
_LETTER = r"[^\W\d_]"
_TOKEN = re.compile(
    rf"""
      (?:https?://|www\.)\S*[^\s.,;:!?)\]"'] | [\w.+-]+@[\w-]+(?:\.[\w-]+)+     # addresses
    | (?:{"|".join(_SPLIT_WORDS)})(?!\w)
    | (?:{_ABBREVIATIONS.replace(" ", "|")})\.(?!\w)                            # dr.
    | {_LETTER}\.(?:{_LETTER}\.)*(?:{_LETTER}(?!\w))?(?!\w)                     # t.v.  j.
    | :-?[()]                                                                   # a smile
    | \d+[ ]\d+/\d+(?!\w)                                                       # 22 3/4
    | \.?\d+(?:[.,:]\d+)+ | \.\d+
    | at&t(?!\w)
    | {_LETTER}+?(?=n't(?!\w)) | n't(?!\w)                                      # do n't
    | '(?:s|m|d|ll|re|ve)(?!\w) | '\d\ds?(?!\w) | 'n'(?!\w)
    | [^\W_](?:\w|[-/.](?=[^\W_])|'(?!(?:s|m|d|ll|re|ve)(?!\w))(?=\w))*
    | \.\.\. | --+ | [!?]+ | \*+ | =+ | _+ | ~+
    | \S
    """,
    re.VERBOSE,
)
_PUNCTUATION = re.compile(r"[-'`\".?!,:;]|--|\.\.\.")


def words(caption: str) -> str:
    """The caption's words in lower case, a space between them, without the punctuation that the figures leave out."""
    tokens = _TOKEN.findall(caption.lower().translate(_REWRITTEN))
    kept = (_rewritten(token) for token in tokens if not _PUNCTUATION.fullmatch(token))
    return " ".join(kept)


def _rewritten(token: str) -> str:
    if token in _SPLIT_WORDS:
        return _SPLIT_WORDS[token]
    for bracket, name in _BRACKETS.items():
        token = token.replace(bracket, name)
    return token.replace(" ", "\u00a0")  # theirs for "22 3/4", one word
