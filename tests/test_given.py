"""Answers that are given are grounded word for word, or refused: the tokens write the text."""

import json

import pytest

from aas.datasets.answers import read_answers
from aas.phrases.given import check_written, plain_ids
from tests import tiny
from tests.tiny import tokenizers

FAMILIES = ("llava", "qwen2_vl", "internvl", "florence2")


@pytest.fixture(scope="module", params=FAMILIES)
def lmm(request):
    return tiny.family(request.param)


@pytest.mark.parametrize("said", ["A dog </s> on a bench", "A dog <pad> ran", "A <image> of a dog", "A dog<|im_end|>"])
def test_words_of_special_tokens_are_words(lmm, said):
    """From shared/cases/models/special_tokens_in_answer."""
    answer, attention = lmm.ask(tiny.a_photo(), "What?", said)
    assert answer.text == said and len(attention.maps) == len(answer.token_ids)


def test_tokens_that_write_the_answer_are_taken(lmm):
    ids = lmm.tokenizer.encode(" a dog ran", add_special_tokens=False)
    end = lmm.tokenizer.eos_token_id
    photo = tiny.a_photo()
    for text in (None, " ", "a dog ran", " a dog\nran ", "a dog ran" + lmm.tokenizer.decode([end])):
        assert lmm.prepare(photo, "What?", text, [*ids, end]).answer_ids.tolist() == [*ids, end]


def test_tokens_that_contradict_the_answer_are_refused(lmm):
    ids = lmm.tokenizer.encode(" a dog ran", add_special_tokens=False)
    for text in ("a cat ran", "a dog", "a dog ran away"):
        with pytest.raises(ValueError, match=rf"write 'a dog ran', not '{text}'"):
            lmm.prepare(tiny.a_photo(), "What?", text, ids)


def test_tokens_that_the_model_does_not_have_are_refused(lmm):
    with pytest.raises(ValueError, match="token 999999 is none of the model's"):
        lmm.prepare(tiny.a_photo(), "What?", None, [5, 999_999])
    with pytest.raises(ValueError, match="token -1 is none of the model's"):
        lmm.prepare(tiny.a_photo(), "What?", None, [-1])


def test_the_image_token_is_no_part_of_an_answer():
    lmm = tiny.family("llava")
    with pytest.raises(ValueError, match="image token"):
        lmm.prepare(tiny.a_photo(), "What?", None, [5, lmm.model.config.image_token_id])


def test_words_that_a_tokenizer_lacks_are_not_lost_in_silence():
    tokenizer = tokenizers.ALL["unigram"]
    check_written(tokenizer, plain_ids(tokenizer, "a do\ufb01g"), "a do\ufb01g")  # the ligature taken apart
    with pytest.raises(ValueError, match="not 'a <pad> cat'"):
        check_written(tokenizer, plain_ids(tokenizer, "a <pad> cat"), "a <pad> cat")


@pytest.mark.parametrize("ids", [5, "56", [1.5], [True], [-1], {"0": 1}])
def test_token_ids_are_a_list_of_numbers(tmp_path, ids):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"image": "a.jpg", "answer": "a dog", "token_ids": ids}))
    with pytest.raises(ValueError, match="line 1: token_ids must be a list of token numbers"):
        read_answers(tmp_path / "rows.jsonl")
