"""Names of mask heads: those that ship, files, folders, and the hub's."""

from pathlib import Path

from aas import registry
from aas.loading import in_short
from aas.paths import embedded_dir, model_source

FILE = "head.safetensors"  # of a folder, or of a repository of the hub


def head_path(name: str | Path) -> Path:
    """The file that a name stands for: a head that ships (`registry.SHIPPED_HEADS`), a file, a folder that has a
    `head.safetensors`, or that file of a Hugging Face id (`id@revision`). FileNotFoundError where there is none."""
    name = str(name)
    if name in registry.SHIPPED_HEADS:
        return embedded_dir("heads") / registry.SHIPPED_HEADS[name]
    if Path(name).is_file():
        return Path(name)
    from transformers.utils.hub import cached_file

    source, revision = model_source(name, "heads")
    try:
        return Path(cached_file(source, FILE, revision=revision))
    except OSError as error:
        ships = "".join(f"`{one}`, " for one in registry.SHIPPED_HEADS)
        raise FileNotFoundError(
            f"No mask head {name!r}: give {ships}a file, or a folder or a Hugging Face id that has a {FILE} "
            f"(`aas list heads`). ({in_short(error)})"
        ) from error
