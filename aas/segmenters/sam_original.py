"""segment-anything's own checkpoints (`sam_vit_b|l|h*.pth`, and whatever else was trained with that code).

Such a file holds weights and nothing else: the architecture's sizes are read from their shapes.
"""

import json
import pickle
import re
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import SamConfig, SamModel

from aas.model_files import check_no_pointer
from aas.segmenters.sam import SamSegmenter

PIXEL_MEAN, PIXEL_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NO_OTHER_SAM = "A SAM 2 or 3 is given as a transformers folder or id, as facebook/sam2.1-hiera-large."
DECODER_HEADS, DECODER_WIDTH = 8, 256  # of every published SAM; how many heads there are, no weight's shape tells

# segment-anything's names -> transformers', applied in this order to each name
RENAMED = [
    (r"^image_encoder\.", "vision_encoder."),
    (r"^vision_encoder\.blocks\.", "vision_encoder.layers."),
    (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
    (r"^vision_encoder\.neck\.0\.", "vision_encoder.neck.conv1."),
    (r"^vision_encoder\.neck\.1\.", "vision_encoder.neck.layer_norm1."),
    (r"^vision_encoder\.neck\.2\.", "vision_encoder.neck.conv2."),
    (r"^vision_encoder\.neck\.3\.", "vision_encoder.neck.layer_norm2."),
    (r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$", "shared_image_embedding.positional_embedding"),
    (r"^prompt_encoder\.point_embeddings\.", "prompt_encoder.point_embed."),
    (r"^prompt_encoder\.mask_downscaling\.0\.", "prompt_encoder.mask_embed.conv1."),
    (r"^prompt_encoder\.mask_downscaling\.1\.", "prompt_encoder.mask_embed.layer_norm1."),
    (r"^prompt_encoder\.mask_downscaling\.3\.", "prompt_encoder.mask_embed.conv2."),
    (r"^prompt_encoder\.mask_downscaling\.4\.", "prompt_encoder.mask_embed.layer_norm2."),
    (r"^prompt_encoder\.mask_downscaling\.6\.", "prompt_encoder.mask_embed.conv3."),
    (r"^mask_decoder\.output_upscaling\.0\.", "mask_decoder.upscale_conv1."),
    (r"^mask_decoder\.output_upscaling\.1\.", "mask_decoder.upscale_layer_norm."),
    (r"^mask_decoder\.output_upscaling\.3\.", "mask_decoder.upscale_conv2."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
]
SHARED = "shared_image_embedding.positional_embedding"
SHARED_TOO = "prompt_encoder.shared_embedding.positional_embedding"  # transformers ties it to the other


def load_sam_checkpoint(
    path: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> SamSegmenter:
    """The segmenter of a checkpoint file. Raises ValueError for a damaged file and for any other kind of checkpoint;
    every weight of the file is used, or the error lists those that are not."""
    check_no_pointer(path)
    weights = read_tensors(path, "SAM of segment-anything", NO_OTHER_SAM)
    try:
        config = _config(weights, path)
        with torch.device("meta"):
            model = SamModel(config)
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(f"{path} is no SAM of segment-anything: {_what_it_is(weights, error)}") from error
    model.load_state_dict(_renamed(weights, model, path), assign=True)
    return SamSegmenter(model.to(device), PIXEL_MEAN, PIXEL_STD, dtype)


def read_tensors(path: Path, what: str, advice: str = "") -> dict[str, Tensor]:
    """All tensors of a file of torch.save by name. Nothing but tensors is ever unpickled. ValueError, with what
    the file should be and where else to look, for any other content."""
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError as error:  # torch's message advises to load it all the same
        raise ValueError(f"{path} is damaged, or holds Python objects, which are never loaded: get weights.") from error
    except Exception as error:  # torch's own, zipfile's, EOFError: by where the file ends
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{path} is damaged or cut off ({reason}): get the file again.") from error
    weights = _unwrapped(weights)
    if not isinstance(weights, dict) or not all(isinstance(weight, Tensor) for weight in weights.values()):
        found = ", ".join(map(str, weights)) if isinstance(weights, dict) else type(weights).__name__
        raise ValueError(
            f"{path} is no {what}, which holds weights by name; this file holds {shortened(found)}. {advice}".rstrip()
        )
    return weights


def _unwrapped(content: Any) -> Any:
    """The weights of what training code saved around them: under `model` or `state_dict`, and behind `module.`."""
    for wrapping in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(wrapping), dict):
            content = content[wrapping]
    if isinstance(content, dict) and content and all(str(name).startswith("module.") for name in content):
        return {name.removeprefix("module."): weight for name, weight in content.items()}
    return content


def _config(weights: dict[str, Tensor], path: Path) -> SamConfig:
    """The architecture by the shapes of `weights`. KeyError, ValueError or IndexError where they are not SAM's."""
    encoder, prompts, decoder = (
        {name.removeprefix(f"{part}."): weight.shape for name, weight in weights.items()}
        for part in ("image_encoder", "prompt_encoder", "mask_decoder")
    )
    vision = _vision_config(encoder)
    vision["num_pos_feats"] = prompts["pe_layer.positional_encoding_gaussian_matrix"][1]
    prompt = {
        "hidden_size": vision["output_channels"],
        "image_size": vision["image_size"],
        "patch_size": vision["patch_size"],
        "mask_input_channels": prompts["mask_downscaling.3.weight"][0],
    }
    width = decoder["iou_token.weight"][1]
    return SamConfig(
        vision_config=vision,
        prompt_encoder_config=prompt,
        mask_decoder_config=_decoder_config(decoder, width) | {"num_attention_heads": _decoder_heads(width, path)},
    )


def _vision_config(encoder: dict[str, torch.Size]) -> dict[str, Any]:
    _, grid, _, hidden = encoder["pos_embed"]
    patch = encoder["patch_embed.proj.weight"][-1]
    # A relative position table has 2 * side - 1 rows; its side is the window's, or the whole grid's.
    tables = [encoder[f"blocks.{i}.attn.rel_pos_h"] for i in range(_count(encoder, r"blocks\.(\d+)\."))]
    sides = [(rows + 1) // 2 for rows, _ in tables]
    return {
        "hidden_size": hidden,
        "output_channels": encoder["neck.0.weight"][0],
        "num_hidden_layers": len(tables),
        "num_attention_heads": hidden // tables[0][1],
        "image_size": grid * patch,
        "patch_size": patch,
        "qkv_bias": "blocks.0.attn.qkv.bias" in encoder,
        "window_size": min(sides) if min(sides) < grid else 0,
        "global_attn_indexes": [i for i, side in enumerate(sides) if side == grid],
        "mlp_dim": encoder["blocks.0.mlp.lin1.weight"][0],
    }


def _decoder_config(decoder: dict[str, torch.Size], width: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "mlp_dim": decoder["transformer.layers.0.mlp.lin1.weight"][0],
        "num_hidden_layers": _count(decoder, r"transformer\.layers\.(\d+)\."),
        "attention_downsample_rate": width // decoder["transformer.final_attn_token_to_image.q_proj.weight"][0],
        "num_multimask_outputs": decoder["mask_tokens.weight"][0] - 1,
        "iou_head_depth": _count(decoder, r"iou_prediction_head\.layers\.(\d+)\."),
        "iou_head_hidden_dim": decoder["iou_prediction_head.layers.0.weight"][0],
        "layer_norm_eps": 1e-5,  # segment-anything's; transformers' default is 1e-6
    }


def _count(names: dict[str, Any], pattern: str) -> int:
    return len({match[1] for name in names if (match := re.match(pattern, name))})


def _decoder_heads(width: int, path: Path) -> int:
    """From the transformers config beside the file if there is one of this width, otherwise what every SAM has."""
    with suppress(OSError, ValueError, KeyError, TypeError):  # it may be missing, or of some other model
        decoder = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))["mask_decoder_config"]
        if decoder["hidden_size"] == width:
            return decoder["num_attention_heads"]
    if width != DECODER_WIDTH:
        warnings.warn(
            f"{path}: taking {DECODER_HEADS} attention heads for its decoder, which is not of the usual width and "
            "whose weights do not tell; if that is wrong, put the model's transformers config.json beside the file.",
            stacklevel=2,
        )
    return DECODER_HEADS


def _renamed(weights: dict[str, Tensor], model: SamModel, path: Path) -> dict[str, Tensor]:
    """The weights under transformers' names, all of the right shape; each of them, and none besides."""
    expected = {name: parameter.shape for name, parameter in model.state_dict().items()}
    n_iou_layers = model.config.mask_decoder_config.iou_head_depth
    found = {transformers_name(name, n_iou_layers): (name, weight.float()) for name, weight in weights.items()}
    wrong = [name for new, (name, weight) in found.items() if expected.get(new) != weight.shape]
    missing = [name for name in expected if name not in found and name != SHARED_TOO]
    if wrong or missing:
        raise ValueError(
            f"{path} is no SAM of segment-anything."
            + (f" {len(wrong)} weights are not SAM's: {shortened(', '.join(wrong))}." if wrong else "")
            + (f" {len(missing)} are missing: {shortened(', '.join(missing))}." if missing else "")
        )
    return {name: weight for name, (_, weight) in found.items()} | {SHARED_TOO: found[SHARED][1]}


def transformers_name(name: str, n_iou_layers: int) -> str:
    """Of a weight that segment-anything calls `name`; the head that judges masks has so many layers."""
    for pattern, new in RENAMED:
        name = re.sub(pattern, new, name)
    mlp = re.match(r"(mask_decoder\.(?:iou_prediction_head|output_hypernetworks_mlps\.\d+))\.layers\.(\d+)\.(.*)", name)
    if not mlp:
        return name
    # transformers names the first and the last layer of these; the masks' have always three.
    place, last = int(mlp[2]), (n_iou_layers if "iou" in mlp[1] else 3) - 1
    layer = "proj_in" if place == 0 else "proj_out" if place == last else f"layers.{place - 1}"
    return f"{mlp[1]}.{layer}.{mlp[3]}"


def _what_it_is(weights: dict[str, Tensor], error: Exception) -> str:
    if any(name.startswith("image_encoder.trunk.") for name in weights):
        return "it is a SAM 2; give its transformers folder or id, as facebook/sam2.1-hiera-large."
    lacking = f"it lacks {error}. " if isinstance(error, KeyError) else f"{error}. "
    return f"{lacking}It holds {len(weights)} weights: {shortened(', '.join(weights))}."


def shortened(names: str, limit: int = 1000) -> str:
    """A list of names that fits into an error."""
    return names if len(names) <= limit else f"{names[:limit]} …"
