"""Tiny random segmenters, each a transformers folder, with weights large enough that prompts make a difference."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    PreTrainedModel,
    Sam2Config,
    Sam2Model,
    Sam2VideoConfig,
    Sam2VideoModel,
    Sam3TrackerConfig,
    Sam3TrackerModel,
    Sam3VideoConfig,
    Sam3VideoModel,
    SamConfig,
    SamHQConfig,
    SamHQModel,
    SamImageProcessorPil,
    SamModel,
)

DECODER = {"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
PROMPTS = {"hidden_size": 32, "image_size": 64}
VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 64,
    "window_size": 2,
    "global_attn_indexes": [1, 2],
    "output_channels": 32,
    "num_pos_feats": 16,
}
HIERA = {
    "backbone_config": {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "image_size": [64, 64],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "blocks_per_stage": [1, 1, 2, 1],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "window_size_per_stage": [4, 2, 2, 2],
        "global_attention_blocks": [3],
        "window_positional_embedding_background_size": [4, 4],
    },
    "backbone_channel_list": [64, 32, 16, 8],
    "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    "fpn_hidden_size": 32,
}
SAM3 = {
    "backbone_config": {
        "model_type": "sam3_vit_model",
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 56,
        "window_size": 2,
        "global_attn_indexes": [1],
        "pretrain_image_size": 28,
    },
    "fpn_hidden_size": 32,
    "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
}
MEMORY = {
    "memory_attention_hidden_size": 32,
    "memory_attention_feed_forward_hidden_size": 32,
    "memory_attention_num_layers": 1,
    "memory_attention_rope_feat_sizes": [4, 4],
    "memory_encoder_hidden_size": 32,
    "memory_encoder_output_channels": 16,
    "mask_downsampler_embed_dim": 32,
    "memory_fuser_embed_dim": 32,
    "memory_fuser_intermediate_dim": 32,
}


def sam() -> SamModel:
    return SamModel(SamConfig(vision_config=VIT, prompt_encoder_config=PROMPTS, mask_decoder_config=DECODER))


def sam_hq() -> SamHQModel:
    decoder = DECODER | {"vit_dim": VIT["hidden_size"]}
    return SamHQModel(SamHQConfig(vision_config=VIT, prompt_encoder_config=PROMPTS, mask_decoder_config=decoder))


def sam2() -> Sam2Model:
    return Sam2Model(Sam2Config(vision_config=HIERA, prompt_encoder_config=PROMPTS, mask_decoder_config=DECODER))


def sam2_video() -> Sam2VideoModel:
    """The kind of folder that the hub has for SAM 2 and 2.1."""
    parts = {"vision_config": HIERA, "prompt_encoder_config": PROMPTS, "mask_decoder_config": DECODER}
    return Sam2VideoModel(Sam2VideoConfig(**parts, **MEMORY, image_size=64))


def sam3_tracker() -> Sam3TrackerModel:
    prompts = {"hidden_size": 32, "image_size": 56}
    return Sam3TrackerModel(
        Sam3TrackerConfig(vision_config=SAM3, prompt_encoder_config=prompts, mask_decoder_config=DECODER)
    )


def sam3_video() -> Sam3VideoModel:
    """The kind of folder that the hub has for SAM 3: its tracker, and a detector that shares the image encoder."""
    small = {"hidden_size": 32, "num_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"vocab_size": 50, "projection_dim": 32, "bos_token_id": 1, "eos_token_id": 2}
    detector = {
        "vision_config": SAM3,
        "text_config": {"model_type": "clip_text_model", **text, **special},
        "geometry_encoder_config": small,
        "detr_encoder_config": small,
        "detr_decoder_config": small | {"num_queries": 4},
        "mask_decoder_config": {"hidden_size": 32, "num_attention_heads": 2},
    }
    prompts = {"hidden_size": 32, "image_size": 56}
    tracker = {"vision_config": SAM3, "prompt_encoder_config": prompts, "mask_decoder_config": DECODER, **MEMORY}
    return Sam3VideoModel(Sam3VideoConfig(detector_config=detector, tracker_config=tracker | {"image_size": 56}))


FAMILIES = {
    "sam": sam,
    "sam_hq": sam_hq,
    "sam2": sam2,
    "sam2_video": sam2_video,
    "sam3_tracker": sam3_tracker,
    "sam3_video": sam3_video,
}


def saved(name: str, folder: Path) -> Path:
    """Build a family's model with random weights and save it, with its processor's settings, into `folder`."""
    torch.manual_seed(0)
    model: PreTrainedModel = FAMILIES[name]()
    for key, parameter in model.named_parameters():
        if parameter.ndim > 1:
            fan_in = parameter[0].numel() if len(parameter) > 1 else 1
            torch.nn.init.normal_(parameter, std=fan_in**-0.5)
        elif key.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    if name == "sam3_video":  # as on the hub; save_pretrained writes tracker_model.tracker_model.…
        weights = {key: weight.clone() for key, weight in model.state_dict().items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    statistics = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3} if "sam3" in name else {}
    SamImageProcessorPil(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}, **statistics).save_pretrained(
        folder
    )
    return folder


def undecided_sam(folder: Path) -> Path:
    """SAM whose scores are so near to each other that the last mask is not always the best."""
    model = SamModel.from_pretrained(saved("sam", folder))
    with torch.no_grad():
        model.mask_decoder.iou_prediction_head.proj_out.bias += torch.tensor([0, 0.3, 0.2, 0])
    model.save_pretrained(folder)
    return folder
