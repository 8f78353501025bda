"""DiffLMM with a random diffusion encoder of Stable Diffusion's shape: 128 px, a 16 x 16 latent, an 8 x 8 grid; and
its authors' release format."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from aas.lmms.difflmm import DiffLMM
from difflmm.encoder_config import DiffusionEncoderConfig
from difflmm.model import DiffLMMConfig, DiffLMMForConditionalGeneration
from difflmm.processor import make_processor, square_image_processor
from tests.tiny import byte_level_tokenizer
from tests.tiny.llava_original import llm_weights, write_json, write_tokenizer

SIDE, GRID_SIDE, CAPTION_WIDTH = 128, 8, 16


def unet(**changes: Any) -> UNet2DConditionModel:
    torch.manual_seed(0)
    blocks = {"block_out_channels": (8, 16, 16, 16), "layers_per_block": 1, "norm_num_groups": 4}
    settings = {"sample_size": 16, "attention_head_dim": 2, "cross_attention_dim": CAPTION_WIDTH} | blocks
    return UNet2DConditionModel(**(settings | changes)).eval()


def vae() -> AutoencoderKL:
    torch.manual_seed(1)
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=(4, 8, 8, 8), layers_per_block=1, norm_num_groups=4, latent_channels=4,
    ).eval()  # fmt: skip


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)


def clip(n_layers: int = 3) -> CLIPVisionModel:
    torch.manual_seed(2)
    config = CLIPVisionConfig(hidden_size=24, intermediate_size=32, num_hidden_layers=n_layers, num_attention_heads=2,
                              image_size=14 * GRID_SIDE, patch_size=14)  # fmt: skip
    return CLIPVisionModel(config).eval()


def text_encoder() -> CLIPTextModel:
    torch.manual_seed(3)
    config = CLIPTextConfig(vocab_size=100, hidden_size=CAPTION_WIDTH, intermediate_size=16, num_hidden_layers=1,
                            num_attention_heads=2, bos_token_id=98, eos_token_id=99)  # fmt: skip
    return CLIPTextModel(config).eval()


def encoder_config(**changes: Any) -> DiffusionEncoderConfig:
    configs = {"unet_config": unet().config, "vae_config": vae().config, "scheduler_config": scheduler().config}
    settings: dict[str, Any] = {name: dict(config) for name, config in configs.items()}
    settings |= {"clip_config": clip(2).config, "resolution": SIDE}
    return DiffusionEncoderConfig(**(settings | changes))


def text_config(vocab_size: int) -> LlamaConfig:
    return LlamaConfig(vocab_size=vocab_size, hidden_size=64, intermediate_size=96, num_hidden_layers=3,
                       num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, bos_token_id=1,
                       eos_token_id=2, pad_token_id=0, initializer_range=0.2)  # fmt: skip


def model(vocab_size: int = 400, image_id: int = 3, **encoder: Any) -> DiffLMMForConditionalGeneration:
    torch.manual_seed(4)
    vision = encoder_config(**encoder)
    built = DiffLMMForConditionalGeneration(
        DiffLMMConfig(vision_config=vision, text_config=text_config(vocab_size), image_token_index=image_id,
                      image_seq_length=vision.grid_side**2)
    ).eval()  # fmt: skip
    for name, parameter in built.named_parameters():
        if name.endswith(("positions", "bias")):  # which begin with zeros
            torch.nn.init.normal_(parameter, std=0.1)
    built.generation_config.update(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    return built


def lmm() -> DiffLMM:
    tokenizer = byte_level_tokenizer()
    built = model(len(tokenizer))
    patch = built.config.vision_config.patch_size
    return DiffLMM(built, make_processor(tokenizer, square_image_processor(SIDE), patch, False), "tiny difflmm")


# ---- the authors' release format ---------------------------------------------------------------------------------


def write_stable_diffusion(folder: Path) -> Path:
    for name, part in {"unet": unet(), "vae": vae(), "text_encoder": text_encoder()}.items():
        part.save_pretrained(folder / name)
    scheduler().save_pretrained(folder / "scheduler")
    tokens = {"<|startoftext|>": 98, "<|endoftext|>": 99} | {chr(97 + i): i for i in range(26)}
    (folder / "tokenizer").mkdir()
    write_json(folder / "tokenizer/vocab.json", tokens)
    (folder / "tokenizer/merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer.from_pretrained(folder / "tokenizer").save_pretrained(folder / "tokenizer")
    return folder


def release_config(**changes: Any) -> dict[str, Any]:
    text = text_config(400)
    keys = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
            "vocab_size", "rms_norm_eps", "max_position_embeddings", "hidden_act")  # fmt: skip
    vision = {
        "mm_vision_tower": "../sd", "mm_projector_type": "SDCLIPBlock", "mm_vision_select_layer": 1,
        "mm_vision_select_feature": "patch", "mm_use_im_start_end": False, "image_aspect_ratio": "pad",
        "mm_vision_resolution": SIDE, "mm_vision_sd_clip": "../clip", "mm_vision_sd_concat_clip": True,
        "mm_vision_sd_implicit_caption": True, "mm_vision_sd_pe": GRID_SIDE**2, "mm_vision_sd_timestep": 100,
        "mm_vision_sd_ensemble_size": 1,
    }  # fmt: skip
    return {"model_type": "llava_llama", **{key: getattr(text, key) for key in keys}, **vision, **changes}


def projector_weights(built: DiffLMMForConditionalGeneration) -> dict[str, torch.Tensor]:
    """Under the authors' names; the projector's first linear layer as the 1 x 1 convolution that it is there."""
    projector, captioner = built.model.multi_modal_projector, built.model.vision_tower.captioner
    modules = {"clip_projector.0": captioner.linear_1, "clip_projector.2": captioner.linear_2,
               "sd_norm_layer": projector.norm, "sd_proj_layer.0": projector.narrow, "linear.0": projector.linear_1,
               "linear.2": projector.linear_2}  # fmt: skip
    weights = {f"{name}.{k}": v.clone() for name, module in modules.items() for k, v in module.state_dict().items()}
    weights["sd_proj_layer.0.weight"] = weights["sd_proj_layer.0.weight"][:, :, None, None]
    weights |= {"vt_pe": projector.positions.detach().clone(), "clip_pe": captioner.positions.detach().clone()}
    return {f"model.mm_projector.{name}": weight for name, weight in weights.items()}


def write_release(root: Path) -> tuple[Path, Path, DiffLMMForConditionalGeneration]:
    """The LoRA folder, its base, and the model that they are together, its LoRA merged by peft. The towers stand in
    `root/sd` and `root/clip`."""
    torch.manual_seed(5)
    twin, folder, base = model(), root / "difflmm-lora", root / "llm"
    base.mkdir(parents=True)
    write_stable_diffusion(root / "sd")
    clip().save_pretrained(root / "clip")
    square_image_processor(14 * GRID_SIDE).save_pretrained(root / "clip")
    text = release_config()
    write_json(base / "config.json", {k: v for k, v in text.items() if "mm_" not in k} | {"model_type": "llama"})
    write_tokenizer(base, 400)
    save_file(llm_weights(twin), base / "model.safetensors")

    llm = LlamaForCausalLM(twin.config.text_config)
    llm.load_state_dict(llm_weights(twin))
    layers = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    settings = LoraConfig(r=4, lora_alpha=8, target_modules=layers, init_lora_weights=False, task_type="CAUSAL_LM")
    trained = get_peft_model(llm, settings)
    trained.save_pretrained(folder)
    write_json(folder / "config.json", release_config())
    beside = {f"base_model.model.{name}": weight for name, weight in projector_weights(twin).items()}
    torch.save(beside, folder / "non_lora_trainables.bin")

    merged = trained.merge_and_unload()
    twin.model.language_model.load_state_dict(merged.model.state_dict())
    twin.lm_head.load_state_dict(merged.lm_head.state_dict())
    tower = twin.model.vision_tower
    for part, whole in ((tower.unet, unet()), (tower.vae, vae()), (tower.clip, clip())):
        kept = part.state_dict().keys()
        part.load_state_dict({name: weight for name, weight in whole.state_dict().items() if name in kept})
    return folder, base, twin
