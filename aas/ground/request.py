"""What is asked about an image: as it is given, and ready for the LMM."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aas.images import ImageLike
from aas.lmms.prepared import History, Prepared
from aas.photographs import File, Member, file_of

if TYPE_CHECKING:
    from aas.answering.answers import Said


@dataclass(frozen=True)
class Request:
    """An image and what is asked, or said, about it. `key`: its place among others; `history`: what was asked about it
    before, and answered."""

    key: str
    source: ImageLike
    question: str
    answer: str | None = None
    token_ids: tuple[int, ...] | None = None
    history: History = ()

    @property
    def image(self) -> File:
        """A name for messages; where it is a file, that."""
        if isinstance(self.source, Member):
            return self.source
        return file_of(str(self.source) if isinstance(self.source, (str, Path)) else self.key)

    @property
    def place(self) -> str | None:
        """The image's path or URL; None of pixels and bytes."""
        return str(self.source) if isinstance(self.source, (str, Path, Member)) else None

    def answered(self, said: "Said") -> "Request":
        """With the answer that a server gives."""
        return replace(self, answer=said.text, token_ids=said.token_ids)

    def to_read_twice(self) -> "Request":
        """An open file is read once: for a server and here, its content stands for it."""
        if isinstance(self.source, Member) or not hasattr(self.source, "read"):
            return self
        content = self.source.read()
        return replace(self, source=content) if isinstance(content, bytes) else self


@dataclass(frozen=True)
class Asked:
    """A photograph uint8 [H, W, 3] and a question, ready for the LMM."""

    request: Request
    image: np.ndarray
    prepared: Prepared

    @property
    def photograph(self) -> object:
        """The same for all requests about one photograph."""
        return self.request.place or id(self.request.source)
