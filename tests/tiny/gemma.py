"""Gemma 3, PaliGemma and PaliGemma 2. The sliding windows are so short that the cache drops image tokens."""

import torch
from torch import nn
from transformers import (
    Gemma2Config,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    Gemma3TextConfig,
    GemmaConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedConfig,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
)

from aas.lmms.gemma3 import Gemma3
from aas.lmms.paligemma import PaliGemma
from tests.tiny import byte_level_tokenizer

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{{ '<start_of_image>' if part['type'] == 'image' else part['text'] }}{% endfor %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
SIDE, PATCH = 32, 4  # pixels
TEXT = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512, "initializer_range": 0.2,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip


def _eyes() -> SiglipVisionConfig:
    return SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE,
        patch_size=PATCH, vision_use_head=False,
    )  # fmt: skip


def _calm(tower: nn.Module) -> None:
    """Let a patch keep to itself: the tower is initialised so that random attention mixes all patches."""
    for layer in tower.encoder.layers:
        layer.self_attn.out_proj.weight.data *= 0.02


def gemma3() -> Gemma3:
    """4 x 4 tokens, pooled from 8 x 8 patches; layers with and without a window in turn."""
    torch.manual_seed(0)
    tokenizer = byte_level_tokenizer(
        "<start_of_turn>", "<end_of_turn>", boi_token="<start_of_image>", eoi_token="<end_of_image>"
    )
    processor = Gemma3Processor(
        Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE}),
        tokenizer,
        chat_template=CHAT_TEMPLATE,
        image_seq_length=16,
    )
    config = Gemma3Config(
        vision_config=_eyes(),
        text_config=Gemma3TextConfig(
            **TEXT, vocab_size=len(tokenizer), query_pre_attn_scalar=2, sliding_window=30,
            layer_types=["sliding_attention", "full_attention"] * 2,
        ),
        mm_tokens_per_image=16,
        image_token_index=3,
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
    )  # fmt: skip
    model = Gemma3ForConditionalGeneration(config).eval()
    _calm(model.model.vision_tower)
    nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.1)  # zeros otherwise
    model.generation_config.update(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    return Gemma3(model, processor, "tiny gemma3")


def _paligemma(name: str, text_class: type[PreTrainedConfig], **options) -> PaliGemma:
    """8 x 8 tokens."""
    torch.manual_seed(0)
    image_processor = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    image_processor.image_seq_length = (SIDE // PATCH) ** 2
    tokenizer = byte_level_tokenizer()
    processor = PaliGemmaProcessor(image_processor, tokenizer)  # which adds words to the tokenizer
    config = PaliGemmaConfig(
        vision_config=_eyes(),
        text_config=text_class(**TEXT, vocab_size=len(tokenizer), **options),
        image_token_index=3,
        projection_dim=64,
        hidden_size=64,
    )
    model = PaliGemmaForConditionalGeneration(config).eval()
    _calm(model.model.vision_tower)
    model.generation_config.update(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    return PaliGemma(model, processor, f"tiny {name}")


def paligemma() -> PaliGemma:
    return _paligemma("paligemma", GemmaConfig)


def paligemma2() -> PaliGemma:
    options = {"attn_logit_softcapping": 3.0, "query_pre_attn_scalar": 16, "sliding_window": 50}
    return _paligemma("paligemma2", Gemma2Config, **options)
