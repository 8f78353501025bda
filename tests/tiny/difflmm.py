"""DiffLMM with a random diffusion encoder of Stable Diffusion's shape: 64 px, an 8 x 8 latent, a 4 x 4 grid."""

from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPVisionConfig, LlamaConfig

from difflmm.encoder import DiffusionEncoderConfig
from difflmm.model import DiffLMMConfig, DiffLMMForConditionalGeneration

SIDE, GRID_SIDE = 64, 4


def unet(cross_attention_dim: int = 16, **changes: Any) -> UNet2DConditionModel:
    torch.manual_seed(0)
    blocks = {"block_out_channels": (8, 16, 16, 16), "layers_per_block": 1, "norm_num_groups": 4}
    settings = {"sample_size": 8, "attention_head_dim": 2, "cross_attention_dim": cross_attention_dim} | blocks
    return UNet2DConditionModel(**(settings | changes)).eval()


def vae() -> AutoencoderKL:
    torch.manual_seed(1)
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=(4, 8, 8, 8), layers_per_block=1, norm_num_groups=4, latent_channels=4,
    ).eval()  # fmt: skip


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)


def clip_config(n_layers: int = 2) -> CLIPVisionConfig:
    return CLIPVisionConfig(hidden_size=24, intermediate_size=32, num_hidden_layers=n_layers, num_attention_heads=2,
                            image_size=56, patch_size=14)  # fmt: skip


def encoder_config(**changes: Any) -> DiffusionEncoderConfig:
    configs = {"unet_config": unet().config, "vae_config": vae().config, "scheduler_config": scheduler().config}
    settings = {name: dict(config) for name, config in configs.items()}
    settings |= {"clip_config": clip_config(), "resolution": SIDE}
    return DiffusionEncoderConfig(**(settings | changes))


def text_config(vocab_size: int = 401) -> LlamaConfig:
    return LlamaConfig(vocab_size=vocab_size, hidden_size=64, intermediate_size=96, num_hidden_layers=3,
                       num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512)  # fmt: skip


def model(**changes: Any) -> DiffLMMForConditionalGeneration:
    """`changes`: of the encoder's config."""
    torch.manual_seed(2)
    config = DiffLMMConfig(
        vision_config=encoder_config(**changes), text_config=text_config(), image_token_index=400,
        image_seq_length=GRID_SIDE**2,
    )  # fmt: skip
    return DiffLMMForConditionalGeneration(config).eval()
