"""Hundreds of damaged pictures: each ends in pixels or in one clear line, in little memory, and starts no program."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.malformed import write_all

ROOT = Path(__file__).parent.parent
READ = """
import json, os, resource, sys, time
from pathlib import Path
from aas.images import ImageError, list_images, read_image
import cv2, PIL.Image
PIL.Image.init()
resource.setrlimit(resource.RLIMIT_AS, (3_000_000_000, 3_000_000_000))
started = []
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.spawn", "socket.connect")
sys.addaudithook(lambda event, arguments: started.append(event) if event in STARTS else None)
folder = Path(sys.argv[1])
found = {}
for name in os.listdir(folder):
    start = time.monotonic()
    try:
        pixels = read_image(folder / name)
        end = f"pixels {pixels.dtype} {pixels.ndim}"
    except ImageError as error:
        end = f"refused {str(error).startswith(str(folder / name))} {len(str(error))}"
    except Exception as error:
        end = f"{type(error).__name__}: {error}"
    found[name] = [end, time.monotonic() - start]
listed = [os.path.basename(path) for path in list_images(folder)]
# Not ru_maxrss: that of a new program begins with what its parent had.
peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1000
print(json.dumps({"found": found, "listed": listed, "started": started, "peak": peak}))
"""


@pytest.fixture(scope="module")
def read(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("malformed")
    n_files = write_all(folder)
    assert n_files >= 500
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READ, str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    assert len(said["found"]) == n_files
    return said


def test_each_ends_in_pixels_or_in_one_clear_line(read: dict):
    wrong = {
        name: end
        for name, (end, _) in read["found"].items()
        if end != "pixels uint8 3" and not end.startswith("refused True")
    }
    assert not wrong
    assert sum(end.startswith("pixels") for end, _ in read["found"].values()) > 50
    assert max(int(end.split()[-1]) for end, _ in read["found"].values()) < 1000


def test_memory_and_time_are_bounded_and_no_program_is_started(read: dict):
    assert read["started"] == []
    assert read["peak"] < 1500, "megabytes"
    assert max(seconds for _, seconds in read["found"].values()) < 30


def test_traps_are_no_photographs_of_a_folder(read: dict):
    """A pipe that nobody writes would be waited for; links that lead round and round end nowhere."""
    assert not {"pipe.jpg", "loop.jpg", "loop2.jpg", "gone.jpg", "folder.jpg"} & set(read["listed"])
    assert os.fsdecode(b"caf\xe9.jpg") in read["listed"] and len(read["listed"]) == len(set(read["listed"]))
