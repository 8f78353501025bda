"""Questions about two images, and answers that are begun for the model, on tiny models of the families."""

import numpy as np
import pytest
import torch

from aas.capture import CaptureError
from aas.lmms.prepared import AskOptions
from aas.lmms.several_images import check_takes_two, inputs_of
from aas.lmms.writing import begun, first_words, write
from tests import tiny

OPTIONS = AskOptions(max_new_tokens=4)
TWO = ("llava", "llava_next", "idefics3", "mllama", "pixtral", "gemma3", "qwen3_vl")


def greedy(lmm, inputs, n: int) -> list[int]:
    """Without a cache, without `generate`: the whole sequence once more for each token."""
    written: list[int] = []
    for _ in range(n):
        longer = lmm.with_answer(inputs, torch.tensor(written, dtype=torch.int64))
        with torch.no_grad():
            arguments = lmm.forward_arguments(longer)
            written.append(int(lmm.model(**longer, **arguments).logits[0, -1].argmax()))
        if written[-1] in lmm.end_ids:
            break
    return written


@pytest.mark.parametrize("name", TWO)
def test_two_images_in_one_question(name):
    """A batch of prompts of unlike lengths and sizes is written as its singles are."""
    lmm = tiny.family(name)
    check_takes_two(lmm)
    whole, part, other = (tiny.a_photo(size_hw, seed) for seed, size_hw in enumerate([(60, 90), (40, 30), (64, 64)]))
    prompts = [
        inputs_of(lmm, [("The whole:", whole), ("A part:", part)], "What is it?"),
        inputs_of(lmm, [("The whole:", other), ("A part:", whole)], "Is it a dog, or is it no dog?"),
    ]
    singles = [write(lmm, [one], OPTIONS)[0].tolist() for one in prompts]
    assert [one.tolist() for one in write(lmm, prompts, OPTIONS)] == singles


def test_the_second_image_is_seen():
    """What is written is what a model without `generate` writes, and its scores change with the crop."""
    lmm, whole = tiny.family("llava"), tiny.a_photo()
    prompts = [
        inputs_of(lmm, [("The whole:", whole), ("A part:", tiny.a_photo(seed=seed))], "What is it?") for seed in (1, 2)
    ]
    assert write(lmm, prompts[:1], OPTIONS)[0].tolist() == greedy(lmm, prompts[0], 4)
    with torch.no_grad():
        first, second = (lmm.model(**one, **lmm.forward_arguments(one)).logits[0, -1] for one in prompts)
    assert (first - second).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["llava", "mllama"])
def test_an_answer_goes_on_where_it_was_begun(name):
    lmm = tiny.family(name)
    prepared = lmm.prepare(tiny.a_photo(), "What matters?")
    first = first_words(lmm, "The dog", prepared)
    inputs = begun(lmm, prepared, first)
    assert inputs["input_ids"][0, -len(first) :].tolist() == first.tolist()
    assert lmm.tokenizer.decode(first).strip() == "The dog"
    (written,) = write(lmm, [inputs], OPTIONS)
    if name == "llava":
        assert written.tolist() == greedy(lmm, inputs, 4)
    whole = lmm.run([lmm.prepare(tiny.a_photo(), "What matters?", answer_ids=[*first, *written])])[0][0]
    likely = np.array(whole.token_log_probs[len(first) :])
    assert len(likely) == len(written) and (likely > np.log(1 / len(lmm.tokenizer))).all(), "each is the likeliest"


@pytest.mark.parametrize(
    ("name", "reason"), [("chameleon", "without a chat template"), ("paligemma", "without a chat")]
)
def test_a_family_of_one_image_is_refused(name, reason):
    with pytest.raises(ValueError, match=f"takes one image: .*{reason}"):
        check_takes_two(tiny.family(name))


def test_a_template_with_one_place_is_refused():
    lmm = tiny.family("vipllava")
    template = lmm.processor.chat_template
    try:
        lmm.processor.chat_template = (
            "<image>{% for part in messages[0]['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
        )
        with pytest.raises(ValueError, match="no place for a second"):
            check_takes_two(lmm)
    finally:
        lmm.processor.chat_template = template


def test_what_does_not_fit_is_told():
    shown = [("The whole:", tiny.a_photo()), ("A part:", tiny.a_photo())]
    with pytest.raises(CaptureError, match="the model's context holds 512"):
        inputs_of(tiny.family("llava"), shown, "What? " * 300)


def test_an_encoder_decoder_is_not_begun():
    lmm = tiny.family("florence2")
    with pytest.raises(ValueError, match="sequence of its own"):
        begun(lmm, lmm.prepare(tiny.a_photo(), "What?"), torch.tensor([5]))
