"""`--answers-from`: a server answers, over HTTP, and the model here reads its answers."""

import json
import time
from base64 import b64decode

import numpy as np
import pytest
from PIL import Image

from aas import Grounder
from aas.answering import server as served
from aas.answering.address import KEY, checked_address
from aas.answering.answers import fitting
from aas.answering.feed import ask_all
from aas.answering.protocol import Said, Wanted, answer_of, only_model
from aas.images import as_pixels
from aas.images.sent import data_url
from aas.stages import infer_attn
from aas.store.attention import read_item
from tests import command, tiny
from tests.answer_server import Answering, running

N = 4
A_CAT = {"choices": [{"message": {"content": "A cat."}}]}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return tiny.photographs(tmp_path_factory.mktemp("answering") / "photos", [(60, 90), (90, 60), (64, 64), (41, 130)])


@pytest.fixture(scope="module")
def lmm():
    return tiny.family("llava")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(served, "FIRST_PAUSE_S", 0.01)


@pytest.fixture
def infer(photos, lmm, tmp_path, monkeypatch):
    """`aas infer-attn`, of a model that is loaded already."""
    monkeypatch.setattr(infer_attn, "load_lmm", lambda *_, **__: lmm)

    def run(*arguments: object, out: str = "out") -> tuple[int, str, dict]:
        common = ("--images", photos, "--max-new-tokens", 6, "--question", "Who?", "--workers", 0)
        code, output = command.run("infer-attn", *common, "--out", tmp_path / out, *arguments)
        assert "Traceback" not in output
        items = {path.name: read_item(path) for path in sorted((tmp_path / out).glob("*.safetensors"))}
        return code, output, items

    return run


@pytest.fixture
def ask(photos, lmm):
    """The server's answers about the photographs by name, or why there are none."""

    def run(manner, **settings) -> tuple[dict, Answering]:
        with running(Answering(lmm, says="A cat.", manner=manner)) as server:
            here = served.server_at(server.address, "tiny", **settings)
            asked = ask_all(here, Wanted(4), sorted(photos.glob("*.png")), lambda path: (path, "Who?"))
            return {path.name: said for path, said in asked}, server

    return run


def same(one, other) -> bool:
    return one.answer == other.answer and np.allclose(one.attention.maps, other.attention.maps, atol=1e-6)


def test_the_servers_tokens_are_as_if_the_model_itself_had_answered(lmm, infer):
    """The same weights at both ends: tokens and maps are equal, and several questions are asked at once."""
    with running(Answering(lmm, gives_tokens=True, manner=lambda asked: time.sleep(0.05))) as server:
        code, _, items = infer("--answers-from", server.address, "--in-flight", 3)
    assert code == 0 and len(items) == N
    _, _, own = infer(out="own")
    assert all(same(items[name], own[name]) for name in own)
    assert 1 < server.most_at_once <= 3
    first = server.seen[0]
    assert (first["model"], first["max_tokens"], first["temperature"], first["seed"]) == ("tiny", 6, 0.0, 0)


def test_words_alone_are_tokenized_here(lmm, infer, tmp_path, monkeypatch):
    """What Ollama and llama.cpp give: the maps are those of the same words given to the model. The key is sent, and
    written nowhere; no proxy is asked."""
    monkeypatch.setenv(KEY, "secret-123")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with running(Answering(lmm, says=" A dog and a cat sit. ")) as server:
        code, _, items = infer("--answers-from", server.address)
    assert code == 0 and len(items) == N and set(server.keys) == {"Bearer secret-123"}
    for i, item in enumerate(items.values()):
        answer, attention = lmm.ask(tiny.a_photo(item.image_hw, seed=i), "Who?", "A dog and a cat sit.")
        assert item.answer == answer
        np.testing.assert_allclose(item.attention.maps, attention.maps, atol=1e-6)
    written = (tmp_path / "out" / "run.json").read_text()
    assert "secret" not in written and json.loads(written)["inputs"]["answers_from"] == server.address


def test_tokens_of_another_model_are_left_for_the_words(lmm):
    ids = lmm.tokenizer.encode("A dog.", add_special_tokens=False)
    assert fitting(Said("A dog.", tuple(ids)), lmm) == Said("A dog.", tuple(ids))
    assert fitting(Said("A cat.", tuple(ids)), lmm) == Said("A cat.")
    assert fitting(Said("A cat.", (10**6,)), lmm) == Said("A cat.")


def test_a_run_goes_on_wherever_the_server_is(lmm, infer, tmp_path):
    """It is the model's name that decides; of what is done nothing is asked."""
    with running(Answering(lmm, says="A cat.", lists=("one", "two"))) as server:
        code, output, _ = infer("--answers-from", server.address)
        assert code == 2 and "It has one, two." in output
        assert infer("--answers-from", server.address, "--answers-model", "two")[0] == 0
        assert server.seen[0]["model"] == "two"
        code, output, _ = infer("--answers-from", server.address, "--answers-model", "one")
        assert code == 2 and "other arguments" in output
    (tmp_path / "out" / "0.png.safetensors").unlink()
    with running(Answering(lmm, says="A cat.", lists=("two",))) as server:
        code, _, items = infer("--answers-from", server.address)
    assert code == 0 and len(items) == N and len(server.seen) == 1


def test_a_question_of_each_image(lmm, infer, tmp_path):
    lines = [{"image": f"{i}.png", "question": f"Who is {i}?", "id": f"q{i}"} for i in range(2)]
    (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with running(Answering(lmm, says="A cat.")) as server:
        code, _, items = infer("--answers-from", server.address, "--answers", tmp_path / "asked.jsonl")
    assert code == 0 and list(items) == ["q0.safetensors", "q1.safetensors"]
    assert {asked["messages"][0]["content"][1]["text"] for asked in server.seen} == {"Who is 0?", "Who is 1?"}


def test_one_failure_costs_nobody_else(lmm, infer, photos, tmp_path):
    bad = data_url(photos / "2.png")

    def manner(asked):
        return (400, {"error": {"message": "the image\nis too large"}}) if bad in json.dumps(asked) else None

    with running(Answering(lmm, says="A cat.", manner=manner)) as server:
        code, _, items = infer("--answers-from", server.address)
    (line,) = map(json.loads, (tmp_path / "out" / "failed.jsonl").read_text().splitlines())
    assert code == 3 and len(items) == N - 1 and line["image"] == "2.png"
    assert line["error"] == f"{photos / '2.png'}: {server.address} answers 400 (the image is too large)"


@pytest.mark.parametrize(
    "refusal, said",
    [
        ((500, {"error": {"message": "CUDA error"}}), "answers 500 (CUDA error)"),
        ((200, {"choices": []}), "holds no answer"),
        ((200, {"choices": [{"message": {"content": " "}}]}), "the server's answer is empty"),
        ((200, "hello"), "holds no answer"),
    ],
)
def test_why_there_is_no_answer(ask, refusal, said):
    found, _ = ask(lambda asked: refusal)
    assert len(found) == N and all(said in str(error) and "\n" not in str(error) for error in found.values())


@pytest.mark.parametrize(
    "refusal, said",
    [
        ((401, {"error": {"message": "Invalid API key"}}), f"environment variable {KEY}"),
        ((404, {"message": "no such model"}), "no such model"),
        ((302, "elsewhere"), "answers 302"),
    ],
)
def test_what_everybody_would_be_answered_ends_the_run(lmm, infer, refusal, said):
    with running(Answering(lmm, manner=lambda asked: refusal)) as server:
        code, output, items = infer("--answers-from", server.address)
    assert code == 2 and said in output and not items


def test_a_server_that_is_not_there_is_one_line(infer):
    for named in ((), ("--answers-model", "tiny")):
        code, output, _ = infer("--answers-from", "http://127.0.0.1:9/v1", *named)
        assert code == 2 and "cannot be reached" in output


def test_a_server_whose_list_fails_wants_a_name(lmm):
    named = pytest.raises(ValueError, match=r"^--answers-model: name .* answers 500")
    with running(Answering(lmm, lists=())) as server, named:
        served.server_at(server.address)


def test_a_busy_server_is_asked_again(ask):
    seen: dict[str, int] = {}

    def busy(asked):
        key = json.dumps(asked["messages"])
        seen[key] = seen.get(key, 0) + 1
        return (503, {"error": {"message": "starting"}}) if seen[key] < 3 else None

    found, _ = ask(busy)
    assert set(found.values()) == {Said("A cat.")} and set(seen.values()) == {3}


def test_a_strict_server_is_asked_what_it_knows(ask):
    def strict(asked):
        return (422, {"detail": "Unexpected keys: return_token_ids"}) if "return_token_ids" in asked else None

    found, server = ask(strict, in_flight=1)
    assert set(found.values()) == {Said("A cat.")}
    assert sum("return_token_ids" in asked for asked in server.seen) == 1


def test_a_slow_server_is_not_waited_for_for_ever(ask, monkeypatch):
    monkeypatch.setattr(served, "ANSWER_S", 0.05)
    monkeypatch.setattr(served, "TRIES", 2)
    found, _ = ask(lambda asked: time.sleep(0.4))
    assert all("gave no answer in 2 tries (ReadTimeout" in str(error) for error in found.values())


def test_who_stops_listening_asks_no_more(lmm, photos):
    with running(Answering(lmm, says="A cat.", manner=lambda asked: time.sleep(0.02))) as server:
        here = served.server_at(server.address, in_flight=1)
        path = next(photos.glob("*.png"))
        asked = ask_all(here, Wanted(4), iter(lambda: path, None), lambda one: (one, "Who?"))
        assert next(asked) == (path, Said("A cat."))
        asked.close()
        n = len(server.seen)
        time.sleep(0.3)
        assert len(server.seen) <= n + 1


def test_a_grounder_hears_the_server(lmm, photos):
    """One photograph, an open file, a list with a broken one, and told as it comes; a given answer asks nobody."""
    with running(Answering(lmm, says="A dog and a cat sit.")) as server:
        grounder = Grounder(answers_from=server.address)
        one = grounder(photos / "0.png")
        assert one.answer.text.strip() == "A dog and a cat sit." and len(one.phrases) == 2
        with (photos / "0.png").open("rb") as file:
            assert [p.text for p in grounder(file).phrases] == [p.text for p in one.phrases]
        whole, broken = grounder([photos / "0.png", b"no image"])
        assert whole.answer == one.answer and "not an image" in str(broken)
        *_, last = grounder.stream(photos / "0.png")
        assert last.answer == one.answer
        n = len(server.seen)
        assert [g.answer.text.strip() for g in grounder([photos / "0.png"], answer="A cat.")] == ["A cat."]
        assert grounder(photos / "0.png", answer="A cat.").answer.text.strip() == "A cat." and len(server.seen) == n


@pytest.mark.parametrize(
    "address",
    ["localhost:8000", "ftp://host/v1", "http://", "http://user:key@host/v1", "http://host/v1?key=1", "http://h:x/v1"],
)
def test_an_address_is_an_address(address):
    with pytest.raises(ValueError, match="answers-from") as error:
        checked_address(address)
    assert "key@" not in str(error.value)


def test_options_that_do_not_go_together(infer, tmp_path):
    code, output, _ = infer("--in-flight", 3)
    assert code == 2 and "are of --answers-from" in output
    (tmp_path / "answers.jsonl").write_text('{"image": "0.png", "answer": "A cat."}\n')
    code, output, _ = infer("--answers-from", "http://127.0.0.1:9/v1", "--answers", tmp_path / "answers.jsonl")
    assert code == 2 and "have answers already" in output


def test_the_server_sees_what_is_seen_here(tmp_path):
    photo = Image.fromarray(tiny.a_photo((40, 30)))
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(tmp_path / "plain.jpg")
    photo.save(tmp_path / "turned.jpg", exif=exif)
    plain, turned = (data_url(tmp_path / name) for name in ("plain.jpg", "turned.jpg"))
    assert b64decode(plain.removeprefix("data:image/jpeg;base64,")) == (tmp_path / "plain.jpg").read_bytes()
    sent = as_pixels(b64decode(turned.removeprefix("data:image/png;base64,")))
    assert (sent == as_pixels(tmp_path / "turned.jpg")).all() and sent.shape == (30, 40, 3)


def test_what_a_response_says():
    choice = {"message": {"content": "A cat."}}
    assert answer_of({"choices": [choice | {"token_ids": [1, 2]}]}) == Said("A cat.", (1, 2))
    assert answer_of({"choices": [choice | {"response_token_ids": [3]}]}) == Said("A cat.", (3,))
    assert answer_of({"choices": [choice | {"token_ids": ["x"]}]}) == answer_of(A_CAT) == Said("A cat.")
    assert only_model({"data": [{"id": "one"}]}) == "one"
