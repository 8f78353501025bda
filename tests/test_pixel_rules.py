"""Deep grey is read by the range that its values use, and both packages read every picture alike."""

import inspect

import numpy as np
import pytest
from PIL import Image

from aas.images import ImageError, files, read_image
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
    for name in ("upright_rgb", "_grey_to_uint8"):
        assert inspect.getsource(getattr(files, name)) == inspect.getsource(getattr(pixels, name))
    for name in ("FORMATS", "DEEP_TOPS", "NARROW"):
        assert getattr(files, name) == getattr(pixels, name)


def test_a_picture_starts_no_program(tmp_path):
    """Encapsulated PostScript under another name, which Pillow hands to Ghostscript."""
    Image.new("RGB", (8, 8)).save(tmp_path / "page.eps")
    path = (tmp_path / "page.eps").rename(tmp_path / "photo.jpg")
    with pytest.raises(ImageError, match=r"photo\.jpg: not an image"):
        read_image(path)
    with pytest.raises(difflmm_images.ImageError, match=r"photo\.jpg: .*cannot identify"):
        difflmm_images.read_image(path)
