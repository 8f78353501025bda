"""Promptable segmenters, one file for each family."""

from pathlib import Path

from aas import registry
from aas.devices import torch_dtype
from aas.paths import model_config, model_source, not_found
from aas.segmenters.base import Segmenter


def load_segmenter(segmenter_id: str, device: str = "cpu", dtype: str = "auto") -> Segmenter:
    """Load `embedded`, a local folder, a Hugging Face id or `id@revision`, or a checkpoint file of segment-anything.

    `dtype`: what the image encoder computes in: bfloat16, float16, float32, or auto: bfloat16 on a GPU that has it,
    float16 on an older one, float32 on a CPU, as the embedded segmenter anywhere. Raises ValueError or
    FileNotFoundError for what cannot be loaded as a whole.
    """
    chosen = torch_dtype("float32" if (segmenter_id, dtype) == ("embedded", "auto") else dtype, device)
    if Path(segmenter_id).is_file():
        from aas.segmenters.sam_original import load_sam_checkpoint

        return load_sam_checkpoint(Path(segmenter_id), device, chosen)
    source, revision = model_source(segmenter_id, "segmenter")
    config = model_config(source, revision, "segmenter", segmenter_id)
    family = registry.load(registry.SEGMENTERS, config.get("model_type", ""), "type of segmenter")
    try:
        return family.from_pretrained(source, revision, device, chosen)
    except OSError as error:
        raise not_found("segmenter", segmenter_id, error) from error
