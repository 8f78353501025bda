"""What all tests share: the scripts' folder on the path, and the data that is not in the repository."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts" / "embedded"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

shared = pytest.mark.skipif("AAS_SHARED" not in os.environ, reason="AAS_SHARED does not name the shared data")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    return Path(os.environ["AAS_SHARED"])
