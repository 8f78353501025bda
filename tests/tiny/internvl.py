"""InternVL: up to 6 tiles of 4 x 4 tokens, each of 2 x 2 patches, and a thumbnail."""

import torch
from transformers import (
    GotOcr2ImageProcessorPil,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVisionConfig,
    Qwen2Config,
)

from aas.lmms.internvl import InternVL
from aas.lmms.processors import images_only
from tests.tiny import byte_level_tokenizer
from tests.tiny.llava import CHAT_TEMPLATE

SIDE, PATCH = 56, 7


def lmm() -> InternVL:
    torch.manual_seed(0)
    tokenizer = byte_level_tokenizer(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            image_size=(SIDE, SIDE), patch_size=(PATCH, PATCH),
        ),
        text_config=Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=3,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
            bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.2,
        ),
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=16,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = InternVLForConditionalGeneration(config).eval()
    model.generation_config.update(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    image_processor = GotOcr2ImageProcessorPil(size={"height": SIDE, "width": SIDE}, max_patches=6)
    processor = images_only(InternVLProcessor)(
        image_processor,
        tokenizer,
        image_seq_length=16,
        chat_template=CHAT_TEMPLATE.replace("<image>", "<IMG_CONTEXT>"),
    )
    return InternVL(model, processor, "tiny internvl")
