"""Items of the method's authors: an answer, its token ids and maps in a `.pth` file. Read, never written."""

from pathlib import Path

import numpy as np
import torch

from aas.store.attention import ItemError

SUFFIX = ".pth"


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
        raise ItemError(f"{path}: not an attention item of the reference, or damaged ({error})") from error
    if len(token_ids) == len(maps) + 1:
        token_ids = token_ids[1:]
    if maps.ndim != 3 or len(token_ids) != len(maps):
        raise ItemError(f"{path}: {len(token_ids)} token ids for maps of shape {list(maps.shape)}")
    return answer, token_ids, maps
