"""Noun phrases, their tokens, and what can be left out."""

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc

from aas.paths import embedded_dir
from aas.phrases.alignment import decode_with_spans
from aas.phrases.parser import load_pipeline, noun_chunks, noun_phrases
from aas.records import Answer
from tests.tiny import tokenizers

PIPELINE = load_pipeline("embedded")
KINDS = sorted(tokenizers.ALL)


def answer(text: str, kind: str = "byte-level") -> Answer:
    tokenizer = tokenizers.ALL[kind]
    before = " " if kind.startswith("byte") else ""
    ids = tokenizer.encode(before + text, add_special_tokens=False)
    decoded, spans = decode_with_spans(tokenizer, ids)
    return Answer("", decoded, tuple(ids), tuple(spans))


def texts(phrases):
    return [phrase.text for phrase in phrases]


WORDS = "a the two red 🙂 日本 café dog cats bench 🚲 near on sits , . and labrador's It 一只猫"
words = st.sampled_from(WORDS.split())


@pytest.mark.parametrize("chosen", ["root", "chunk"])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(sentence=st.lists(words, min_size=1, max_size=15))
def test_the_tokens_of_a_phrase_spell_its_root_word(kind, chosen, sentence):
    said = answer(" ".join(sentence), kind)
    for phrase in noun_phrases(PIPELINE, said, words=chosen):
        assert said.text[slice(*phrase.span)] == phrase.text
        assert phrase.span[0] <= phrase.root_span[0] < phrase.root_span[1] <= phrase.span[1]
        wanted = set(range(*(phrase.root_span if chosen == "root" else phrase.span)))
        written = [set(range(*said.token_spans[i])) for i in phrase.token_indices]
        assert wanted <= set().union(*written), "its tokens write all of it"
        assert all(characters & wanted for characters in written), "and each of them a part of it"
        others = [i for i in range(len(said.token_ids)) if i not in phrase.token_indices]
        assert not any(set(range(*said.token_spans[i])) & wanted for i in others), "and no other token does"


def test_root_word_or_whole_chunk():
    said = answer("A small brown dog sits.")
    (root,), (chunk,) = noun_phrases(PIPELINE, said), noun_phrases(PIPELINE, said, words="chunk")
    assert root.text == chunk.text == "A small brown dog" and root.root_span == chunk.root_span == (14, 17)
    written = tokenizers.ALL["byte-level"].decode
    assert written([said.token_ids[i] for i in root.token_indices]) == " dog"
    assert written([said.token_ids[i] for i in chunk.token_indices]) == " A small brown dog"


SCENE = (
    "A dog sits on the left side of the image. It looks at a red top. "
    "In the background, there is a framed picture and a sense of calm."
)


def test_nothing_is_left_out_unless_asked():
    everything = ["A dog", "the left side", "the image", "It", "a red top", "the background", "a framed picture"]
    assert texts(noun_phrases(PIPELINE, answer(SCENE)))[:8] == [*everything, "a sense"]


def test_pronouns_and_the_unseen_can_be_left_out():
    seen = texts(noun_phrases(PIPELINE, answer(SCENE), drop=["unseen"]))
    assert seen == ["A dog", "It", "a red top", "a framed picture", "calm"]
    seen = texts(noun_phrases(PIPELINE, answer(SCENE), drop=["pronouns", "unseen"]))
    assert seen == ["A dog", "a red top", "a framed picture", "calm"]


def test_token_spans_of_another_text_are_an_error():
    with pytest.raises(ValueError, match="do not belong"):
        noun_phrases(PIPELINE, Answer("", "A dog sits.", (1,), ((0, 1),)))


def test_no_text_no_phrases():
    assert noun_phrases(PIPELINE, Answer("", "", (), ())) == ()


# Languages that spaCy has no noun chunks for: parsed by hand, (word, part of speech, head, relation).
UNIVERSAL = {
    # Three small dogs sit on a wooden bench near an old tree.
    "pl": (
        "Trzy NUM 2 nummod|małe ADJ 2 amod|psy NOUN 3 nsubj|siedzą VERB 3 ROOT|na ADP 6 case|drewnianej ADJ 6 amod|"
        "ławce NOUN 3 obl|obok ADP 9 case|starego ADJ 9 amod|drzewa NOUN 3 obl|. PUNCT 3 punct",
        ["Trzy małe psy", "drewnianej ławce", "starego drzewa"],
    ),
    # A brown puppy sits on a wooden bench.
    "zh": (
        "一 NUM 4 nummod|只 NOUN 0 clf|棕色 NOUN 4 amod|的 PART 2 case|小狗 NOUN 5 nsubj|坐 VERB 5 ROOT|在 ADP 8 case|"
        "木制 NOUN 8 compound:nn|长椅 NOUN 5 obl|上 ADP 8 case",
        ["一 只 棕色 的 小狗", "木制 长椅"],
    ),
    # She sees the ambulance of Anna Ivanova that stands there. A name is one phrase, a clause no part of one.
    "ru": (
        "Она PRON 1 nsubj|видит VERB 1 ROOT|машину NOUN 1 obj|скорой ADJ 4 amod|помощи NOUN 2 nmod|Анны PROPN 4 nmod|"
        "Ивановой PROPN 5 flat:name|, PUNCT 9 punct|которая PRON 9 nsubj|стоит VERB 2 acl:relcl|. PUNCT 1 punct",
        ["Она", "машину", "скорой помощи", "Анны Ивановой", "которая"],
    ),
    # A horse and a dog covered with snow. Conjuncts are phrases of their own; a noun within a phrase is none.
    "xx": (
        "Koń NOUN 0 ROOT|i CCONJ 4 cc|pokryty ADJ 4 amod|śniegiem NOUN 2 obl|pies NOUN 0 conj",
        ["Koń", "pokryty śniegiem pies"],
    ),
}


@pytest.mark.parametrize("language", UNIVERSAL)
def test_universal_dependencies(language):
    parsed, expected = UNIVERSAL[language]
    rows = [row.split() for row in parsed.split("|")]
    words, pos, heads, deps = zip(*rows, strict=True)
    vocab = spacy.vocab.Vocab() if language in ("zh", "ru") else spacy.blank(language).vocab
    doc = Doc(vocab, words=words, pos=pos, heads=[int(head) for head in heads], deps=deps)
    assert doc.noun_chunks_iterator is None
    assert [chunk.text for chunk in noun_chunks(doc)] == expected


def test_a_pipeline_without_parser_is_refused(tmp_path):
    spacy.blank("en").to_disk(tmp_path)
    with pytest.raises(ValueError, match=r"no parser and no tagger .*its parts: none"):
        load_pipeline(str(tmp_path))
    only_parser = spacy.load(embedded_dir("phrases"), exclude=["tagger", "morphologizer"])
    only_parser.to_disk(tmp_path / "parser")
    with pytest.raises(ValueError, match="it has no tagger"):
        load_pipeline(str(tmp_path / "parser"))


def test_a_pipeline_that_is_loaded():
    assert load_pipeline(PIPELINE) is PIPELINE
    with pytest.raises(ValueError, match=r"'en_pipeline' finds no noun phrases: it has no parser and no tagger"):
        load_pipeline(spacy.blank("en"))


def test_an_unknown_pipeline_says_what_to_do():
    with pytest.raises(FileNotFoundError, match="spacy download nothing_such"):
        load_pipeline("nothing_such")


def test_any_folder(shared_dir):
    pipeline = load_pipeline(str(shared_dir / "golden/models/en_ewt_np"))
    assert texts(noun_phrases(pipeline, answer("A dog on a bench."))) == ["A dog", "a bench"]


def test_the_embedded_pipeline_splits_words_as_its_folder_says():
    plain = spacy.load(embedded_dir("phrases"), exclude=PIPELINE.pipe_names)
    assert len(plain.tokenizer.rules) > 1000
    found, expected = (one.tokenizer.to_bytes(exclude=["vocab"]) for one in (PIPELINE, plain))  # words join it in use
    assert found == expected
