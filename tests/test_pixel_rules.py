"""Deep grey is read by the range that its values use, and both packages read every picture alike."""

import inspect
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
from PIL import Image, features

from aas.images import ImageError, list_images, read_image
from aas.images import pixels as our_pixels
from aas.images.files import read_bytes
from aas.images.skipped import not_looked_at, say_what_is_skipped
from difflmm.data import images as difflmm_images
from difflmm.data import pixels

RAMP = np.linspace(0, 1, 64 * 48).reshape(48, 64)
AS_8_BITS = np.floor(RAMP * 255).astype(np.uint8)
GREY = {
    # From shared/cases/models/deep_grey: a ramp of which the file's own range is known.
    "float to 1.tif": RAMP.astype(np.float32),
    "12 bits.png": (RAMP * 4095).astype(np.uint16),
    "10 bits.tif": (RAMP * 1023).astype(np.uint16),
    "8 bits.tif": (RAMP * 255).astype(np.uint16),
    "16 bits.png": (RAMP * 65535).astype(np.uint16),
    # Others of the kind.
    "14 bits.png": (RAMP * 16383).astype(np.uint16),
    "16 bits big-endian.tif": (RAMP * 65535).astype(">u2"),
    "12 bits in 32.tif": (RAMP * 4095).astype(np.int32),
    "32 bits.tif": (RAMP * 2**30).astype(np.int32),
    "signed.tif": (RAMP * 2000 - 1000).astype(np.int32),
    "float to 255.tif": (RAMP * 255).astype(np.float32),
    "float to 65535.tif": np.floor(RAMP * 65535).astype(np.float32),
    "metres.tif": (RAMP * 8.7).astype(np.float32),
    "degrees.tif": (RAMP * 16 + 21.5).astype(np.float32),
    "hundredths of a kelvin.png": (RAMP * 3000 + 29000).astype(np.uint16),
    "negative float.tif": (RAMP * 2 - 1).astype(np.float32),
    "mask.png": (RAMP > 0.5).astype(np.uint16),
}


@pytest.mark.parametrize("name", GREY)
def test_a_ramp_is_read_as_a_ramp(tmp_path, name):
    Image.fromarray(GREY[name]).save(tmp_path / name)
    found = read_image(tmp_path / name)
    expected = np.where(RAMP > 0.5, 255, 0) if name == "mask.png" else AS_8_BITS
    assert np.abs(found.astype(int) - expected[..., None]).max() <= 1
    assert found.min() == 0 and found.max() >= 254


def test_all_of_16_bits_is_divided_by_257(tmp_path):
    """From shared/cases/data/difflmm_16_bit_and_transparent."""
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(every).save(tmp_path / "deep.png")
    assert (read_image(tmp_path / "deep.png") == (every // 257)[..., None]).all()


def test_what_is_no_number_has_no_part_in_the_range(tmp_path):
    holes = (RAMP * 8.7).astype(np.float32)
    holes[0, :3] = np.nan, np.inf, -np.inf
    Image.fromarray(holes).save(tmp_path / "depth.tif")
    found = read_image(tmp_path / "depth.tif")[..., 0]
    assert found[0, :3].tolist() == [0, 255, 0] and np.abs(found[1:].astype(int) - AS_8_BITS[1:]).max() <= 1


@pytest.mark.parametrize("value", [0, 77, 40_000])
def test_a_single_grey_stays(tmp_path, value):
    Image.fromarray(np.full((4, 5), value, np.uint16)).save(tmp_path / "flat.png")
    assert (read_image(tmp_path / "flat.png") == (value if value < 256 else value // 257)).all()


def pictures(folder):
    """One of each kind that Pillow writes."""
    for name, array in GREY.items():
        Image.fromarray(array).save(folder / name)
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 4), np.uint8), "RGBA")
    for mode in ("1", "L", "LA", "RGB", "RGBA", "CMYK"):
        colours.convert(mode).save(folder / f"mode {mode}.tif")
    exif = Image.Exif()
    exif[0x0112] = 6
    colours.convert("RGB").save(folder / "turned.jpg", exif=exif)
    colours.convert("RGB").quantize(8).save(folder / "clear colour.png", transparency=3)
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "frames.gif", save_all=True, append_images=frames[1:])
    return sorted(folder.iterdir())


def test_both_packages_read_every_picture_alike(tmp_path):
    for path in pictures(tmp_path):
        theirs = difflmm_images.read_image(path)
        assert theirs.mode == "RGB" and (np.asarray(theirs) == read_image(path)).all(), path.name


def test_both_packages_have_the_same_rules():
    ours, theirs = (inspect.getsource(one).partition("import io\n")[2] for one in (our_pixels, pixels))
    assert ours == theirs and "def upright_rgb" in ours


COLOUR = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=2)
TWICE_DOWN = 1 + 255 / 1023  # rounded down to 10 bits and to 8


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_deep_colour_is_as_bright_as_it_was(tmp_path, suffix, bits):
    """As cameras and microscopes write it. OpenCV has blue first."""
    path = tmp_path / f"photo{suffix}"
    deep = np.floor(COLOUR * (2**bits - 1)).astype(np.uint16)
    assert cv2.imwrite(str(path), deep[..., ::-1])
    found = read_image(path)
    assert np.abs(found.astype(int) - COLOUR * 255).max() < TWICE_DOWN
    assert (np.asarray(difflmm_images.read_image(path)) == found).all()
    assert (read_bytes(path.read_bytes()) == found).all()


def test_deep_colour_keeps_its_transparency_and_its_turn(tmp_path):
    deep = np.floor(COLOUR * 4095).astype(np.uint16)
    alpha = np.full(RAMP.shape, 65535, np.uint16)
    alpha[:, :10] = 0
    cv2.imwrite(str(tmp_path / "clear.png"), np.dstack([deep[..., ::-1], alpha]))
    found = read_image(tmp_path / "clear.png")
    assert (found[:, :10] == 255).all() and np.abs(found[:, 10:].astype(int) - COLOUR[:, 10:] * 255).max() < TWICE_DOWN

    cv2.imwrite(str(tmp_path / "plain.png"), deep[..., ::-1])
    content = (tmp_path / "plain.png").read_bytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    chunk = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "turned.png").write_bytes(content[:33] + chunk + content[33:])
    assert (read_image(tmp_path / "turned.png") == np.rot90(read_image(tmp_path / "plain.png"), -1)).all()


# ------------------------------------------------------------------------------------------------ formats


@pytest.mark.parametrize("name", ["a.tga", "a.jp2", "a.j2k", "a.mpo", "a.dib", "a.pbm", "a.avif", "a.webp", "a.jpe"])
def test_what_pillow_reads_is_read_and_looked_at(tmp_path, name):
    photo = Image.fromarray((COLOUR * 255).astype(np.uint8))
    if name.endswith("avif") and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    (photo.convert("1") if name.endswith("pbm") else photo).save(tmp_path / name)
    assert list_images(tmp_path) == [tmp_path / name] and not_looked_at(tmp_path) == []
    found = read_image(tmp_path / name)
    assert found.shape == (48, 64, 3) and (np.asarray(difflmm_images.read_image(tmp_path / name)) == found).all()


def test_tga_under_another_name(tmp_path):
    """It has a mark at its end only, and older files none."""
    photo = Image.fromarray((COLOUR * 255).astype(np.uint8))
    photo.save(tmp_path / "a.tga")
    content = (tmp_path / "a.tga").read_bytes()
    (tmp_path / "a.tga").rename(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == np.asarray(photo)).all()
    (tmp_path / "old.TGA").write_bytes(content[:-26])
    assert (read_image(tmp_path / "old.TGA") == np.asarray(photo)).all()


@pytest.mark.skipif(find_spec("pillow_heif") is not None, reason="the package is there")
def test_heic_says_what_it_needs(tmp_path, caplog):
    """Such a photograph of a phone is not looked at in a folder, and named; asked for, it fails with what to do."""
    path = tmp_path / "IMG_1.HEIC"
    path.write_bytes(struct.pack(">I", 24) + b"ftypheic" + b"\0\0\0\0" + b"mif1heic" + b"\0" * 100)
    assert list_images(tmp_path) == [] and not_looked_at(tmp_path) == [path]
    say_what_is_skipped(tmp_path)
    assert "IMG_1.HEIC" in caplog.text and "pip install pillow-heif" in caplog.text
    for read, error in ((read_image, ImageError), (difflmm_images.read_image, difflmm_images.ImageError)):
        with pytest.raises(error, match=r"IMG_1\.HEIC: HEIC needs the package pillow-heif"):
            read(path)


def test_heic(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    photo = Image.fromarray((COLOUR * 255).astype(np.uint8))
    heif.from_pillow(photo).save(tmp_path / "a.heic", quality=95)
    assert list_images(tmp_path) == [tmp_path / "a.heic"]
    assert np.abs(read_image(tmp_path / "a.heic").astype(int) - np.asarray(photo)).mean() < 4


def test_a_pipe_with_a_photographs_name_is_named(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    assert list_images(tmp_path) == [] and not_looked_at(tmp_path) == [tmp_path / "a.jpg"]
    with pytest.raises(difflmm_images.ImageError, match="no such file"):
        difflmm_images.read_image(tmp_path / "a.jpg")


def test_no_thread_takes_pillows_guard_away(tmp_path, monkeypatch):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    Image.new("1", (20_000, 10_000)).save(tmp_path / "bomb.png")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read_image, [tmp_path / "a.png"] * 40))
    assert Image.MAX_IMAGE_PIXELS == LIMIT
    monkeypatch.setattr(Image, "_decompression_bomb_check", _watched)
    assert read_image(tmp_path / "a.png").shape == (40, 60, 3)
    with pytest.raises(ImageError, match=r"bomb\.png: more than 100 megapixels"):
        read_image(tmp_path / "bomb.png")
    with pytest.raises(difflmm_images.ImageError, match=r"bomb\.png: .*exceeds limit"):
        difflmm_images.read_image(tmp_path / "bomb.png")


LIMIT, CHECK = Image.MAX_IMAGE_PIXELS, Image._decompression_bomb_check


def _watched(size_wh):
    assert Image.MAX_IMAGE_PIXELS == LIMIT, "off while a picture is opened"
    CHECK(size_wh)


def test_a_picture_starts_no_program(tmp_path):
    """Encapsulated PostScript under another name, which Pillow hands to Ghostscript."""
    Image.new("RGB", (8, 8)).save(tmp_path / "page.eps")
    path = (tmp_path / "page.eps").rename(tmp_path / "photo.jpg")
    with pytest.raises(ImageError, match=r"photo\.jpg: not an image"):
        read_image(path)
    with pytest.raises(difflmm_images.ImageError, match=r"photo\.jpg: .*cannot identify"):
        difflmm_images.read_image(path)
