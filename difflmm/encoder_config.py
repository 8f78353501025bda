"""What a diffusion encoder is made of, and the sizes that follow from it."""

from typing import Any

from transformers import CLIPVisionConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

NULL_CAPTION_TOKENS = 77  # the empty prompt, as CLIP's text encoder pads it


class DiffusionEncoderConfig(PreTrainedConfig):
    """What a `DiffusionEncoder` is made of.

    `unet_config`, `vae_config`, `scheduler_config`: diffusers' own. `clip_config`: the CLIP vision tower, whose last
    layer gives the features (a tower that is read at its layer -2 has one layer less here); None where neither
    `concat_clip` nor `implicit_caption` needs one. `resolution`: side of the square image in pixels. `timestep`: how
    much noise, of the scheduler's training steps. `up_block`: whose features, from 0. `ensemble_size`: noised copies
    whose features are averaged. `concat_clip`: the CLIP features go to the projector too. `implicit_caption`: they
    become the U-Net's text; without, its text is the empty prompt. `positions`: tables of positions are learned, for
    the caption and for the projector.
    """

    model_type = "difflmm_encoder"
    sub_configs_defaults = {"clip_config": SubConfigSpec(config_class=CLIPVisionConfig, optional=True)}

    unet_config: Any = None  # dictionaries, None only where transformers makes an empty config to compare with
    vae_config: Any = None
    scheduler_config: Any = None
    clip_config: Any = None
    resolution: int = 384
    timestep: int = 100
    up_block: int = 1
    ensemble_size: int = 1
    concat_clip: bool = True
    implicit_caption: bool = True
    positions: bool = True

    @property
    def latent_stride(self) -> int:
        """Pixels to a side of a latent."""
        return 2 ** (len(self.vae_config["block_out_channels"]) - 1)

    @property
    def patch_size(self) -> int:
        """Pixels to a side of a cell of the features' grid."""
        n_blocks = len(self.unet_config["block_out_channels"])
        return self.latent_stride * 2 ** (n_blocks - 1) // 2 ** min(self.up_block + 1, n_blocks - 1)

    @property
    def grid_side(self) -> int:
        """Cells to a side of the features' grid; each becomes an image token."""
        return self.resolution // self.patch_size

    @property
    def unet_channels(self) -> int:
        """Of the wanted block's features."""
        return self.unet_config["block_out_channels"][::-1][self.up_block]

    @property
    def clip_channels(self) -> int:
        """That go to the projector beside the U-Net's; 0 without `concat_clip`."""
        return self.clip_config.hidden_size if self.concat_clip else 0

    @property
    def hidden_size(self) -> int:
        """Channels that go to the projector, U-Net's and CLIP's."""
        return self.unet_channels + self.clip_channels

    @property
    def caption_channels(self) -> int:
        """Of the text that the U-Net attends to."""
        return self.unet_config["cross_attention_dim"]

    def check(self) -> None:
        """ValueError for what cannot be built."""
        self._check_unet()
        n_blocks = len(self.unet_config["block_out_channels"])
        multiple = self.latent_stride * 2 ** (n_blocks - 1)
        if self.resolution < multiple or self.resolution % multiple:
            raise ValueError(f"The resolution {self.resolution} is not a multiple of {multiple} pixels.")
        n_steps = self.scheduler_config["num_train_timesteps"]
        if not 0 <= self.timestep < n_steps:
            raise ValueError(f"timestep {self.timestep}: the scheduler has {n_steps}, numbered from 0.")
        if self.ensemble_size < 1:
            raise ValueError(f"ensemble_size {self.ensemble_size} must be at least 1.")
        if self.clip_config is None and (self.concat_clip or self.implicit_caption):
            raise ValueError("concat_clip and implicit_caption need a CLIP vision tower, and there is none.")

    def _check_unet(self) -> None:
        unet, n_blocks = self.unet_config, len(self.unet_config["block_out_channels"])
        if not isinstance(unet.get("cross_attention_dim"), int) or unet.get("addition_embed_type"):
            raise ValueError(
                "The U-Net is conditioned on more than one text (as Stable Diffusion XL's): take one like Stable "
                "Diffusion 1.5's or 2.1's."
            )
        if not 0 <= self.up_block < n_blocks:
            raise ValueError(f"up_block {self.up_block}: the U-Net has {n_blocks}, numbered from 0.")
