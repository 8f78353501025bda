"""The same photographs in a folder, in tar shards, in parquet, in a store in memory and behind a real web server."""

import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from PIL import Image

from tests import tiny

SIZES_HW = {"a.png": (60, 90), "b.png": (90, 60), "sub/c.png": (41, 130)}


def photographs() -> dict[str, bytes]:
    """Name -> the bytes of its file."""
    found = {}
    for i, (name, size_hw) in enumerate(SIZES_HW.items()):
        buffer = io.BytesIO()
        Image.fromarray(tiny.a_photo(size_hw, seed=i)).save(buffer, "PNG")
        found[name] = buffer.getvalue()
    return found


def in_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def in_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    """As webdataset has it: something is said of each photograph in a file beside it."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            _add(tar, name, content)
            _add(tar, f"{name.rpartition('.')[0]}.json", b"{}")
    return path


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def in_parquet(path: Path, files: Mapping[str, bytes], rows_at_once: int = 2) -> Path:
    """As `datasets` writes it."""
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    rows = {
        "image": [{"bytes": content, "path": name} for name, content in files.items()],
        "n": list(range(len(files))),
    }
    made = Dataset.from_dict(rows, features=Features({"image": ImageFeature(), "n": Value("int64")}))
    made.to_parquet(str(path), batch_size=rows_at_once)
    return path


def in_memory(folder: str, files: Mapping[str, bytes]) -> str:
    """A folder of fsspec's store in memory; the URL."""
    import fsspec

    system = fsspec.filesystem("memory")
    for name, content in files.items():
        system.pipe(f"/{folder}/{name}", content)
    return f"memory://{folder}"


class _Ranges(SimpleHTTPRequestHandler):
    """Gives parts of files, as real web servers do; `/busy/NAME` says twice that it is busy."""

    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/busy/"):
            if self.asked.count(self.path) < 3:
                self.send_error(503)
                return
            self.path = self.path.removeprefix("/busy")
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not wanted or self.path.startswith("/whole/"):
            self.path = self.path.removeprefix("/whole")
            super().do_GET()
            return
        content = Path(self.translate_path(self.path)).read_bytes()
        start, stop = int(wanted[1]), min(int(wanted[2]) + 1, len(content))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        self.wfile.write(content[start:stop])

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a web server of the folder's files."""
    _Ranges.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Ranges, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
