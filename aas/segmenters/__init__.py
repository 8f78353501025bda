"""Promptable segmenters."""

from pathlib import Path

from aas.segmenters.base import Segmenter


def load_segmenter(segmenter_id: str, *, device: str | None = None) -> Segmenter:
    """Load `embedded`, a Hugging Face id, `id@revision`, or a local folder of a SAM."""
    import torch

    from aas.paths import embedded_dir
    from aas.segmenters.sam import SamSegmenter

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if segmenter_id == "embedded":
        return SamSegmenter.from_pretrained(embedded_dir("segmenter"), device=device)
    folder, _, revision = segmenter_id.partition("@") if not Path(segmenter_id).exists() else (segmenter_id, "", "")
    try:
        return SamSegmenter.from_pretrained(folder, revision=revision or None, device=device)
    except OSError as error:
        raise FileNotFoundError(
            f"No segmenter {segmenter_id!r}: give `embedded`, a folder, or the Hugging Face id of a SAM that is in the "
            f"cache or can be downloaded. ({str(error).splitlines()[0]})"
        ) from error
