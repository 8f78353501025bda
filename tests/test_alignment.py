"""Token to character alignment, on real tokenizers trained here."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from aas.phrases.alignment import decode_with_spans, overlapping
from tests import tiny


def metaspace_tokenizer() -> PreTrainedTokenizerFast:
    """SentencePiece's scheme with byte fallback, as LLaMA has it."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=True)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>", "<s>", "</s>", *bytes_], show_progress=False)
    english = [text.encode("ascii", "ignore").decode() for text in tiny.TEXTS]
    tokenizer.train_from_iterator(english, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


TOKENIZERS = {"byte-level": tiny.byte_level_tokenizer(), "metaspace": metaspace_tokenizer()}


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet=st.sampled_from(list("aAdog cat,.é日本🙂🚲")), min_size=1, max_size=30))
def test_spans_spell_the_text(kind, text):
    tokenizer = TOKENIZERS[kind]
    ids = tokenizer.encode(f" {text}" if kind == "byte-level" else text, add_special_tokens=False)
    decoded, spans = decode_with_spans(tokenizer, ids)
    assert decoded == tokenizer.decode(ids).strip()
    assert len(spans) == len(ids)
    end = 0
    for start, stop in spans:
        assert start in (end, end - 1), "a span starts where the last one ended, or inside its last character"
        end = stop
    assert end == len(decoded)


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=150, deadline=None)
@given(words=st.lists(st.sampled_from(["dog", "cat", "日本", "🙂", "café", "a"]), min_size=1, max_size=8))
def test_a_word_is_spelled_by_the_tokens_that_overlap_it(kind, words):
    tokenizer = TOKENIZERS[kind]
    text = " ".join(words)
    ids = tokenizer.encode(f" {text}" if kind == "byte-level" else text, add_special_tokens=False)
    decoded, spans = decode_with_spans(tokenizer, ids)
    assert decoded == text
    at = 0
    for word in words:
        tokens = overlapping(spans, (at, at + len(word)))
        assert word in tokenizer.decode([ids[i] for i in tokens])
        at += len(word) + 1


def test_pieces_of_an_emoji_share_its_character():
    tokenizer = tiny.byte_level_tokenizer(vocab_size=260)  # bytes only
    ids = tokenizer.encode(" a🙂b", add_special_tokens=False)
    text, spans = decode_with_spans(tokenizer, ids)
    assert text == "a🙂b"
    assert spans == [(0, 0), (0, 1), *[(1, 2)] * 4, (2, 3)]


def test_special_tokens_write_nothing():
    tokenizer = TOKENIZERS["byte-level"]
    ids = [*tokenizer.encode(" A dog", add_special_tokens=False), tokenizer.eos_token_id]
    text, spans = decode_with_spans(tokenizer, ids)
    assert text == "A dog" and spans[-1] == (5, 5)


def test_an_answer_cut_inside_a_character():
    tokenizer = tiny.byte_level_tokenizer(vocab_size=260)
    ids = tokenizer.encode(" a🙂", add_special_tokens=False)[:-1]
    text, spans = decode_with_spans(tokenizer, ids)
    assert text.startswith("a") and spans[-1][1] == len(text) and spans[-1] == spans[-3]


def test_overlapping():
    spans = [(0, 1), (1, 4), (4, 4), (4, 8)]
    assert overlapping(spans, (3, 5)) == (1, 3)
    assert overlapping(spans, (8, 9)) == ()
