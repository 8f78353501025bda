"""Qwen-VL and GLM-V: tokens of 8 x 8 pixels, 75 to 128 of them for an image."""

from typing import Any

import torch
from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vImageProcessorPil,
    Glm4vMoeConfig,
    Glm4vMoeForConditionalGeneration,
    Glm4vProcessor,
    Glm46VConfig,
    Glm46VForConditionalGeneration,
    Glm46VProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen2VLProcessor,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
)

from aas.lmms.processors import images_only
from aas.lmms.qwen_vl import QwenVL
from tests.tiny import byte_level_tokenizer

QWEN_TOKENS = ("<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|im_start|>", "<|im_end|>")
QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{{ '<|vision_start|><image><|vision_end|>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
GLM_TOKENS = (
    "<|video|>", "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>",
    "<|user|>", "<|assistant|>", "[gMASK]", "<sop>",
)  # fmt: skip
GLM_TEMPLATE = (
    "[gMASK]<sop>{% for message in messages %}<|user|>\n{% for part in message['content'] %}"
    "{{ '<|begin_of_image|><image><|end_of_image|>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{% endfor %}<|assistant|>\n"
)
VISION = {"depth": 3, "hidden_size": 32, "num_heads": 2, "patch_size": 4}
TEXT = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    "initializer_range": 0.2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
}  # fmt: skip
QWEN3_VISION = {
    "intermediate_size": 64, "out_hidden_size": 64, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1],
}  # fmt: skip
QWEN3_TEXT = {"head_dim": 16, "rope_parameters": {**TEXT["rope_parameters"], "mrope_interleaved": True}}
GLM_VISION = {"intermediate_size": 64, "out_hidden_size": 64, "image_size": 32}
GLM_TEXT = {
    "head_dim": 16,
    "rope_parameters": {**TEXT["rope_parameters"], "partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1]},
}
EXPERTS = {"moe_intermediate_size": 32, "num_experts_per_tok": 2}


def built(
    name: str,
    config_class: type[PreTrainedConfig],
    model_class: type[PreTrainedModel],
    processor_class: type[ProcessorMixin],
    vision: dict[str, Any],
    text: dict[str, Any],
) -> QwenVL:
    torch.manual_seed(0)
    glm = processor_class in (Glm4vProcessor, Glm46VProcessor)
    tokenizer = byte_level_tokenizer(*(GLM_TOKENS if glm else QWEN_TOKENS))
    ids = {"image_token_id": 3, "video_token_id": 4}
    text = {**TEXT, "vocab_size": len(tokenizer), **text}
    model = model_class(config_class(text_config=text, vision_config={**VISION, **vision}, **ids)).eval()
    model.generation_config.update(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    # Of the images of the tests some are enlarged, some shrunk. GLM counts the pixels of two frames.
    size = {"shortest_edge": 4800 * (1 + glm), "longest_edge": 8192 * (1 + glm)}
    image_processor_class = Glm4vImageProcessorPil if glm else Qwen2VLImageProcessorPil
    image_processor = image_processor_class(patch_size=4, size=size)
    template = GLM_TEMPLATE if glm else QWEN_TEMPLATE
    processor = images_only(processor_class)(image_processor, tokenizer, chat_template=template)
    return QwenVL(model, processor, f"tiny {name}")


def qwen2_vl() -> QwenVL:
    vision = {"embed_dim": 32, "hidden_size": 64}
    return built("qwen2_vl", Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor, vision, {})


def qwen2_5_vl() -> QwenVL:
    """Windows of 3 x 3 tokens, cut short at the edges of most grids; one layer sees the whole image."""
    vision = {"intermediate_size": 64, "out_hidden_size": 64, "window_size": 24, "fullatt_block_indexes": [1]}
    return built("qwen2_5_vl", Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor, vision, {})


def qwen3_vl() -> QwenVL:
    """Deepstack: the encoder's first and second layers are added behind the language model's."""
    model = (Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor)
    return built("qwen3_vl", *model, QWEN3_VISION, QWEN3_TEXT)


def qwen3_vl_moe() -> QwenVL:
    model = (Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration, Qwen3VLProcessor)
    return built("qwen3_vl_moe", *model, QWEN3_VISION, {**QWEN3_TEXT, **EXPERTS, "num_experts": 4})


def qwen3_5() -> QwenVL:
    """One layer with linear attention, which has no maps. It is not the first, so that the first keys are local."""
    model = (Qwen3_5Config, Qwen3_5ForConditionalGeneration, Qwen3VLProcessor)
    vision = {"intermediate_size": 64, "out_hidden_size": 64, "num_position_embeddings": 64}
    rope = {**QWEN3_TEXT["rope_parameters"], "partial_rotary_factor": 1.0}
    text = {
        "head_dim": 16, "rope_parameters": rope, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
        "linear_num_key_heads": 2, "linear_num_value_heads": 4, "initializer_range": 0.1,
        "layer_types": ["full_attention", "linear_attention", "full_attention"],
    }  # fmt: skip
    return built("qwen3_5", *model, vision, text)


def glm4v() -> QwenVL:
    """Half of a head's channels rotate; position embeddings of 8 x 8 patches are stretched over the grid."""
    return built("glm4v", Glm4vConfig, Glm4vForConditionalGeneration, Glm4vProcessor, GLM_VISION, GLM_TEXT)


def glm4v_moe() -> QwenVL:
    model = (Glm4vMoeConfig, Glm4vMoeForConditionalGeneration, Glm4vProcessor)
    return built("glm4v_moe", *model, GLM_VISION, {**GLM_TEXT, **EXPERTS, "n_routed_experts": 4})


def glm46v() -> QwenVL:
    return built("glm46v", Glm46VConfig, Glm46VForConditionalGeneration, Glm46VProcessor, GLM_VISION, GLM_TEXT)
