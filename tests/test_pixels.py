"""Images as people have them in Python: one way to uint8 RGB for all, or a refusal that says what to do."""

import io
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aas.images import ImageError, as_pixels, name_of
from aas.photographs import limits
from tests.test_images import gradient, jpeg_bytes

RGB = gradient()  # [30, 40, 3]
GREY = RGB[..., 0]


def png_bytes(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder, and `/moved.png`, which is elsewhere."""

    def do_GET(self) -> None:
        if self.path == "/moved.png":
            self.send_response(302)
            self.send_header("Location", "/a%20photo.png")
            self.end_headers()
            return
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path) -> Iterator[str]:
    (tmp_path / "a photo.png").write_bytes(png_bytes(RGB))
    (tmp_path / "é.png").write_bytes(png_bytes(RGB))
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "page.html").write_text("<html>no image</html>")
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path)))
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_every_way_to_one_file(tmp_path):
    content = png_bytes(RGB)
    (tmp_path / "x.png").write_bytes(content)
    with (tmp_path / "x.png").open("rb") as file:
        images = [tmp_path / "x.png", str(tmp_path / "x.png"), content, bytearray(content), memoryview(content),
                  io.BytesIO(content), file, Image.open(io.BytesIO(content))]  # fmt: skip
        for image in images:
            np.testing.assert_array_equal(as_pixels(image), RGB)


def test_a_url(server):
    for name in ("a%20photo.png", "a photo.png", "a%20photo.png?width=3", "moved.png", "é.png"):
        np.testing.assert_array_equal(as_pixels(f"{server}/{name}"), RGB)
    np.testing.assert_array_equal(as_pixels(f"{server}/a%20photo.png".replace("http", "HTTP")), RGB)


@pytest.mark.parametrize(
    ("name", "message"),
    [("none.png", "404"), ("empty.png", "0 bytes"), ("page.html", "not an image")],
)
def test_a_url_that_is_no_image(server, name, message):
    with pytest.raises(ImageError, match=message) as error:
        as_pixels(f"{server}/{name}")
    assert f"{server}/{name}" in str(error.value)


def test_a_download_ends(server, monkeypatch):
    monkeypatch.setattr(limits, "WAITS", (0, 0))
    monkeypatch.setattr(limits, "MAX_MEGABYTES", 0)
    with pytest.raises(ImageError, match="larger than 0 MB"):
        as_pixels(f"{server}/a%20photo.png")
    port = int(server.rsplit(":", 1)[1])
    for url in (f"http://127.0.0.1:{port}x/", "http://", "https://[::1", f"https://127.0.0.1:{port}/a%20photo.png"):
        with pytest.raises(ImageError, match="cannot be downloaded"):
            as_pixels(url)


def test_a_server_that_says_nothing(monkeypatch):
    monkeypatch.setattr(limits, "WAITS", (0, 0))
    monkeypatch.setattr(limits, "TIMEOUT_SECONDS", 0.2)
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)  # listens, and never answers
    with httpd, pytest.raises(ImageError, match=r"cannot be downloaded .*timed out"):
        as_pixels(f"http://127.0.0.1:{httpd.server_port}/x.png")


def test_only_the_web_is_fetched(tmp_path):
    (tmp_path / "x.png").write_bytes(png_bytes(RGB))
    for url in (f"file://{tmp_path}/x.png", "ftp://127.0.0.1/x.png", "data:image/png;base64,AAAA"):
        with pytest.raises(ImageError, match="no such file"):
            as_pixels(url)


def test_no_program_is_run_for_an_image():
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    assert Image.open(io.BytesIO(eps)).format == "EPS", "Pillow would call Ghostscript"
    with pytest.raises(ImageError, match="not an image of a known format"):
        as_pixels(eps)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "MPO"])
def test_formats(kind):
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, kind)
    assert np.abs(as_pixels(buffer.getvalue()).astype(int) - RGB).mean() < 8


def test_files_are_as_paths_are(tmp_path):
    with pytest.raises(ImageError, match="broken or cut off"):
        as_pixels(jpeg_bytes()[:-900])
    with pytest.raises(ImageError, match="bytes: the file is empty"):
        as_pixels(b"")
    with pytest.raises(ImageError, match='opened as text; open it with mode "rb"'):
        as_pixels(io.StringIO("x"))
    Image.new("1", (20_000, 6_000)).save(tmp_path / "huge.png")
    for image in ((tmp_path / "huge.png").read_bytes(), Image.new("1", (20_000, 6_000))):
        with pytest.raises(ImageError, match="more than 100 megapixels"):
            as_pixels(image)
    (tmp_path / "cut.jpg").write_bytes(jpeg_bytes()[:-900])
    with pytest.raises(ImageError, match="broken or cut off"):
        as_pixels(Image.open(tmp_path / "cut.jpg"))


def test_rgb_is_not_copied():
    assert as_pixels(RGB) is RGB
    flipped = as_pixels(RGB[:, ::-1, ::-1])
    assert flipped.flags.c_contiguous and (flipped == RGB[:, ::-1, ::-1]).all()


def test_arrays():
    three_greys = np.repeat(GREY[..., None], 3, 2)
    for grey in (GREY, GREY[..., None], GREY[None], GREY / 255, (GREY / 255).astype(np.float16)):
        np.testing.assert_array_equal(as_pixels(grey), three_greys)
    for rgb in (
        RGB / 255,
        (RGB / 255).astype(np.float32),
        RGB.transpose(2, 0, 1),
        RGB.astype(np.float64)[..., :] / 255,
    ):
        np.testing.assert_array_equal(as_pixels(rgb), RGB)
    np.testing.assert_array_equal(as_pixels(GREY > 100), np.where(three_greys > 100, 255, 0))
    np.testing.assert_array_equal(as_pixels(np.full((2, 2, 3), 0.5)), np.full((2, 2, 3), 128))


def test_transparency_is_put_on_white():
    alpha = np.linspace(0, 255, 1200).reshape(30, 40).round()
    expected = (RGB * (alpha / 255)[..., None] + 255 * (1 - alpha / 255)[..., None]).round()
    for rgba in (np.dstack([RGB, alpha]).astype(np.uint8), np.dstack([RGB, alpha]) / 255):
        assert np.abs(as_pixels(rgba) - expected).max() <= 1
        tensor = torch.from_numpy(rgba.transpose(2, 0, 1).copy())
        np.testing.assert_array_equal(as_pixels(tensor), as_pixels(rgba))


def test_tensors():
    tensor = torch.from_numpy(RGB).permute(2, 0, 1)
    unit = tensor / 255
    for image in (tensor, unit, unit.double(), torch.from_numpy(RGB), unit.clone().requires_grad_()):
        np.testing.assert_array_equal(as_pixels(image), RGB)
    half = as_pixels(unit.bfloat16())  # of 8 bits, the last is rounded away
    assert np.abs(half.astype(int) - RGB).max() <= 1
    for grey in (torch.from_numpy(GREY)[None], torch.from_numpy(GREY)):
        np.testing.assert_array_equal(as_pixels(grey)[..., 1], GREY)


def test_a_shape_that_can_mean_both():
    """Three rows or three colours: arrays are [H, W, C], tensors [C, H, W]."""
    narrow = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    assert as_pixels(narrow) is narrow
    np.testing.assert_array_equal(as_pixels(torch.from_numpy(narrow)), narrow.transpose(1, 2, 0))


NAN = np.where(np.eye(30, 40, dtype=bool)[..., None], np.nan, RGB / 255)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (RGB.astype(np.uint16) * 257, r"uint16: give \(image // 257\)\.astype\(np\.uint8\)"),
        (RGB.astype(np.int64), r"int64: give image\.astype\(np\.uint8\)"),
        (RGB.astype(np.float32), r"float32 from 0 to 2\d\d.*give image / 255"),
        (RGB / 127.5 - 1, r"float64 from -1 to .*image \* std \+ mean"),
        (NAN, "NaN or infinity"),
        (torch.from_numpy(NAN).permute(2, 0, 1), "NaN or infinity"),
        (torch.from_numpy(RGB.astype(np.int32)), r"int32: give image\.astype"),
        (RGB[None], r"\(1, 30, 40, 3\) is a batch: .*image\[0\]"),
        (RGB[..., :2], r"not \(30, 40, 2\)"),
        (RGB[0, 0], r"not \(3,\)"),
        (RGB[:0], "no pixel"),
        (np.zeros((20_000, 6_000), bool), "more than 100 megapixels"),
        (RGB.astype(np.complex64), "complex64: give uint8"),
        (RGB.astype(object), "object: give uint8"),
        (None, "not NoneType"),
        ([RGB, RGB], "not list"),
        (5, "not int"),
    ],
)
def test_what_is_refused_is_told_the_conversion(image, message):
    with pytest.raises(ImageError, match=message):
        as_pixels(image)


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("photos/a.b.jpg", "a.b"),
        (Path("photos/a b.png"), "a b"),
        ("https://example.org/x/a%20b.png?size=3#top", "a b"),
        ("https://example.org/", "image"),
        ("https://example.org", "image"),
        ("https://example.org/a%2Fb.png", "b"),
        (b"...", "image"),
        (RGB, "image"),
        (io.BytesIO(), "image"),
    ],
)
def test_names(image, name):
    assert name_of(image) == name
