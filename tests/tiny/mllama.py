"""Mllama (Llama 3.2 Vision)."""

import torch
from transformers import MllamaConfig, MllamaForConditionalGeneration, MllamaImageProcessorPil, MllamaProcessor
from transformers.models.mllama.configuration_mllama import MllamaTextConfig, MllamaVisionConfig

from aas.lmms.mllama import Mllama
from tests.tiny import byte_level_tokenizer

TILE, PATCH = 32, 8  # pixels; a 4 x 4 grid in each of up to 4 tiles
CROSS_LAYERS = [1, 3]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}user\n\n{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endfor %} assistant\n\n"
)


def lmm() -> Mllama:
    torch.manual_seed(0)
    tokenizer = byte_level_tokenizer()
    config = MllamaConfig(
        vision_config=MllamaVisionConfig(
            hidden_size=32, num_hidden_layers=2, num_global_layers=1, attention_heads=2, intermediate_size=64,
            vision_output_dim=64, image_size=TILE, patch_size=PATCH, intermediate_layers_indices=[0],
        ),
        text_config=MllamaTextConfig(
            vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=2, intermediate_size=128, max_position_embeddings=512,
            cross_attention_layers=CROSS_LAYERS, bos_token_id=1, eos_token_id=2, pad_token_id=0,
            initializer_range=0.3,
        ),
        image_token_index=3,
    )  # fmt: skip
    model = MllamaForConditionalGeneration(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith(("cross_attn_attn_gate", "cross_attn_mlp_gate")):  # closed before training
            torch.nn.init.ones_(parameter)
    model.generation_config.update(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    image_processor = MllamaImageProcessorPil(size={"height": TILE, "width": TILE})
    return Mllama(model, MllamaProcessor(image_processor, tokenizer, CHAT_TEMPLATE), "tiny mllama")


def attentions(output) -> list[torch.Tensor]:
    """Of the layers that attend to the image; the others are in between."""
    return [output.attentions[i] for i in CROSS_LAYERS]
