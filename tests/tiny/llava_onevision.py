"""LLaVA-OneVision: at most 3 x 3 tiles of 4 x 4 tokens, shrunk to 4 tiles' worth; patches leave out 2 pixels of 30."""

import torch
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    LlavaOnevisionProcessor,
    Qwen2Config,
    SiglipVisionConfig,
)

from aas.lmms.llava_next import LlavaOnevision
from aas.lmms.processors import images_only
from tests.tiny import byte_level_tokenizer
from tests.tiny.llava import CHAT_TEMPLATE

SIDE, PATCH = 30, 7
PINPOINTS = [[rows * SIDE, columns * SIDE] for rows in (1, 2, 3) for columns in (1, 2, 3)]


def lmm() -> LlavaOnevision:
    torch.manual_seed(0)
    tokenizer = byte_level_tokenizer("<video>")
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE,
            patch_size=PATCH, vision_use_head=False,
        ),
        text_config=Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=3,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
            bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.3,
        ),
        image_token_index=3,
        video_token_index=4,
        image_grid_pinpoints=PINPOINTS,
        vision_aspect_ratio="anyres_max_4",
    )  # fmt: skip
    model = LlavaOnevisionForConditionalGeneration(config).eval()
    for layer in model.model.vision_tower.encoder.layers:  # what is drawn for SigLIP mixes all patches at once
        layer.self_attn.out_proj.weight.data.mul_(0.1)
    model.generation_config.update(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    processor = images_only(LlavaOnevisionProcessor)(
        LlavaOnevisionImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=PINPOINTS),
        tokenizer,
        num_image_tokens=(SIDE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_4",
        chat_template=CHAT_TEMPLATE,
    )
    return LlavaOnevision(model, processor, "tiny llava_onevision")
