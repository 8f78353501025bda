"""`aas show attn`: contact sheets of run items."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from aas.choices import Fit
from aas.images import read_image
from aas.photographs import located
from aas.progress import bar_for
from aas.store import reference
from aas.store.atomic import check_writable, write_png
from aas.store.attention import SUFFIX, read_item
from aas.store.photographs import Folder, folder_of, in_folder
from aas.store.runs import RunFolder
from aas.text import harmless
from aas.view import attention_sheet


def show_attn(
    paths: Sequence[Path],
    out: Path,
    images: Path | None = None,
    tokenizer: str | None = None,
    fit: Fit = "pad",
) -> int:
    """Write `NAME.png` into `out` for every item, and print its path; returns the exit code.

    `paths`: items, or run folders. `images`: where the photographs are, from run.json if None. `tokenizer` names the
    words of items of the reference (`.pth`), which hold only their ids; `fit`: whether their images were padded or
    stretched.
    """
    if fit not in reference.VIEWS:
        raise ValueError(f"--fit {fit!r}: give {', '.join(reference.VIEWS)}.")
    check_writable(out)
    words = None if tokenizer is None else reference.load_tokenizer(tokenizer)
    found = [item for path in paths for item in _items(path)]
    n_failed = 0
    for path in tqdm(found, unit="item", **bar_for(len(found))):
        try:
            print(_show(path, out, folder_of(images) if images else _images_of_run(path.parent), words, fit))
        except (ValueError, FileNotFoundError) as error:
            if len(found) == 1:
                raise
            n_failed += 1
            tqdm.write(f"failed: {harmless(str(error))}", file=sys.stderr)
    return 3 if n_failed else 0


def _items(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix in (SUFFIX, reference.SUFFIX) and p.is_file())
        if not found:
            raise ValueError(f"{path} holds no attention items (*{SUFFIX}).")
        return found
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such item or run folder.")
    return [path]


def _images_of_run(folder: Path) -> Folder:
    run = RunFolder(folder, SUFFIX)
    where = run.description().get("inputs", {}).get("images") if run.description_path.exists() else None
    if where is None:
        raise ValueError(f"{folder} does not say where its images are: give --images.")
    return folder_of(located(where))


def _show(path: Path, out: Path, images: Folder, tokenizer: Any, fit: Fit) -> Path:
    if path.suffix == reference.SUFFIX:
        name, photo = path.stem, read_image(reference.photograph(path, images))
        answer, attention = reference.read_answer(path, photo.shape[:2], tokenizer, fit)
    else:
        item = read_item(path)
        name, answer, attention = item.image, item.answer, item.attention
        photo = read_image(in_folder(images, name))
        if photo.shape[:2] != item.image_hw:
            raise ValueError(f"{in_folder(images, name)} has another size than the image that {path} is about.")
    target = out / f"{path.name.removesuffix(path.suffix)}.png"
    title = f"{name}: raw attention above, minus the mean over tokens below"
    write_png(target, attention_sheet.draw(photo, answer, attention, title))
    return target
