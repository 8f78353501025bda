"""A tiny LLM, Stable Diffusion and CLIP, random, and pictures to learn: all that training needs, without a download.

Coloured squares on grey, with sentences that name the colour and the place.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

SIDE = 64  # of a picture, in pixels; the grid is 4 x 4
COLOURS = {"red": (220, 30, 30), "green": (30, 160, 40), "blue": (40, 60, 220), "yellow": (230, 210, 40)}
PLACES = {"on the left": 2, "on the right": 34}  # the square's first column of pixels
SQUARE = 28  # its side
QUESTION = "What is in the picture?"


def write_models(folder: Path) -> dict[str, str]:
    """`folder/llm`, `folder/diffusion` and `folder/clip`, the same at every call; returns them by the names that a
    recipe has for them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _write_llm(folder / "llm")
        _write_diffusion(folder / "diffusion")
        _write_clip(folder / "clip")
    return {name: str(folder / name) for name in ("llm", "diffusion", "clip")}


def write_pictures(folder: Path, n: int = 128) -> Path:
    """`n` pictures and `data.json`, which it returns: LLaVA's format, every picture with one question and answer."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    kinds = [(colour, place) for colour in COLOURS for place in PLACES]
    for i in range(n):
        colour, place = kinds[i % len(kinds)]
        _picture(colour, place, grey=90 + i * 37 % 80, top=2 + i * 11 % 34).save(folder / f"{i:04}.png")
        rows.append(_row(f"{i:04}", f"A {colour} square {place}."))
    path = folder / "data.json"
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return path


def _picture(colour: str, place: str, grey: int, top: int) -> Image.Image:
    picture = Image.new("RGB", (SIDE, SIDE), (grey, grey, grey))
    picture.paste(COLOURS[colour], (PLACES[place], top, PLACES[place] + SQUARE, top + SQUARE))
    return picture


def _row(name: str, answer: str) -> dict[str, Any]:
    turns = [("human", f"<image>\n{QUESTION}"), ("gpt", answer)]
    conversation = [{"from": who, "value": text} for who, text in turns]
    return {"id": name, "image": f"{name}.png", "conversations": conversation}


def _sentences() -> Iterator[str]:
    from difflmm.processor import CHAT_TEMPLATE

    for colour in COLOURS:
        for place in PLACES:
            yield f"USER: {QUESTION} ASSISTANT: A {colour} square {place}."
    yield CHAT_TEMPLATE


def _write_llm(folder: Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sentences(), trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        initializer_range=0.3,  # large, so that a head that is never trained can be sure of a word
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)


def _write_diffusion(folder: Path) -> None:
    """Of Stable Diffusion's shape; an 8 x 8 latent."""
    UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16, 16, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=2,
        cross_attention_dim=16,
    ).save_pretrained(folder / "unet")  # fmt: skip
    AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=(4, 8, 8, 8), layers_per_block=1, norm_num_groups=4, latent_channels=4,
    ).save_pretrained(folder / "vae")  # fmt: skip
    DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False).save_pretrained(
        folder / "scheduler"
    )


def _write_clip(folder: Path) -> None:
    """A whole one, as CLIP is on the hub; its text part is not used."""
    text = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    text |= {"bos_token_id": 0, "eos_token_id": 1}
    vision = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3, "image_size": 56, "patch_size": 14}
    heads = {"num_attention_heads": 2}
    CLIPModel(CLIPConfig(text_config=text | heads, vision_config=vision | heads)).save_pretrained(folder)
    size = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
    CLIPImageProcessorPil(**size).save_pretrained(folder)
