"""`aas eval gcg` against the published procedure written out on decoded masks, and against the golden figures."""

import contextlib
import csv
import importlib
import json
import pkgutil
import shutil
from pathlib import Path

import numpy as np
import pytest
import spacy.lang
import torch
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor as JavaMeteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
from pycocotools import mask as coco_mask
from transformers import AutoModel, AutoTokenizer
from typer.testing import CliRunner

from aas import rle
from aas.cli import app
from aas.evaluations.gcg import EvalGcg, evaluate
from aas.metrics import bootstrap, captions, ptb
from tests.command import run
from tests.eval_sets import coco_figures, encoded, random_mask, write_gcg_set, write_text_encoder

needs_java = pytest.mark.skipif(not captions.java_works(), reason="no Java here")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return write_text_encoder(tmp_path_factory.mktemp("encoder") / "bert")


@pytest.fixture(scope="module")
def meteor_program() -> JavaMeteor:
    return JavaMeteor()


@pytest.fixture
def one_meteor(meteor_program, monkeypatch):
    """Its Java process takes many seconds to load: one for all tests."""
    monkeypatch.setattr("pycocoevalcap.meteor.meteor.Meteor", lambda: meteor_program)


@pytest.fixture
def no_java(monkeypatch):
    monkeypatch.setattr(captions, "java_works", lambda: False)


def evaluated(paths: dict[str, Path], encoder: Path, n_resamples: int):
    results = paths["results"]
    options = EvalGcg(**(paths | {"results": (results,)}), text_encoder=str(encoder), n_resamples=n_resamples)
    return evaluate(options, results)


# ---- the published procedure, written out -----------------------------------------------------------------------


def decoded(masks):
    return [coco_mask.decode(mask).astype(bool) for mask in masks]


def ious_of(rows, columns):
    with np.errstate(invalid="ignore"):
        return np.array([[(a & b).sum() / (a | b).sum() for b in columns] for a in rows]).reshape(
            len(rows), len(columns)
        )


def published_iou(predicted, true):
    table, found = ious_of(predicted, true), []
    while table.size and np.max(table) > 0:
        i, j = np.unravel_index(np.argmax(table), table.shape)
        found.append(table[i, j])
        table = np.delete(np.delete(table, i, 0), j, 1)
    return float(np.mean(found)) if found else 0.0


def published_pairs(predicted, true, similarity):
    table, n = ious_of(true, predicted), 0
    while table.size:
        i, j = np.unravel_index(np.argmax(table), table.shape)
        if table[i, j] < 0.5 or similarity(i, j) < 0.5:
            break
        table[i, :] = table[:, j] = 0
        n += 1
    return n


def strict_pairs(predicted, true, similarity):
    table, rows, columns = ious_of(true, predicted), set(), set()
    for place in np.argsort(-np.nan_to_num(table), axis=None, kind="stable"):
        i, j = np.unravel_index(place, table.shape)
        free = i not in rows and j not in columns
        if free and np.nan_to_num(table)[i, j] >= 0.5 and similarity(i, j) >= 0.5:
            rows.add(i)
            columns.add(j)
    return len(rows)


def one_by_one(folder):
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    def embed(text):
        with torch.no_grad():
            return model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)

    return lambda a, b: float(torch.nn.functional.cosine_similarity(embed(a), embed(b), dim=0))


def published(paths, encoder, strict):
    words, shapes = (json.loads(paths[name].read_text()) for name in ("gt_caption", "gt_mask"))
    alike = one_by_one(encoder)
    detections, ious, n_pairs, n_labels = [], [], 0, 0
    for entry in words["annotations"]:
        answer = json.loads((paths["results"] / f"{entry['image_id']}.json").read_text())
        for mask, score in zip(answer["pred_masks"], answer["scores"], strict=True):
            item = {"image_id": entry["image_id"], "category_id": 1, "segmentation": mask}
            detections.append(item | {"score": score if strict else 1.0})
        true = decoded([a["segmentation"] for a in shapes["annotations"] if a["image_id"] == entry["image_id"]])
        predicted = decoded(answer["pred_masks"])
        similarity = lambda i, j, e=entry, a=answer: alike(e["labels"][i], a["phrases"][j])  # noqa: E731
        n_labels += len(entry["labels"])
        if strict:
            table = np.nan_to_num(ious_of(predicted, true))
            n_pairs += strict_pairs(predicted, true, similarity)
            found = []
            while table.size and table.max() > 0:
                i, j = np.unravel_index(np.argmax(table), table.shape)
                found.append(table[i, j])
                table = np.delete(np.delete(table, i, 0), j, 1)
            ious.append(sum(found) / len(true))
        else:
            n_pairs += published_pairs(predicted, true, similarity)
            ious.append(published_iou(predicted, true))
    return coco_figures(shapes, detections) | {"mIoU": np.mean(ious), "recall": n_pairs / n_labels}


@pytest.mark.parametrize("seed", range(3))
def test_figures_are_those_of_the_published_procedure(tmp_path, encoder, no_java, seed):
    paths = write_gcg_set(tmp_path, seed)
    content, _ = evaluated(paths, encoder, 2)
    for protocol in ("glamm", "strict"):
        expected = published(paths, encoder, protocol == "strict")
        resampled = bootstrap.figures(content["evidence"][protocol], np.ones((1, 12)))
        assert resampled["AP"][0] == pytest.approx(expected["AP"], abs=1e-6)
        assert {name: content[protocol][name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert content["glamm"]["mIoU"] != content["strict"]["mIoU"]
    assert 0 < content["strict"]["recall"] < 1


def test_a_set_in_coco_numbers_ranks_by_value(tmp_path, encoder, no_java):
    """With equal scores AP depends on the order of images: 5 is before 10 as a number, behind as text."""
    paths = write_gcg_set(tmp_path, 11)
    as_text, _ = evaluated(paths, encoder, 0)
    for name in ("gt_caption", "gt_mask"):
        content = json.loads(paths[name].read_text())
        for entry in content["images"]:
            entry["id"] = int(entry["id"])
        for entry in content["annotations"]:
            entry["image_id"] = int(entry["image_id"])
        paths[name].write_text(json.dumps(content))
    as_numbers, findings = evaluated(paths, encoder, 0)
    assert as_numbers["glamm"]["AP"] == pytest.approx(published(paths, encoder, False)["AP"], abs=1e-6)
    assert as_numbers["glamm"]["AP"] != as_text["glamm"]["AP"]
    assert as_numbers["glamm"]["recall"] == as_text["glamm"]["recall"]
    assert "images_without_an_answer" not in findings


# ---- captions -----------------------------------------------------------------------------------------------------

SAID = ["A man, on a grey horse!", "", "two dogs (small) don't sit", "The cat sits on the mat.", "it's a 5'6\" man"]
MEANT = [["a man on a horse"], ["a dog"], ["two small dogs sit", "Dogs don't sit."], ["the cat sits on the mat"], ["a"]]


@needs_java
def test_captions_are_those_of_pycocoevalcap(one_meteor):
    pairs = [captions.Caption(said, meant) for said, meant in zip(SAID, MEANT, strict=True)]
    scorer = captions.CaptionScorer(["METEOR", "CIDEr", "Bleu", "ROUGE_L"])
    found = bootstrap.figures(scorer.evidence(pairs), np.ones((1, 5)))
    tokenizer = PTBTokenizer()
    references = tokenizer.tokenize({i: [{"caption": text} for text in texts] for i, texts in enumerate(MEANT)})
    results = tokenizer.tokenize({i: [{"caption": text}] for i, text in enumerate(SAID)})
    expected = {"METEOR": scorer.metrics["METEOR"].program.compute_score(references, results)[0]}
    expected["CIDEr"] = Cider().compute_score(references, results)[0]
    expected["ROUGE_L"] = Rouge().compute_score(references, results)[0]
    bleu = Bleu(4).compute_score(references, results, verbose=0)[0]
    expected |= {f"Bleu_{k}": value for k, value in enumerate(bleu, start=1)}
    assert {name: float(values[0]) for name, values in found.items()} == pytest.approx(expected, abs=1e-9)


@needs_java
def test_the_python_tokenizer_agrees_with_java(shared_dir):
    content = json.loads((shared_dir / "data/coco/annotations/captions_subset_val2017.json").read_text())
    lines = sorted({" ".join(entry["caption"].split()) for entry in content["annotations"]})
    same = np.mean([ptb.words(line) == words for line, words in zip(lines, captions._java_words(lines), strict=True)])
    assert len(lines) > 9000 and same > 0.9995


# Stanford's words of the line before, recorded: what is written as one there is one here.
IN_MANY_LANGUAGES = [
    ("ผู้ชายขี่ม้าอยู่บนชายหาด 3 ตัว.", "ผู้ชายขี่ม้าอยู่บนชายหาด 3 ตัว"),
    ("बिल्ली सोफे पर, सो रही है।", "बिल्ली सोफे पर सो रही है ।"),
    ("বিড়ালটি সোফায় ঘুমাচ্ছে।", "বিড়ালটি সোফায় ঘুমাচ্ছে ।"),
    ("பூனை சோபாவில் தூங்குகிறது.", "பூனை சோபாவில் தூங்குகிறது"),
    ("పిల్లి సోఫా మీద నిద్రపోతోంది.", "పిల్లి సోఫా మీద నిద్రపోతోంది"),
    ("הַחָתוּל יָשֵׁן עַל הַסַּפָּה.", "הַחָתוּל יָשֵׁן עַל הַסַּפָּה"),
    ("كَلْبٌ يَجْرِي، فِي الحَدِيقَةِ.", "كَلْبٌ يَجْرِي ، فِي الحَدِيقَةِ"),
    ("a cafe\u0301 with a pin\u0303ata", "a cafe\u0301 with a pin\u0303ata"),
    ("l’été, c'est « où » qu'il s'assied aujourd'hui ?", "l’été c'est où qu'il s assied aujourd hui"),
    ("İstanbul'da ışıklı çocuk.", "i\u0307stanbul da ışıklı çocuk"),
    ("ビール が\u3099 好き。", "ビール が 好き 。"),
    ("បុរស ១០ m², plan b. é.", "ប រស ១០ m ² plan b. é"),
    ("orílẹ\u0300-èdè", "orílẹ\u0300 èdè"),
]


@pytest.mark.parametrize("line, expected", IN_MANY_LANGUAGES)
def test_words_beyond_ascii(line, expected):
    assert ptb.words(line) == expected


@needs_java
def test_java_makes_the_same_words_in_all_of_spacys_languages():
    lines, expected = map(list, zip(*IN_MANY_LANGUAGES, strict=True))
    assert captions._java_words(lines) == expected
    for module in pkgutil.iter_modules(spacy.lang.__path__):
        with contextlib.suppress(ImportError):
            lines += importlib.import_module(f"spacy.lang.{module.name}.examples").sentences
    lines = [" ".join(line.split()) for line in lines]
    same = np.mean([ptb.words(line) == words for line, words in zip(lines, captions._java_words(lines), strict=True)])
    assert len(lines) > 500 and same > 0.99


def test_without_java_meteor_is_left_out_and_said(tmp_path, encoder, monkeypatch):
    paths = write_gcg_set(tmp_path, 0, n_images=3)
    monkeypatch.setenv("PATH", str(tmp_path))
    options = [word for name, path in paths.items() for word in (f"--{name.replace('_', '-')}", str(path))]
    result = CliRunner().invoke(app, ["eval", "gcg", *options, "--text-encoder", str(encoder), "--bootstrap", "0"])
    assert result.exit_code == 0
    assert "No Java" in result.stderr and "METEOR" not in result.stdout
    assert "CIDEr" in result.stdout
    spice = CliRunner().invoke(app, ["eval", "gcg", *options, "--text-encoder", str(encoder), "--spice"])
    assert spice.exit_code == 2 and "SPICE needs Java" in spice.stderr


# ---- what is wrong is reported ------------------------------------------------------------------------------------


def test_what_is_wrong_is_counted(tmp_path, encoder, no_java):
    paths = write_gcg_set(tmp_path, 3)
    files = sorted(paths["results"].iterdir())
    files[0].unlink()
    files[1].write_text('{"caption": "cut o')
    files[2].write_text(
        json.dumps({"image_id": int(files[2].stem), "caption": "a dog", "phrases": [], "pred_masks": []})
    )
    answer = json.loads(files[3].read_text())
    answer["pred_masks"] = [
        {"size": [40, 60], "counts": [0, 2400]},
        [[1.0, 1, 20, 1, 20, 20]],
        {"size": [40, 60], "counts": [5, 7]},
        {"size": [40, 60], "counts": "PPP"},
        encoded(np.ones((8, 8), bool)),
        None,
    ]
    answer["phrases"] = ["dog"]
    files[3].write_text(json.dumps({"wrapped": answer}))
    files[4].rename(paths["results"] / "elsewhere.json")
    (paths["results"] / "unknown.json").write_text(json.dumps(answer | {"image_id": "unknown"}))
    truth = json.loads(paths["gt_mask"].read_text())
    truth["annotations"] += [truth["annotations"][0], truth["annotations"][1] | {"image_id": "nowhere"}]
    truth["annotations"][2]["segmentation"] = []
    paths["gt_mask"].write_text(json.dumps(truth))
    content, findings = evaluated(paths, encoder, 20)
    counts = content["counts"]
    expected = {
        "images_without_an_answer": 2,
        "unreadable_files": 1,
        "answers_without_masks": 1,
        "answers_about_unknown_images": 1,
        "duplicate_annotation_ids": 1,
        "annotations_of_unknown_images": 1,
        "unreadable_masks": 4,
        "masks_of_another_size_than_their_image": 1,
    }
    assert {name: counts[name] for name in expected} == expected
    assert counts["answers_whose_masks_and_phrases_differ_in_number"] >= 1
    assert counts["true_masks_and_labels_differ_in_number"] >= 1
    assert len(findings["unreadable_masks"]) == 4 and counts["images"] == 12
    assert json.dumps(content, allow_nan=False)


@pytest.mark.parametrize("where", ["caption", "phrases", "true caption", "true label"])
def test_half_a_character_is_named_and_costs_nobody_else(tmp_path, encoder, no_java, where):
    """It is read as the sign for what is missing, so the figures are those of a text that has this sign."""
    figures = {}
    for half in ("\ud83d", "\ufffd"):
        paths = write_gcg_set(tmp_path / f"{ord(half)}", seed=3, n_images=4)
        path = paths["gt_caption"] if "true" in where else sorted(paths["results"].glob("*.json"))[1]
        content = json.loads(path.read_text())
        entry = content["annotations"][1] if "true" in where else content
        if where.endswith("caption"):
            entry["caption"] += half
        else:
            entry["labels" if "true" in where else "phrases"][0] += half
        path.write_text(json.dumps(content))
        found, findings = evaluated(paths, encoder, 0)
        figures[half] = {name: found[name] for name in ("glamm", "strict")}
        told = [line for line in findings.get("unreadable_values", ()) if "half a character" in line]
        assert len(told) == (half == "\ud83d")
    assert figures["\ud83d"] == figures["\ufffd"]


def test_answers_without_any_mask_are_zeros(tmp_path, encoder, no_java):
    paths = write_gcg_set(tmp_path, 1)
    for path in paths["results"].iterdir():
        path.write_text(json.dumps({"caption": "", "phrases": [], "pred_masks": []}))
    content, _ = evaluated(paths, encoder, 10)
    for protocol in ("glamm", "strict"):
        assert all(abs(value) < 1e-6 for value in content[protocol].values() if value != -1)


def test_a_wrong_folder_is_one_line(tmp_path, encoder):
    paths = write_gcg_set(tmp_path, 1)
    (tmp_path / "other").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/of_another_name.json").write_text("{")
    other_masks = tmp_path / "other.json"
    other_masks.write_text(paths["gt_mask"].read_text().replace('"id": "', '"id": "x'))
    for results, masks, encoder_id, word in (
        (tmp_path / "other", paths["gt_mask"], encoder, "none of its 0 files"),
        (tmp_path / "damaged", paths["gt_mask"], encoder, "and 1 are damaged (of_another_name.json: "),
        (paths["results"], other_masks, encoder, "none of the images"),
        (paths["results"], paths["gt_mask"], tmp_path / "nowhere", "--text-encoder"),
    ):
        options = ["--gt-caption", str(paths["gt_caption"]), "--gt-mask", str(masks)]
        command = ["eval", "gcg", *options, "--results", str(results), "--text-encoder", str(encoder_id)]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 2 and word in result.stderr and "Traceback" not in result.stderr


def test_several_runs_beside_the_first(tmp_path, encoder, no_java):
    """Each figure as of that run alone, and the difference as `aas eval compare` has it."""
    paths = write_gcg_set(tmp_path, 1, 5)
    worse = tmp_path / "worse"
    shutil.copytree(paths["results"], worse)
    for path in sorted(worse.iterdir())[:2]:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"pred_masks": [], "phrases": [], "scores": []}))
    (worse / "run.json").write_text(json.dumps({"arguments": {"head": "head.safetensors"}}))
    truth = ("--gt-caption", paths["gt_caption"], "--gt-mask", paths["gt_mask"], "--text-encoder", encoder)
    options = (*truth, "--bootstrap", 50)

    both = ("--results", paths["results"], "--results", worse)
    files = ("--json", tmp_path / "both.json", "--csv", tmp_path / "both.csv")
    code, output = run("eval", "gcg", *options, *both, *files)
    found = json.loads((tmp_path / "both.json").read_text())
    for name, results in (("answers", paths["results"]), ("worse", worse)):
        alone = tmp_path / f"{name}-alone.json"
        assert run("eval", "gcg", *options, "--results", results, "--json", alone)[0] == code == 0
        assert found["runs"][name] == json.loads(alone.read_text())
    code, table = run("eval", "compare", tmp_path / "answers-alone.json", tmp_path / "worse-alone.json",
                      "--bootstrap", 50)  # fmt: skip
    change = found["differences"]["worse"]["strict"]["mIoU"]
    low, high = change["interval"]
    assert f"{change['difference']:+.3f} [{low:+.3f}, {high:+.3f}]" in table and change["difference"] < 0
    assert "| figure " in output and "| worse − answers " in output and "| captions CIDEr " in output
    assert output.count("| strict mIoU ") == 1 and "worse: --head head.safetensors" in output
    assert run("eval", "compare", tmp_path / "both.json", tmp_path / "both.json")[0] == 2
    rows = list(csv.DictReader((tmp_path / "both.csv").read_text().splitlines()))
    assert [row["run"] for row in rows] == ["answers"] * 5 + ["worse"] * 5
    code, output = run("eval", "gcg", *options, *both[:2], *both[:2])
    assert code == 2 and "given twice" in output


# ---- golden figures -----------------------------------------------------------------------------------------------


def golden_paths(shared_dir):
    folder = shared_dir / "golden/eval"
    names = {"results": "pred", "gt_caption": "gcg_caption_gt.json", "gt_mask": "gcg_mask_gt.json"}
    return {name: folder / value for name, value in names.items()}, str(folder / "text-encoder"), folder


@needs_java
def test_golden_figures(shared_dir, tmp_path, one_meteor):
    paths, text_encoder, folder = golden_paths(shared_dir)
    options = [word for name, path in paths.items() for word in (f"--{name.replace('_', '-')}", str(path))]
    options += ["--text-encoder", text_encoder, "--json", str(tmp_path / "a.json"), "--csv", str(tmp_path / "a.csv")]
    result = CliRunner().invoke(app, ["eval", "gcg", *options, "--bootstrap", "200"])
    assert result.exit_code == 0
    content = json.loads((tmp_path / "a.json").read_text())
    expected = json.loads((folder / "expected.json").read_text())["gcg_glamm_protocol"]
    assert {name: round(value, 3) for name, value in content["glamm"].items()} == expected
    assert all(low <= content["glamm"][name] <= high for name, (low, high) in content["intervals"]["glamm"].items())
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 41
    again = CliRunner().invoke(app, ["eval", "compare", str(tmp_path / "a.json"), str(tmp_path / "a.json")])
    assert again.exit_code == 0 and "+0.000 [+0.000, +0.000]" in again.stdout


# ---- run lengths --------------------------------------------------------------------------------------------------


def test_run_lengths_are_read_as_pycocotools_reads_them():
    rng = np.random.default_rng(0)
    for n in range(50):
        mask = random_mask(rng) if n % 2 else rng.random((40, 60)) < rng.random()
        found = rle.compressed(encoded(mask), (40, 60))
        assert rle.area(found) == mask.sum()
        numbers = {"size": [40, 60], "counts": rle.runs(found).tolist()}
        assert rle.compressed(numbers, (1, 1)) == found
        points = rng.integers(-2, 62, (40, 2))
        inside = [0 <= x < 60 and 0 <= y < 40 and bool(mask[y, x]) for x, y in points]
        assert [rle.covers(found, point) for point in points] == inside


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": [4, 4], "counts": "44"},
        {"size": [4, 4], "counts": "o"},
        {"size": [4, 4], "counts": "é"},
        {"size": [4, 4], "counts": [17]},
        {"size": [4, 4], "counts": [-1, 17]},
        {"size": [4], "counts": [4]},
        {"counts": [4]},
        [[1, 2, 3]],
        [[1, 2, 3, float("nan"), 5, 6]],
        [[1, 2, 1e300, 4, 5, 6]],
        [],
        "",
        None,
    ],
)
def test_what_is_no_mask_is_refused(wrong):
    with pytest.raises((ValueError, TypeError)):
        rle.compressed(wrong, (4, 4))
