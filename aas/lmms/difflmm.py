"""DiffLMM, and LLaVA-1.5 in its authors' own format, which the difflmm package reads: the only file that imports it."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from aas.lmms.llava import Llava
from difflmm.checkpoint import load_checkpoint
from difflmm.towers import need_diffusers


class DiffLMM(Llava):
    """One grid, as LLaVA's; its encoder is a diffusion model, whose noise each image draws by itself."""

    @classmethod
    def load(
        cls, source: str, revision: str, base: str | None = None, **options: Any
    ) -> tuple[PreTrainedModel, ProcessorMixin]:
        need_diffusers()
        return super().load(source, revision, base, **options)

    def seeded(self, inputs: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
        return inputs | {"noise_seeds": torch.full((len(inputs["pixel_values"]),), seed)}


class LlavaOriginal(DiffLMM):
    """DiffLMM or LLaVA-1.5 in their authors' format, padded to a square where the checkpoint says so."""

    @classmethod
    def load(
        cls, source: str, revision: str, base: str | None = None, **options: Any
    ) -> tuple[PreTrainedModel, ProcessorMixin]:
        name = source if revision == "main" else f"{source}@{revision}"
        return load_checkpoint(name, base, **options)

    def seeded(self, inputs: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
        return super().seeded(inputs, seed) if self.model.config.model_type == "difflmm" else inputs
