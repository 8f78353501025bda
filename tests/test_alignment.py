"""Token to character alignment, on real tokenizers trained here."""

import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aas.phrases.alignment import decode_with_spans, overlapping
from tests import tiny
from tests.tiny import tokenizers

KINDS = sorted(tokenizers.ALL)
WITH_BYTES = [kind for kind in KINDS if kind not in ("unigram", "wordpiece")]  # those of which every byte is known
PIECES = [*"aAdog cat,.\n\té日本🙂🚲👩‍👩‍👧ﬁ①", "\u0301", "\ufffd", "labrador", " a dog", "自行车", "坐在", "'s", "  "]
any_text = st.one_of(st.lists(st.sampled_from(PIECES), max_size=30).map("".join), st.text(max_size=20))
many = settings(max_examples=100, deadline=None)


def as_answer(kind: str, text: str) -> list[int]:
    """The tokens that a model writes behind its prompt."""
    before = " " if kind.startswith("byte") else ""
    return tokenizers.ALL[kind].encode(before + text, add_special_tokens=False)


def assert_spells(text: str, spans: list[tuple[int, int]]) -> None:
    end = 0
    for start, stop in spans:
        assert start in (end, max(end - 1, 0)), "a span starts where the last one ended, or at its last character"
        assert stop >= max(start, end)
        end = stop
    assert end == len(text)


def spans_by_bytes(kind: str, ids: list[int]) -> tuple[str, list[tuple[int, int]]]:
    """The same by another way: what each token writes as bytes, and which characters lie on them."""
    tokenizer = tokenizers.ALL[kind]
    to_byte = {character: byte for byte, character in _gpt2_alphabet().items()}
    special, added = set(tokenizer.all_special_ids), tokenizer.added_tokens_decoder
    written = []
    for token_id, token in zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True):
        if token_id in special or (token_id in added and added[token_id].special):
            written.append(b"")
        elif kind.startswith(("byte", "chinese")):
            written.append(token.encode() if token_id in added else bytes(to_byte[character] for character in token))
        elif re.fullmatch("<0x..>", token):
            written.append(bytes([int(token[3:5], 16)]))
        else:
            written.append(token.replace("▁", " ").encode())
    text = b"".join(written).decode()
    ends = np.cumsum([len(character.encode()) for character in text], dtype=int).tolist()
    starts = [0, *ends][:-1] if ends else []
    spans, at = [], 0
    lead = len(text) - len(text.lstrip())
    for piece in written:
        touched = [i for i, (s, e) in enumerate(zip(starts, ends, strict=True)) if s < at + len(piece) and e > at]
        at += len(piece)
        inside = [i - lead for i in touched if 0 <= i - lead < len(text.strip())]
        spans.append((inside[0], inside[-1] + 1) if inside else (-1, -1))
    return text.strip(), spans


def _gpt2_alphabet() -> dict[int, str]:
    """Byte -> the printable character that stands for it in byte-level vocabularies."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


@pytest.mark.parametrize("kind", KINDS)
@many
@given(text=any_text)
def test_spans_spell_the_text(kind, text):
    ids = as_answer(kind, text)
    decoded, spans = decode_with_spans(tokenizers.ALL[kind], ids)
    assert len(spans) == len(ids)
    assert_spells(decoded, spans)
    assert decoded == tokenizers.ALL[kind].decode(ids, skip_special_tokens=True).strip()


@pytest.mark.parametrize("kind", WITH_BYTES)
@many
@given(text=any_text)
def test_spans_are_those_of_the_tokens_bytes(kind, text):
    ids = as_answer(kind, text)
    decoded, spans = decode_with_spans(tokenizers.ALL[kind], ids)
    expected_text, expected = spans_by_bytes(kind, ids)
    assert decoded == expected_text
    assert [span if span[0] < span[1] else (-1, -1) for span in spans] == expected


@pytest.mark.parametrize("kind", KINDS)
@many
@given(data=st.data())
def test_any_tokens_at_all(kind, data):
    """What a model may write although no text is encoded so: bytes of no character, special tokens inside a word."""
    tokenizer = tokenizers.ALL[kind]
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=40))
    decoded, spans = decode_with_spans(tokenizer, ids)
    assert len(spans) == len(ids)
    assert_spells(decoded, spans)
    if kind.startswith(("byte", "chinese")):
        assert decoded == tokenizer.decode(ids, skip_special_tokens=True).strip()


@pytest.mark.parametrize("kind", KINDS)
@many
@given(words=st.lists(st.sampled_from(["dog", "cat", "日本", "🙂", "café", "a", "labrador"]), min_size=1, max_size=8))
def test_a_word_is_spelled_by_the_tokens_that_overlap_it(kind, words):
    tokenizer = tokenizers.ALL[kind]
    ids = as_answer(kind, " ".join(words))
    decoded, spans = decode_with_spans(tokenizer, ids)
    if kind not in ("unigram", "wordpiece"):
        assert decoded == " ".join(words)
    for found in re.finditer(r"\S+", decoded):
        tokens = overlapping(spans, found.span())
        assert tokens == tuple(
            i for i, (start, end) in enumerate(spans) if max(start, found.start()) < min(end, found.end())
        )
        written = tokenizer.decode([ids[i] for i in tokens]).replace("##", "")
        assert found.group() in written


def test_normalised_text_is_that_of_the_tokens():
    ids = as_answer("unigram", "a do\ufb01g")  # NFKC takes the ligature apart
    decoded, spans = decode_with_spans(tokenizers.ALL["unigram"], ids)
    assert decoded == unicodedata.normalize("NFKC", "a do\ufb01g") == "a dofig"
    assert_spells(decoded, spans)


def test_pieces_of_an_emoji_share_its_character():
    tokenizer = tiny.byte_level_tokenizer(vocab_size=260)  # bytes only
    ids = tokenizer.encode(" a🙂b", add_special_tokens=False)
    text, spans = decode_with_spans(tokenizer, ids)
    assert text == "a🙂b"
    assert spans == [(0, 0), (0, 1), *[(1, 2)] * 4, (2, 3)]


@pytest.mark.parametrize("kind", ["byte-level, added", "metaspace, added"])
def test_special_tokens_write_nothing_and_added_ones_their_word(kind):
    tokenizer = tokenizers.ALL[kind]
    turn = tokenizer.convert_tokens_to_ids("<|turn|>")
    assert turn not in tokenizer.all_special_ids  # nothing but the mark on the token says so
    ids = [*as_answer(kind, "A labrador"), turn, tokenizer.eos_token_id]
    text, spans = decode_with_spans(tokenizer, ids)
    assert text == "A labrador" and spans[-2:] == [(10, 10), (10, 10)]
    assert spans[-3][1] == 10
    inside = [ids[0], turn, *ids[1:-2]]  # before a word that was added whole
    text, spans = decode_with_spans(tokenizer, inside)
    assert text == "A labrador" and spans[1] == (1, 1)


def test_an_answer_cut_inside_a_character():
    tokenizer = tiny.byte_level_tokenizer(vocab_size=260)
    ids = tokenizer.encode(" a🙂", add_special_tokens=False)[:-1]
    text, spans = decode_with_spans(tokenizer, ids)
    assert text == "a\ufffd" and spans == [(0, 0), (0, 1), *[(1, 2)] * 3]


def test_bytes_behind_a_finished_character_leave_it_whole():
    ids = as_answer("metaspace", "a🙂🚲")[:-2]
    text, spans = decode_with_spans(tokenizers.ALL["metaspace"], ids)
    assert text.startswith("a🙂\ufffd")  # decoded at once, the six bytes would all be unknown
    assert_spells(text, spans)


@pytest.mark.parametrize("kind", KINDS)
def test_time_is_linear(kind, monkeypatch):
    """Counted in tokens that are decoded: each is decoded a few times, however long the answer."""
    tokenizer, decoded = tokenizers.ALL[kind], []
    decode = tokenizer.decode
    monkeypatch.setattr(tokenizer, "decode", lambda ids, **options: decoded.append(len(ids)) or decode(ids, **options))
    ids = as_answer(kind, "a dog, 日本 🙂🚲 坐在自行车 café. " * 100)
    decode_with_spans(tokenizer, ids)
    assert sum(decoded) < 8 * len(ids)


def test_overlapping():
    spans = [(0, 1), (1, 4), (4, 4), (4, 8)]
    assert overlapping(spans, (3, 5)) == (1, 3)
    assert overlapping(spans, (8, 9)) == ()
