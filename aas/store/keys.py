"""The name under which an image's results are stored."""

import re
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import PurePosixPath
from urllib.parse import quote, unquote

# Here, where they cost nothing: what reads the files imports numpy and more.
ATTENTION_SUFFIX = ".safetensors"
RESULT_SUFFIX = ".json"

MAX_BYTES = 224  # of a name; file systems allow 255, and something is put behind it
_CUT = re.compile(r"[^/\\:*?\"<>|\x00-\x1f]*%~[0-9a-f]{16}")  # no other percent sign stays before a tilde
UNSAFE = {ord(c): f"%{ord(c):02X}" for c in '\\:*?"<>|' + "".join(map(chr, range(32)))}  # beside % and /
_UNSAFE = re.compile(f"[{re.escape(''.join(map(chr, UNSAFE)))}]")


def quoted(name: str) -> str:
    """`name` as a file name: separators, control and reserved characters, a dot that would hide it, and bytes that are
    no UTF-8 percent-encoded, the rest kept.

    One that is longer than file systems allow is cut, and ends with its hash: what it was is known by the file's
    content only.
    """
    if is_cut(name):
        return name
    safe = name.replace("%", "%25").replace("/", "%2F")
    if _UNSAFE.search(safe):  # a translation takes longer, and there may be a million names
        safe = safe.translate(UNSAFE)
    if not safe.isascii():
        safe = "".join(map(_encoded_byte, safe))
    if safe.startswith("."):
        safe = f"%2E{safe[1:]}"
    encoded = safe.encode()
    if len(encoded) <= MAX_BYTES:
        return safe
    mark = f"%~{sha256(encoded).hexdigest()[:16]}"
    return encoded[: MAX_BYTES - len(mark)].decode(errors="ignore") + mark


def _encoded_byte(character: str) -> str:
    """Python holds a byte of a file's name that is no UTF-8 as half of a surrogate pair."""
    if not "\ud800" <= character <= "\udfff":
        return character
    return quote(character, errors="surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass")


def unquoted(name: str) -> str:
    """The name that `quoted` made a file name of; one that was cut stays as it is."""
    return name if is_cut(name) else unquote(name, errors="surrogateescape")


def is_cut(name: str) -> bool:
    """Whether a file's name is too short to say what it was made of."""
    return "%~" in name and _CUT.fullmatch(name) is not None


def whole_name(key: str, image_id: object) -> str:
    """What the image of this key is called: by its id where the key is that of a file's name that was cut."""
    return str(image_id) if is_cut(key) else key


def result_keys(images: Sequence[PurePosixPath]) -> list[str]:
    """One key for each image (its path below the folder it was found in), unique in the list, also as a file's name.

    The path without extension; where two images would share it, with extension (`photo.jpg`, `photo.png`); where even
    that is shared, by files of the same name in several places, with a number behind.
    """
    short = [path.with_suffix("").as_posix() for path in images]
    counts = Counter(key.casefold() for key in short)
    keys, taken = [], set[str]()
    for path, key in zip(images, short, strict=True):
        candidate = key if counts[key.casefold()] == 1 else path.as_posix()
        unique, n = candidate, 2
        while unique.casefold() in taken:
            unique, n = f"{candidate}-{n}", n + 1
        taken.add(unique.casefold())
        keys.append(unique)
    return keys
