"""The released weights of HG-LMM, whose licence allows no commercial use: nothing of them ships."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from aas.heads.features import HeadShape
from aas.heads.highres import CHANNELS_THAT_FIT, HighResHead
from aas.heads.stored import fill
from aas.segmenters.sam_original import read_tensors

# their names -> ours
RENAMED = [
    (r"^text_proj\.", "text.project."),
    (r"^text_layer_weights$", "text.layer_weights"),
    (r"^lifg\.ln\d+\.", "eyes.norm."),
    (r"^lifg\.conv1\.", "eyes.layers.0."),
    (r"^lifg\.conv2\.", "eyes.layers.2."),
    (r"^lifg\.conv3\.", "eyes.layers.4."),
    (r"^lifg\.dynamic_conv\.controller\.", "filter.weights."),
    (r"^lifg\.dynamic_conv\.ln\d+\.", "filter.norm."),
    (r"^ldsi\.conv384to96\.", "attention."),
    (r"^ldsi\.conv96to128\.", "shallow."),
    (r"^ldsi\.conv192to128\.", "deeper."),
    (r"^ldsi\.conv\d+to384\.", "fit."),
    *((rf"^ldsi\.reassemble_projs\.stage{i + 1}\.0\.", f"narrow.{i}.") for i in range(4)),
    (r"^ldsi\.reassemble_projs\.stage4\.1\.", "halve."),
    (r"^ldsi\.spm_adapters\.", "stem.narrow."),
    (r"^fuse_maskhead\.resconvunit\.conv\.", "top_down.skip.layers."),
    # their last one is the deepest, our first
    *(
        (rf"^fuse_maskhead\.refine_blocks\.{i - 1}\.0\.conv\.", f"top_down.refine.{i % 4}.residual.layers.")
        for i in range(1, 5)
    ),
    *((rf"^fuse_maskhead\.refine_blocks\.{i - 1}\.2\.", f"top_down.refine.{i % 4}.out.") for i in range(1, 5)),
    (r"^fuse_maskhead\.mask_head_fpn\.([02])\.", r"top_down.before.\1."),
    (r"^fuse_maskhead\.mask_head_fpn\.5\.", "top_down.after.0."),
    (r"^fuse_maskhead\.mask_head_fpn\.7\.", "top_down.after.2."),
]
# convolutions of the stem, and of the deeper one of an input of 1024 pixels
STEM, DEEP_STEM = ("conv1", "conv2", "conv3"), ("conv1", "conv1_2", "conv1_3", "conv2", "conv3")
LMM = ("deepseek_vl.", "llava.")  # the frozen LMM's own weights
UNUSED = "cliplayer."  # of the head of DeepSeek-VL-7B, whose forward pass never reaches it
FIRST, FIT = "lifg.conv1.weight", re.compile(r"^ldsi\.conv(\d+)to384\.weight$")
TWO_ENCODERS = "deepseek_vl_hybrid"
FAMILIES = ("deepseek_vl", TWO_ENCODERS, "llava")
WIDTH = 64


def is_of_hglmm(path: Path) -> bool:
    """Whether a checkpoint file is of HG-LMM rather than of F-LMM. Raises ValueError for a damaged one."""
    return FIRST in read_tensors(path, "checkpoint of F-LMM or HG-LMM")


def head_of_hglmm(path: Path, config: PreTrainedConfig) -> HighResHead:
    """The head of a checkpoint file, beside the LMM of that config.

    Raises ValueError for a damaged file, for one of another LMM, and where a weight is missing or not known.
    """
    if config.model_type not in FAMILIES:
        raise ValueError(
            f"HG-LMM's heads are read for {', '.join(FAMILIES)}, not for {config.model_type}: none was released."
        )
    weights = read_tensors(path, "checkpoint of HG-LMM")
    shape = HeadShape.of(config)
    channels = next((int(found[1]) for name in weights if (found := FIT.match(name))), CHANNELS_THAT_FIT * WIDTH)
    if channels != shape.n_channels:
        raise ValueError(
            f"{path} was trained on an LMM with {channels} attention maps, layers times heads; this one has "
            f"{shape.n_channels}."
        )
    head = HighResHead(shape, WIDTH, "batch")
    left_out = (*LMM, UNUSED) if config.model_type == TWO_ENCODERS else LMM
    renamed = [*RENAMED, *_stem_renamed(DEEP_STEM if head.halve is None else STEM)]
    named = {_our_name(name, renamed): weight for name, weight in weights.items() if not name.startswith(left_out)}
    fill(head, {name: _in_our_order(name, weight, head) for name, weight in named.items()}, str(path))
    return head.eval()


def _stem_renamed(convolutions: Sequence[str]) -> list[tuple[str, str]]:
    """A convolution, a norm and a ReLU each; a pooling, and the last convolution."""
    names = [(i, k, name) for i, name in enumerate(convolutions) for k in range(2)]
    last = (r"^lcb\.proj\.", f"stem.layers.{3 * len(convolutions) + 1}.")
    return [(rf"^lcb\.{name}\.{k}\.", f"stem.layers.{3 * i + k}.") for i, k, name in names] + [last]


def _our_name(name: str, renamed: Sequence[tuple[str, str]]) -> str:
    for pattern, new in renamed:
        name = re.sub(pattern, new, name)
    return name


def _in_our_order(name: str, weight: Tensor, head: HighResHead) -> Tensor:
    """Theirs has attention in front of what was seen, and both weights of the words' filter in front of both biases."""
    if name == "deeper.weight":
        attention, seen = weight.chunk(2, dim=1)
        return torch.cat([seen, attention], dim=1)
    if name.startswith("filter.weights.2.") and len(weight) == sum(head.filter.sizes):
        first, first_bias, second, second_bias = head.filter.sizes
        parts = weight.split([first, second, first_bias, second_bias])
        return torch.cat([parts[0], parts[2], parts[1], parts[3]])
    return weight
