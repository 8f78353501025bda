"""LLaVA-1.5 in its authors' own format: folders as they are released, written from a transformers LLaVA."""

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, LlavaForConditionalGeneration

from tests.tiny import TEXTS
from tests.tiny.llava import llava

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def model() -> LlavaForConditionalGeneration:
    """A 5 x 5 grid; the same weights at every call."""
    return llava(image_side=70)[0]


def write_tokenizer(folder: Path, vocab_size: int) -> None:
    """A SentencePiece model like LLaMA's: BPE, bytes for what it does not know, no normalisation."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=written, model_type="bpe", vocab_size=vocab_size,
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        character_coverage=0.98, minloglevel=2,
    )  # fmt: skip
    (folder / "tokenizer.model").write_bytes(written.getvalue())
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", "legacy": False, **tokens})


def write_tower(folder: Path, llava_model: LlavaForConditionalGeneration) -> None:
    """The vision part within a whole CLIP, as CLIP is on the hub, sizes given as plain numbers."""
    vision_config = llava_model.config.vision_config
    text_config = CLIPTextConfig(vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                                 num_attention_heads=2)  # fmt: skip
    clip = CLIPModel(CLIPConfig(text_config=text_config.to_dict(), vision_config=vision_config.to_dict()))
    clip.vision_model.load_state_dict(llava_model.model.vision_tower.state_dict())
    clip.save_pretrained(folder)
    side = vision_config.image_size
    write_json(
        folder / "preprocessor_config.json",
        {"feature_extractor_type": "CLIPFeatureExtractor", "size": side, "crop_size": side, "do_resize": True,
         "do_center_crop": True, "do_normalize": True, "image_mean": CLIP_MEAN, "image_std": CLIP_STD, "resample": 3},
    )  # fmt: skip


def text_config(llava_model: LlavaForConditionalGeneration) -> dict[str, Any]:
    config = llava_model.config.text_config
    keys = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
            "vocab_size", "rms_norm_eps", "max_position_embeddings", "hidden_act")  # fmt: skip
    return {key: getattr(config, key) for key in keys} | {"rope_theta": 10000.0, "rope_scaling": None}


def config(llava_model: LlavaForConditionalGeneration) -> dict[str, Any]:
    """config.json of a release; its tower lies beside the folder."""
    return text_config(llava_model) | {
        "model_type": "llava_llama", "architectures": ["LlavaLlamaForCausalLM"], "mm_vision_tower": "../tower",
        "mm_projector_type": "mlp2x_gelu", "mm_vision_select_layer": -2, "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False, "mm_use_im_patch_token": False, "image_aspect_ratio": "pad", "mm_hidden_size": 32,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "use_mm_proj": True,
    }  # fmt: skip


def llm_weights(llava_model: LlavaForConditionalGeneration) -> dict[str, Tensor]:
    """Named as a LlamaForCausalLM names them."""
    weights = {f"model.{k}": v.clone() for k, v in llava_model.model.language_model.state_dict().items()}
    return weights | {"lm_head.weight": llava_model.lm_head.weight.detach().clone()}


def projector_weights(llava_model: LlavaForConditionalGeneration) -> dict[str, Tensor]:
    one, two = (getattr(llava_model.model.multi_modal_projector, name) for name in ("linear_1", "linear_2"))
    parts = {"0.weight": one.weight, "0.bias": one.bias, "2.weight": two.weight, "2.bias": two.bias}
    return {f"model.mm_projector.{name}": tensor.detach().clone() for name, tensor in parts.items()}


def write_whole(root: Path, llava_model: LlavaForConditionalGeneration, vocab_size: int | None = None) -> Path:
    """`root/llava` and `root/tower`; returns the former. `vocab_size`: of the tokenizer, the model's unless given."""
    folder = root / "llava"
    folder.mkdir(parents=True)
    write_tower(root / "tower", llava_model)
    write_json(folder / "config.json", config(llava_model))
    write_tokenizer(folder, vocab_size or llava_model.config.text_config.vocab_size)
    save_file(llm_weights(llava_model) | projector_weights(llava_model), folder / "model.safetensors")
    return folder


def write_shards(folder: Path) -> None:
    """The same weights as two .bin shards, with what old checkpoints hold besides: constants, and the vision tower."""
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    tower = model().model.vision_tower.state_dict()
    weights |= {f"model.vision_tower.vision_tower.vision_model.{k}": v.clone() for k, v in tower.items()}
    names = sorted(weights)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for shard, inside in shards.items():
        torch.save({name: weights[name] for name in inside}, folder / shard)
    index = {name: shard for shard, inside in shards.items() for name in inside}
    write_json(folder / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": index})
