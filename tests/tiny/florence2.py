"""Florence-2."""

import torch
from transformers import (
    BartConfig,
    CLIPImageProcessorPil,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    Florence2VisionConfig,
)

from aas.lmms.florence2 import Florence2
from tests.tiny import byte_level_tokenizer

SIDE = 64  # pixels; cells of 8 pixels


@torch.no_grad()
def look_locally(model: Florence2ForConditionalGeneration) -> None:
    """A key of the cross-attention then is what its own cell shows: not its neighbours, not the whole image."""
    for embed in model.model.vision_tower.convs:
        embed.conv.weight[:, :, : embed.padding].zero_()
        embed.conv.weight[..., : embed.padding].zero_()
    for layer in model.model.language_model.encoder.layers:
        layer.self_attn.out_proj.weight.mul_(0.02)


def lmm() -> Florence2:
    torch.manual_seed(0)
    tokenizer = byte_level_tokenizer()
    config = Florence2Config(
        vision_config=Florence2VisionConfig(
            depths=(1, 1), patch_size=(7, 3), patch_stride=(4, 2), patch_padding=(3, 1), patch_prenorm=(False, True),
            embed_dim=(16, 32), num_heads=(2, 4), num_groups=(2, 4), window_size=4, projection_dim=64,
        ),
        text_config=BartConfig(
            vocab_size=len(tokenizer), d_model=64, encoder_layers=2, decoder_layers=3, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128, max_position_embeddings=256,
            pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None,
            init_std=0.2,
        ),
        image_token_id=3,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = Florence2ForConditionalGeneration(config).eval()
    look_locally(model)
    model.generation_config.update(
        bos_token_id=1, eos_token_id=2, pad_token_id=0, decoder_start_token_id=2, forced_bos_token_id=1
    )
    image_processor = CLIPImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, do_center_crop=False, image_seq_length=(SIDE // 8) ** 2 + 1
    )
    return Florence2(model, Florence2Processor(image_processor, tokenizer), "tiny florence2")


def attentions(output) -> tuple[torch.Tensor, ...]:
    return output.cross_attentions
