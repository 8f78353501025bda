"""What ends a command is one line that says what to do: damaged models, what is not installed, Ctrl-C, full disks."""

import errno
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from aas.cli import app
from aas.cli.options import usage_errors
from aas.engine.cluster import NoCluster
from aas.evaluations.report import ReportOptions
from aas.lmms import load_lmm
from aas.loading import in_short, is_ours
from aas.metrics.text_similarity import TextEncoder
from aas.paths import embedded_dir
from aas.phrases.parser import load_pipeline
from aas.segmenters import load_segmenter
from aas.store.atomic import check_target, check_writable
from aas.store.reference import load_tokenizer
from tests import tiny
from tests.command import program, run

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "whole"
    return tiny.saved(tiny.family("qwen2_vl"), folder)


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copied"))


def configured(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def line_of(load: Callable[[], object]) -> str:
    """The one line that a failure to load is told in."""
    with pytest.raises((ValueError, FileNotFoundError)) as raised:
        load()
    text = str(raised.value)
    assert "\n" not in text and len(text) < 700
    return text


# ------------------------------------------------------------------------------------------------------ models

QUANTISED = {
    "awq": ({"bits": 4, "group_size": 128, "zero_point": True}, "gptqmodel"),
    "gptq": ({"bits": 4, "group_size": 128, "desc_act": False}, "optimum"),
    "bitsandbytes": ({"load_in_8bit": True}, "bitsandbytes"),
    "compressed-tensors": ({"format": "pack-quantized", "config_groups": {}}, "compressed-tensors"),
    "quanto": ({"weights": "int8"}, "optimum-quanto"),
    "vptq": ({}, "vptq"),
    "hqq": ({}, "HQQ"),
}


@pytest.mark.parametrize("method", QUANTISED)
def test_a_quantised_model_whose_package_is_missing(copied, method):
    settings, package = QUANTISED[method]
    configured(copied, quantization_config={"quant_method": method, **settings})
    line = line_of(lambda: load_lmm(str(copied), "cpu"))
    assert str(copied) in line and package in line


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "processor_config.json",
                                  "generation_config.json", "chat_template.jinja", "model.safetensors"])  # fmt: skip
def test_files_that_git_lfs_left_out_are_named(copied, name):
    (copied / name).write_text(POINTER)
    assert f"{name} is a pointer of Git LFS" in line_of(lambda: load_lmm(str(copied), "cpu"))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "processor_config.json", "generation_config.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": ', b"\xff\xfe{}"])
def test_damaged_settings_are_named(copied, name, content):
    (copied / name).write_bytes(content)
    assert f"{name} is damaged" in line_of(lambda: load_lmm(str(copied), "cpu"))


@pytest.mark.parametrize(("name", "said"), [("processor_config.json", "no image processor"),
                                            ("tokenizer.json", "no tokenizer"), ("model.safetensors", "no weights"),
                                            ("config.json", "no config.json")])  # fmt: skip
def test_a_file_that_is_missing(copied, name, said):
    (copied / name).unlink()
    assert said in line_of(lambda: load_lmm(str(copied), "cpu"))


def test_a_config_that_does_not_fit(copied):
    configured(copied, model_type=None)
    assert "names no model_type" in line_of(lambda: load_lmm(str(copied), "cpu"))
    configured(copied, model_type="qwen9_vl")
    assert "'qwen9_vl'" in line_of(lambda: load_lmm(str(copied), "cpu"))
    text = json.loads((copied / "config.json").read_text())["text_config"]
    configured(copied, model_type="qwen2_vl", text_config={**text, "intermediate_size": 200})
    assert "of other sizes than its config.json says" in line_of(lambda: load_lmm(str(copied), "cpu"))
    configured(copied, text_config={**text, "hidden_act": "nope"})
    assert "cannot be loaded: KeyError: 'nope'" in line_of(lambda: load_lmm(str(copied), "cpu"))


def test_shards_and_pickles(copied):
    (copied / "model.safetensors").unlink()
    index = copied / "model.safetensors.index.json"
    for content, said in (
        (json.dumps({"weight_map": {"a": "one.safetensors"}}), "1 of 1 weight files are missing"),
        ("[]", "lists no weights"),
        (POINTER, "Git LFS"),
    ):
        index.write_text(content)
        assert said in line_of(lambda: load_lmm(str(copied), "cpu"))
    index.unlink()
    torch.save({"a": Path("x")}, copied / "pytorch_model.bin")
    line = line_of(lambda: load_lmm(str(copied), "cpu"))
    assert "never loaded" in line and "trust" not in line  # torch's own words advise to load it all the same


def test_a_layer_that_the_tower_lacks_is_told_at_load(tmp_path):
    lmm = tiny.family("llava")
    tiny.saved(lmm, tmp_path)
    configured(tmp_path, vision_feature_layer=99)
    assert "vision_feature_layer 99" in line_of(lambda: load_lmm(str(tmp_path), "cpu"))


def test_generation_settings_that_cannot_be_had(monkeypatch):
    lmm = tiny.family("llava")
    monkeypatch.setattr(lmm.model.generation_config, "cache_implementation", "nonsense")
    with pytest.raises(RuntimeError, match=r"cannot generate \(Invalid `cache_implementation`.* sets .*cache_impl"):
        lmm.ask(tiny.a_photo(), "What?")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    from peft import LoraConfig, get_peft_model

    model = tiny.family("qwen2_vl").model.__class__(tiny.family("qwen2_vl").model.config)
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_that_is_not_whole(whole, adapter):
    def line() -> str:
        return line_of(lambda: load_lmm(str(whole), "cpu", adapter=str(adapter)))

    weights = adapter / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-50])
    assert f"{weights} is damaged or cut off" in line()
    weights.write_text(POINTER)
    assert f"{weights} is a pointer of Git LFS" in line()
    weights.unlink()
    assert "has no weights" in line()
    weights.write_bytes(content)
    (adapter / "adapter_config.json").write_text("[]")
    assert "has no adapter_config.json that can be read" in line()


# ----------------------------------------------------------------------------- segmenters, pipelines, tokenizers


def test_a_segmenter_that_is_not_whole(tmp_path):
    folder = Path(shutil.copytree(embedded_dir("segmenter"), tmp_path / "segmenter"))
    for name in ("model.safetensors", "config.json", "preprocessor_config.json"):
        content = (folder / name).read_bytes()
        (folder / name).write_text(POINTER)
        assert f"{name} is a pointer of Git LFS" in line_of(lambda: load_segmenter(str(folder)))
        (folder / name).write_bytes(content)
    (folder / "preprocessor_config.json").unlink()
    assert "no image processor" in line_of(lambda: load_segmenter(str(folder)))
    file = tmp_path / "sam_vit_b.pth"
    file.write_text(POINTER)
    assert "Git LFS" in line_of(lambda: load_segmenter(str(file)))


@pytest.mark.parametrize("name", ["spacy", "numpy", "pillow"])
def test_a_package_that_is_no_pipeline(name):
    assert f"'{name}' is a package, but no spaCy pipeline" in line_of(lambda: load_pipeline(name))


def test_a_pipeline_that_is_not_whole(tmp_path):
    folder = Path(shutil.copytree(embedded_dir("phrases"), tmp_path / "phrases"))
    vectors = next(folder.glob("vocab/vectors"))
    vectors.write_text(POINTER)
    assert f"{vectors} is a pointer of Git LFS" in line_of(lambda: load_pipeline(folder))
    vectors.write_bytes(b"x")
    assert f"The spaCy pipeline '{folder}' cannot be loaded" in line_of(lambda: load_pipeline(folder))


def test_tokenizers_and_text_encoders(tmp_path):
    (tmp_path / "tokenizer.json").write_text(POINTER)
    for load in (load_tokenizer, TextEncoder):
        assert "Git LFS" in line_of(lambda load=load: load(str(tmp_path)))
    (tmp_path / "tokenizer.json").write_text("{}")
    for load in (load_tokenizer, TextEncoder):
        assert str(tmp_path) in line_of(lambda load=load: load(str(tmp_path)))


# ------------------------------------------------------------------------------------------------ in one line


def test_whose_line_it_is():
    def ours() -> None:
        load_lmm("nowhere/at-all", "cpu", base=None)

    def a_librarys() -> None:
        json.loads("{")

    for call, expected in ((ours, True), (a_librarys, False)):
        with pytest.raises((ValueError, OSError)) as raised:
            call()
        assert is_ours(raised.value) is expected


def test_a_librarys_words_in_short():
    assert in_short(ValueError("First.\n\nSecond line.\nThird")) == "First. Second line"
    assert in_short(KeyError("x")) == "KeyError: 'x'"
    assert in_short(RuntimeError("")) == "RuntimeError"
    assert len(in_short(ValueError("word " * 200))) <= 302
    assert in_short(ValueError("\x1b[1mbold\x1b[0m")) == "[1mbold[0m"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(errno.EROFS, "Read-only file system", "x"), 2, "the file system cannot be written"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "some/folder"), 2, "some/folder"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), 2, "File name too long"),
        (ModuleNotFoundError("No module named 'peft'", name="peft"), 2, 'pip install "attend-and-segment[train]"'),
        (torch.OutOfMemoryError("CUDA out of memory"), 1, "the memory does not suffice"),
        (NoCluster("no Ray cluster can be begun on this machine: it timed out"), 2, "no Ray cluster can be begun"),
        (OSError(errno.ESTALE, "the run folder is gone", "x"), 1, "the run's folder is gone: bring its disk"),
    ],
)
def test_what_ends_a_command(capsys, error, code, said):
    with pytest.raises(typer.Exit) as raised, usage_errors():
        raise error
    printed = capsys.readouterr().err
    assert raised.value.exit_code == code and said in printed and printed.count("\n") == 1


def test_faults_and_broken_pipes_are_no_mistakes():
    for error in (TypeError("ours"), BrokenPipeError(errno.EPIPE, "Broken pipe", "x"), ImportError("x")):
        with pytest.raises(type(error)), usage_errors():
            raise error


def test_the_traceback_can_be_had(tmp_path, whole, copied):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    (copied / "tokenizer.json").write_text("{}")
    asked = ["infer-attn", "--images", str(tmp_path), "--model", str(copied), "--out", str(tmp_path / "run")]
    plain, verbose = CliRunner().invoke(app, asked), CliRunner().invoke(app, ["-v", *asked])
    assert plain.exit_code == verbose.exit_code == 2
    assert "Traceback" not in plain.output and "Traceback" in verbose.output
    assert not (tmp_path / "run").exists()


# --------------------------------------------------------------------------------------------------- disks


def read_only(*_: object, **__: object) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), "/a/temporary/name")


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    check_writable(tmp_path / "new" / "folder")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file/run"):
        check_writable(tmp_path / "file" / "run")
    with pytest.raises(IsADirectoryError):
        check_target(tmp_path)
    with pytest.raises(NotADirectoryError):
        ReportOptions(json_file=tmp_path / "file" / "scores.json")
    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    with pytest.raises(OSError, match="Read-only file system") as raised:
        check_writable(tmp_path / "run")
    assert raised.value.filename == str(tmp_path / "run")


COMMANDS = ["ground {0}/a.png --out {0}/run", "infer-attn --images {0} --out {0}/run",
            "segment gcg --attn {0}/attn --images {0} --out {0}/run", "show attn {0}/attn --out {0}/run",
            "show masks {0}/masks --out {0}/run"]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_read_only_disk_is_found_before_models_are_loaded(tmp_path, monkeypatch, command):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    asked = ["infer-attn", "--images", str(tmp_path), "--out", str(tmp_path / "attn"), "--max-new-tokens", "2"]
    assert CliRunner().invoke(app, asked).exit_code == 0

    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    for place in ("stages.infer_attn.load_lmm", "ground.grounder.load_lmm", "stages.segment.load_segmenter"):
        monkeypatch.setattr(f"aas.{place}", loaded)
    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    result = CliRunner().invoke(app, command.format(tmp_path).split())
    assert result.exit_code == 2 and "the file system cannot be written" in result.output
    assert not (tmp_path / "run").exists()


# -------------------------------------------------------------------------------------------------- Ctrl-C


@pytest.mark.parametrize(("to_all", "anew"), [(True, True), (False, False)])
def test_ctrl_c_ends_a_run_with_one_line(tmp_path, to_all, anew):
    """Also of a program that was started anew, whose interpreter takes seconds to take itself apart."""
    (tmp_path / "photos").mkdir()
    for i in range(12):
        Image.new("RGB", (60, 40), (i, 9, 9)).save(tmp_path / f"photos/{i:02}.png")
    words = ("ground", tmp_path / "photos", "--out", tmp_path / "out", "--answer", "a dog", "--workers", 2)
    with program(*words, anew=anew) as process:
        end = time.monotonic() + 120
        while not (tmp_path / "out/run.json").exists() and time.monotonic() < end and process.code() is None:
            time.sleep(0.02)
        (os.killpg if to_all else os.kill)(process.pid, signal.SIGINT)
        start = time.monotonic()
        code, _, said = process.ended(30)
        assert code == 130 and time.monotonic() - start < 6  # one second, on a machine that is not busy
    assert "Traceback" not in said and said.count("aas: stopped.") == 1
    code, said = run(*words)
    assert code == 0 and "0 failed" in said and len(list((tmp_path / "out").glob("??.json"))) == 12


# ------------------------------------------------------------------------------------------- tiny photographs

THIN = [(1, 1), (1, 2), (2, 3), (10, 10), (1, 1000), (1000, 1), (1, 1001)]


@pytest.mark.parametrize("family", ["llava", "chameleon", "llava_next", "llava_onevision", "mistral3", "pixtral",
                                    "qwen2_vl", "glm4v", "internvl", "gemma3"])  # fmt: skip
@pytest.mark.parametrize("image_hw", THIN)
def test_tiny_and_thin_photographs(family, image_hw):
    from aas.engine.stage import why
    from aas.geometry import largest_pixel_xy, map_on_image

    try:
        _, maps = tiny.family(family).ask(tiny.a_photo(image_hw), "What?", "a dog")
    except Exception as error:
        line = why(error, Path("a.jpg"))
        assert line.startswith("a.jpg: ") and "\n" not in line and is_ours(error)
        assert "enlarge it" in line or "less long" in line
        assert family in ("llava_onevision", "mistral3", "pixtral", "qwen2_vl", "glm4v")
        return
    x, y = largest_pixel_xy(maps.maps[0], maps.view, image_hw)
    assert 0 <= x < image_hw[1] and 0 <= y < image_hw[0]
    on_image = map_on_image(maps.maps[0], maps.view, image_hw)
    assert on_image.shape == image_hw and np.isfinite(on_image).all() and on_image[y, x] == on_image.max()
