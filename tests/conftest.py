"""What all tests share: the scripts' folder on the path, and the data that is not in the repository."""

import gc
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts" / "embedded"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# They take longest, and begin first: a process that began one of them at the end would leave the other without work.
LONGEST = {"test_wheel", "test_study_difflmm", "test_difflmm_train", "test_app", "test_viewer", "test_train_lmm"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` gives its two processes a file at a time, in this order."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


def pytest_collection_finish() -> None:
    """What was imported stays: trainings, which collect garbage several times each, are not to look through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def libraries_as_before():
    """`aas -q` and `-v`, run in this process, tell the libraries how much to say; other tests are not to inherit it."""
    names = ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS", "TRANSFORMERS_VERBOSITY")
    before = {name: os.environ[name] for name in names if name in os.environ}
    yield
    for name in names:
        os.environ.pop(name, None)
    os.environ.update(before)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Of the shared data; a test that asks for it is skipped where there are none."""
    if "AAS_SHARED" not in os.environ:
        pytest.skip("AAS_SHARED does not name the shared data")
    return Path(os.environ["AAS_SHARED"])
