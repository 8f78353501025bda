"""Answers written in slots (`aas.decoding`), where a model allows it: the same tokens and maps as by `generate`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from aas.capture import NOTHING
from aas.decoding.engine import KEYS_AT_ONCE, Engine
from aas.decoding.memory import answers_that_fit, bytes_of_answer, free_bytes
from aas.decoding.slots import Unsuited, keeps_all_keys
from aas.decoding.steps import cuda_recorder
from aas.decoding.writing import Prompt, Read, Writing
from aas.lmms.grids import positions_of
from aas.lmms.listening import Hear, Listener
from aas.lmms.prepared import AskOptions, Prepared
from aas.lmms.sampling import A_PASS_FOR_EACH_TOKEN, FiniteLogits, broken_rows, log_probs
from aas.maps import DEFAULT

if TYPE_CHECKING:
    from aas.lmms.base import LMM


def suits(lmm: "LMM", options: AskOptions) -> bool:
    """Whether answers can be written in slots: every layer keeps all keys, on one device, and nothing but attention is
    captured. Otherwise `generate` writes them."""
    config, places = lmm.model.config, set((getattr(lmm.model, "hf_device_map", None) or {}).values())
    return (
        options.decoding != "generate"
        and options.maps == (DEFAULT,)
        and not lmm.cross_attention
        and not config.is_encoder_decoder
        and lmm.model.device.type != "meta"
        and len(places) <= 1
        and lmm.text_config._attn_implementation in (None, "eager", "sdpa")  # a mask of four dimensions is theirs
        and lmm.model.generation_config.stop_strings is None
        and keeps_all_keys(config.get_text_config(decoder=True))
    )


def decoded(
    lmm: "LMM", batch: Sequence[Prepared], options: AskOptions, at_once: int | None, hear: Hear | None = None
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Token ids int64 [T] of each answer of a batch, its maps float32 [..., T, N], and [B, longest] log p of tokens.
    `at_once` are written at a time, or as many as memory holds: where one ends, the next begins. `hear` is told of the
    first one after each token.

    Unsuited, before anything is done, where the checkpoint's settings look at more than one answer's own tokens.
    """
    prompts = [Prompt(one.inputs["input_ids"].shape[1], positions_of(one.grids, options.view)) for one in batch]
    limit = options.max_new_tokens or lmm.max_new_tokens
    capacity = -(-(max(one.n_tokens for one in prompts) + limit + 1) // KEYS_AT_ONCE) * KEYS_AT_ONCE
    at_once = min(at_once or _n_that_fit(lmm, prompts, options, capacity), len(batch))
    engine = _engine(lmm, options, at_once, capacity)
    reading = _Reading(lmm, batch, options, engine, limit)
    writing = Writing(engine, prompts, reading.read, reading.chosen, lmm.end_ids, limit, at_once)
    if hear is not None:
        writing.hear_first = Listener(lmm, lambda: writing.so_far(0), batch[0], options, hear).add
    try:
        with lmm.watched(engine.capture):
            answers = writing.run()
    except BaseException:
        lmm.engine = None  # who tries again, with fewer, needs its memory
        raise
    if options.selection is not NOTHING:
        engine.capture.check()
    FiniteLogits(any(one.is_broken for one in answers)).check()
    return (
        [torch.tensor(one.token_ids) for one in answers],
        [one.maps for one in answers if one.maps is not None],
        pad_sequence([torch.tensor(one.log_p) for one in answers], batch_first=True),
    )


def records_steps(lmm: "LMM", options: AskOptions) -> bool:
    """Whether steps in slots are replayed as graphs, many times as fast as Python runs them."""
    return options.decoding == "auto" and lmm.device.type == "cuda"


def _n_that_fit(lmm: "LMM", prompts: Sequence[Prompt], options: AskOptions, capacity: int) -> int:
    n_columns = max(len(one.columns) for one in prompts)
    each = bytes_of_answer(lmm.text_config, lmm.model.dtype, capacity, n_columns, options.selection)
    free = free_bytes(lmm.device)
    if free is not None and lmm.engine is not None:
        free += lmm.engine.slots.n_bytes  # used again, or given up
    return answers_that_fit(each, free, len(prompts))


def _engine(lmm: "LMM", options: AskOptions, n_slots: int, capacity: int) -> Engine:
    """The one of before, where it is large enough: its graphs need not be recorded again."""
    graphs = records_steps(lmm, options)
    engine = lmm.engine
    if engine is None or not (graphs and engine.fits(lmm.model, n_slots, capacity, options.selection)):
        lmm.engine = engine = None  # its memory first
        record = cuda_recorder() if graphs else None
        engine = Engine(lmm.model, n_slots, capacity, options.selection, lmm.records, record)
    engine.capture.begin(options.selection)
    lmm.engine = engine if graphs else None  # without graphs it is made in no time
    return engine


class _Reading:
    """How a batch's prompts are read, and tokens chosen."""

    def __init__(self, lmm: "LMM", batch: Sequence[Prepared], options: AskOptions, engine: Engine, limit: int):
        self.lmm, self.batch, self.options, self.engine, self.limit = lmm, batch, options, engine, limit
        self.chosen = _Choosing(options, [one.inputs["input_ids"][0] for one in batch], limit)

    def read(self, indices: Sequence[int], slots: Sequence[int]) -> Read:
        """By `generate`, which prepares a model's inputs as it wants them, and is left behind the first pass."""
        prompts = [self.batch[i] for i in indices]
        positions = [positions_of(one.grids, self.options.view) for one in prompts]
        inputs, _ = self.lmm.collated([one.inputs for one in prompts], positions, self.options.seed)
        lengths = [one.inputs["input_ids"].shape[1] for one in prompts]
        found: list[Read] = []

        def first_pass(
            model: Any, input_ids: Tensor, logits_processor: Any, stopping_criteria: Any, generation_config: Any,
            **named: Any,
        ) -> Tensor:  # fmt: skip
            self.chosen.check(logits_processor)
            named["past_key_values"] = self.engine.slots.entering(slots, lengths)
            ready = model.prepare_inputs_for_generation(input_ids, is_first_iteration=True, **named)
            if ready.get("position_ids") is None:
                raise Unsuited("it counts positions by itself")
            found.append(Read(model(**ready, return_dict=True).logits[:, -1], ready["position_ids"][..., -1] + 1))
            return input_ids

        self.lmm.generate(
            inputs,
            **A_PASS_FOR_EACH_TOKEN,
            max_new_tokens=self.limit,
            pad_token_id=self.lmm.pad_id,
            custom_generate=first_pass,
        )
        return found[0]


class _Choosing:
    """Tokens of several answers, each by its own draws and words. `limit`: tokens that an answer has at most."""

    def __init__(self, options: AskOptions, prompts: Sequence[Tensor], limit: int):
        self.options, self.prompts, self.limit = options, prompts, limit
        self.processors = LogitsProcessorList()
        self.words: _Words | None = None
        self.generators: dict[int | None, torch.Generator] = {}

    def check(self, processors: LogitsProcessorList) -> None:
        """Unsuited unless the checkpoint's own settings ask which tokens there are, and not how many."""
        if any(type(one) is not RepetitionPenaltyLogitsProcessor or one.prompt_ignore_length for one in processors):
            raise Unsuited("its settings choose tokens in a way that is not known here")
        self.processors = processors

    def __call__(self, logits: Tensor, indices: Sequence[int | None]) -> Tensor:
        scores = logits.float()
        if self.processors:
            self.words = self.words or _Words(self.prompts, self.limit, logits.device)
            scores = self.processors(self.words.of(indices), scores.clone())
        broken = broken_rows(scores)
        if self.options.sampling is not None:
            scores = self._drawing(indices, logits.device)(torch.empty(0), scores)
        token = scores.argmax(-1)
        if self.words is not None:
            self.words.add(indices, token)
        return torch.stack([token.float(), log_probs(logits, token), broken.float()])

    def _drawing(self, indices: Sequence[int | None], device: torch.device) -> LogitsProcessorList:
        assert self.options.sampling is not None
        for index in indices:
            if index not in self.generators:
                self.generators[index] = torch.Generator(device).manual_seed(self.options.seed)
        *warpers, noise = self.options.sampling.processors(0, self.options.seed, device)
        noise.generators = [self.generators[index] for index in indices]
        return LogitsProcessorList([*warpers, noise])


class _Words:
    """The tokens of prompts and answers so far, where they are chosen; the last line is nobody's. Lines are filled up
    with a token that they begin with, which changes no question of which there are."""

    def __init__(self, prompts: Sequence[Tensor], limit: int, device: torch.device):
        longest = max(map(len, prompts))
        lines = [torch.cat([one, one[:1].expand(longest + limit - len(one))]) for one in prompts]
        self.token_ids = torch.stack([*lines, torch.zeros_like(lines[0])]).to(device)
        self.length = torch.tensor([*map(len, prompts), 0], device=device)

    def of(self, indices: Sequence[int | None]) -> Tensor:
        """Int64 [B, W]."""
        return self.token_ids[self._lines(indices)]

    def add(self, indices: Sequence[int | None], token: Tensor) -> None:
        """One more of each, int64 [B]."""
        lines = self._lines(indices)
        self.token_ids[lines, self.length[lines].clamp(max=self.token_ids.shape[1] - 1)] = token
        self.length[lines] += 1

    def _lines(self, indices: Sequence[int | None]) -> Tensor:
        lines = [len(self.token_ids) - 1 if index is None else index for index in indices]
        return torch.tensor(lines, device=self.token_ids.device)
