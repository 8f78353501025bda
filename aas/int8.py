"""Matrices in 8 bits on the disk, a quarter of float32: whole numbers and a scale for each output channel. In use they
are what they were, rounded.

Of the embedded LMM that changes no map by more than 0.6 % of its peak (six photographs). Kernels stay in 16 bits:
convolutions whose norms are folded into them differ so much inside a channel that 8 bits turn the tower's features
(cosine 0.92).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, GenerationConfig, PreTrainedModel

from aas.model_files import INT8_FILE, SCALES


def packed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices [out, in] as int8 and float32 scales [out], kernels as float16, the rest as float32.

    The largest number of a channel becomes 127, so that a weight is off by a 254th of it at most.
    """
    found: dict[str, Tensor] = {}
    for name, weight in state.items():
        weight = weight.float()
        if weight.ndim != 2:
            found[name] = (weight.half() if weight.ndim > 2 else weight).contiguous()
            continue
        scales = weight.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127
        found[name] = (weight / scales[:, None]).round().to(torch.int8).contiguous()
        found[name + SCALES] = scales
    return found


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `packed` made, float32."""
    return {
        name: tensor.float() * tensors[name + SCALES][:, None] if name + SCALES in tensors else tensor.float()
        for name, tensor in tensors.items()
        if not name.endswith(SCALES)
    }


def save(model: PreTrainedModel, folder: Path) -> None:
    """`model`'s configuration and its weights in 8 bits; tied weights once."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)
    seen: dict[int, str] = {}
    state = {name: w for name, w in model.state_dict().items() if seen.setdefault(w.data_ptr(), name) == name}
    save_file(packed(state), folder / INT8_FILE)


def from_pretrained(auto_class: Any, source: str, revision: str, **options: Any) -> tuple[PreTrainedModel, dict]:
    """`auto_class.from_pretrained` with its loading info, also of a folder that `save` made."""
    options["output_loading_info"] = True
    file = Path(source) / INT8_FILE
    if not file.is_file():
        return auto_class.from_pretrained(source, revision=revision, **options)
    config = AutoConfig.from_pretrained(source)
    model_class = auto_class._model_mapping[type(config)]  # the Auto classes themselves want a path
    model, info = model_class.from_pretrained(None, config=config, state_dict=unpacked(load_file(file)), **options)
    if model.can_generate():
        model.generation_config = GenerationConfig.from_pretrained(source)
    return model, info
