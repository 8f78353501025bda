"""DiffLMM as transformers knows models: LLaVA with a `DiffusionEncoder` as its vision tower.

Importing this file registers it with AutoConfig, AutoModelForImageTextToText and AutoProcessor. Its processor is
LLaVA's own, set up by difflmm.processor.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    Cache,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaModel,
    LlavaPreTrainedModel,
    LlavaProcessor,
)
from transformers import initialization as init
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.llava.modeling_llava import LlavaCausalLMOutputWithPast, LlavaModelOutputWithPast

from difflmm.encoder import DiffusionEncoder, Encoded
from difflmm.encoder_config import DiffusionEncoderConfig
from difflmm.projector import SDCLIPBlock


class DiffLMMConfig(LlavaConfig):
    """LLaVA's, with a `DiffusionEncoderConfig` as `vision_config`; `image_seq_length` follows from it."""

    model_type = "difflmm"
    sub_configs_defaults = {
        "vision_config": SubConfigSpec(config_class=DiffusionEncoderConfig),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
    }


class DiffLMMPreTrainedModel(LlavaPreTrainedModel):
    """How a DiffLMM's own layers begin: as LLaVA's, tables of positions with zeros."""

    config: DiffLMMConfig
    config_class = DiffLMMConfig

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, SDCLIPBlock) and module.positions is not None:
            init.zeros_(module.positions)


class DiffLMMModel(DiffLMMPreTrainedModel, LlavaModel):
    """Encoder, projector and language model, named as LLaVA names them."""

    def __init__(self, config: DiffLMMConfig):
        LlavaPreTrainedModel.__init__(self, config)  # LLaVA's own __init__ would build its projector
        self.vision_tower = DiffusionEncoder._from_config(config.vision_config)
        self.multi_modal_projector = SDCLIPBlock(config.vision_config, config.text_config.hidden_size)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def get_image_features(
        self,
        pixel_values: Tensor | None = None,
        noise_seeds: Tensor | None = None,
        noisy_latents: Tensor | None = None,
        clip_features: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """Each image's tokens [grid * grid, width], as `pooler_output`, of pixels [images, 3, resolution, resolution]
        and seeds [images] (see `DiffusionEncoder.encode`), or of what the encoder's `encode` made of them before."""
        if noisy_latents is None:
            encoded = self.vision_tower.encode(pixel_values, noise_seeds)
        else:
            encoded = Encoded(noisy_latents, clip_features)
        tokens = self.multi_modal_projector(*self.vision_tower.features(encoded))
        return BaseModelOutputWithPooling(pooler_output=list(tokens))

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        noise_seeds: Tensor | None = None,
        noisy_latents: Tensor | None = None,
        clip_features: Tensor | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> LlavaModelOutputWithPast:
        """As LLaVA's, of `input_ids` int64 [B, S]; the images as `DiffLMMForConditionalGeneration` takes them."""
        if pixel_values is not None or noisy_latents is not None:
            image = self.get_image_features(pixel_values, noise_seeds, noisy_latents, clip_features)
            mm_encoder_outputs = {"image": image}
        return super().forward(input_ids=input_ids, mm_encoder_outputs=mm_encoder_outputs, **kwargs)


class DiffLMMForConditionalGeneration(DiffLMMPreTrainedModel, LlavaForConditionalGeneration):
    """Answers questions about images. `generate` takes what the processor gives, and `noise_seeds` int64 [images]."""

    def __init__(self, config: DiffLMMConfig):
        LlavaPreTrainedModel.__init__(self, config)
        self.model = DiffLMMModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        mm_encoder_outputs: dict[str, Any] | None = None,
        noise_seeds: Tensor | None = None,
        noisy_latents: Tensor | None = None,
        clip_features: Tensor | None = None,
        **kwargs: Any,
    ) -> LlavaCausalLMOutputWithPast:
        """As LLaVA's (`labels` int64 [B, S], -100 where no loss is wanted); the images are given as `pixel_values`
        [images, 3, resolution, resolution] with `noise_seeds` [images], or as `noisy_latents` and `clip_features` that
        `DiffusionEncoder.encode` made of them."""
        return super().forward(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            labels=labels,
            logits_to_keep=logits_to_keep,
            mm_encoder_outputs=mm_encoder_outputs,
            noise_seeds=noise_seeds,
            noisy_latents=noisy_latents,
            clip_features=clip_features,
            **kwargs,
        )


AutoConfig.register(DiffLMMConfig.model_type, DiffLMMConfig, exist_ok=True)
AutoModelForImageTextToText.register(DiffLMMConfig, DiffLMMForConditionalGeneration, exist_ok=True)
AutoProcessor.register(DiffLMMConfig, LlavaProcessor, exist_ok=True)
