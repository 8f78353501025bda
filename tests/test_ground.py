"""`aas ground` with the embedded models, as a user runs it."""

import copy
import json
import re
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from skimage import data
from typer.testing import CliRunner

import aas
from aas.cli import app
from aas.paths import embedded_dir
from aas.presets import DEFAULT_QUESTION, MAPS_EMBEDDED
from aas.rle import of_mask
from tests.tiny.llava import llava


@pytest.fixture(scope="module")
def grounder() -> aas.Grounder:
    return aas.Grounder()


def run(*arguments: object):
    return CliRunner().invoke(app, ["ground", *map(str, arguments)])


def cat(path: Path, **options) -> Path:
    Image.fromarray(data.chelsea()).save(path, **options)
    return path


def check_item(path: Path, size_hw: tuple[int, int]) -> dict:
    item = json.loads(path.read_text())
    n = len(item["phrases"])
    assert n == len(item["pred_masks"]) == len(item["points"]) == len(item["scores"]) == len(item["spans"])
    for phrase, rle, (x, y), (start, end) in zip(
        item["phrases"], item["pred_masks"], item["points"], item["spans"], strict=True
    ):
        assert item["caption"][start:end] == phrase
        assert tuple(rle["size"]) == size_hw
        assert coco_mask.decode(rle).shape == size_hw
        assert 0 <= x < size_hw[1] and 0 <= y < size_hw[0]
    return item


# ---- the Python API --------------------------------------------------------------------------------


def test_grounder_answers_and_grounds(grounder):
    grounding = grounder(data.chelsea(), "Describe the image.")
    assert grounding.answer.text and grounding.phrases
    for phrase in grounding.phrases:
        assert grounding.answer.text[slice(*phrase.span)] == phrase.text
        assert phrase.mask.shape == grounding.image.shape[:2] and phrase.mask.dtype == bool
        assert phrase.map.shape == grounding.view.size_hw
        written = "".join(grounding.answer.text[slice(*grounding.answer.token_spans[i])] for i in phrase.token_indices)
        assert grounding.answer.text[slice(*phrase.phrase.root_span)] in written


def test_the_cat_is_found(grounder):
    """Chelsea fills the right two thirds of the picture; her face is at (230, 130)."""
    (phrase,) = grounder(data.chelsea(), answer="a cat").phrases
    assert phrase.text == "a cat"
    assert phrase.mask[130, 230] and phrase.mask.mean() > 0.2


def test_given_answer_keeps_its_words(grounder):
    grounding = grounder(data.astronaut(), answer="A Woman beside a 🚀 model, smiling!")
    assert grounding.answer.text == "A Woman beside a 🚀 model, smiling!"
    assert any("Woman" in phrase.text for phrase in grounding.phrases)


def test_answer_without_a_noun_phrase(grounder, tmp_path):
    grounding = grounder(data.coffee(), answer="yes")
    json_path, png_path = grounding.save(tmp_path)
    assert json.loads(json_path.read_text())["phrases"] == grounding.labels
    assert grounding.masks.shape == (len(grounding), 400, 600)
    assert Image.open(png_path).size[0] > 0


def test_replayed_answer_has_the_maps_of_the_generated_one(grounder):
    said, maps = grounder.lmm.ask(data.coffee(), "Describe the image.")
    _, again = grounder.lmm.ask(data.coffee(), "Describe the image.", said.text)
    n = len(said.token_ids)  # the given one has a token of its end behind the full stop, which ended the other
    assert np.abs(maps.maps - again.maps[:n]).max() <= 1e-5 * np.abs(maps.maps).max()


def test_embedded_capture_equals_eager_attention(grounder):
    """transformers' own attentions, one independent forward pass over prompt and answer."""
    lmm = grounder.lmm
    answer, maps = lmm.ask(data.coffee(), "Describe the image.")
    inputs = lmm.inputs(data.coffee(), "Describe the image.")
    columns = lmm.image_positions(inputs)
    n_prompt = inputs["input_ids"].shape[1]
    ids = torch.cat([inputs["input_ids"], torch.tensor([answer.token_ids])], dim=1)
    eager = copy.deepcopy(lmm.model)
    eager.set_attn_implementation({"text_config": "eager"})
    with torch.no_grad():
        attentions = eager(input_ids=ids, pixel_values=inputs["pixel_values"], output_attentions=True).attentions
    rows = torch.stack(attentions)[:, 0].mean((0, 1))[n_prompt - 1 : -1]
    expected = rows[:, columns].numpy().reshape(maps.maps.shape)
    assert np.abs(maps.maps - expected).max() <= 1e-5 * np.abs(expected).max()


def test_another_llava_from_a_folder(tmp_path):
    """A random CLIP-LLaVA saved as transformers saves it; its processor crops the centre."""
    model, processor = llava()
    model.save_pretrained(tmp_path / "llava")
    processor.save_pretrained(tmp_path / "llava")
    grounder = aas.Grounder(str(tmp_path / "llava"), max_new_tokens=8)
    grounding = grounder(data.chelsea(), answer="A dog and a cat")
    assert grounding.view.box_xyxy == pytest.approx((75, 0, 375, 300), abs=2)
    assert [phrase.text for phrase in grounding.phrases] == ["A dog", "a cat"]
    assert all(75 - 2 <= phrase.point_xy[0] <= 375 + 2 for phrase in grounding.phrases)
    assert len(grounder(data.chelsea()).answer.token_ids) <= 8


def test_run_lengths_round_trip():
    mask = np.random.default_rng(0).random((37, 53)) > 0.5
    assert (coco_mask.decode(of_mask(mask)).astype(bool) == mask).all()


def test_unknown_names_are_explained():
    for option in ("preset", "merge", "prompt", "words", "mask_choice"):
        with pytest.raises(ValueError, match="Known: "):
            aas.Grounder(**{option: "nonsense"})
    with pytest.raises(FileNotFoundError, match="embedded"):
        aas.Grounder(phrases="no_such_pipeline")


def test_a_grounding_is_asked(grounder):
    grounding = grounder(data.chelsea(), answer="It shows a cat beside a dog in the image")
    assert grounding.labels == ["a cat", "a dog"] and grounding.left_out == ("It", "the image")
    assert len(grounding) == 2 and [one.text for one in grounding] == grounding.labels
    assert grounding["a cat"] is grounding["CAT"] is grounding[0] and grounding["dog"] is grounding[1]
    with pytest.raises(KeyError, match="'a cat', 'a dog'"):
        grounding["horse"]
    assert grounding.masks.shape == (2, 300, 451) and grounding.masks.dtype == bool
    for mask, (x0, y0, x1, y1) in zip(grounding.masks, grounding.boxes, strict=True):
        rows, columns = np.nonzero(mask)
        assert (x0, y0, x1, y1) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    np.testing.assert_array_equal(grounding.scores, np.float32([one.score for one in grounding]))
    np.testing.assert_array_equal(grounding.points_xy, [one.point_xy for one in grounding])
    assert grounding.token_maps.shape == (len(grounding.answer.token_ids), *grounding.view.size_hw)
    assert len(repr(grounding)) < 120 and "a cat" in repr(grounding)


def test_a_grounding_comes_back_as_it_was(grounder, tmp_path):
    photo = cat(tmp_path / "a photo.png")
    for image, name in ((photo, None), (data.chelsea(), "mine/1")):
        one = grounder(image, answer="A cat. It looks at the image.")
        json_path, png_path = one.save(tmp_path / "out", name)
        assert png_path.exists() and json_path.name == ("a photo.json" if name is None else "mine%2F1.json")
        back = aas.Grounding.load(json_path)
        np.testing.assert_array_equal(back.image, one.image)
        np.testing.assert_array_equal(back.masks, one.masks)
        np.testing.assert_array_equal(back.token_maps, one.token_maps)
        np.testing.assert_array_equal(back[0].map, one[0].map)
        assert (back.answer, back.left_out, back.view) == (one.answer, one.left_out, one.view)
        assert (back.labels, back[0].points_xy, back[0].labels) == (one.labels, one[0].points_xy, one[0].labels)
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    assert aas.Grounding.load(tmp_path / "elsewhere/mine%2F1.json").labels == one.labels
    photo.unlink()
    with pytest.raises(aas.ImageError, match="no such file"):
        aas.Grounding.load(tmp_path / "elsewhere/a photo.json")
    assert aas.Grounding.load(tmp_path / "elsewhere/a photo.json", image=data.chelsea()).labels == one.labels


def test_lists_keep_their_order_and_one_bad_image_is_no_end(grounder, tmp_path):
    images = [data.chelsea(), tmp_path / "gone.jpg", data.coffee(), np.full((4, 4), np.nan)]
    found = grounder(images, answer="a cat")
    assert [type(one) for one in found] == [aas.Grounding, aas.GroundingError, aas.Grounding, aas.GroundingError]
    assert "gone.jpg" in str(found[1])
    alone = grounder(data.coffee(), answer="a cat")
    np.testing.assert_allclose(found[2].token_maps, alone.token_maps, atol=1e-6)


def test_several_answers_about_one_photograph_encode_it_once(grounder, monkeypatch):
    encode, n_encoded = grounder.segmenter.encode, []
    monkeypatch.setattr(grounder.segmenter, "encode", lambda images: n_encoded.append(len(images)) or encode(images))
    photo = data.coffee()
    first, second = grounder(photo, answer=["a cup", "a spoon"])
    assert sum(n_encoded) == 1 and (first.labels, second.labels) == (["a cup"], ["a spoon"])
    np.testing.assert_array_equal(second.masks, grounder(photo, answer="a spoon").masks)
    asked = grounder(photo, ["What is this?", "Describe the image."])
    assert [one.answer.question for one in asked] == ["What is this?", "Describe the image."]


def test_another_photograph_under_the_same_name_is_encoded_anew(grounder, tmp_path):
    """A file that was written anew, and arrays and open pictures, which are called by their address, that is by
    numbers which come again."""

    def of(photo: np.ndarray) -> np.ndarray:
        Image.fromarray(photo).save(tmp_path / "photo.png")
        return grounder(tmp_path / "photo.png", answer="a cat").masks

    photos = [photo[:300, :400] for photo in (data.chelsea(), data.coffee(), data.astronaut())]
    alone = [grounder([photo], answer="a cat")[0].masks for photo in photos]
    for ways in ([of(photo) for photo in photos], [grounder(Image.fromarray(p), answer="a cat").masks for p in photos]):
        for found, expected in zip(ways, alone, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_attention_of_every_layer_and_head(grounder):
    answer, kept = grounder.attention(data.chelsea(), answer="a cat")
    config = grounder.lmm.text_config
    n_tokens, grid = len(answer.token_ids), kept.view.size_hw
    assert kept.maps.shape == (config.num_hidden_layers, config.num_attention_heads, n_tokens, *grid)
    _, mean = grounder.lmm.ask(data.chelsea(), DEFAULT_QUESTION, "a cat")
    np.testing.assert_allclose(kept.maps.mean((0, 1)), mean.maps, atol=1e-6)
    assert grounder.attention(data.chelsea(), answer="a cat", keep="layers")[1].maps.ndim == 4


def test_what_is_loaded_already_is_taken(grounder):
    other = aas.Grounder(
        grounder.lmm.model, processor=grounder.lmm.processor, segmenter=grounder.segmenter, phrases=grounder.pipeline,
        maps=MAPS_EMBEDDED,
    )  # fmt: skip
    one, two = (which(data.chelsea(), answer="a cat") for which in (grounder, other))
    np.testing.assert_array_equal(one.masks, two.masks)


def test_a_seed_decides_what_is_drawn(grounder):
    def said(seed: int) -> str:
        lmm = {"processor": grounder.lmm.processor, "segmenter": grounder.segmenter, "phrases": grounder.pipeline}
        hot = aas.Grounder(grounder.lmm.model, **lmm, temperature=2.0, seed=seed, max_new_tokens=12)
        return hot(data.coffee()).answer.text

    assert said(1) == said(1) != said(2)


def test_everything_that_is_missing_is_named_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no/such-lmm.*no/such-sam.*no_such_pipeline"):
        aas.Grounder("no/such-lmm", "no/such-sam", "no_such_pipeline")


# ---- the command -----------------------------------------------------------------------------------


def test_one_photo(tmp_path):
    photo = cat(tmp_path / "chelsea.jpg")
    result = run(photo, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    item = check_item(tmp_path / "out/chelsea.json", (300, 451))
    assert item["image_id"] == "chelsea" and item["caption"] in result.stdout
    assert Image.open(tmp_path / "out/chelsea.png").size[0] > 451
    html = (tmp_path / "out/report.html").read_text()
    assert not re.search(r"""(src|href)=["']?https?:""", html)
    assert "embedded model is small" in result.stderr
    written = {"chelsea.json", "chelsea.png", "chelsea.safetensors", "report.html", "run.json"}
    assert {p.name for p in (tmp_path / "out").iterdir() if not p.name.startswith(".")} == written


def test_no_picture_unless_asked_for(tmp_path):
    photo, out = cat(tmp_path / "chelsea.jpg"), tmp_path / "out"
    assert run(photo, "--answer", "a cat", "--no-png", "--out", out).exit_code == 0
    assert not list(out.glob("*.png")) and "chelsea.png" not in (out / "report.html").read_text()
    assert run(photo, "--answer", "a cat", "--out", out).exit_code == 0  # it decides no result: the run is the same


def test_json_lines_and_given_answer(tmp_path):
    photo = cat(tmp_path / "chelsea.jpg")
    result = run(photo, "--out", tmp_path / "out", "--answer", "a cat with whiskers", "--json")
    (line,) = result.stdout.splitlines()
    assert json.loads(line)["phrases"][0] == "a cat"


def test_folder_of_odd_images(tmp_path):
    """Every mode and name in one folder: the good ones are grounded, each bad one costs only itself."""
    photos = tmp_path / "my photos é"
    photos.mkdir()
    cat(photos / "same.jpg")
    cat(photos / "same.png")
    Image.fromarray(data.chelsea()).convert("L").save(photos / "grey.png")
    Image.fromarray(data.chelsea()).convert("CMYK").save(photos / "cmyk.jpg")
    Image.fromarray(data.chelsea()).convert("RGBA").save(photos / "alpha 日本.png")
    Image.fromarray(data.chelsea()[..., 0].astype(np.uint16) * 257).save(photos / "deep.png")
    frame = Image.fromarray(data.chelsea())
    frame.save(photos / "moving.gif", save_all=True, append_images=[frame.rotate(90)])
    frame.crop((0, 0, 3, 2)).save(photos / "tiny.png")
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "cut.jpg").write_bytes((photos / "same.jpg").read_bytes()[:9000])
    (photos / "text.jpg").write_text("hello")
    Image.new("1", (20_000, 6_000)).save(photos / "huge.png")
    result = run(photos, tmp_path / "missing.jpg", "--out", tmp_path / "out", "--answer", "a cat")
    assert result.exit_code == 3, result.output
    good = {"same.jpg", "same.png", "grey", "cmyk", "alpha 日本", "deep", "moving"}
    for name in good:
        check_item(tmp_path / f"out/{name}.json", (300, 451))
    check_item(tmp_path / "out/tiny.json", (2, 3))
    assert {p.stem for p in (tmp_path / "out").glob("*.json")} == good | {"tiny", "run"}
    failed = [json.loads(line) for line in (tmp_path / "out/failed.jsonl").read_text().splitlines()]
    assert {Path(row["image"]).name for row in failed} == {
        "empty.jpg",
        "cut.jpg",
        "text.jpg",
        "huge.png",
        "missing.jpg",
    }
    assert all(len(row["error"]) > 20 for row in failed)


def test_subfolders_are_in_the_names(tmp_path):
    (tmp_path / "in/sub").mkdir(parents=True)
    cat(tmp_path / "in/100%.png")
    cat(tmp_path / "in/sub/a.png")
    assert run(tmp_path / "in", "--answer", "a cat", "--out", tmp_path / "out").exit_code == 0
    assert {path.name for path in (tmp_path / "out").glob("*.json")} == {"100%25.json", "sub%2Fa.json", "run.json"}
    assert check_item(tmp_path / "out/sub%2Fa.json", (300, 451))["image_id"] == "sub%2Fa"


def test_masks_lie_on_the_upright_picture(tmp_path):
    upright = Image.fromarray(data.chelsea())
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    upright.save(tmp_path / "upright.png")
    run(tmp_path / "turned.png", tmp_path / "upright.png", "--answer", "a cat", "--out", tmp_path / "out")
    turned, straight = (check_item(tmp_path / f"out/{n}.json", (300, 451)) for n in ("turned", "upright"))
    assert turned["pred_masks"] == straight["pred_masks"] and turned["points"] == straight["points"]


def test_usage_errors(tmp_path):
    photo = cat(tmp_path / "a.png")
    for arguments, message in [
        ((photo, "--answer", " "), "--answer is empty"),
        ((photo, "--preset", "nope"), "'nope' is not one of 'paper'"),
        ((photo, "--out", tmp_path), "would overwrite an image"),
        ((tmp_path, "--out", tmp_path), "name another one"),
        ((photo, "--model", "no/such-model"), "No model"),
        ((photo, "--segmenter", str(tmp_path / "none")), "No segmenter"),
        ((photo, "--out", photo), "a.png"),
    ]:
        extra = () if "--out" in arguments else ("--out", tmp_path / "out")
        result = run(*arguments, *extra)
        assert result.exit_code == 2 and message in result.stderr, (arguments, result.output)
    assert run().exit_code == 2


def test_empty_folder(tmp_path):
    (tmp_path / "none").mkdir()
    result = run(tmp_path / "none", "--out", tmp_path / "out")
    assert result.exit_code == 3 and "no images in this folder" in result.stderr


def test_a_second_run_forgets_old_failures(tmp_path):
    photo = cat(tmp_path / "a.jpg")
    assert run(photo, tmp_path / "gone.jpg", "--out", tmp_path / "out", "--answer", "a cat").exit_code == 3
    assert (tmp_path / "out/failed.jsonl").exists()
    assert run(photo, "--out", tmp_path / "out", "--answer", "a cat").exit_code == 0
    assert not (tmp_path / "out/failed.jsonl").exists()


def test_it_is_the_two_stages_at_once(tmp_path):
    photo = cat(tmp_path / "photos/a.png") if (tmp_path / "photos").mkdir() is None else None
    one = ("--answer", "a cat beside a dog", "--keep-all")
    assert run(photo, *one, "--out", tmp_path / "ground").exit_code == 0
    (tmp_path / "answers.jsonl").write_text(json.dumps({"image": "a.png", "answer": "a cat beside a dog"}))
    where = ["--images", str(tmp_path / "photos")]
    asked = ["infer-attn", *where, "--answers", str(tmp_path / "answers.jsonl"), "--maps", MAPS_EMBEDDED]
    asked += ["--out", str(tmp_path / "attn")]
    assert CliRunner().invoke(app, asked).exit_code == 0
    shown = ["segment", "gcg", *where, "--attn", str(tmp_path / "attn"), "--out", str(tmp_path / "masks")]
    assert CliRunner().invoke(app, shown).exit_code == 0
    ground, masks = (json.loads((tmp_path / f"{name}/a.json").read_text()) for name in ("ground", "masks"))
    for key in masks.keys() - {"question"}:
        assert ground[key] == masks[key], key
    assert len(ground["prompt_points"][0]) == 1, "as the method"


def test_the_head_that_ships(tmp_path):
    """Masks of the same phrases and points, chosen by the head: the cup is found with its rim."""
    photo = tmp_path / "coffee.png"
    Image.fromarray(data.coffee()).save(photo)
    found = {}
    for name in ("training-free", "proposals"):
        code = run(photo, "--answer", "a cup", "--head", name, "--out", tmp_path / name).exit_code
        assert code == 0
        found[name] = json.loads((tmp_path / f"{name}/coffee.json").read_text())
    free, chosen = found["training-free"], found["proposals"]
    assert free["points"] == chosen["points"] and free["pred_masks"] != chosen["pred_masks"]
    mask = coco_mask.decode(chosen["pred_masks"][0]).astype(bool)
    assert mask[70:90, 290:320].mean() > 0.9 and not mask[300:, :80].any()  # the far rim; the table


def test_a_second_start_goes_on(tmp_path):
    photos = [cat(tmp_path / f"{name}.png") for name in "ab"]
    given = ("--answer", "a cat", "--out", tmp_path / "out")
    assert run(photos[0], *given).exit_code == 0
    first = (tmp_path / "out/a.json").read_bytes()
    again = run(*photos, *given)
    assert again.exit_code == 0 and "1 done, 1 were there" in again.stderr
    assert [line.split(": ")[1] for line in again.stdout.splitlines()] == ["a cat", "a cat"]
    assert (tmp_path / "out/a.json").read_bytes() == first
    html = (tmp_path / "out/report.html").read_text()
    assert "2 photographs" in html


def test_nothing_good_is_overwritten(tmp_path):
    """Another question or model is refused, a typo costs no report, another photograph of one name gets its own."""
    photo = cat(tmp_path / "a.png")
    given = ("--answer", "a cat", "--out", tmp_path / "out")
    assert run(photo, *given).exit_code == 0
    for other in (("--answer", "a dog"), ("--question", "Why?"), ("--seed", 3), ("--points", 2), ("--layers", "0")):
        result = run(
            photo, "--out", tmp_path / "out", *(() if other[0] == "--answer" else ("--answer", "a cat")), *other
        )
        assert result.exit_code == 2 and "other arguments" in result.stderr and "--out" in result.stderr
    assert run(tmp_path / "typo.png", *given).exit_code == 3
    html = (tmp_path / "out/report.html").read_text()
    assert "1 photograph, 1 failed" in html and "typo.png" in html
    (tmp_path / "sub").mkdir()
    other = Image.fromarray(data.coffee())
    other.save(tmp_path / "sub/a.png")
    assert run(tmp_path / "sub/a.png", *given).exit_code == 0
    check_item(tmp_path / "out/a.json", (300, 451))
    check_item(tmp_path / "out/a-2.json", (400, 600))
    assert run(tmp_path / "sub/a.png", *given).exit_code == 0 and not (tmp_path / "out/a-3.json").exists()


def test_files_that_are_not_ours_stay(tmp_path):
    """Datasets have a JSON file beside each photograph."""
    photo = cat(tmp_path / "a.jpg")
    (tmp_path / "a.json").write_text('{"text": "mine"}')
    result = run(photo, "--answer", "a cat", "--out", tmp_path)
    assert result.exit_code == 0 and "1 done" in result.stderr
    assert (tmp_path / "a.json").read_text() == '{"text": "mine"}'
    check_item(tmp_path / "a-2.json", (300, 451))
    assert "1 photograph" in (tmp_path / "report.html").read_text()


def test_patterns_urls_and_stdin(tmp_path):
    cat(tmp_path / "x1.png"), cat(tmp_path / "x2.png"), cat(tmp_path / "[y].png")
    given = ("--answer", "a cat", "--out", tmp_path / "out")
    served = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), served) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/x1.png?size=large"
        result = CliRunner().invoke(
            app, ["ground", str(tmp_path / "x*.png"), url, "-", str(tmp_path / "[y].png"), *map(str, given)],
            input=(tmp_path / "x2.png").read_bytes(),
        )  # fmt: skip
        server.shutdown()
    assert result.exit_code == 0, result.output
    found = {path.stem for path in (tmp_path / "out").glob("*.png") if ".photo" not in path.name}
    assert len(found) == 5 and {"x2", "stdin", "[y]"} <= found
    assert run(tmp_path / "z*.png", *given).exit_code == 3


def test_answers_from_a_file(tmp_path):
    photo = cat(tmp_path / "a.png")
    lines = [{"image": "a.png", "answer": "a cat", "id": "one"}, {"image": str(photo), "answer": "a nose", "id": "two"}]
    (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, lines)))
    result = run(photo, "--answers", tmp_path / "answers.jsonl", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert check_item(tmp_path / "out/two.json", (300, 451))["phrases"] == ["a nose"]
    assert check_item(tmp_path / "out/one.json", (300, 451))["phrases"] == ["a cat"]


def test_pronouns_and_the_image_are_told_and_not_masked(tmp_path):
    photo = cat(tmp_path / "a.png")
    answer = ("--answer", "It is a cat in the image")
    assert run(photo, *answer, "--out", tmp_path / "few").exit_code == 0
    assert run(photo, *answer, "--keep-all", "--out", tmp_path / "all").exit_code == 0
    few, everything = (json.loads((tmp_path / f"{name}/a.json").read_text()) for name in ("few", "all"))
    assert few["phrases"] == ["a cat"] and few["left_out"] == ["It", "the image"]
    assert everything["phrases"] == ["It", "a cat", "the image"] and everything["left_out"] == []
    assert "the image" in (tmp_path / "few/report.html").read_text()


def test_processes_and_batches_give_the_same(tmp_path):
    """Four photographs by one process, by workers that do all, and by batches with a process that writes."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(4):
        Image.fromarray(np.roll(data.chelsea(), 40 * i, axis=1)).save(photos / f"{i}.png")
    (photos / "bad.png").write_bytes(b"no image")
    ways = {"one": ("--workers", 0), "items": ("--workers", 2), "batches": ("--batch-size", 3, "--workers", 1)}
    for name, way in ways.items():
        result = run(photos, "--answer", "a cat", "--out", tmp_path / name, *way)
        assert result.exit_code == 3 and "4 done, 0 were there, 1 failed" in result.stderr, result.output
    for i in range(4):
        one, items, batches = ((tmp_path / name / f"{i}.json").read_bytes() for name in ways)
        assert one == items
        assert json.loads(one)["points"] == json.loads(batches)["points"]


def test_works_in_another_folder(tmp_path, monkeypatch):
    """As a program of its own, offline: tests/test_wheel.py."""
    monkeypatch.chdir(tmp_path)
    result = run(cat(tmp_path / "chelsea.jpg").name, "--answer", "a cat")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "grounded/chelsea.json").exists()


def test_embedded_models_are_small_and_safe():
    root = embedded_dir("lmm").parent
    files = [path for path in root.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 96_000_000
    pickles = [b"\x80" + bytes([protocol]) for protocol in range(2, 6)]
    assert not [path for path in files if path.read_bytes()[:2] in pickles or path.suffix in (".pt", ".pth")]
