"""ViP-LLaVA: as LLaVA 1.5, its image tokens made from several layers of the tower."""

import torch
from transformers import VipLlavaConfig, VipLlavaForConditionalGeneration

from aas.lmms.llava import Llava
from tests.tiny.llava import llava


def lmm() -> Llava:
    one, processor = llava()
    torch.manual_seed(0)
    config = VipLlavaConfig(
        vision_config=one.config.vision_config, text_config=one.config.text_config, image_token_index=3,
        image_seq_length=16, vision_feature_layer=[-1, -2, 1],
    )  # fmt: skip
    model = VipLlavaForConditionalGeneration(config).eval()
    model.generation_config.update(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    return Llava(model, processor, "tiny vipllava")
