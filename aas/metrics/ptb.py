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
    {"‘": "`", "“": '"', "”": '"', "–": " -- ", "—": " -- ", "…": " ... ", "€": "$", "£": "#", "½": "1/2"}
)
# Beyond ASCII: what that tokenizer takes for a part of a word although it is no letter (accents, vowel signs, points),
# and what is a word of its own. Letters and digits apart it knows nothing else: that parts words, and is gone.
_MARKS = (
    r"\u00ad\u02c2-\u02df\u02e5-\u036f\u0375\u0384\u0385\u03f6\u0483-\u0487\u055a-\u055f\u058a\u0591-\u05bd\u05bf\u05c1\u05c2"
    r"\u05c4\u05c5\u05c7\u0615-\u061a\u064b-\u065e\u0670\u06d6-\u06ed\u06fd\u06fe\u070f\u0711\u0730-\u074a\u07a6-\u07b0"
    r"\u07eb-\u07f3\u0900-\u0903\u093c-\u094e\u0951-\u0955\u0962\u0963\u0981-\u0983\u09bc-\u09c4\u09c7-\u09cd\u09d7\u09e2\u09e3"
    r"\u0a01-\u0a03\u0a3c-\u0a4d\u0a81-\u0a83\u0abc-\u0acd\u0b82\u0bbe-\u0bcd\u0c01-\u0c03\u0c3e-\u0c56\u0d3e-\u0d48\u0e31-\u0e3a"
    r"\u0e47-\u0e4e\u0eb1-\u0ecd\u1885\u1886\u2010\u2011"
)
_SIGNS = (
    r"\u00a1-\u00a9\u00ac\u00ae-\u00b9\u00bc-\u00bf\u00d7\u00f7\u037e\u0387\u0589\u05be\u05c0\u05c3\u05c6\u05f3\u05f4\u0600-\u0603"
    r"\u0606-\u060c\u0614\u061b\u061e\u061f\u066a\u066d\u06d4\u0700-\u070d\u07f6-\u07f8\u0964\u0965\u0e3f\u0e4f\u1fbd\u2016\u2017"
    r"\u201a\u201e-\u2023\u2030-\u2038\u203b\u203e-\u2042\u2044\u2070-\u20a0\u20a4\u20ac\u2100-\u214f\u2153-\u215e\u2190-\u2bff"
    r"\u3001\u3002\u3012\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\uffe0\uffe1\uffe5\uffe6"
)
_APOSTROPHE = re.compile(r"(?<!\b[dlonc])(?:(?<!\w[aeiouy])’|’(?![aeiouy]))|’(?!\w)")  # in l’été theirs stays as it is
_NUMERAL = re.compile(r"[²³¹⁰⁴-⁹₀-₉⅕-⅞①-⒛⓪⓿❶-➓]")
_UNKNOWN = re.compile(rf"[^\x00-\x7f’\w{_MARKS}{_SIGNS}]")
_LETTER = rf"(?:[^\W\d_]|[{_MARKS}])"
_PART = rf"[\w{_MARKS}]"
_END = rf"(?!{_PART})"
_TOKEN = re.compile(
    rf"""
      (?:https?://|www\.)\S*[^\s.,;:!?)\]"'] | [\w.+-]+@[\w-]+(?:\.[\w-]+)+     # addresses
    | (?:{"|".join(_SPLIT_WORDS)}){_END}
    | (?:{_ABBREVIATIONS.replace(" ", "|")})\.{_END}                            # dr.
    | [a-z]\.(?:[a-z]\.)*(?:[a-z]{_END})?{_END}                                 # t.v.  j.
    | :-?[()]                                                                   # a smile
    | \d+[ ]\d+/\d+{_END}                                                       # 22 3/4
    | \.?\d+(?:[.,:]\d+)+ | \.\d+
    | at&t{_END}
    | {_LETTER}+?(?=n't{_END}) | n't{_END}                                      # do n't
    | '(?:s|m|d|ll|re|ve){_END} | '\d\ds?{_END} | 'n'{_END}
    | (?:[dlon]['’](?=[^\W\d_]\w)|c['’](?=(?:est|mon){_END}))?                          # l'homme
      [^\W_](?:\w|[-/.](?=[^\W_]))*(?:(?<=\w[aeiouy])['’](?=[aeiouy])\w+)?{_END}         # lorsqu'on
    | (?:[^\W_]|[{_MARKS}]){_PART}*(?:\.{_LETTER}{_PART}*)*
    | \.\.\. | --+ | [!?]+ | \*+ | =+ | _+ | ~+
    | \S
    """,
    re.VERBOSE,
)
_PUNCTUATION = re.compile(r"[-'’`\".?!,:;]|--|\.\.\.")


def words(caption: str) -> str:
    """The caption's words in lower case, a space between them, without the punctuation that the figures leave out."""
    text = _APOSTROPHE.sub("'", caption.lower().translate(_REWRITTEN))
    tokens = _TOKEN.findall(_NUMERAL.sub(r" \g<0> ", _UNKNOWN.sub(" ", text)))
    kept = (_rewritten(token) for token in tokens if not _PUNCTUATION.fullmatch(token))
    return " ".join(kept)


def _rewritten(token: str) -> str:
    if token in _SPLIT_WORDS:
        return _SPLIT_WORDS[token]
    for bracket, name in _BRACKETS.items():
        token = token.replace(bracket, name)
    return token.replace(" ", "\u00a0")  # theirs for "22 3/4", one word
