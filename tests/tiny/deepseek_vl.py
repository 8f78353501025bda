"""DeepSeek-VL, its hybrid, and Janus."""

import torch
from transformers import (
    DeepseekVLConfig,
    DeepseekVLForConditionalGeneration,
    DeepseekVLHybridConfig,
    DeepseekVLHybridForConditionalGeneration,
    DeepseekVLHybridImageProcessorPil,
    DeepseekVLHybridProcessor,
    DeepseekVLImageProcessorPil,
    DeepseekVLProcessor,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusImageProcessorPil,
    JanusProcessor,
    JanusVisionConfig,
    JanusVQVAEConfig,
    LlamaConfig,
    SamVisionConfig,
    SiglipVisionConfig,
)

from aas.lmms.deepseek_vl import DeepseekVL, Janus
from tests.tiny import byte_level_tokenizer

SIDE, PATCH = 64, 8  # pixels; an 8 x 8 grid
SIZE = {"height": SIDE, "width": SIDE}
N_TOKENS = (SIDE // PATCH) ** 2
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}User: {% for part in message['content'] %}"
    "{{ '<image>\n' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endfor %}\n\nAssistant:"
)
VISION = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=PATCH)


def llama(vocab_size: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocab_size, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        initializer_range=0.2,
    )  # fmt: skip


def finished(model):
    model.generation_config.update(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    return model


def lmm() -> DeepseekVL:
    torch.manual_seed(0)
    tokenizer = byte_level_tokenizer()
    config = DeepseekVLConfig(
        vision_config=SiglipVisionConfig(intermediate_size=64, vision_use_head=False, **VISION),
        text_config=llama(len(tokenizer)),
        image_token_id=3,
        tie_word_embeddings=False,
    )
    processor = DeepseekVLProcessor(DeepseekVLImageProcessorPil(size=SIZE), tokenizer, CHAT_TEMPLATE, N_TOKENS)
    return DeepseekVL(finished(DeepseekVLForConditionalGeneration(config)), processor, "tiny deepseek_vl")


def hybrid() -> DeepseekVL:
    torch.manual_seed(0)
    tokenizer = byte_level_tokenizer()
    config = DeepseekVLHybridConfig(
        vision_config=SiglipVisionConfig(intermediate_size=64, vision_use_head=False, **VISION),
        high_res_vision_config=SamVisionConfig(
            hidden_size=32, output_channels=8, num_hidden_layers=2, num_attention_heads=2, image_size=128,
            patch_size=16, window_size=4, global_attn_indexes=[1], mlp_dim=64, num_pos_feats=16,
        ),
        text_config=llama(len(tokenizer)),
        image_token_id=3,
        tie_word_embeddings=False,
    )  # fmt: skip
    image_processor = DeepseekVLHybridImageProcessorPil(size=SIZE, high_res_size={"height": 128, "width": 128})
    processor = DeepseekVLHybridProcessor(image_processor, tokenizer, CHAT_TEMPLATE, N_TOKENS)
    return DeepseekVL(finished(DeepseekVLHybridForConditionalGeneration(config)), processor, "tiny deepseek_vl_hybrid")


def janus() -> Janus:
    torch.manual_seed(0)
    tokenizer = byte_level_tokenizer(boi_token="<boi>", eoi_token="<eoi>")
    config = JanusConfig(
        vision_config=JanusVisionConfig(projection_dim=64, num_image_tokens=N_TOKENS, **VISION),
        vq_config=JanusVQVAEConfig(
            embed_dim=4, num_embeddings=16, latent_channels=32, base_channels=32, channel_multiplier=(1, 1),
            num_res_blocks=1, projection_dim=64, image_token_embed_dim=64,
        ),
        text_config=llama(len(tokenizer)),
        image_token_id=3,
        tie_word_embeddings=False,
    )  # fmt: skip
    processor = JanusProcessor(JanusImageProcessorPil(size=SIZE), tokenizer, CHAT_TEMPLATE, num_image_tokens=N_TOKENS)
    return Janus(finished(JanusForConditionalGeneration(config)), processor, "tiny janus")
