"""Attention items, ours and the authors', as `aas segment` takes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aas.choices import Fit
from aas.records import Answer, AttentionMaps
from aas.store import reference
from aas.store.attention import AttentionItem, read_item
from aas.store.made_of import MadeOf, digest_of


class Attention:
    """Reads items of the folder `attn`. `heads`: those that the preset averages, None for all; `tokenizer`, `fit`: of
    the authors' items.

    Raises FileNotFoundError where there is no such tokenizer.
    """

    def __init__(self, attn: Path, heads: tuple[int, ...] | None, tokenizer: str | None, fit: Fit):
        self.heads, self.fit = heads, fit
        self.photographs = MadeOf(attn).digests("photograph")
        self.tokenizer: Any = None if tokenizer is None else reference.load_tokenizer(tokenizer)

    def check(self, items: Sequence[Path]) -> None:
        """Raise ValueError for a run that was captured with other heads than the preset's, before anything is loaded.

        The first item of ours stands for all; those of the authors do not say their heads.
        """
        ours = next((path for path in items if path.suffix != reference.SUFFIX), None)
        if self.heads is not None and ours is not None:
            self._check_heads(ours, read_item(ours))

    def read(self, path: Path, image_hw: tuple[int, int]) -> tuple[Answer, AttentionMaps]:
        """The answer, and one map [tokens, h, w] for each of its tokens; ValueError for an item that has others."""
        if path.suffix == reference.SUFFIX:
            if self.tokenizer is None:
                raise ValueError(f"{path}: the authors' items hold ids only: name their tokenizer with --tokenizer.")
            return reference.read_answer(path, image_hw, self.tokenizer, self.fit)
        item = read_item(path)
        self._check_heads(path, item)
        if item.image_hw != image_hw:
            raise ValueError(f"{path} is about an image of another size than the one in --images.")
        if item.attention.maps.ndim != 3:
            raise ValueError(f"{path} keeps layers or heads apart: segmenting needs one map per token (--keep mean).")
        return item.answer, item.attention

    def check_photograph(self, path: Path, photograph: Path) -> None:
        """ValueError where the attention was captured of another photograph of that name, as far as is known."""
        if self.photographs.get(path.name) not in (None, digest_of(photograph)):
            raise ValueError(
                f"{path} was captured of another photograph of that name: run `aas infer-attn` anew for this one."
            )

    def _check_heads(self, path: Path, item: AttentionItem) -> None:
        captured = item.reduction.get("heads")
        if self.heads is not None and captured != list(self.heads):
            wanted = ",".join(map(str, self.heads))
            raise ValueError(
                f"{path} holds the mean of {'all heads' if captured is None else f'heads {captured}'}, and the preset "
                f"wants heads {wanted}, which are chosen when attention is captured: aas infer-attn --heads={wanted}."
            )
