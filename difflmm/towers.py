"""Vision towers: folders of a CLIP or a Stable Diffusion to the weights of a model's `vision_tower`."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlavaImageProcessorPil, PreTrainedConfig

from difflmm.files import COMPUTED, check_whole, local_folder, need_keys, read_json, read_weights
from difflmm.processor import square_image_processor

FEATURE_LAYER = -2  # LLaVA-1.5's
# Of a Stable Diffusion on the hub, which holds the same weights in several formats.
DIFFUSION_FILES = ["*/*.json", "tokenizer/*", "*/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"]

# What a DiffLMM's config.json says in the authors' format.
DIFFUSION_KEYS = (
    "mm_vision_resolution", "mm_vision_sd_timestep", "mm_vision_select_layer", "mm_vision_sd_ensemble_size",
)  # fmt: skip


@dataclass(frozen=True)
class Tower:
    """A visual encoder, loaded: `weights` are named as in a model behind `model.vision_tower.`. `feature_layer`: of a
    CLIP, the hidden state that is the image's features, counted from the end if negative."""

    config: PreTrainedConfig
    weights: dict[str, Tensor]
    image_processor: LlavaImageProcessorPil
    feature_layer: int = FEATURE_LAYER

    @property
    def is_clip(self) -> bool:
        """Otherwise a diffusion encoder."""
        return isinstance(self.config, CLIPVisionConfig)

    @property
    def n_cells(self) -> int:
        """How many image tokens it makes."""
        side = self.config.image_size if self.is_clip else self.config.resolution
        return (side // self.config.patch_size) ** 2


def clip_tower(name: str, do_pad: bool, beside: Path | None = None, feature_layer: int | None = FEATURE_LAYER) -> Tower:
    """A CLIP of a folder (also one `beside` a checkpoint) or Hugging Face id. `do_pad`: images to a square; otherwise
    their centre is seen. Raises ValueError or FileNotFoundError for what is none, or not whole, and for a layer that it
    does not have."""
    folder, config, weights = _clip(name, beside)
    n = config.num_hidden_layers
    if type(feature_layer) is not int or not -n - 1 <= feature_layer <= n:
        raise ValueError(
            f"{beside or folder}: mm_vision_select_layer {feature_layer!r} is none of the {n} layers of {name}."
        )
    read_json(folder / "preprocessor_config.json")  # its absence is told in our words
    image_processor = LlavaImageProcessorPil.from_pretrained(folder, do_pad=do_pad)
    return Tower(config, weights, image_processor, feature_layer)


def _clip(name: str, beside: Path | None) -> tuple[Path, CLIPVisionConfig, dict[str, Tensor]]:
    """The vision part of a CLIP. A whole one, or an older file, names it `vision_model.…`."""
    folder = local_folder("vision tower", name, beside)
    tower_type = read_json(folder / "config.json").get("model_type")
    if tower_type not in ("clip", "clip_vision_model"):
        raise ValueError(f"{beside or folder}: its vision tower {name} is a {tower_type!r}, not a CLIP.")
    weights, prefix = read_weights(folder), "vision_model."
    if any(name.startswith(prefix) for name in weights):
        weights = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    weights = {k: v for k, v in weights.items() if not f".{k}".endswith(COMPUTED)}
    return folder, CLIPVisionConfig.from_pretrained(folder), weights


def diffusion_tower_of(folder: Path, config: dict[str, Any], dtype: torch.dtype) -> Tower:
    """That of a DiffLMM checkpoint in the authors' format."""
    need_keys(folder / "config.json", config, DIFFUSION_KEYS)
    concat, caption = config.get("mm_vision_sd_concat_clip", False), config.get("mm_vision_sd_implicit_caption", False)
    tower = diffusion_tower(
        config["mm_vision_tower"],
        config.get("mm_vision_sd_clip") if concat or caption else None,
        dtype,
        beside=folder,
        image_processor={"do_pad": config.get("image_aspect_ratio") == "pad", "as_released": True},
        resolution=config["mm_vision_resolution"],
        timestep=config["mm_vision_sd_timestep"],
        up_block=config["mm_vision_select_layer"],
        ensemble_size=config["mm_vision_sd_ensemble_size"],
        concat_clip=concat,
        implicit_caption=caption,
        positions=bool(config.get("mm_vision_sd_pe")),
    )
    n_positions = config.get("mm_vision_sd_pe") or tower.n_cells
    if n_positions != tower.n_cells:
        raise ValueError(
            f"{folder}: mm_vision_sd_pe is {n_positions}, but the encoder makes {tower.n_cells} image tokens."
        )
    return tower


def need_diffusers() -> None:
    """ValueError that says how to install diffusers; where it is, transformers knows `difflmm` as a type of model."""
    if find_spec("diffusers") is None:
        raise ValueError('DiffLMM needs diffusers: pip install "attend-and-segment[difflmm]"')
    import difflmm.model  # noqa: F401  registers it


def diffusion_tower(
    diffusion: str,
    clip: str | None,
    dtype: torch.dtype,
    beside: Path | None = None,
    image_processor: dict[str, bool] | None = None,
    **encoder: Any,
) -> Tower:
    """A Stable Diffusion and a CLIP, each a folder (also one `beside` a checkpoint) or Hugging Face id, without CLIP's
    last layer and what else the encoder does not need. `image_processor`: options of `square_image_processor`;
    `encoder`: fields of `DiffusionEncoderConfig`. Raises ValueError or FileNotFoundError."""
    need_diffusers()
    from difflmm.encoder_config import DiffusionEncoderConfig

    folder = local_folder("vision tower", diffusion, beside, DIFFUSION_FILES)
    clip_config: CLIPVisionConfig | None = None
    clip_weights: dict[str, Tensor] = {}
    if clip is not None:
        _, clip_config, clip_weights = _clip(clip, beside)
        _drop_last_layer(clip_config, clip_weights)
    config = DiffusionEncoderConfig(
        unet_config=_own_config(folder / "unet/config.json"),
        vae_config=_own_config(folder / "vae/config.json"),
        scheduler_config=_own_config(folder / "scheduler/scheduler_config.json"),
        clip_config=clip_config,
        **encoder,
    )
    config.check()
    weights = {f"clip.{name}": weight for name, weight in clip_weights.items()} | _diffusion_weights(
        folder, config.up_block, dtype
    )
    if not config.implicit_caption:
        weights["null_caption"] = _null_caption(folder, dtype)
    return Tower(config, weights, square_image_processor(config.resolution, **(image_processor or {})))


def _diffusion_weights(folder: Path, up_block: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Those of U-Net and VAE that the encoder needs."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    from difflmm.encoder import unet_until, vae_encoder

    unet = unet_until(_read_part(UNet2DConditionModel, folder / "unet", dtype), up_block)
    vae = vae_encoder(_read_part(AutoencoderKL, folder / "vae", dtype))
    weights = {f"unet.{name}": weight for name, weight in unet.state_dict().items()}
    return weights | {f"vae.{name}": weight for name, weight in vae.state_dict().items()}


def _own_config(path: Path) -> dict[str, Any]:
    """Without diffusers' notes."""
    return {key: value for key, value in read_json(path).items() if not key.startswith("_")}


def _drop_last_layer(config: CLIPVisionConfig, weights: dict[str, Tensor]) -> None:
    """A tower is read behind its last layer but one."""
    config.num_hidden_layers -= 1
    for name in [name for name in weights if name.startswith(f"encoder.layers.{config.num_hidden_layers}.")]:
        del weights[name]


def _read_part(part_class: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A part of a Stable Diffusion; diffusers knows the names of its older versions."""
    options = {"torch_dtype": dtype, "output_loading_info": True}
    is_safe = (folder / "diffusion_pytorch_model.safetensors").is_file()  # otherwise .bin, read as tensors only
    try:
        part, info = part_class.from_pretrained(folder, use_safetensors=is_safe, **options)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{folder} cannot be loaded, get it again: {reason[:300]}") from error
    check_whole(f"The tower {folder}", sorted(info["missing_keys"]), sorted(info["unexpected_keys"]))
    return part


@torch.no_grad()
def _null_caption(folder: Path, dtype: torch.dtype) -> Tensor:
    """What the text encoder makes of the empty prompt [77, width]: the U-Net's text where there is no caption."""
    from transformers import CLIPTextModel, CLIPTokenizer

    from difflmm.encoder_config import NULL_CAPTION_TOKENS

    read_json(folder / "text_encoder/config.json")  # its absence is told in our words
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder").eval()
    tokens = tokenizer("", padding="max_length", max_length=NULL_CAPTION_TOKENS, return_tensors="pt")
    return encoder(tokens["input_ids"]).last_hidden_state[0].to(dtype)
