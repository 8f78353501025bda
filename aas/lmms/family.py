"""What a family of LMMs says of its models: how they are loaded and asked, where their image tokens lie."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoProcessor, PreTrainedConfig, PreTrainedModel, ProcessorMixin

from aas.capture import CaptureError
from aas.choices import Alignment
from aas.lmms.collation import sequence_keys
from aas.lmms.grids import TokenGrid
from aas.lmms.prepared import History, messages
from aas.lmms.pretrained import pretrained
from aas.lmms.prompt_checks import TRIALS, check_differ, told_once
from aas.loading import in_short, is_ours
from aas.phrases.given import plain_ids


class Family(ABC):
    """A model of Hugging Face and what makes its inputs. `grids` has no default; all else a family may change."""

    text_part = "text_config"  # the key of the language model in config.sub_configs; empty if it is the config itself
    cross_attention = False  # the image is not in the prompt: grids count the keys of the cross-attention
    pads_left = True  # sequences of a batch, so that generation goes on at their end; an encoder's on the right
    # What answer tokens get in the inputs that run along the sequence, when an answer is given; 0 if not named here.
    answer_fill = {"attention_mask": 1}
    # Settings of the image processor that `grids` does not read, and what it takes them for; others are refused.
    assumed_settings = {"do_resize": True, "do_center_crop": False}

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, name: str):
        self.model, self.processor, self.name = model, processor, name
        self.tokenizer = processor.tokenizer
        if getattr(processor, "patch_size", 0) is None:  # folders of 2024 leave it to the model's config
            processor.patch_size = model.config.vision_config.patch_size

    @classmethod
    def load(
        cls, source: str, revision: str, base: str | None = None, **options: Any
    ) -> tuple[PreTrainedModel, ProcessorMixin]:
        """The model and what makes its inputs. `options` are those of `from_pretrained`; see `aas.lmms.load_lmm`."""
        if base is not None:
            raise ValueError("--base is for LoRA checkpoints in LLaVA's own format; a peft LoRA goes into --adapter.")
        return pretrained(cls, source, revision, **options)

    @classmethod
    def load_processor(cls, source: str, revision: str) -> ProcessorMixin:
        """What makes inputs of images and words. Must work without torchvision."""
        return AutoProcessor.from_pretrained(source, revision=revision)

    @classmethod
    def check(cls, config: PreTrainedConfig, processor: ProcessorMixin) -> None:
        """ValueError where a model of this config, with this processor, is none that the family can read."""
        return  # most families read every model of their types

    @classmethod
    def check_template(cls, processor: ProcessorMixin, name: str) -> None:
        """ValueError where the chat template makes no prompt, or one without the question: known before the weights
        are read. Families that make prompts in another way are looked at by `check_prompt`."""
        if cls.inputs is Family.inputs:
            with told_once(name):
                prompts = (
                    processor.apply_chat_template(messages(question), add_generation_prompt=True, tokenize=False)
                    for question in TRIALS
                )
                check_differ(*prompts)

    @abstractmethod
    def grids(self, inputs: dict[str, Tensor], image_hw: tuple[int, int]) -> list[TokenGrid]:
        """The grids of one image's tokens, for inputs that `inputs` made of an image of `image_hw` pixels.

        The first is the one that is used unless another is asked for.
        """

    def records(self, module: nn.Module) -> bool:
        """Whether an attention module's rows count. All of the text part, unless a family says otherwise."""
        return True

    def inputs(self, image: np.ndarray, question: str) -> dict[str, Tensor]:
        """The prompt of one image (uint8 [H, W, 3] RGB) and one question: a batch of one, on the CPU."""
        return self.inputs_after((), image, question)

    def inputs_after(self, history: History, image: np.ndarray, question: str) -> dict[str, Tensor]:
        """The same, behind earlier questions and answers. Families that make prompts in another way than by a chat
        template take none."""
        asked = messages(question, history, image=Image.fromarray(image))
        options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
        return dict(self.processor.apply_chat_template(asked, **options))

    def image_positions(self, inputs: dict[str, Tensor]) -> Tensor:
        """Where the image tokens are in the prompt, int64 [n]."""
        return (inputs["input_ids"][0] == self.model.config.image_token_id).nonzero()[:, 0]

    def with_answer(self, inputs: dict[str, Tensor], answer_ids: Tensor) -> dict[str, Tensor]:
        """`inputs` with the answer's tokens int64 [T] behind the prompt."""
        longer = dict(inputs, input_ids=torch.cat([inputs["input_ids"], answer_ids[None]], dim=1))
        for key in sequence_keys(inputs):
            if key != "input_ids":
                fill = torch.full_like(inputs[key][:, :1], self.answer_fill.get(key, 0))
                longer[key] = torch.cat([inputs[key], fill.expand(-1, len(answer_ids), *fill.shape[2:])], dim=1)
        return longer

    def seeded(self, inputs: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
        """A batch's inputs with the seed of each image's noise, where the encoder draws some."""
        return inputs

    def answer_rows(self, inputs: dict[str, Tensor], answers: Sequence[Tensor], alignment: Alignment) -> Tensor:
        """Positions of the queries of each answer token, int64 [B, longest]; behind an answer's end any position."""
        n_all, longest = inputs["input_ids"].shape[1], max(map(len, answers))
        # Sequences are padded on the left, so an answer ends where its sequence ends.
        first = torch.tensor([n_all - len(ids) - (alignment == "predict") for ids in answers])
        return (first[:, None] + torch.arange(longest)).clamp(max=n_all - 1)

    def forward_arguments(self, inputs: dict[str, Tensor]) -> dict[str, Any]:
        """What a forward pass over prompt and answer takes besides the inputs: what generation would have given."""
        positions = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
        return {"position_ids": positions, "use_cache": False, "logits_to_keep": 1}

    def generate(self, inputs: dict[str, Tensor], **options: Any) -> Tensor:
        """The model's own `generate`: token ids [B, prompt + answer], or [B, 1 + answer] of an encoder-decoder."""
        try:
            return self.model.generate(**inputs, **options)
        except (ValueError, ImportError, AssertionError) as error:  # what its settings cannot do here
            if is_ours(error):
                raise
            settings = self.model.generation_config.to_diff_dict()
            named = ", ".join(sorted(settings.keys() - {"transformers_version", "_from_model_config"}))
            raise CaptureError(
                f"The model cannot generate ({in_short(error)}). Its generation_config.json sets {named or 'nothing'}: "
                "if it is one of these, take it out."
            ) from error

    @property
    def device(self) -> torch.device:
        """Where inputs go: of a model on several devices, where its first weights are."""
        if self.model.device.type != "meta":
            return self.model.device
        # Offloaded: accelerate's hooks bring the weights when they are needed, and know where to.
        hooks = (getattr(module, "_hf_hook", None) for module in self.model.modules())
        places = (getattr(hook, "execution_device", None) for hook in hooks)
        return torch.device(next((place for place in places if place is not None), "meta"))

    @property
    def text_config(self) -> PreTrainedConfig:
        """The config of the language model."""
        return getattr(self.model.config, self.text_part) if self.text_part else self.model.config

    @property
    def max_new_tokens(self) -> int:
        """The model's own limit, or 512."""
        return self.model.generation_config.max_new_tokens or 512

    @property
    def end_ids(self) -> set[int]:
        """Tokens that end an answer."""
        ends = self.model.generation_config.eos_token_id
        ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
        return {*ends, self.tokenizer.eos_token_id} - {None}

    def answer_ids(self, answer: str, prompt_ids: Tensor) -> Tensor:
        """Tokens of a given answer as the model would have written it behind the prompt, end token included."""
        first = self.tokenizer.tokenize("a")[0]
        prompt_end = self.tokenizer.decode(prompt_ids[-1:])
        # Byte-level tokenizers write the space in front of a word, SentencePiece adds it by itself.
        adds_space = first.startswith("▁") or prompt_end != prompt_end.rstrip()
        text = answer if adds_space else f" {answer}"
        return torch.tensor([*plain_ids(self.tokenizer, text), self.tokenizer.eos_token_id])

    @property
    def pad_id(self) -> int:
        """The token that fills up shorter sequences; nothing attends to it."""
        pad = self.tokenizer.pad_token_id
        return self.tokenizer.eos_token_id if pad is None else pad
