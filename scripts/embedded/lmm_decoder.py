"""A smaller decoder from a pretrained one: a part of its vocabulary, some of its layers."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

N_FIRST = 6000  # tokens of the pretrained vocabulary that stay whatever the texts say: its commonest pieces


def tokens_of(model: dict, wanted: Iterable[str]) -> set[str]:
    """`wanted` and every token that merges to one of them, over all ways to merge it; `model` is tokenizer.json's."""
    parts: defaultdict[str, set[str]] = defaultdict(set)
    for left, right in model["merges"]:
        parts[left + right] |= {left, right}
    kept: set[str] = set()
    to_do = list(wanted)
    while to_do:
        token = to_do.pop()
        if token not in kept:
            kept.add(token)
            to_do += parts[token]
    return kept


def cut_vocabulary(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], image_token: str, n_first: int = N_FIRST
) -> tuple[PreTrainedTokenizerFast, list[int]]:
    """A tokenizer that writes `texts` as before with only the tokens they need, the first ones and the special ones.

    Returns it with, for each of its ids in order, the id of the same token before. `image_token` is new: it comes
    last, with the id of the end of text.
    """
    special = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token}
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    model, added = description["model"], {token["content"] for token in description["added_tokens"]}
    written = {token for encoding in tokenizer.backend_tokenizer.encode_batch(list(texts)) for token in encoding.tokens}
    first = [token for token, index in model["vocab"].items() if index < n_first]
    kept = tokens_of(model, written | set(first)) - added
    old = sorted(model["vocab"][token] for token in kept | special)
    names = {index: token for token, index in model["vocab"].items()}
    model["vocab"] = {names[index]: new for new, index in enumerate(old)}
    model["merges"] = [pair for pair in model["merges"] if {*pair, "".join(pair)} <= kept]
    entries = [token for token in description["added_tokens"] if token["content"] in special]
    description["added_tokens"] = [entry | {"id": model["vocab"][entry["content"]]} for entry in entries]
    cut = Tokenizer.from_str(json.dumps(description))
    cut.add_special_tokens([image_token])
    return (
        PreTrainedTokenizerFast(
            tokenizer_object=cut,
            bos_token=tokenizer.bos_token,
            eos_token=tokenizer.eos_token,
            pad_token=tokenizer.pad_token,
            extra_special_tokens={"image_token": image_token},
            padding_side="left",
            clean_up_tokenization_spaces=False,
            model_max_length=2048,
        ),
        [*old, tokenizer.eos_token_id],
    )


@torch.no_grad()
def cut_decoder(model: LlamaForCausalLM, ids: Sequence[int], layers: Sequence[int]) -> LlamaForCausalLM:
    """`model` in place, with the rows `ids` of its vocabulary and the `layers` of these numbers."""
    config = model.config
    config.vocab_size, config.num_hidden_layers = len(ids), len(layers)
    config.name_or_path = ""  # a folder of whoever trains
    embeddings = nn.Embedding.from_pretrained(model.get_input_embeddings().weight[list(ids)].clone(), freeze=False)
    model.set_input_embeddings(embeddings)
    model.lm_head = nn.Linear(config.hidden_size, len(ids), bias=False)
    model.tie_weights()
    model.model.layers = nn.ModuleList(model.model.layers[i] for i in layers)
    for i, layer in enumerate(model.model.layers):
        layer.self_attn.layer_idx = i
    return model


def small_decoder(
    folder: Path, texts: Sequence[str], image_token: str, layers: Sequence[int] | None = None
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The model in `folder`, float32, with the vocabulary of `texts` and some of its `layers` (None: all)."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer, ids = cut_vocabulary(AutoTokenizer.from_pretrained(folder), texts, image_token)
    return cut_decoder(model, ids, layers if layers is not None else range(model.config.num_hidden_layers)), tokenizer
