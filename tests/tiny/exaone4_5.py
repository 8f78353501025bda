"""EXAONE 4.5, which has no file of its own: tokens of 8 x 8 pixels, 75 to 128 of them for an image."""

import torch
from transformers import (
    Exaone4_5_Config,
    Exaone4_5_ForConditionalGeneration,
    Exaone4_5_Processor,
    Exaone4Config,
    Qwen2VLImageProcessorPil,
)
from transformers.models.exaone4_5.configuration_exaone4_5 import Exaone4_5_VisionConfig

from aas.lmms.declared_grid import DeclaredGrid
from aas.lmms.processors import images_only
from tests.tiny import byte_level_tokenizer

CHAT_TEMPLATE = (
    "{% for message in messages %}<|user|>{% for part in message['content'] %}"
    "{{ '<image>\n' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endfor %}<|assistant|>"
)


def lmm() -> DeclaredGrid:
    torch.manual_seed(0)
    tokenizer = byte_level_tokenizer("<|user|>", "<|assistant|>", video_token="<|video|>")
    config = Exaone4_5_Config(
        vision_config=Exaone4_5_VisionConfig(
            depth=3, hidden_size=32, intermediate_size=64, num_heads=2, num_key_value_heads=1, patch_size=4,
            out_hidden_size=64, window_size=32, fullatt_block_indexes=[2],
        ),
        text_config=Exaone4Config(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=4,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, bos_token_id=1, eos_token_id=2,
            pad_token_id=0, initializer_range=0.3, sliding_window=64, sliding_window_pattern=2,
        ),
        image_token_id=3,
        video_token_id=tokenizer.video_token_id,
    )  # fmt: skip
    model = Exaone4_5_ForConditionalGeneration(config).eval()
    model.generation_config.update(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    image_processor = Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, size={"shortest_edge": 75 * 64, "longest_edge": 128 * 64}
    )
    processor = images_only(Exaone4_5_Processor)(image_processor, tokenizer, chat_template=CHAT_TEMPLATE)
    return DeclaredGrid(model, processor, "tiny exaone4_5")
