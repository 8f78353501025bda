"""Idefics 3 and SmolVLM: tiles of 32 pixels with 4 x 4 tokens each, up to 3 x 3 of them."""

import torch
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    LlamaConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessorPil,
)

from aas.lmms.idefics3 import Idefics3
from tests.tiny import byte_level_tokenizer

CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}:{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
TILE, TILE_TOKENS = 32, 16


def _lmm(name, config_class, model_class, image_processor_class, patch_size: int, scale_factor: int) -> Idefics3:
    torch.manual_seed(0)
    markers = [f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)]
    tokenizer = byte_level_tokenizer(
        "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", "<|im_start|>", *markers
    )
    processor = Idefics3Processor(
        image_processor_class(size={"longest_edge": 3 * TILE}, max_image_size={"longest_edge": TILE}),
        tokenizer,
        image_seq_len=TILE_TOKENS,
        chat_template=CHAT_TEMPLATE,
    )
    config = config_class(
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": TILE, "patch_size": patch_size,
        },
        text_config=LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=3,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
            bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.3,
        ),
        image_token_id=3,
        scale_factor=scale_factor,
    )  # fmt: skip
    model = model_class(config).eval()
    model.generation_config.update(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    return Idefics3(model, processor, f"tiny {name}")


def idefics3() -> Idefics3:
    return _lmm("idefics3", Idefics3Config, Idefics3ForConditionalGeneration, Idefics3ImageProcessorPil, 4, 2)


def smolvlm() -> Idefics3:
    return _lmm("smolvlm", SmolVLMConfig, SmolVLMForConditionalGeneration, SmolVLMImageProcessorPil, 2, 4)
