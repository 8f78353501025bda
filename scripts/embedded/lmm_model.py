"""The embedded LMM before training: prompt, processor, model, and the attention that is trained as it is read."""

import numpy as np
import torch
from caption_data import Photo, augmented
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AttentionInterface,
    CLIPImageProcessorPil,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from aas.backbones import BackboneName
from aas.lmms.embedded import STRIDE, MobileTowerConfig

SIDE = 448  # pixels of the tower's input
GRID = SIDE // STRIDE
N_CELLS = GRID * GRID
QUESTIONS = (
    "Describe the image.", "Describe the image in detail.", "Describe the image.", "Describe this picture.",
    "What is in the image?", "What do you see?", "What is in this photo?", "What does the image show?",
    "Write a caption.", "Describe the image briefly.",
)  # fmt: skip
IMAGE = "<image>"
# An answer is one sentence, as a caption is: let go on after its full stop, the model tells of what is not there.
FULL_STOPS = (".", "..")
# Greedy answers say "a sink and a sink". On the photographs for choosing 1, 1.03, 1.06, 1.1 and 1.2 gave a CIDEr-D of
# 0.605, 0.631, 0.639, 0.587 and 0.160, and 0.55, 0.52, 0.49, 0.46 and 0.31 of the content words were right.
REPETITION_PENALTY = 1.06
# The decoder's own chat format, without its system message.
BEFORE, AFTER = "<|im_start|>user\n", "\n{}<|im_end|>\n<|im_start|>assistant\n"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] %}{{ '<image>\n' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """Stretches the photograph to the square input, scales it to [-1, 1]."""
    image_processor = CLIPImageProcessorPil(
        size={"height": SIDE, "width": SIDE},
        do_center_crop=False,
        crop_size={"height": SIDE, "width": SIDE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return LlavaProcessor(
        image_processor,
        tokenizer,
        patch_size=STRIDE,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
    )


def build_model(
    decoder: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, backbone: BackboneName
) -> LlavaForConditionalGeneration:
    """LLaVA with the decoder's weights; projector, tower and its positions are new."""
    config = LlavaConfig(
        vision_config=MobileTowerConfig(backbone=backbone, image_size=SIDE),
        text_config=decoder.config,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=N_CELLS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    model.model.language_model.load_state_dict(decoder.model.state_dict())
    model.tie_weights()
    model.generation_config.update(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.eos_token_id, *(tokenizer.convert_tokens_to_ids(stop) for stop in FULL_STOPS)],
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=96,
        repetition_penalty=REPETITION_PENALTY,
    )
    return model


@torch.no_grad()
def standardize_cells(model: LlavaForConditionalGeneration, photos: list[Photo]) -> None:
    tower = model.model.vision_tower
    pixels = to_pixels(np.stack([augmented(p.pixels, SIDE, np.random.default_rng(0))[0] for p in photos]))
    pixels = pixels.to(model.device)
    cells = tower(pixels).last_hidden_state[..., : len(tower.scale)].flatten(0, 1)
    tower.scale.copy_(1 / cells.std(0).clamp_min(1e-3))
    tower.shift.copy_(-cells.mean(0) * tower.scale)
    tower.position.normal_(std=0.5)


def to_pixels(images: np.ndarray) -> Tensor:
    """uint8 [B, S, S, 3] -> float [B, 3, S, S] in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


class RecordedAttention:
    """Softmax attention that keeps, with gradient, each layer's head-mean over the image columns."""

    def __init__(self) -> None:
        self.columns = slice(0, 0)
        self.rows = slice(0, 0)
        self.maps: list[Tensor] = []
        self.dropout = 0.0

    def __call__(self, module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
        # Several query heads share a head of keys and values.
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
        scores = query @ key.transpose(-1, -2) * scaling
        weights = (scores.float() + attention_mask).softmax(-1)
        if self.rows.stop:
            self.maps.append(weights[:, :, self.rows, self.columns].mean(1))
        weights = F.dropout(weights.to(value.dtype), self.dropout, module.training)
        return (weights @ value).transpose(1, 2).contiguous(), None


RECORDED = RecordedAttention()
AttentionInterface.register("aas_recorded", RECORDED)


def add_cell_dropout(model: LlavaForConditionalGeneration, p: float) -> None:
    """Dropout on the tower's cells; off outside training."""
    model.model.multi_modal_projector.register_forward_pre_hook(
        lambda module, args: (F.dropout(args[0], p, module.training),)
    )
