"""Promptable segmenters, one file for each family."""

from aas.paths import model_source, not_found
from aas.segmenters.base import Segmenter


def load_segmenter(segmenter_id: str, device: str = "cpu") -> Segmenter:
    """Load `embedded`, a local folder, or the Hugging Face id (`id@revision`) of a SAM."""
    from aas.segmenters.sam import SamSegmenter

    source, revision = model_source(segmenter_id, "segmenter")
    try:
        return SamSegmenter.from_pretrained(source, revision=revision, device=device)
    except OSError as error:
        raise not_found("segmenter", segmenter_id, error) from error
