"""LLaVA 1.5."""

import torch
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from aas.lmms.llava import Llava
from tests.tiny import byte_level_tokenizer

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}USER: {% for part in message['content'] %}"
    "{{ '<image>\n' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endfor %} ASSISTANT:"
)


def llava(
    n_kv_heads: int = 2, image_side: int = 56, seed: int = 0
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """LLaVA 1.5 with a 4 x 4 grid (56 px, patch 14), 3 layers, 4 heads, grouped queries."""
    torch.manual_seed(seed)
    tokenizer = byte_level_tokenizer()
    side = image_side // 14
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=image_side,
            patch_size=14, projection_dim=16,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=3,
            num_attention_heads=4, num_key_value_heads=n_kv_heads, max_position_embeddings=512,
            bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.3,
        ),
        image_token_index=3,
        image_seq_length=side * side,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config).eval()
    model.generation_config.update(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": image_side}, crop_size={"height": image_side, "width": image_side}
    )
    processor = LlavaProcessor(
        image_processor,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    return model, processor


def lmm() -> Llava:
    return Llava(*llava(), "tiny llava")
