"""The diffusion encoder: what a Stable Diffusion U-Net makes of a slightly noised photograph.

Everything that is not needed is never there: the VAE's decoder, the U-Net's blocks behind the wanted one, and its
output layers. diffusers' own forward then ends with the wanted block.
"""

from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, CLIPVisionModel, PreTrainedModel
from transformers import initialization as init
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from difflmm.encoder_config import NULL_CAPTION_TOKENS, DiffusionEncoderConfig


class Encoded(NamedTuple):
    """What does not depend on anything that is trained, and can be kept: `noisy_latents` [B, ensemble, c, h, w] and
    `clip_features` [B, cells, clip channels], None without a CLIP tower."""

    noisy_latents: Tensor
    clip_features: Tensor | None


class Captioner(nn.Module):
    """CLIP's features to the tokens that stand for a caption: Linear, GELU, Linear, and a learned position a cell."""

    def __init__(self, config: DiffusionEncoderConfig):
        super().__init__()
        self.linear_1 = nn.Linear(config.clip_config.hidden_size, config.caption_channels)
        self.linear_2 = nn.Linear(config.caption_channels, config.caption_channels)
        shape = (config.grid_side**2, config.caption_channels)
        self.positions = nn.Parameter(torch.zeros(shape)) if config.positions else None

    def forward(self, clip_features: Tensor) -> Tensor:
        """[B, cells, clip channels] to [B, cells, caption channels]."""
        tokens = self.linear_2(F.gelu(self.linear_1(clip_features)))
        return tokens if self.positions is None else tokens + self.positions


def vae_encoder(vae: AutoencoderKL) -> AutoencoderKL:
    """`vae` without what only decoding needs."""
    vae.decoder = vae.post_quant_conv = None
    return vae


def unet_until(unet: UNet2DConditionModel, up_block: int) -> UNet2DConditionModel:
    """`unet` whose forward gives the features of an up-block as its sample: nothing behind it is kept or computed."""
    unet.up_blocks = unet.up_blocks[: up_block + 1]
    unet.conv_norm_out = unet.conv_act = None
    unet.conv_out = nn.Identity()
    return unet


class DiffusionEncoder(PreTrainedModel):
    """Photographs to features of a diffusion model's U-Net, and of CLIP.

    Source: arXiv 2410.08209, section 3.3. Only the captioner is ever trained.
    """

    config: DiffusionEncoderConfig
    config_class = DiffusionEncoderConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def __init__(self, config: DiffusionEncoderConfig):
        super().__init__(config)
        config.check()
        self.vae = vae_encoder(AutoencoderKL.from_config(config.vae_config))
        self.unet = unet_until(UNet2DConditionModel.from_config(config.unet_config), config.up_block)
        with torch.device("cpu"):  # constants, also where the weights are yet to come (the meta device)
            self.scheduler = DDIMScheduler.from_config(config.scheduler_config)
        clip = config.clip_config
        self.clip: Any = None if clip is None else CLIPVisionModel._from_config(clip)
        if config.implicit_caption:
            self.captioner = Captioner(config)
        else:
            shape = (NULL_CAPTION_TOKENS, config.caption_channels)
            self.null_caption = nn.Parameter(torch.zeros(shape), requires_grad=False)
        self._in_channels_last = False
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Of what is trained, as transformers' LLaVA does; tables begin with zeros. Towers come from checkpoints."""
        if isinstance(module, Captioner):
            for linear in (module.linear_1, module.linear_2):
                init.normal_(linear.weight, std=0.02)
                init.zeros_(linear.bias)
            if module.positions is not None:
                init.zeros_(module.positions)
        if isinstance(module, DiffusionEncoder) and not self.config.implicit_caption:
            init.zeros_(module.null_caption)

    def forward(
        self, pixel_values: Tensor, noise_seeds: Tensor | None = None, **kwargs: object
    ) -> tuple[Tensor, Tensor | None]:
        """The U-Net's features [B, unet channels, grid, grid] and CLIP's [B, grid * grid, clip channels] or None.

        `pixel_values` [B, 3, resolution, resolution], RGB in [-1, 1], or as the model's processor makes them.
        `noise_seeds`: see `encode`.
        """
        return self.features(self.encode(pixel_values, noise_seeds))

    @torch.no_grad()
    def encode(self, pixel_values: Tensor, noise_seeds: Tensor | None = None) -> Encoded:
        """The part that is never trained. `noise_seeds` int64 [B]: of each image's own generator, 0 if not given; the
        same image and seed give the same noise in any batch and on any device."""
        side = self.config.resolution
        if pixel_values.shape[-2:] != (side, side):
            height, width = pixel_values.shape[-2:]
            raise ValueError(f"The images are {width} x {height} pixels, the encoder takes {side} x {side}.")
        self._to_channels_last()
        if noise_seeds is None:
            noise_seeds = torch.zeros(len(pixel_values), dtype=torch.int64)
        clip_features = None if self.clip is None else self._clip_features(pixel_values)
        return Encoded(self._noisy_latents(pixel_values, noise_seeds), clip_features)

    def features(self, encoded: Encoded) -> tuple[Tensor, Tensor | None]:
        """As `forward`, of what `encode` gave. Gradients reach the captioner."""
        latents, clip_features = encoded
        batch, ensemble = latents.shape[:2]
        if self.config.implicit_caption:
            caption = self.captioner(clip_features)
        else:
            caption = self.null_caption.expand(batch, -1, -1)
        found = self.unet(
            latents.flatten(0, 1).contiguous(memory_format=torch.channels_last),
            self.config.timestep,
            encoder_hidden_states=caption.repeat_interleave(ensemble, 0),
        ).sample
        return found.unflatten(0, (batch, ensemble)).mean(1), clip_features if self.config.concat_clip else None

    def _to_channels_last(self) -> None:
        """Once the weights are there."""
        if not self._in_channels_last:
            self.vae.to(memory_format=torch.channels_last)
            self.unet.to(memory_format=torch.channels_last)
            self._in_channels_last = True

    def _clip_features(self, pixel_values: Tensor) -> Tensor:
        """[B, grid * grid, channels]: the same image, at the size that gives CLIP the U-Net's grid."""
        config = self.config.clip_config
        side = self.config.grid_side * config.patch_size
        resized = F.interpolate(pixel_values.float(), (side, side), mode="bilinear", align_corners=False)
        mean, std = (resized.new_tensor(of)[:, None, None] for of in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
        normalised = ((resized + 1) / 2 - mean) / std
        found = self.clip(
            normalised.to(pixel_values.dtype), interpolate_pos_encoding=side != config.image_size, return_dict=True
        )
        return found.last_hidden_state[:, 1:]

    def _noisy_latents(self, pixel_values: Tensor, noise_seeds: Tensor) -> Tensor:
        """[B, ensemble, c, h, w]: a draw of the posterior with the time step's noise on it, added in float32."""
        posterior = self.vae.encode(pixel_values.contiguous(memory_format=torch.channels_last)).latent_dist
        mean, std = (of.float()[:, None] for of in (posterior.mean, posterior.std))
        shape = (self.config.ensemble_size, *posterior.mean.shape[1:])
        drawn, noise = (of.to(mean.device) for of in _two_draws(noise_seeds, shape))
        latents = (mean + std * drawn) * self.vae.config.scaling_factor
        steps = torch.tensor([self.config.timestep], device=latents.device)
        return self.scheduler.add_noise(latents, noise, steps).to(pixel_values.dtype)


def _two_draws(noise_seeds: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Standard normal noise float32 [B, *shape], twice; on the CPU, whose generator is the same everywhere."""
    generators = [torch.Generator().manual_seed(seed) for seed in noise_seeds.tolist()]
    draws = [[torch.randn(shape, generator=generator) for _ in range(2)] for generator in generators]
    first, second = zip(*draws, strict=True)
    return torch.stack(first), torch.stack(second)


AutoConfig.register(DiffusionEncoderConfig.model_type, DiffusionEncoderConfig, exist_ok=True)
AutoModel.register(DiffusionEncoderConfig, DiffusionEncoder, exist_ok=True)
