"""Every kind of image file is read upright and in RGB, or refused with one clear sentence."""

import io

import numpy as np
import pytest
from PIL import Image

from aas.images import ImageError, list_images, read_image


def gradient(width=40, height=30) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, 0 * x + 60], -1).astype(np.uint8)


def test_rgb_is_unchanged(tmp_path):
    Image.fromarray(gradient()).save(tmp_path / "a b é.png")
    assert (read_image(tmp_path / "a b é.png") == gradient()).all()


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "LA", "RGBA", "YCbCr"])
def test_modes_become_rgb(tmp_path, mode):
    path = tmp_path / ("x.tif" if mode in ("CMYK", "YCbCr") else "x.png")
    how = {"compression": "tiff_lzw"} if mode == "YCbCr" else {}  # bare ones are read by Pillow 13 and later alone
    Image.fromarray(gradient()).convert(mode).save(path, **how)
    pixels = read_image(path)
    assert pixels.shape == (30, 40, 3) and pixels.dtype == np.uint8
    if mode in ("CMYK", "RGBA", "YCbCr"):
        assert np.abs(pixels.astype(int) - gradient()).mean() < 3


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    deep = np.linspace(0, 65535, 1200).reshape(30, 40).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    pixels = read_image(tmp_path / "deep.png")
    assert pixels[0, 0, 0] == 0 and pixels[-1, -1, 0] == 255 and abs(int(pixels[15, 0, 0]) - 127) <= 3


def test_transparency_is_white(tmp_path):
    rgba = np.dstack([gradient(), np.zeros((30, 40), np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "clear.png")
    assert (read_image(tmp_path / "clear.png") == 255).all()


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "move.gif", save_all=True, append_images=frames[1:])
    assert (read_image(tmp_path / "move.gif")[0, 0] == (255, 0, 0)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    """Whatever the camera's turn, the upright picture has red at the top left, blue at the bottom right."""
    upright = Image.new("RGB", (40, 20))
    upright.paste("red", (0, 0, 20, 10))
    upright.paste("blue", (20, 10, 40, 20))
    turn = {1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90,
            7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270}[orientation]  # fmt: skip
    stored = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    pixels = read_image(tmp_path / "turned.png")
    assert pixels.shape == (20, 40, 3)
    assert (pixels[2, 2] == (255, 0, 0)).all() and (pixels[-2, -2] == (0, 0, 255)).all()


def jpeg_bytes() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(gradient(200, 100)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes"),
        (b"not an image at all", "not an image"),
        (jpeg_bytes()[: len(jpeg_bytes()) // 2], "broken or cut off"),
    ],
)
def test_unusable_files(tmp_path, content, message):
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as error:
        read_image(path)
    assert "bad.jpg" in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(ImageError, match="no such file"):
        read_image(tmp_path / "none.jpg")


def test_more_than_100_megapixels_is_refused_before_decoding(tmp_path):
    Image.new("1", (20_000, 6_000)).save(tmp_path / "huge.png")
    with pytest.raises(ImageError, match=r"20000 x 6000 .* more than 100 megapixels"):
        read_image(tmp_path / "huge.png")


def test_list_images(tmp_path):
    (tmp_path / "in/.hidden").mkdir(parents=True)
    (tmp_path / "in/out").mkdir()
    for name in ("in/b.JPG", "in/a.png", "in/notes.txt", "in/.hidden/c.png", "in/out/d.png", "in/.e.png"):
        (tmp_path / name).write_bytes(b"x")
    for name in ("in/a/1.png", "in/a-b/1.png", "in/a/.hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    for name, target in (("to out.png", "out/d.png"), ("to b.png", "b.JPG"), ("loop.png", "loop.png"), ("to a", "a")):
        (tmp_path / "in" / name).symlink_to(target)
    found = list_images(tmp_path / "in", outside=[tmp_path / "in/out"])
    names = [path.relative_to(tmp_path / "in").as_posix() for path in found]
    assert names == ["a/1.png", "a-b/1.png", "a.png", "b.JPG", "to b.png"], "folder by folder, by name"
    assert not list_images(tmp_path / "in/out", outside=[tmp_path / "in"])
