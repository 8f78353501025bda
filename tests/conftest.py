"""What all tests share: the scripts' folder on the path, and the data that is not in the repository."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts" / "embedded"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")


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
