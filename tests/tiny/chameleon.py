"""Chameleon."""

import torch
from torch import nn
from transformers import (
    ChameleonConfig,
    ChameleonForConditionalGeneration,
    ChameleonImageProcessorPil,
    ChameleonProcessor,
    ChameleonVQVAEConfig,
)

from aas.lmms.chameleon import Chameleon
from tests.tiny import byte_level_tokenizer

SIDE, N_CODES = 32, 64  # pixels, an 8 x 8 grid; words for patches
SPREAD = 0.005  # of the words for patches


@torch.no_grad()
def look_locally(vqmodel: nn.Module) -> None:
    """A random encoder normalises the image as a whole, and every patch would change its word when a square is planted.

    Here a patch has word 0 unless it differs much from the rest of the image.
    """
    for name, parameter in vqmodel.named_parameters():
        if name.endswith(("conv2.weight", "proj_out.weight")):  # residual branches see the edge
            parameter.zero_()
        elif name.endswith("downsample.conv.weight"):  # sampling down: the window reaches into the next cell
            parameter[:, :, 2].zero_()
            parameter[..., 2].zero_()
        elif name.endswith(("conv_in.weight", "conv_out.weight")):
            centre = parameter[:, :, 1, 1].clone()
            parameter.zero_()[:, :, 1, 1] = centre
    words = vqmodel.quantize.embedding.weight
    words.mul_(SPREAD / words.norm(dim=1, keepdim=True))
    words[0] = 0


def lmm() -> Chameleon:
    torch.manual_seed(0)
    # The words that Chameleon's tokenizer has for patches: digits as letters, an end mark.
    words = ["IMGIMG" + "".join("ABCDEFGHIJ"[int(d)] for d in str(i)) + "Z" for i in range(N_CODES)]
    tokenizer = byte_level_tokenizer("<racm3:break>", "<eoss>", "<reserved08706>", *words, vocab_size=480)
    tokenizer.sep_token = "<reserved08706>"
    vocabulary = {word: tokenizer.convert_tokens_to_ids(word) for word in ["<image>", *words]}
    config = ChameleonConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        initializer_range=0.3, vocabulary_map=vocabulary,
        vq_config=ChameleonVQVAEConfig(
            embed_dim=8, num_embeddings=N_CODES, latent_channels=32, resolution=SIDE, base_channels=32,
            channel_multiplier=(1, 1, 1), num_res_blocks=1,
        ),
    )  # fmt: skip
    model = ChameleonForConditionalGeneration(config).eval()
    look_locally(model.model.vqmodel)
    model.generation_config.update(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    image_processor = ChameleonImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    return Chameleon(model, ChameleonProcessor(image_processor, tokenizer, image_seq_length=64), "tiny chameleon")
