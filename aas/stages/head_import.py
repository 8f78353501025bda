"""`aas head import`: a head of the authors' weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option


@dataclass(frozen=True, kw_only=True)
class HeadImport:
    """Make a head of a checkpoint that F-LMM's or HG-LMM's authors released, for the LMM that it was trained with.

    F-LMM's also needs the SAM that it was trained with. Their licences allow no commercial use, and go with the head.
    """

    file: Annotated[Path, Argument(help="Their .pth file.")]
    model: Annotated[str, Option(help="The LMM that it was trained on: a Hugging Face id (id@revision) or a folder.")]
    out: Annotated[Path, Option(help="The head, a .safetensors file.")]
    segmenter: Annotated[str, Option(help="Of F-LMM, the SAM: an id, a folder, or segment-anything's file.")] = (
        "facebook/sam-vit-large"
    )

    def __post_init__(self) -> None:
        if self.out.suffix != ".safetensors":
            raise ValueError(f"--out {self.out}: name a file that ends with .safetensors.")


def import_head(options: HeadImport) -> int:
    """Write the head. Raises ValueError or OSError for files that do not belong together."""
    from transformers import AutoConfig

    from aas.heads.from_flmm import head_of_flmm
    from aas.heads.from_hglmm import head_of_hglmm, is_of_hglmm
    from aas.heads.stored import save_head
    from aas.lmms import embedded  # noqa: F401  registers the embedded tower, for folders trained from it
    from aas.loading import loading
    from aas.paths import model_config, model_source
    from aas.store.atomic import check_target
    from aas.store.origin import Origin

    check_target(options.out)
    source, revision = model_source(options.model, "lmm")
    model_config(source, revision, "model", options.model)
    with loading("model", options.model):
        config = AutoConfig.from_pretrained(source, revision=revision)
    lmm = Origin.of(options.model, "lmm", getattr(config, "_commit_hash", None))
    if is_of_hglmm(options.file):
        save_head(options.out, head_of_hglmm(options.file, config), lmm)
        print(f"{options.out}: a highres head for {lmm}.")
        return 0
    segmenter = _sam(options.segmenter)
    sam = Origin.of(options.segmenter, "segmenter", getattr(segmenter.config, "_commit_hash", None))
    save_head(options.out, head_of_flmm(options.file, config, segmenter), lmm, sam)
    print(f"{options.out}: a unet head for {lmm}, with {sam}.")
    return 0


def _sam(name: str) -> Any:
    """Its model; ValueError for a segmenter without one."""
    from aas.segmenters import load_segmenter

    model = getattr(load_segmenter(name, "cpu", "float32"), "model", None)
    if model is None:
        raise ValueError(f"--segmenter {name}: it has no weights; give the SAM that the head was trained with.")
    return model
