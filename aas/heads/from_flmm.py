"""The released weights of F-LMM (arXiv 2406.05821), whose licence allows no commercial use: nothing of them ships."""

import re
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from aas.heads.features import HeadShape
from aas.heads.stored import fill
from aas.heads.unet import UNetHead
from aas.segmenters.sam_original import read_tensors, transformers_name

# their names -> ours, of the U-Net and the words; SAM's go the way of segment-anything's
RENAMED = [
    (r"^mask_head\.encoder\.(\d)\.[01]\.convs\.(\d)\.", r"unet.down.\1.\2."),
    (r"^mask_head\.decoder\.(\d)\.conv_block\.convs\.(\d)\.", r"unet.up.\1.\2."),
    (r"^mask_head\.decoder\.(\d)\.upsample\.interp_upsample\.1\.", r"unet.narrow.\1."),
    (r"^(unet\..*)\.conv\.", r"\1.0."),
    (r"^(unet\..*)\.gn\.", r"\1.1."),
    (r"^mask_head\.conv_seg\.", "unet.out."),
    (r"^text_proj\.", "text.project."),
    (r"^text_layer_weights$", "text.layer_weights"),
]
SAM = "sam.model."
FOURIER = f"{SAM}prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
FIRST = "mask_head.encoder.0.0.convs.0.conv.weight"


def head_of_flmm(path: Path, config: PreTrainedConfig, segmenter: PreTrainedModel) -> UNetHead:
    """The head of a checkpoint file, beside the LMM of that config and the SAM that it was trained with.

    Raises ValueError for a damaged file, for one of another LMM or SAM, and where a weight is missing or not known.
    """
    weights = read_tensors(path, "checkpoint of F-LMM")
    if FIRST not in weights:
        raise ValueError(f"{path} is no checkpoint of F-LMM: it lacks {FIRST}.")
    width, channels = weights[FIRST].shape[:2]
    shape = HeadShape.of(config)
    n_views, rest = divmod(channels, shape.n_channels)
    if rest or n_views not in (1, 2):
        raise ValueError(
            f"{path} was trained on an LMM with {channels} attention maps, layers times heads; this one has "
            f"{shape.n_channels}."
        )
    head = UNetHead(HeadShape.of(config, n_views), width, segmenter=segmenter)
    _check_fourier(weights.pop(FOURIER, None), segmenter, path)
    n_iou_layers = segmenter.config.mask_decoder_config.iou_head_depth
    named = {_our_name(name, n_iou_layers): weight for name, weight in weights.items()}
    frozen = {name for name, parameter in head.named_parameters() if not parameter.requires_grad}
    fill(head, {name: weight for name, weight in named.items() if name not in frozen}, str(path))
    return head.eval()


def _our_name(name: str, n_iou_layers: int) -> str:
    if name.startswith(SAM):
        return "refiner." + transformers_name(name.removeprefix(SAM), n_iou_layers)
    for pattern, new in RENAMED:
        name = re.sub(pattern, new, name)
    return name


def _check_fourier(theirs: Tensor | None, segmenter: PreTrainedModel, path: Path) -> None:
    """What tells one SAM from another, if the file has it."""
    ours = segmenter.prompt_encoder.shared_embedding.positional_embedding.detach().cpu()
    if theirs is not None and not (theirs.shape == ours.shape and torch.allclose(theirs.float(), ours)):
        raise ValueError(f"{path} was trained with another SAM: give the one that it was, --segmenter.")
