"""Items of the method's authors: an answer, its token ids and maps in a `.pth` file. Read, never written.

An item is named as its image without extension. It holds no words of the tokens, and does not say where its grid lies
on the image.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aas.choices import Fit
from aas.geometry import padded_view, stretched_view
from aas.loading import in_short
from aas.model_files import check_settings
from aas.paths import not_found
from aas.photographs import File
from aas.phrases.alignment import decode_with_spans
from aas.records import Answer, AttentionMaps, View
from aas.store.attention import ItemError
from aas.store.keys import unquoted
from aas.store.photographs import Folder, image_file

SUFFIX = ".pth"
# How the image became the model's square: the grid covers the padded image, or the image.
VIEWS: dict[Fit, Callable[..., View]] = {"pad": padded_view, "stretch": stretched_view}


def image_stem(path: Path) -> str:
    """The item's image: its path relative to the folder of images, without extension."""
    return unquoted(path.name.removesuffix(SUFFIX))


def photograph(path: Path, images: Folder) -> File:
    """The image in the folder `images` that the item is about; FileNotFoundError where there is none."""
    found = image_file(images, image_stem(path))
    if not found.is_file():
        raise FileNotFoundError(f"{path}: there is no image {image_stem(path)} in {images}.")
    return found


def load_tokenizer(name: str) -> Any:
    """That of a model's folder or Hugging Face id; FileNotFoundError, in one line, where there is none."""
    from transformers import AutoTokenizer

    check_settings(Path(name))
    try:
        return AutoTokenizer.from_pretrained(name)
    except Exception as error:  # OSError, ValueError, KeyError, …: by what the folder holds
        raise not_found("tokenizer", name, error) from error


def read_answer(
    path: Path, image_hw: tuple[int, int], tokenizer: Any = None, fit: Fit = "pad"
) -> tuple[Answer, AttentionMaps]:
    """The answer and the maps over the image of `image_hw` pixels.

    The words are decoded with `tokenizer`; without one they are the file's, and no token knows its own (all spans are
    empty). Raises ItemError for what is no such item.
    """
    words, token_ids, maps = read_item(path)
    spans: list[tuple[int, int]] = [(0, 0)] * len(token_ids)
    if tokenizer is not None:
        words, spans = decode_with_spans(tokenizer, token_ids)
    answer = Answer("", words, tuple(token_ids), tuple(spans))
    return answer, AttentionMaps(maps, VIEWS[fit](maps.shape[1:], image_hw))


def read_item(path: Path) -> tuple[str, list[int], np.ndarray]:
    """An item of the method's authors (`.pth`): answer, token ids, maps float32 [tokens, h, w].

    Their ids begin with the beginning-of-sequence token, which has no map: it is dropped. Where the maps lie on the
    image is not in the file.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        maps = content["attentions"].float().numpy()
        token_ids = content["sequences"].flatten().tolist()
        answer = str(content["answer"])
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever torch.load finds wrong, down to zip files and unpicklers
        raise ItemError(f"{path}: not an attention item of the reference, or damaged ({in_short(error)})") from error
    if len(token_ids) == len(maps) + 1:
        token_ids = token_ids[1:]
    if maps.ndim != 3 or len(token_ids) != len(maps):
        raise ItemError(f"{path}: {len(token_ids)} token ids for maps of shape {list(maps.shape)}")
    if not np.isfinite(maps).all():
        raise ItemError(f"{path}: maps that are not finite numbers")
    return answer, token_ids, maps
