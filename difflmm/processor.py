"""Images and words to inputs, as LLaVA-1.5's authors make them: LLaVA's own processor, set up for it."""

from pathlib import Path

from tokenizers import normalizers
from transformers import (
    AutoTokenizer,
    LlamaTokenizer,
    LlavaImageProcessorPil,
    LlavaProcessor,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

IMAGE_TOKEN = "<image>"
# The conversation "llava_v1". It speaks of a human; "vicuna_v1", which transformers' LLaVA-1.5 uses, is the same with
# "user", and its maps differ.
CHAT_TEMPLATE = (
    "{{ bos_token }}A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions. "
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: {% else %}ASSISTANT: {% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}"
    "{% if message['role'] == 'user' %}{{ ' ' }}{% else %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def tokenizer_with_image(folder: Path) -> PreTrainedTokenizerBase:
    """The LLM's tokenizer, with a token for the image at the end.

    Of a SentencePiece model (LLaMA's), each piece of text gets a space in front: transformers adds none before text
    that begins with one, but SentencePiece, and so the authors' tokenizer, always does.
    """
    if (folder / "tokenizer.model").is_file():
        tokenizer = _sentence_piece_tokenizer(folder)
    elif (folder / "tokenizer.json").is_file():
        tokenizer = AutoTokenizer.from_pretrained(folder)
    else:  # of which transformers would make an empty one
        raise FileNotFoundError(f"{folder} has no tokenizer: there is none of tokenizer.model, tokenizer.json.")
    tokenizer.add_special_tokens({"extra_special_tokens": [IMAGE_TOKEN]})
    return tokenizer


def _sentence_piece_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    llama = LlamaTokenizer.from_pretrained(folder)
    backend = llama.backend_tokenizer
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.pre_tokenizer = None
    # Not a LlamaTokenizer: that one would put its own rule for spaces back whenever it is loaded again.
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=llama.model_max_length,
        padding_side=llama.padding_side,
        clean_up_tokenization_spaces=False,
        **llama.special_tokens_map,
    )


def make_processor(
    tokenizer: PreTrainedTokenizerBase, image_processor: LlavaImageProcessorPil, patch_size: int, has_cls: bool
) -> LlavaProcessor:
    """`patch_size`: pixels to a side of an image token; `has_cls`: the tower makes one more, which is dropped."""
    return LlavaProcessor(
        image_processor,
        tokenizer,
        patch_size=patch_size,
        vision_feature_select_strategy="default" if has_cls else "full",
        num_additional_image_tokens=int(has_cls),
        chat_template=CHAT_TEMPLATE,
    )


def square_image_processor(side: int, do_pad: bool = True, as_released: bool = False) -> LlavaImageProcessorPil:
    """For the diffusion encoder: a square in [-1, 1], padded with grey, or the image's centre if not `do_pad`.

    `as_released`: as the authors' weights were trained. Their code asks for [-1, 1] by arguments that transformers
    ignores, so that what the encoder takes for [-1, 1] is normalised with CLIP's statistics and padded with CLIP's
    mean colour.
    """
    mean, std = (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD) if as_released else ([0.5] * 3, [0.5] * 3)
    square = {"height": side, "width": side}
    return LlavaImageProcessorPil(
        do_pad=do_pad, size={"shortest_edge": side}, crop_size=square, image_mean=mean, image_std=std
    )
