"""Limits and formulas: how long answers may be, how nouns name categories, METEOR from its statistics."""

import numpy as np
import pytest
import spacy

from aas.capture import CaptureError
from aas.lmms.llava import Llava
from aas.lmms.prepared import AskOptions
from aas.metrics import bootstrap
from aas.phrases.categories import CategoryMatcher
from aas.phrases.parser import load_pipeline
from tests import tiny
from tests.tiny.llava import llava


def endless() -> Llava:
    model, processor = llava()
    model.generation_config.eos_token_id = None
    return Llava(model, processor, "tiny")


def test_a_context_may_be_filled_but_for_one_token():
    lmm = endless()
    longest = lmm.text_config.max_position_embeddings
    n_prompt = lmm.prepare(tiny.a_photo(), "Who?").length
    fits = lmm.prepare(tiny.a_photo(), "Who?", answer_ids=[5] * (longest - n_prompt - 1))
    assert fits.length == longest - 1 and len(lmm.run([fits])[0][1].maps) == longest - n_prompt - 1
    with pytest.raises(CaptureError, match=f"take {longest} tokens"):
        lmm.prepare(tiny.a_photo(), "Who?", answer_ids=[5] * (longest - n_prompt))


def test_answers_are_as_long_as_the_model_says():
    lmm = endless()
    one = lmm.prepare(tiny.a_photo(), "Who?")
    assert lmm.max_new_tokens == 512
    lmm.model.generation_config.max_new_tokens = 7
    assert len(lmm.run([one])[0][0].token_ids) == lmm.max_new_tokens == 7
    assert len(lmm.run([one], AskOptions(3))[0][0].token_ids) == 3
    assert len(lmm.run([one], AskOptions(9))[0][0].token_ids) == 9


def test_nouns_name_categories_whatever_their_case():
    matcher = CategoryMatcher(load_pipeline("embedded"), ["dog", "bench", "dining table"])
    for noun in ("dog", "Dog", "DOG"):
        index, cosine = matcher.best(noun, [1, 0])
        assert index == 0 and cosine == pytest.approx(1)
    assert matcher.best("dog", []) is None


def test_a_pipeline_without_word_vectors_is_told(shared_dir, caplog):
    CategoryMatcher(load_pipeline("embedded"), ["dog"])
    assert not caplog.records
    matcher = CategoryMatcher(load_pipeline(shared_dir / "golden/models/en_ewt_np"), ["dog", "bench"])
    (record,) = caplog.records
    assert "en_ewt_np has no word vectors" in record.getMessage() and "en_core_web_md" in record.getMessage()
    assert matcher.best("dog", [0, 1]) is not None, "the fallback stays"
    with pytest.raises(ValueError, match="no word vectors: take embedded, en_core_web_md or en_core_web_lg"):
        CategoryMatcher(spacy.blank("en"), ["dog"])


def meteor(rows: list[list[float]]) -> float:
    """Denkowski and Lavie 2014, written out: sums over the corpus, content words 0.75, function words 0.25."""
    sums = np.sum(rows, axis=0)
    shares = []
    for side in (0, 1):
        content = sum(w * sums[4 + 4 * stage + side] for stage, w in enumerate((1.0, 0.6, 0.8, 0.6)))
        function = sum(w * sums[6 + 4 * stage + side] for stage, w in enumerate((1.0, 0.6, 0.8, 0.6)))
        n_words, n_function = sums[side], sums[2 + side]
        shares.append((0.75 * content + 0.25 * function) / (0.75 * (n_words - n_function) + 0.25 * n_function))
    precision, recall = shares
    mean = precision * recall / (0.85 * precision + 0.15 * recall)
    fragments = sums[20] / ((sums[21] + sums[22]) / 2)
    return mean * (1 - 0.6 * fragments**0.2)


def test_meteor_of_its_statistics():
    """Words of both; function words of both; content and function words found, of both, in four stages; chunks; words
    of both that are matched. A caption that is its reference has no break."""
    some = [12, 11, 4, 5, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 4, 10, 10]
    more = [9, 14, 3, 6, 2, 2, 2, 2, 0, 0, 0, 0, 2, 3, 0, 0, 0, 0, 1, 2, 3, 7, 9]
    perfect = [6, 6, 2, 2, 4, 4, 2, 2, *[0] * 12, 1, 6, 6]
    columns = {"kind": "meteor", "rows": [some, more, perfect]}
    weights = np.array([[1, 1, 0], [2, 0, 0], [0, 0, 1], [1, 2, 1.0]])
    found = bootstrap.figures({"METEOR": columns}, weights)["METEOR"]
    unbroken = [*perfect[:20], 0, 6, 6]
    expected = [meteor([some, more]), meteor([some]), 1.0, meteor([some, more, more, unbroken])]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_vectors_of_capital_letters_are_not_asked():
    """A pipeline that knows "Dog" as another word than "dog", as the large English ones do."""
    pipeline = spacy.blank("en")
    for word, vector in {"dog": (1, 0), "bench": (0.6, 0.8), "Dog": (0, 1)}.items():
        pipeline.vocab.set_vector(word, np.array(vector, np.float32))
    index, cosine = CategoryMatcher(pipeline, ["bench", "dog"]).best("Dog", [0, 1])
    assert index == 1 and cosine == pytest.approx(1)
