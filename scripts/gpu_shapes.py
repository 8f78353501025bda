"""Models of published shapes with random weights, built where they run: nothing is downloaded, nothing is read.

Each has its family's own processor, so that prompts and pictures are as long and large as with the published weights;
words are the embedded tokenizer's. Answers have no end token. `tiny` shapes are for trying a script on a CPU.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from transformers import (
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessorPil,
    SamConfig,
    SamModel,
    SamVisionConfig,
)

from aas.lmms.base import LMM
from aas.lmms.llava import Llava
from aas.lmms.llava_next import LlavaNext
from aas.lmms.processors import images_only
from aas.lmms.qwen_vl import QwenVL
from aas.paths import embedded_dir
from aas.segmenters.sam import SamSegmenter
from aas.segmenters.sam_original import PIXEL_MEAN, PIXEL_STD

M = TypeVar("M", bound=PreTrainedModel)
Sizes = dict[str, Any]
PHOTO_HW = (480, 640)
PATCH = 14
NO_ENDS = {"bos_token_id": None, "eos_token_id": None}  # Qwen's lie outside of tiny vocabularies
QWEN_TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{{ '<|vision_start|><image><|vision_end|>' if part['type'] == 'image' else part['text'] }}"
    "{% endfor %}{% endfor %} ASSISTANT:"
)


@dataclass(frozen=True)
class Shape:
    """How a model of a family is built: `build(text, vision, side, how)`, `side` in pixels of what its encoder sees."""

    build: Callable[[Sizes, Sizes, int, Callable[[Callable[[], Any]], Any]], LMM]
    text: Sizes
    vision: Sizes
    side: int = 336


def photo(seed: int = 0, size_hw: tuple[int, int] = PHOTO_HW) -> np.ndarray:
    """Noise, uint8 [H, W, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), np.uint8)


def lmm_of(name: str, device: str, dtype: torch.dtype, tiny: bool = False) -> LMM:
    """A model of `SHAPES`, or of `TINY`."""
    return built((TINY if tiny else SHAPES)[name], device, dtype)


def built(shape: Shape, device: str, dtype: torch.dtype) -> LMM:
    """Its answers end at their longest only."""
    lmm = shape.build(shape.text, shape.vision, shape.side, lambda make: _made(make, device, dtype))
    lmm.model.generation_config.update(eos_token_id=None, pad_token_id=0)
    return lmm


def sam_of(device: str, dtype: torch.dtype, tiny: bool = False) -> SamSegmenter:
    """SAM ViT-H, whose encoder computes in `dtype`; its weights are float32."""
    vision = TINY_SAM if tiny else SAM_VIT_H
    prompts = {"image_size": vision["image_size"], "patch_size": 16}
    config = SamConfig(vision_config=SamVisionConfig(**vision), prompt_encoder_config=prompts)
    model = _made(lambda: SamModel(config), device, torch.float32)
    return SamSegmenter(model, PIXEL_MEAN, PIXEL_STD, dtype)


def _made(make: Callable[[], M], device: str, dtype: torch.dtype) -> M:
    """A model whose random weights are drawn on the device, in `dtype`: a CPU would take minutes."""
    former = torch.get_default_dtype()
    torch.manual_seed(0)
    try:
        torch.set_default_dtype(dtype)
        with torch.device(device):
            return make().eval()
    finally:
        torch.set_default_dtype(former)


def _tokenizer(*more: str) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(embedded_dir("lmm"))
    tokenizer.add_tokens(list(more), special_tokens=True)
    return tokenizer


def _template() -> str:
    return (embedded_dir("lmm") / "chat_template.jinja").read_text(encoding="utf-8")


def llava(text: Sizes, vision: Sizes, side: int, made: Callable[[Callable[[], Any]], Any]) -> LMM:
    """LLaVA-1.5 with Llama and CLIP of these sizes."""
    tokenizer = _tokenizer()
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=side, patch_size=PATCH, **vision),
        text_config=LlamaConfig(**text),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(side // PATCH) ** 2,
    )
    processor = LlavaProcessor(_clip_images(CLIPImageProcessorPil, side), tokenizer, **_of_llava())
    return Llava(made(lambda: LlavaForConditionalGeneration(config)), processor, "random LLaVA")


def _llava_next(text: Sizes, vision: Sizes, side: int, made: Callable[[Callable[[], Any]], Any]) -> LMM:
    tokenizer = _tokenizer()
    pinpoints = [[side, 2 * side], [2 * side, side], [2 * side, 2 * side], [3 * side, side], [side, 3 * side]]
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(image_size=side, patch_size=PATCH, **vision),
        text_config=LlamaConfig(**text),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pinpoints,
    )
    images = _clip_images(LlavaNextImageProcessorPil, side, image_grid_pinpoints=pinpoints)
    processor = LlavaNextProcessor(images, tokenizer, **_of_llava())
    return LlavaNext(made(lambda: LlavaNextForConditionalGeneration(config)), processor, "random LLaVA-NeXT")


def _clip_images(processor: Any, side: int, **more: Any) -> Any:
    return processor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}, **more)


def _of_llava() -> dict[str, Any]:
    strategy = {"vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return {"patch_size": PATCH, "chat_template": _template(), **strategy}


def _qwen2_5_vl(text: Sizes, vision: Sizes, side: int, made: Callable[[Callable[[], Any]], Any]) -> LMM:
    tokenizer = _tokenizer("<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    names = {"image_token_id": "<image>", "video_token_id": "<|video_pad|>",
             "vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}  # fmt: skip
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}
    config = Qwen2_5_VLConfig(text_config=text | NO_ENDS, vision_config={**vision, "patch_size": PATCH}, **ids)
    size = {"shortest_edge": 4 * (2 * PATCH) ** 2, "longest_edge": side**2}
    images = Qwen2VLImageProcessorPil(patch_size=PATCH, size=size)
    processor = images_only(Qwen2_5_VLProcessor)(images, tokenizer, chat_template=QWEN_TEMPLATE)
    return QwenVL(made(lambda: Qwen2_5_VLForConditionalGeneration(config)), processor, "random Qwen2.5-VL")


LLAMA_7B = {
    "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "vocab_size": 32064, "max_position_embeddings": 4096,
}  # fmt: skip
MISTRAL_7B = LLAMA_7B | {"intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 32768}
CLIP_L = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
QWEN_ROPE = {"rope_type": "default", "rope_theta": 1e6}
QWEN_7B = {
    "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "vocab_size": 152064, "max_position_embeddings": 128000,
    "rope_parameters": QWEN_ROPE | {"mrope_section": [16, 24, 24]},
}  # fmt: skip
QWEN_EYES = {
    "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31], "out_hidden_size": 3584,
}  # fmt: skip
SHAPES = {
    "llava-1.5-7b": Shape(llava, LLAMA_7B, CLIP_L),
    "qwen2.5-vl-7b": Shape(_qwen2_5_vl, QWEN_7B, QWEN_EYES, side=784),  # 391 tokens of a 640 x 480 photograph
    "llava-next-7b": Shape(_llava_next, MISTRAL_7B, CLIP_L),
}
SAM_VIT_H = {
    "hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "global_attn_indexes": [7, 15, 23, 31],
    "mlp_dim": 5120, "image_size": 1024,
}  # fmt: skip

TINY_TEXT = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 13312, "max_position_embeddings": 512,
}  # fmt: skip
TINY_CLIP = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TINY_QWEN = TINY_TEXT | {"rope_parameters": QWEN_ROPE | {"mrope_section": [2, 3, 3]}}
TINY_EYES = {
    "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "window_size": 56,
    "fullatt_block_indexes": [1], "out_hidden_size": 64,
}  # fmt: skip
TINY = {
    "llava-1.5-7b": Shape(llava, TINY_TEXT, TINY_CLIP, side=56),
    "qwen2.5-vl-7b": Shape(_qwen2_5_vl, TINY_QWEN, TINY_EYES, side=112),
    "llava-next-7b": Shape(_llava_next, TINY_TEXT, TINY_CLIP, side=28),
}
TINY_SAM = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "global_attn_indexes": [1], "mlp_dim": 64,
    "image_size": 256,
}  # fmt: skip
