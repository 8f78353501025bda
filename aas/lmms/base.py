"""What every LMM family offers, and what they share: a Hugging Face model that is asked, and watched."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    LogitsProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)

from aas import capture, int8
from aas.capture import NOTHING, AttentionCapture, CaptureError, FirstKeys, Selection, Watch
from aas.captured import Captured
from aas.choices import Alignment
from aas.decoding.engine import Engine
from aas.decoding.slots import Unsuited
from aas.internals import Internals
from aas.lmms.collation import collate, sequence_keys
from aas.lmms.decoded import decoded, suits
from aas.lmms.grids import TokenGrid, on_grid, positions_of
from aas.lmms.listening import Hear, Listener
from aas.lmms.prepared import DEFAULT_OPTIONS, AskOptions, History, Prepared, messages
from aas.lmms.prompt_checks import (
    TRIALS,
    check_answer,
    check_differ,
    check_feature_layer,
    check_length,
    check_settings,
    told_once,
)
from aas.lmms.sampling import A_PASS_FOR_EACH_TOKEN, FiniteLogits, TokenLogProbs, log_probs
from aas.lmms.sources import (
    GENERIC,
    captured,
    check_calibrations,
    generic_sources,
    made_maps,
    needs_of,
    watch_of,
    with_generic,
)
from aas.loading import in_short, is_ours
from aas.model_files import check_processor, weight_files
from aas.phrases.alignment import decode_with_spans
from aas.phrases.given import plain_ids
from aas.records import Answer, AttentionMaps

log = logging.getLogger(__name__)

Kept = Sequence[Tensor | Captured]  # of each answer: maps [..., T, n], or all that its map sources need


class LMM(ABC):
    """A large multimodal model. A family says in `grids` where its image tokens lie, in the prompt and on the image.

    Everything else has a default that a family may change.
    """

    text_part = "text_config"  # the key of the language model in config.sub_configs; empty if it is the config itself
    cross_attention = False  # the image is not in the prompt: grids count the keys of the cross-attention
    pads_left = True  # sequences of a batch, so that generation goes on at their end; an encoder's on the right
    # What answer tokens get in the inputs that run along the sequence, when an answer is given; 0 if not named here.
    answer_fill = {"attention_mask": 1}
    loaded_as = ""  # the name that `load_lmm` was given, where the weights are what stands there; else empty
    # Settings of the image processor that `grids` does not read, and what it takes them for; others are refused.
    assumed_settings = {"do_resize": True, "do_center_crop": False}

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, name: str):
        self.model, self.processor, self.name = model, processor, name
        self.tokenizer = processor.tokenizer
        self.engine: Engine | None = None  # on a GPU: buffers and recorded steps of the last answers
        if getattr(processor, "patch_size", 0) is None:  # folders of 2024 leave it to the model's config
            processor.patch_size = model.config.vision_config.patch_size

    @classmethod
    def load(
        cls, source: str, revision: str, base: str | None = None, **options: Any
    ) -> tuple[PreTrainedModel, ProcessorMixin]:
        """The model and what makes its inputs. `options` are those of `from_pretrained`; see `aas.lmms.load_lmm`."""
        if base is not None:
            raise ValueError("--base is for LoRA checkpoints in LLaVA's own format; a peft LoRA goes into --adapter.")
        try:
            processor = cls.load_processor(source, revision)  # may refuse the model, before the weights are read
        except Exception as error:  # missing, damaged, or a package that it needs
            if is_ours(error):
                raise
            check_processor(Path(source))
            raise ValueError(f"{source}: its tokenizer or processor cannot be loaded ({in_short(error)}).") from error
        check_processor(Path(source))
        cls.check_template(processor, source)
        if Path(source).is_dir():
            weight_files(Path(source))
        options["ignore_mismatched_sizes"] = True
        model, info = int8.from_pretrained(AutoModelForImageTextToText, source, revision, **options)
        if info["mismatched_keys"]:
            name, there, wanted = sorted(info["mismatched_keys"])[0]
            raise ValueError(
                f"{source}: {len(info['mismatched_keys'])} of its weights are of other sizes than its config.json "
                f"says, as {name}: {tuple(there)}, not {tuple(wanted)}."
            )
        if info["missing_keys"]:  # transformers would go on with random numbers in their place
            names = sorted(info["missing_keys"])
            raise ValueError(f"{source} lacks {len(names)} of the model's weights, the first is {names[0]}.")
        return model, processor

    @classmethod
    def load_processor(cls, source: str, revision: str) -> ProcessorMixin:
        """What makes inputs of images and words. Must work without torchvision."""
        return AutoProcessor.from_pretrained(source, revision=revision)

    @classmethod
    def check(cls, config: PreTrainedConfig, processor: ProcessorMixin) -> None:
        """ValueError where a model of this config, with this processor, is none that the family can read."""
        return  # most families read every model of their types

    # ---------------------------------------------------------------------------------- what a family says

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

    # --------------------------------------------------------------------------------------------- asking

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

    def prepare(
        self,
        image: np.ndarray,
        question: str,
        answer: str | None = None,
        answer_ids: Sequence[int] | None = None,
        options: AskOptions = DEFAULT_OPTIONS,
        history: History = (),
    ) -> Prepared:
        """Everything that needs no model: in another process, if wanted. `image` uint8 [H, W, 3] RGB, upright; see
        `aas.images.as_pixels`. `history`: what was asked about the image before, and answered. An answer is given as
        text or as tokens; as both, the tokens count. `options`: those that it will be run with; of them the map sources
        may need more prompts.

        CaptureError where image and question do not fit the model's context or its layout is not known; ValueError
        where the tokens do not write the text, the model has no such tokens, or it answers single questions only.
        """
        check_settings(getattr(self.processor, "image_processor", None), self.assumed_settings)
        if history and type(self).inputs is not LMM.inputs:
            raise ValueError(f"{self.name} answers single questions: leave out what was said before.")
        inputs, grids = self._inputs_and_grids(image, question, history)
        given = None if answer_ids is None else torch.tensor(answer_ids, dtype=torch.int64)
        if answer is not None and given is None:
            given = self.answer_ids(answer, inputs["input_ids"][0])
        if given is not None:
            check_answer(self.model, self.tokenizer, given.tolist(), answer)
        generic = self.prepare(image, GENERIC) if needs_of(self, options).generic else None
        prepared = Prepared(question, inputs, grids, given, generic)
        self.check_fits(prepared)
        return prepared

    def check_fits(self, prepared: Prepared) -> None:
        """CaptureError where image, question and answer do not fit the model's context."""
        longest = getattr(self.text_config, "max_position_embeddings", None)
        check_length(prepared, longest, self.model.config.is_encoder_decoder)

    def _inputs_and_grids(
        self, image: np.ndarray, question: str, history: History
    ) -> tuple[dict[str, Tensor], tuple[TokenGrid, ...]]:
        try:
            inputs = self.inputs_after(history, image, question) if history else self.inputs(image, question)
            return inputs, tuple(self.grids(inputs, image.shape[:2]))
        except Exception as error:  # the processor's: mostly of sides that it cannot make
            if is_ours(error):
                raise
            raise CaptureError(
                f"The model's processor takes no image of {image.shape[1]} x {image.shape[0]} pixels "
                f"({in_short(error)}): enlarge it, or make it less long and thin."
            ) from error

    @classmethod
    def check_template(cls, processor: ProcessorMixin, name: str) -> None:
        """ValueError where the chat template makes no prompt, or one without the question: known before the weights
        are read. Families that make prompts in another way are looked at by `check_prompt`."""
        if cls.inputs is LMM.inputs:
            with told_once(name):
                prompts = (
                    processor.apply_chat_template(messages(question), add_generation_prompt=True, tokenize=False)
                    for question in TRIALS
                )
                check_differ(*prompts)

    def check_prompt(self) -> None:
        """ValueError where an image and a question make no prompt: what is wrong with the model is told once."""
        check_feature_layer(self.model.config, self.name)
        with told_once(self.name):
            grey = np.full((64, 96, 3), 127, np.uint8)
            check_differ(*(self.prepare(grey, question).inputs["input_ids"].tolist() for question in TRIALS))

    def ask(
        self, image: np.ndarray, question: str, answer: str | None = None, options: AskOptions = DEFAULT_OPTIONS
    ) -> tuple[Answer, AttentionMaps]:
        """The model's answer, or the given one by teacher forcing, and one map per answer token.

        `image` uint8 [H, W, 3] RGB, upright; `aas.images.as_pixels` makes it of a path, a PIL image or a tensor. The
        maps are float32 [T, h, w], the mean over layers and heads. The attention of every layer and head, float32
        [layers, heads, T, h, w]:

            answer, attention = lmm.ask(image, question, options=AskOptions(selection=Selection(keep="heads")))
            attention.maps

        `keep="layers"` gives [layers, T, h, w]. `Selection(layers=(0, -1), heads=(3,), keep="heads")` gives those
        alone. The model is afterwards as it was before: attention implementation, mode, generation settings.
        """
        return self.run([self.prepare(image, question, answer, options=options)], options)[0]

    def run(
        self,
        batch: Sequence[Prepared],
        options: AskOptions = DEFAULT_OPTIONS,
        hear: Hear | None = None,
        at_once: int | None = None,
    ) -> list[tuple[Answer, AttentionMaps]]:
        """Answer all of `batch`: either every answer is given, or none. `hear` is told of the answer after each of its
        tokens, where it is one that the model writes to a batch of one. `at_once`: so many of them at a time, or
        as many as memory holds; where an answer ends, the next prompt takes its place, if the model allows it."""
        options, needs = replace(options, selection=self.resolved(options.selection)), needs_of(self, options)
        given = [prepared.answer_ids for prepared in batch]
        if all(ids is None for ids in given):
            if options.alignment == "predict" and not needs.replay:
                return self._results(batch, *self._generate(batch, options, at_once, hear), options)
            # The last token of an answer never was an input: its own row takes one more pass. So does what needs all.
            words = None if hear is None else (lambda answer, _: hear(answer, None))
            given = list(self.answered(batch, options, words, at_once))
        answers = [ids for ids in given if ids is not None]
        assert len(answers) == len(batch), "all answers are given, or none"
        n = at_once or len(batch)
        parts = [slice(start, start + n) for start in range(0, len(batch), n)]
        return [
            result
            for part in parts
            for result in self._results(
                batch[part], answers[part], *self._replay(batch[part], answers[part], options), options
            )
        ]

    def answered(
        self, batch: Sequence[Prepared], options: AskOptions, hear: Hear | None = None, at_once: int | None = None
    ) -> list[Tensor]:
        """As `run`, the answers alone: token ids int64 [T] of each."""
        return self._generate(batch, replace(options, maps=DEFAULT_OPTIONS.maps, selection=NOTHING), at_once, hear)[0]

    def _generate(
        self, batch: Sequence[Prepared], options: AskOptions, at_once: int | None, hear: Hear | None = None
    ) -> tuple[list[Tensor], Kept, Tensor]:
        """Token ids int64 [T] of each, cut behind its end token, what was kept of it, and float32 [B, longest] log p of
        the tokens."""
        if suits(self, options):
            try:
                return decoded(self, batch, options, at_once, hear)
            except Unsuited as reason:
                log.debug("%s writes answers by generate: %s", self.name, reason)
        if options.selection is NOTHING:
            options = replace(options, selection=DEFAULT_OPTIONS.selection)  # attention comes along by itself there
        n = at_once or len(batch)
        parts = [self._by_generate(batch[i : i + n], options, hear) for i in range(0, len(batch), n)]
        likely = [one for *_, rows in parts for one in rows]
        return (
            [ids for answers, *_ in parts for ids in answers],
            [one for _, kept, _ in parts for one in kept],
            nn.utils.rnn.pad_sequence(likely, batch_first=True),
        )

    def _by_generate(
        self, batch: Sequence[Prepared], options: AskOptions, hear: Hear | None
    ) -> tuple[list[Tensor], Kept, Tensor]:
        """As `_generate`, by the model's own."""
        grids = [positions_of(p.grids, options.view) for p in batch]
        inputs, columns = self.collated([p.inputs for p in batch], grids, options.seed)
        numbers, likely = FiniteLogits(), TokenLogProbs()
        watch = watch_of(self, batch, columns, options)
        # A subclass captures what its sources make maps of in the end.
        so_far = (lambda: watch.so_far()[0]) if type(watch) is AttentionCapture else None
        more = {} if hear is None else {"streamer": Listener(self, so_far, batch[0], options, hear)}
        with self.watched(watch), likely.watching(self.model):
            sequences = self.sequences(inputs, options, numbers, likely, **more)
        answers = self.written(sequences, inputs)
        kept = self._kept(watch, batch, answers, options)  # names the layer, where the attention itself is broken
        numbers.check()
        n_written = sequences.shape[1] - self._n_prompt(inputs)
        if watch.n_rows != n_written:
            raise CaptureError(
                f"The model wrote {n_written} tokens in {watch.n_rows} forward passes, not one for each: "
                "its generation settings are not known here."
            )
        return answers, kept, likely.of(sequences)

    def _kept(
        self, watch: AttentionCapture, batch: Sequence[Prepared], answers: Sequence[Tensor], options: AskOptions
    ) -> Kept:
        if isinstance(watch, Internals):
            return captured(self, watch, batch, answers, options)
        return [one[..., : len(ids), :] for one, ids in zip(watch.maps(), answers, strict=True)]

    def sequences(
        self, inputs: dict[str, Tensor], options: AskOptions, *noting: LogitsProcessor, **more: Any
    ) -> Tensor:
        """What `generate` makes of a batch's inputs; `noting` sees the scores of each token before it is chosen."""
        n_samples = len(inputs["input_ids"])
        draws = options.sampling.processors(n_samples, options.seed, self.device) if options.sampling else []
        return self.generate(
            inputs,
            **A_PASS_FOR_EACH_TOKEN,
            max_new_tokens=options.max_new_tokens or self.max_new_tokens,
            logits_processor=[*noting, *draws],
            pad_token_id=self.pad_id,
            tokenizer=self.tokenizer,  # for a checkpoint's stop strings
            **more,
        )

    def written(self, sequences: Tensor, inputs: dict[str, Tensor]) -> list[Tensor]:
        """Of `sequences`, the answers' tokens int64 [T] on the CPU, each cut behind its end token."""
        token_ids = sequences[:, self._n_prompt(inputs) :].cpu()
        return [ids[: self._answer_length(ids.tolist())] for ids in token_ids]

    def _n_prompt(self, inputs: dict[str, Tensor]) -> int:
        return 1 if self.model.config.is_encoder_decoder else inputs["input_ids"].shape[1]

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

    def _answer_length(self, token_ids: list[int]) -> int:
        """Tokens up to the end token; what a batch writes behind it belongs to nobody."""
        return next((i + 1 for i, token in enumerate(token_ids) if token in self.end_ids), len(token_ids))

    def _replay(self, batch: Sequence[Prepared], answers: Sequence[Tensor], options: AskOptions) -> tuple[Kept, Tensor]:
        """What is kept of given answers, and float32 [B, longest] log p of their tokens, in one forward pass."""
        inputs, columns, rows = self.replay_inputs(batch, answers, options)
        watch = watch_of(self, batch, columns, options, rows)
        predicting = self.answer_rows(inputs, answers, "predict")
        n_logits = predicting.shape[1] + 1
        with self.watched(watch):
            arguments = self.forward_arguments(inputs) | {"logits_to_keep": n_logits}
            logits = self.model(**inputs, **arguments, return_dict=True).logits
        kept = self._kept(watch, batch, answers, options)  # names the layer, where the attention itself is broken
        likely, numbers = self._likely(inputs, logits, answers, predicting), FiniteLogits()
        numbers.look_at(logits[:, -1])
        numbers.look_at(likely)
        numbers.check()
        return kept, likely

    def _likely(self, inputs: dict[str, Tensor], logits: Tensor, answers: Sequence[Tensor], rows: Tensor) -> Tensor:
        """Float32 [B, longest]: log p of the answers' tokens by the `logits` [B, the last n, V] of `rows`."""
        n_all = inputs["decoder_input_ids" if self.model.config.is_encoder_decoder else "input_ids"].shape[1]
        places = (rows - (n_all - logits.shape[1])).clamp(min=0).to(logits.device)
        # One by one: in float32 the scores of a batch are as large as what the rest of the pass needs.
        found = [
            log_probs(one[place[: len(ids)]], ids.to(one.device)).cpu()
            for one, place, ids in zip(logits, places, answers, strict=True)
        ]
        return nn.utils.rnn.pad_sequence(found, batch_first=True)

    def replay_inputs(
        self, batch: Sequence[Prepared], answers: Sequence[Tensor], options: AskOptions
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """A batch of prompts with their answers; its image columns [B, n] and the answers' rows [B, longest]."""
        whole = [self.with_answer(p.inputs, ids) for p, ids in zip(batch, answers, strict=True)]
        inputs, columns = self.collated(whole, [positions_of(p.grids, options.view) for p in batch], options.seed)
        return inputs, columns, self.answer_rows(inputs, answers, options.alignment)

    @contextmanager
    def watched(self, watch: Watch) -> Iterator[None]:
        """The model as it is asked: it does not train, and `watch` looks on. Afterwards it is as it was."""
        with capture.evaluating(self.model), capture.attention_of(self.model, self.text_part), watch:
            yield

    @contextmanager
    def eager(self) -> Iterator[None]:
        """For checks: the text part runs transformers' own eager attention, which nothing is captured from."""
        with capture.evaluating(self.model), capture.attention_of(self.model, self.text_part, "eager"):
            yield

    def first_keys(self, prepared: Prepared) -> Tensor:
        """What each token of the prompt (or key of the cross-attention) brings into the model, float32 [S, H_kv, D]."""
        watch = FirstKeys(self.records)
        inputs, _ = self.collated([prepared.inputs], [positions_of(prepared.grids, None)], DEFAULT_OPTIONS.seed)
        with self.watched(watch):
            self.model(**inputs, **self.forward_arguments(inputs))
        assert watch.keys is not None
        return watch.keys[0].transpose(0, 1).float().cpu()

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

    def collated(
        self, samples: Sequence[dict[str, Tensor]], positions: Sequence[Tensor], seed: int = 0
    ) -> tuple[dict[str, Tensor], Tensor]:
        """A batch on the model's device, padded, and the columns [B, n] of its image tokens."""
        inputs = self.seeded(collate(samples, {"input_ids": self.pad_id}, self.pads_left), seed)
        longest = inputs["input_ids"].shape[1]
        shifts = [0 if self.cross_attention else longest - sample["input_ids"].shape[1] for sample in samples]
        columns = nn.utils.rnn.pad_sequence(
            [where + shift for where, shift in zip(positions, shifts, strict=True)], batch_first=True
        )
        return {key: self._on_device(value) for key, value in inputs.items()}, columns.to(self.device)

    def _on_device(self, value: Tensor) -> Tensor:
        return value.to(self.device, self.model.dtype if value.is_floating_point() else None)

    @property
    def pad_id(self) -> int:
        """The token that fills up shorter sequences; nothing attends to it."""
        pad = self.tokenizer.pad_token_id
        return self.tokenizer.eos_token_id if pad is None else pad

    def resolved(self, selection: Selection) -> Selection:
        """Indices from the end made positive; ValueError for those that the model does not have."""
        config = self.text_config
        counts = {"layers": config.num_hidden_layers, "heads": config.num_attention_heads}
        resolved: dict[str, tuple[int, ...] | None] = {}
        for what, count in counts.items():
            indices = getattr(selection, what)
            wrong = [i for i in indices or () if not -count <= i < count]
            if wrong:
                raise ValueError(
                    f"The model has {count} {what}, numbered from 0 (or from -1 at the end): no {wrong[0]}."
                )
            resolved[what] = None if indices is None else tuple(sorted({i % count for i in indices}))
        return Selection(resolved["layers"], resolved["heads"], selection.keep)

    def check_options(self, options: AskOptions) -> None:
        """ValueError for layers and heads that the model does not have, and map sources that it cannot give."""
        needs_of(self, replace(options, selection=self.resolved(options.selection)))
        check_calibrations(self, options.maps)

    def _generic(self, batch: Sequence[Prepared], options: AskOptions) -> Sequence[Tensor | Captured]:
        """What is kept of the row that would begin an answer to a generic question, for the sources that need it."""
        prompts = [one.generic for one in batch if one.generic is not None]
        if len(prompts) < len(batch):
            raise ValueError("These map sources need more prompts: give `prepare` the same options as `run`.")
        one_token = [torch.tensor([self.pad_id])] * len(batch)  # whose row, the one before it, is the prompt's last
        options = replace(options, maps=generic_sources(self, options), alignment="predict")
        return self._replay(prompts, one_token, options)[0]

    def _results(
        self, batch: Sequence[Prepared], answers: Sequence[Tensor], kept: Kept, likely: Tensor, options: AskOptions
    ) -> list[tuple[Answer, AttentionMaps]]:
        if needs_of(self, options).generic:
            kept = with_generic(kept, self._generic(batch, options))
        results = []
        for prepared, ids, one, log_p in zip(batch, answers, kept, likely.tolist(), strict=True):
            token_ids = ids.tolist()
            text, spans = decode_with_spans(self.tokenizer, token_ids)
            answer = Answer(prepared.question, text, tuple(token_ids), tuple(spans), tuple(log_p[: len(token_ids)]))
            if isinstance(one, Captured):
                results.append((answer, made_maps(one, prepared, answer, options)))
                continue
            grid, grid_view = on_grid(one.numpy(), prepared.grids, options.view)
            results.append((answer, AttentionMaps(grid, grid_view, options.alignment)))
        return results
