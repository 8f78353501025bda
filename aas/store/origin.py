"""Which model something was made for, told from others wherever its files are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from aas.paths import model_source
from aas.store.fingerprints import fingerprint


@dataclass(frozen=True)
class Origin:
    """A model that something was made for: its `name` as it was given, and its `revision`, the hub's commit, or what
    tells its files from others (None: not known)."""

    name: str
    revision: str | None = None

    @classmethod
    def of(cls, name: str, kind: str, commit: str | None = None) -> Self:
        """`kind`: lmm or segmenter; `commit` that its config was read from, if it came from the hub."""
        return cls(name, commit or fingerprint(Path(model_source(name, kind)[0])))

    def is_same(self, other: "Origin") -> bool:
        """By revision, wherever the files are; by name where a revision is not known."""
        if self.revision is None or other.revision is None:
            return self.name == other.name
        return self.revision == other.revision

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name} ({self.revision})"
