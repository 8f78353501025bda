"""The wheel: built from the source distribution, and used where there is no checkout."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

ROOT = Path(__file__).parent.parent
NOT_TRACKED = (".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir")


@dataclass
class Installed:
    """The wheel in a folder of its own, and an empty folder to work in; the libraries are those of the tests. Nothing
    else of this machine is known there, and the hub's network is switched off."""

    site: Path
    folder: Path

    def run(self, *command: str) -> str:
        environment = {"PYTHONPATH": str(self.site), "PATH": str(self.site / "bin"), "HOME": str(self.folder)}
        environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """Folder: the source distribution, unpacked. Built in a copy, for building leaves files behind."""
    work = tmp_path_factory.mktemp("sdist")
    shutil.copytree(ROOT, work / "copy", ignore=shutil.ignore_patterns(*NOT_TRACKED))
    build = f"import setuptools.build_meta as b; b.build_sdist({str(work)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=work / "copy", check=True, capture_output=True)
    (archive,) = work.glob("attend_and_segment-*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(work, filter="data")
    return work / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, sdist]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = folder.glob("attend_and_segment-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Installed:
    there = Installed(tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("empty"))
    command = [*PIP, "install", "--no-deps", "--no-compile", "--target", there.site, wheel]
    subprocess.run(command, check=True, capture_output=True)
    where = there.run(sys.executable, "-P", "-c", "import aas, difflmm; print(aas.__file__, difflmm.__file__)")
    assert [Path(file).parent.parent for file in where.split()] == [there.site, there.site]
    return there


def test_the_source_distribution_is_the_repository(sdist):
    if not (ROOT / ".git").exists():
        pytest.skip("no git here, as in an unpacked source distribution")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert not [name for name in tracked.splitlines() if (ROOT / name).exists() and not (sdist / name).exists()]


def test_the_source_distribution_runs_its_tests(sdist):
    """Some of them: the test above says that all are there."""
    environment = os.environ | {"PYTHONPATH": str(sdist)}
    some = ("tests/test_docs.py", "-k", "link or there_are")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *some]
    done = subprocess.run(command, cwd=sdist, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


PHRASES = "checkpoints/embedded/phrases"


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as opened:
        (name,) = (name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        return HeaderParser().parsestr(opened.read(name).decode())


def test_the_wheel_says_what_it_is(wheel):
    said = metadata(wheel)
    assert (said["Name"], said["License-Expression"]) == (
        "attend-and-segment",
        "Apache-2.0 AND MIT AND CC-BY-4.0 AND OFL-1.1",
    )
    assert (
        said.get_all("License-File")
        == [
            "LICENSE",
            "NOTICE",
            "aas/view/fonts/OFL.txt",
            *(f"{PHRASES}/{name}" for name in ("LICENSE", "LICENSES_SOURCES")),
        ]
        and said.get_all("Project-URL")
        and said["Keywords"]
    )
    page = said.get_payload()
    assert "## From Python" in page and "](" not in page.replace("](https://", "")


def test_the_wheel_has_all_files_of_its_packages(wheel):
    with zipfile.ZipFile(wheel) as opened:
        inside = set(opened.namelist())
    folders = {"aas": "aas", "difflmm": "difflmm", "aas/embedded": "checkpoints/embedded", "difflmm/recipes": "recipes"}
    for place, folder in folders.items():
        files = [file for file in (ROOT / folder).rglob("*") if file.is_file() and "__pycache__" not in file.parts]
        missing = [file for file in files if f"{place}/{file.relative_to(ROOT / folder).as_posix()}" not in inside]
        assert files and not missing


def test_ground_without_the_checkout(installed):
    Image.fromarray(data.chelsea()).save(installed.folder / "photo.jpg")
    installed.run("aas", "ground", "photo.jpg")
    item = json.loads((installed.folder / "grounded/photo.json").read_text())
    assert "cat" in item["caption"] and len(item["pred_masks"]) == len(item["phrases"]) > 0
    assert (installed.folder / "grounded/report.html").is_file()


def test_train_without_the_checkout(installed):
    """The recipe that ships; all of its steps take a minute."""
    shorter = ("--set", "max_steps=2", "--set", "batch_size=4", "--set", "device_batch_size=4")
    out = installed.run("difflmm", "train", "--config", "recipes/tiny.yaml", *shorter)
    assert out.split() == ["trained/tiny"]
    assert (installed.folder / "trained/tiny/model.safetensors").is_file()
