"""`Grounder.stream`: an answer and its masks while it is written, with the embedded models."""

import threading

import numpy as np
import pytest
from skimage import data

import aas
from aas.lmms.prepared import AskOptions
from aas.presets import DEFAULT_QUESTION
from aas.records import GroundedPhrase
from aas.streaming import pulled
from tests import tiny


@pytest.fixture(scope="module")
def grounder() -> aas.Grounder:
    return aas.Grounder()


def assert_same(one: aas.Grounding, other: aas.Grounding) -> None:
    """To the bit."""
    assert (one.answer, one.labels, one.left_out, one.view) == (other.answer, other.labels, other.left_out, other.view)
    for name in ("image", "token_maps", "masks", "scores", "points_xy"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for a, b in zip(one, other, strict=True):
        assert (a.phrase, a.points_xy, a.labels) == (b.phrase, b.points_xy, b.labels)
        np.testing.assert_array_equal(a.map, b.map)


def check(events: list) -> aas.Grounding:
    """Text first, phrases of text that was told, and while it is written behind which a word was told; the whole at
    the end."""
    *before, grounding = events
    text = ""
    for event in before:
        if isinstance(event, str):
            text += event
        else:
            assert text[slice(*event.span)] == event.text
            assert text == grounding.answer.text or len(text[event.span[1] :].split()) > 0
            assert event.mask.shape == grounding.image.shape[:2] and event.map.shape == grounding.view.size_hw
    told = [event.span for event in before if isinstance(event, GroundedPhrase)]
    assert text == grounding.answer.text and len(set(told)) == len(told)
    assert {phrase.span for phrase in grounding} <= set(told)
    return grounding


@pytest.mark.parametrize("photo", ["chelsea", "coffee", "astronaut"])
def test_the_end_is_what_a_call_gives(grounder, photo):
    image = getattr(data, photo)()
    events = list(grounder.stream(image, "Describe the image."))
    assert_same(check(events), grounder(image, "Describe the image."))
    assert sum(isinstance(event, str) for event in events) > 3
    first = next(i for i, event in enumerate(events) if isinstance(event, GroundedPhrase))
    assert any(isinstance(event, str) for event in events[first:]), "a phrase is told before the answer is written"


def test_a_phrase_is_relative_to_the_words_until_then(grounder):
    """Its map is the mean of its tokens' attention minus the mean over the whole words that were there."""
    events = list(grounder.stream(data.coffee()))
    answer, maps = events[-1].answer, grounder.lmm.ask(data.coffee(), DEFAULT_QUESTION)[1].maps
    phrase = next(event for event in events if isinstance(event, GroundedPhrase))
    index = events.index(phrase)
    text = "".join(event for event in events[:index] if isinstance(event, str))
    n = sum(end <= len(text.rsplit(" ", 1)[0]) for _, end in answer.token_spans)
    tokens = list(phrase.token_indices)
    expected = maps[tokens].mean(0) - (maps[:n].mean(0) if n > 1 and len(tokens) < n else 0)
    np.testing.assert_allclose(phrase.map, expected, atol=1e-6 * np.abs(maps).max())


WAYS = [{"maps": maps} for maps in ("tam", "heads:0.0/1.1", "blackbox:2")] + [
    {"alignment": "self"},
    {"temperature": 1.5},
]


@pytest.mark.parametrize("asking", WAYS)
def test_ways_of_asking(grounder, asking):
    loaded = {"processor": grounder.lmm.processor, "segmenter": grounder.segmenter, "phrases": grounder.pipeline}
    other = aas.Grounder(grounder.lmm.model, **loaded, **asking, max_new_tokens=12)
    assert_same(check(list(other.stream(data.chelsea()))), other(data.chelsea()))


def test_a_stream_may_be_left_and_others_wait_for_it(grounder):
    expected = grounder(data.coffee())
    stream = grounder.stream(data.coffee())
    assert isinstance(next(stream), str)
    assert_same(grounder(data.coffee()), expected)  # while the stream is open
    assert_same(list(stream)[-1], expected)
    stream = grounder.stream(data.coffee())
    next(stream)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("aas-stream")]
    assert_same(grounder(data.coffee()), expected)


def test_a_bad_image_is_told_at_once(grounder, tmp_path):
    with pytest.raises(aas.ImageError, match="no such file"):
        grounder.stream(tmp_path / "gone.jpg")


def test_what_goes_wrong_is_raised_where_one_listens():
    def run(tell):
        tell(1)
        raise ValueError("no more")

    stream = pulled(run)
    assert next(stream) == 1
    with pytest.raises(ValueError, match="no more"):
        next(stream)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_family_is_heard(family):
    """So many tokens that queries are no longer all stashed; looking on changes nothing of what comes in the end."""
    lmm, options, heard = tiny.family(family), AskOptions(70), []

    def hear(answer, maps):
        assert maps is not None
        heard.append((answer, maps().maps if len(answer.token_ids) in (1, 40, 66) else None))

    one = lmm.prepare(tiny.a_photo(), "What is it?")
    ((answer, maps),) = lmm.run([one], options, hear)
    ((alone, alone_maps),) = lmm.run([one], options)
    assert answer == alone
    np.testing.assert_array_equal(maps.maps, alone_maps.maps)
    for so_far, its_maps in heard:
        n = len(so_far.token_ids)
        assert (so_far.token_ids, so_far.text) == (answer.token_ids[:n], answer.text[: len(so_far.text)])
        if its_maps is not None:
            np.testing.assert_allclose(its_maps[:n], maps.maps[:n], atol=1e-5 * maps.maps.max())
    assert len(heard) == len(answer.token_ids)
