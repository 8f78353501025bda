"""`aas show attn`: contact sheets of run items."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from aas.geometry import padded_view
from aas.images import read_image
from aas.phrases.alignment import decode_with_spans
from aas.records import Answer, AttentionMaps
from aas.store import reference
from aas.store.atomic import written
from aas.store.attention import SUFFIX, AttentionItem, read_item
from aas.store.keys import unquoted
from aas.store.runs import RunFolder
from aas.text import harmless
from aas.view import attention_sheet


def show_attn(paths: Sequence[Path], out: Path, images: Path | None = None, tokenizer: str | None = None) -> int:
    """Write `NAME.png` into `out` for every item, and print its path; returns the exit code.

    `paths`: items, or run folders. `images`: where the photographs are, from run.json if None. `tokenizer` names the
    words of items of the reference (`.pth`), which hold only their ids.
    """
    found = [item for path in paths for item in _items(path)]
    n_failed = 0
    for path in tqdm(found, unit="item", disable=len(found) == 1):
        try:
            print(_show(path, out, images or _images_of_run(path.parent), tokenizer))
        except (ValueError, FileNotFoundError) as error:
            if len(found) == 1:
                raise
            n_failed += 1
            tqdm.write(f"failed: {harmless(str(error))}", file=sys.stderr)
    return 3 if n_failed else 0


def _items(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix in (SUFFIX, reference.SUFFIX))
        if not found:
            raise ValueError(f"{path} holds no attention items (*{SUFFIX}).")
        return found
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such item or run folder.")
    return [path]


def _images_of_run(folder: Path) -> Path:
    run = RunFolder(folder, SUFFIX)
    where = run.description().get("inputs", {}).get("images") if run.description_path.exists() else None
    if where is None:
        raise ValueError(f"{folder} does not say where its images are: give --images.")
    # A list file's paths are relative to its folder.
    return Path(where) if Path(where).is_dir() else Path(where).parent


def _show(path: Path, out: Path, images: Path, tokenizer: str | None) -> Path:
    if path.suffix == reference.SUFFIX:
        photo = read_image(_photo_of_reference(path, images))
        item = _of_reference(path, photo.shape[:2], tokenizer)
    else:
        item = read_item(path)
        photo = read_image(images / item.image)
        if photo.shape[:2] != item.image_hw:
            raise ValueError(f"{images / item.image} has another size than the image that {path} is about.")
    target = out / f"{path.name.removesuffix(path.suffix)}.png"
    with written(target) as temporary:
        title = f"{item.image}: raw attention above, minus the mean over tokens below"
        attention_sheet.draw(photo, item.answer, item.attention, title).save(temporary, format="PNG")
    return target


def _photo_of_reference(path: Path, images: Path) -> Path:
    """The reference names an item as its image without extension."""
    stem = unquoted(path.stem)
    for candidate in (images / stem, *sorted(images.glob(f"{stem}.*"))):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"{path}: there is no image {stem} in {images}.")


def _of_reference(path: Path, image_hw: tuple[int, int], tokenizer: str | None) -> AttentionItem:
    text, token_ids, maps = reference.read_item(path)
    spans = [(0, 0)] * len(token_ids)
    if tokenizer is not None:
        from transformers import AutoTokenizer

        text, spans = decode_with_spans(AutoTokenizer.from_pretrained(tokenizer), token_ids)
    answer = Answer("", text, tuple(token_ids), tuple(spans))
    return AttentionItem(path.stem, image_hw, answer, AttentionMaps(maps, padded_view(maps.shape[1:], image_hw)))
