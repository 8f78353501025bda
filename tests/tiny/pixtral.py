"""Pixtral in LLaVA's format (tokens of 8 pixels) and Mistral 3 (of 14: patches of 7, merged 2 x 2)."""

import torch
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PixtralImageProcessorPil,
    PixtralVisionConfig,
)

from aas.lmms.pixtral import PilPixtralProcessor, Pixtral
from tests.tiny import byte_level_tokenizer

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[INST]{% for part in message['content'] %}"
    "{{ '[IMG]' if part['type'] == 'image' else part['text'] }}{% endfor %}[/INST]{% endfor %}"
)


def _lmm(name, config_class, model_class, patch_size: int, merge: int, longest_edge: int, **options) -> Pixtral:
    torch.manual_seed(0)
    tokenizer = byte_level_tokenizer("[IMG]", "[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]")
    processor = PilPixtralProcessor(
        PixtralImageProcessorPil(size={"longest_edge": longest_edge}, patch_size=patch_size),
        tokenizer,
        patch_size=patch_size,
        spatial_merge_size=merge,
        chat_template=CHAT_TEMPLATE,
    )
    config = config_class(
        vision_config=PixtralVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            image_size=longest_edge, patch_size=patch_size,
        ),
        text_config=MistralConfig(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=3,
            num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=512,
            sliding_window=None, bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.3,
        ),
        image_token_index=processor.image_token_id,
        vision_feature_layer=-1,
        **options,
    )  # fmt: skip
    model = model_class(config).eval()
    model.generation_config.update(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    return Pixtral(model, processor, f"tiny {name}")


def pixtral() -> Pixtral:
    options = {"vision_feature_select_strategy": "full"}
    return _lmm("pixtral", LlavaConfig, LlavaForConditionalGeneration, 8, 1, 64, **options)


def mistral3() -> Pixtral:
    return _lmm("mistral3", Mistral3Config, Mistral3ForConditionalGeneration, 7, 2, 98, spatial_merge_size=2)
