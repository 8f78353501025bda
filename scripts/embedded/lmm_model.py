"""The embedded LMM before training: tokenizer, processor, model, and the attention that is trained as it is read."""

import numpy as np
import torch
from caption_data import Photo, augmented
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AttentionInterface,
    CLIPImageProcessorPil,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from aas.lmms.embedded import STRIDE, MobileTowerConfig

SIDE = 512  # pixels of the tower's input
GRID = SIDE // STRIDE
N_CELLS = GRID * GRID
QUESTIONS = (
    "Describe the image.", "Describe the image in detail.", "Describe the image.", "Describe this picture.",
    "What is in the image?", "What do you see?", "What is in this photo?", "What does the image show?",
    "Write a caption.", "Describe the image briefly.",
)  # fmt: skip
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ 'USER: ' if message['role'] == 'user' else ' ASSISTANT: ' }}"
    "{% for part in message['content'] %}{{ '<image>\n' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)
PAD, BOS, EOS, IMAGE = "<pad>", "<s>", "</s>", "<image>"


def train_tokenizer(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE learned on the captions and the prompt."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS, IMAGE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    prompts = [f"USER: \n{question} ASSISTANT:" for question in QUESTIONS] * 100
    tokenizer.train_from_iterator([f" {text}" for text in texts] + prompts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
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


def build_model(tokenizer: PreTrainedTokenizerFast, width: int, layers: int) -> LlavaForConditionalGeneration:
    text_config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=int(width * 8 / 3) // 8 * 8,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=MobileTowerConfig(image_size=SIDE),
        text_config=text_config,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=N_CELLS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.update(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=64,  # several captions long
        repetition_penalty=1.3,  # small models repeat themselves; CIDEr on the photographs for choosing 0.50 -> 0.52
    )
    return model


@torch.no_grad()
def standardize_cells(model: LlavaForConditionalGeneration, photos: list[Photo]) -> None:
    tower = model.model.vision_tower
    pixels = to_pixels(np.stack([augmented(p.pixels, SIDE, np.random.default_rng(0))[0] for p in photos]))
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
        scores = query @ key.transpose(-1, -2) * scaling
        weights = (scores.float() + attention_mask).softmax(-1)
        if self.rows.stop:
            self.maps.append(weights[:, :, self.rows, self.columns].mean(1))
        weights = F.dropout(weights.to(value.dtype), self.dropout, module.training)
        return (weights @ value).transpose(1, 2).contiguous(), None


RECORDED = RecordedAttention()
AttentionInterface.register("aas_recorded", RECORDED)


def add_dropout(model: LlavaForConditionalGeneration, p: float, p_cells: float) -> None:
    """Dropout on the residual branches and the tower's cells (Llama has none of its own); off outside training."""

    def branch(module: nn.Module, args: tuple, output):
        if isinstance(output, tuple):
            return (F.dropout(output[0], p, module.training), *output[1:])
        return F.dropout(output, p, module.training)

    for layer in model.model.language_model.layers:
        layer.self_attn.register_forward_hook(branch)
        layer.mlp.register_forward_hook(branch)
    model.model.multi_modal_projector.register_forward_pre_hook(
        lambda module, args: (F.dropout(args[0], p_cells, module.training),)
    )
