"""`aas head import`: a head of the authors' weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Argument, Option


@dataclass(frozen=True, kw_only=True)
class HeadImport:
    """Make a head of a checkpoint that F-LMM's authors released, for the LMM and the SAM that it was trained with.

    Their licence allows no commercial use, and goes with the head.
    """

    file: Annotated[Path, Argument(help="Their .pth file.")]
    model: Annotated[str, Option(help="The LMM that it was trained on: a Hugging Face id (id@revision) or a folder.")]
    out: Annotated[Path, Option(help="The head, a .safetensors file.")]
    segmenter: Annotated[str, Option(help="The SAM: an id, a folder, or segment-anything's file.")] = (
        "facebook/sam-vit-large"
    )

    def __post_init__(self) -> None:
        if self.out.suffix != ".safetensors":
            raise ValueError(f"--out {self.out}: name a file that ends with .safetensors.")


def import_head(options: HeadImport) -> int:
    """Write the head. Raises ValueError or OSError for files that do not belong together."""
    from transformers import AutoConfig

    from aas.heads.from_flmm import head_of_flmm
    from aas.heads.stored import Origin, save_head
    from aas.lmms import embedded  # noqa: F401  registers the embedded tower, for folders trained from it
    from aas.loading import loading
    from aas.paths import model_config, model_source
    from aas.segmenters import load_segmenter
    from aas.store.atomic import check_target

    check_target(options.out)
    source, revision = model_source(options.model, "lmm")
    model_config(source, revision, "model", options.model)
    with loading("model", options.model):
        config = AutoConfig.from_pretrained(source, revision=revision)
    segmenter = getattr(load_segmenter(options.segmenter, "cpu", "float32"), "model", None)
    if segmenter is None:
        raise ValueError(
            f"--segmenter {options.segmenter}: it has no weights; give the SAM that the head was trained with."
        )
    head = head_of_flmm(options.file, config, segmenter)
    origins = {"lmm": (options.model, config), "segmenter": (options.segmenter, segmenter.config)}
    named = {what: Origin.of(name, what, getattr(of, "_commit_hash", None)) for what, (name, of) in origins.items()}
    save_head(options.out, head, named["lmm"], named["segmenter"])
    print(f"{options.out}: a {head.kind} head for {named['lmm']}, with {named['segmenter']}.")
    return 0
