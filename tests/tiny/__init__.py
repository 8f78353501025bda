"""Real models, tiny and random, built in code."""

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from aas.lmms.base import LMM

TEXTS = [
    "USER: \nDescribe the image in detail. ASSISTANT: A dog and a cat sit on a wooden bench near the old tree.",
    "Two people ride bicycles along the street, past parked cars and a café with 日本語 signs 🙂🚲.",
] * 4


def byte_level_tokenizer(*more_special: str, vocab_size: int = 400, **named: str) -> PreTrainedTokenizerFast:
    """Ids: 0 <pad>, 1 <s>, 2 </s>, 3 <image>, then `more_special` and `named` in their order.

    `named`: special tokens that become attributes of the tokenizer, as `boi_token="<boi>"`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<image>", *more_special, *named.values()]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>", **named},
    )


def a_photo(size_hw: tuple[int, int] = (60, 90), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), np.uint8)


def photographs(folder: Path, sizes_hw: Sequence[tuple[int, int]]) -> Path:
    """`folder`, new, with 0.png, 1.png, … of these sizes."""
    folder.mkdir(parents=True)
    for i, size_hw in enumerate(sizes_hw):
        Image.fromarray(a_photo(size_hw, seed=i)).save(folder / f"{i}.png")
    return folder


def saved(lmm: LMM, folder: Path) -> Path:
    """`folder`, with the model and its processor as transformers saves them."""
    lmm.model.save_pretrained(folder)
    lmm.processor.save_pretrained(folder)
    return folder


# family -> "module:function" of a builder without arguments that returns an LMM
FAMILIES = {
    "chameleon": "tests.tiny.chameleon:lmm",
    "deepseek_vl": "tests.tiny.deepseek_vl:lmm",
    "deepseek_vl_hybrid": "tests.tiny.deepseek_vl:hybrid",
    "difflmm": "tests.tiny.difflmm:lmm",
    "exaone4_5": "tests.tiny.exaone4_5:lmm",
    "florence2": "tests.tiny.florence2:lmm",
    "gemma3": "tests.tiny.gemma:gemma3",
    "glm46v": "tests.tiny.qwen_vl:glm46v",
    "glm4v": "tests.tiny.qwen_vl:glm4v",
    "glm4v_moe": "tests.tiny.qwen_vl:glm4v_moe",
    "idefics3": "tests.tiny.idefics3:idefics3",
    "internvl": "tests.tiny.internvl:lmm",
    "janus": "tests.tiny.deepseek_vl:janus",
    "llava": "tests.tiny.llava:lmm",
    "llava_next": "tests.tiny.llava_next:lmm",
    "llava_onevision": "tests.tiny.llava_onevision:lmm",
    "mistral3": "tests.tiny.pixtral:mistral3",
    "mllama": "tests.tiny.mllama:lmm",
    "paligemma": "tests.tiny.gemma:paligemma",
    "paligemma2": "tests.tiny.gemma:paligemma2",
    "pixtral": "tests.tiny.pixtral:pixtral",
    "qwen2_5_vl": "tests.tiny.qwen_vl:qwen2_5_vl",
    "qwen2_vl": "tests.tiny.qwen_vl:qwen2_vl",
    "qwen3_5": "tests.tiny.qwen_vl:qwen3_5",
    "qwen3_vl": "tests.tiny.qwen_vl:qwen3_vl",
    "qwen3_vl_moe": "tests.tiny.qwen_vl:qwen3_vl_moe",
    "smolvlm": "tests.tiny.idefics3:smolvlm",
    "vipllava": "tests.tiny.vipllava:lmm",
}


@cache
def family(name: str) -> LMM:
    module, function = FAMILIES[name].split(":")
    return getattr(import_module(module), function)()
