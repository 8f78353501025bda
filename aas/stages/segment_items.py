"""Attention items, ours and the authors', as `aas segment` takes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aas.choices import Fit
from aas.confidence.judging import NO_CONFIDENCE, AnswerOrigin
from aas.photographs import File
from aas.records import Answer, AttentionMaps
from aas.store import reference
from aas.store.attention import SUFFIX, AttentionItem, read_item
from aas.store.made_of import MadeOf, digest_of
from aas.store.runs import RunFolder


def arguments_of(attn: Path) -> dict[str, Any]:
    """What `aas infer-attn` was told that filled the run folder; nothing of a folder of the authors' files."""
    run = RunFolder(attn, SUFFIX)
    return run.description()["arguments"] if run.description_path.is_file() else {}


def origin_in(attn: Path) -> tuple[str, AnswerOrigin]:
    """What the LMM of the run folder `attn` is called, empty where that is not known; where its answers came from."""
    said = arguments_of(attn)
    all_heads = (said.get("layers", "all"), said.get("heads", "all")) == ("all", "all")
    origin = AnswerOrigin(said.get("given_answers", True), said.get("temperature", 0.0), all_heads)
    return "" if said.get("adapter") else said.get("model", ""), origin


class Attention:
    """Reads items of the folder `attn`. `heads`: those that the preset averages, None for all; `tokenizer`, `fit`: of
    the authors' items; `maps`: the source that points, None for an item's first.

    Raises FileNotFoundError where there is no such tokenizer.
    """

    def __init__(
        self, attn: Path, heads: tuple[int, ...] | None, tokenizer: str | None, fit: Fit, maps: str | None = None
    ):
        self.folder, self.heads, self.fit, self.maps = attn, heads, fit, maps
        self.photographs = MadeOf(attn).digests("photograph")
        self.tokenizer: Any = None if tokenizer is None else reference.load_tokenizer(tokenizer)

    def check(self, items: Sequence[Path], for_confidence: bool = False) -> None:
        """Raise ValueError for a run that was captured with other heads than the preset's, or without the map source
        that is wanted, or what confidence needs, before anything is loaded.

        The first item of ours stands for all; those of the authors do not say their heads.
        """
        if self.heads is None and self.maps is None and not for_confidence:
            return
        ours = next((path for path in items if path.suffix != reference.SUFFIX), None)
        item = None if ours is None else read_item(ours)
        if ours is not None and item is not None:
            self._check_heads(ours, item)
            self._of_source(ours, item.attention)
        if for_confidence and (item is None or item.answer.token_log_probs is None):
            raise ValueError(f"{self.folder}: {NO_CONFIDENCE}")

    def read(self, path: Path, image_hw: tuple[int, int]) -> tuple[Answer, AttentionMaps]:
        """The answer, and one map [tokens, h, w] for each of its tokens; ValueError for an item that has others."""
        if path.suffix == reference.SUFFIX:
            if self.tokenizer is None:
                raise ValueError(f"{path}: the authors' items hold ids only: name their tokenizer with --tokenizer.")
            answer, attention = reference.read_answer(path, image_hw, self.tokenizer, self.fit)
            return answer, self._of_source(path, attention)
        item = read_item(path)
        self._check_heads(path, item)
        if item.image_hw != image_hw:
            raise ValueError(f"{path} is about an image of another size than the one in --images.")
        if item.attention.maps.ndim != 3:
            raise ValueError(f"{path} keeps layers or heads apart: segmenting needs one map per token (--keep mean).")
        return item.answer, self._of_source(path, item.attention)

    def _of_source(self, path: Path, attention: AttentionMaps) -> AttentionMaps:
        if self.maps in (None, *attention.sources):
            return attention if self.maps is None else attention.of(self.maps)
        raise ValueError(
            f"{path} holds no maps of {self.maps!r}, but of {', '.join(attention.sources)}: run "
            f"`aas infer-attn --maps {self.maps}` first, into another folder."
        )

    def check_photograph(self, path: Path, photograph: File) -> None:
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
