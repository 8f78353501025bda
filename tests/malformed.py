"""Pictures that are damaged in every way that is known: cut, flipped, lying about their size, something else."""

import io
import os
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, features

N_CUTS, N_FLIPPED = 12, 22  # of each picture
SIZES = [(0, 5), (5, 0), (1, 2**31 - 1), (2**31 - 1, 2**31 - 1), (65535, 65535), (30000, 30000), (64, 2**16)]


def pictures() -> dict[str, bytes]:
    """Name -> a sound picture of each kind."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    rgb = Image.fromarray(noise).resize((64, 48))
    ways = {
        "plain.jpg": (rgb, {"format": "JPEG"}),
        "progressive.jpg": (rgb, {"format": "JPEG", "progressive": True}),
        "cmyk.jpg": (rgb.convert("CMYK"), {"format": "JPEG"}),
        "plain.png": (rgb, {"format": "PNG"}),
        "palette.png": (rgb.convert("P"), {"format": "PNG"}),
        "deep.png": (Image.fromarray(noise[..., 0].astype(np.uint16) * 256), {"format": "PNG"}),
        "lossy.webp": (rgb, {"format": "WEBP"}),
        "lossless.webp": (rgb, {"format": "WEBP", "lossless": True}),
        "moving.gif": (rgb.convert("P"), {"format": "GIF", "save_all": True, "append_images": [rgb.rotate(9)]}),
        "plain.tif": (rgb, {"format": "TIFF"}),
        "lzw.tif": (rgb, {"format": "TIFF", "compression": "tiff_lzw"}),
        "plain.bmp": (rgb, {"format": "BMP"}),
        "plain.jp2": (rgb, {"format": "JPEG2000"}),
        "plain.tga": (rgb, {"format": "TGA"}),
    }
    if features.check("avif"):
        ways["plain.avif"] = (rgb, {"format": "AVIF"})
    return {name: encoded(image, **how) for name, (image, how) in ways.items()}


def encoded(image: Image.Image, **how: object) -> bytes:
    file = io.BytesIO()
    image.save(file, **how)  # type: ignore[arg-type]
    return file.getvalue()


def damaged() -> Iterator[tuple[str, bytes]]:
    """Names and contents."""
    for name, content in pictures().items():
        stem, _, suffix = name.rpartition(".")
        for at in sorted({*cuts(content), *markers(content)}):
            yield f"{stem}-cut{at}.{suffix}", content[:at]
        for seed in range(N_FLIPPED):
            yield f"{stem}-flipped{seed}.{suffix}", flipped(content, seed)
        yield f"{stem}.{suffix}.{'png' if suffix == 'jpg' else 'jpg'}", content
        yield f"{stem}-twice.{suffix}", content + content
    yield from lying()
    yield from something_else()


def cuts(content: bytes) -> list[int]:
    return [len(content) * i // N_CUTS for i in range(N_CUTS)] + [1, len(content) - 1]


def markers(content: bytes) -> list[int]:
    """Where segments of a JPEG and chunks of a PNG begin, the first 40."""
    if content[:2] == b"\xff\xd8":
        at = [i for i in range(len(content) - 1) if content[i] == 0xFF and content[i + 1] not in (0x00, 0xFF)]
    else:
        at = [i for i in range(len(content) - 4) if content[i : i + 4] in (b"IHDR", b"IDAT", b"PLTE", b"IEND", b"RIFF")]
    return at[:40]


def flipped(content: bytes, seed: int) -> bytes:
    """Some bits are others, most of them near the beginning, where the headers are."""
    chance, found = random.Random(seed), bytearray(content)
    for _ in range(1 + seed % 8):
        end = min(len(found), 64) if chance.random() < 0.5 else len(found)
        found[chance.randrange(end)] ^= 1 << chance.randrange(8)
    return bytes(found)


def lying() -> Iterator[tuple[str, bytes]]:
    """Pictures that say to be larger, or smaller, than they are; a bomb."""
    of_png, of_bmp, of_gif = (pictures()[name] for name in ("plain.png", "plain.bmp", "moving.gif"))
    for width, height in SIZES:
        header = b"IHDR" + struct.pack(">II", width, height) + of_png[24:29]
        png = of_png[:12] + header + struct.pack(">I", zlib.crc32(header)) + of_png[33:]
        yield f"lying-{width}x{height}.png", png
        yield f"lying-{width}x{height}.bmp", of_bmp[:18] + struct.pack("<ii", width, -height) + of_bmp[26:]
        sides = struct.pack("<HH", width & 0xFFFF, height & 0xFFFF)
        yield f"lying-{width}x{height}.gif", of_gif[:6] + sides + of_gif[10:]
        yield f"lying-{width}x{height}.ppm", f"P6 {width} {height} 255\n".encode() + b"\0" * 99
    yield "bomb.png", encoded(Image.new("1", (20000, 20000)), format="PNG")


def something_else() -> Iterator[tuple[str, bytes]]:
    yield "empty.jpg", b""
    yield "zero.png", b"\0" * 5000
    yield "text.jpg", b"not a picture"
    yield "page.png", b"<!DOCTYPE html><img src=x onerror=alert(1)>"
    yield "drawing.jpg", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    yield "print.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/bin/sh) run showpage\n"
    yield "print.png", b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\n"
    yield "archive.jpg", b"PK\x03\x04" + b"\0" * 60
    yield "program.png", b"\x7fELF" + b"\0" * 60
    yield "pickle.jpg", b"cos\nsystem\n(S'touch /tmp/x'\ntR."
    yield "list.png", b"RIFF\xff\xff\xff\xffWEBPVP8X" + b"\xff" * 40


def write_all(folder: Path) -> int:
    """Every one as a file, and names that are traps by themselves; how many."""
    files = dict(damaged())
    for name, content in files.items():
        (folder / name).write_bytes(content)
    sound = pictures()["plain.jpg"]
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg")).write_bytes(sound)
    (folder / "two\nlines\u2028and \x1b[31mred.jpg").write_bytes(sound)
    os.mkfifo(folder / "pipe.jpg")
    (folder / "loop.jpg").symlink_to(folder / "loop2.jpg")
    (folder / "loop2.jpg").symlink_to(folder / "loop.jpg")
    (folder / "gone.jpg").symlink_to(folder / "nowhere")
    (folder / "folder.jpg").mkdir()
    (folder / "round").symlink_to(folder)
    return len(files) + 8
