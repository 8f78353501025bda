"""Real tokenizers of every scheme, trained here on a few sentences."""

import json
import tempfile
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tests import tiny
from tests.tiny.llava_original import write_tokenizer

SPECIAL = ["<unk>", "<s>", "</s>"]
NAMED = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
ENGLISH = [text.encode("ascii", "ignore").decode() for text in tiny.TEXTS]
CHINESE = ["一只棕色的小狗坐在木制长椅上，旁边有一只猫。", "两个人骑着自行车沿着街道行驶，经过停放的汽车。"] * 8


def chinese_bytes() -> PreTrainedTokenizerFast:
    """Byte-level, without a pattern that splits words: its tokens begin and end inside characters."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    # No whole sentence as one token: at most 7 bytes, which is no multiple of a character's 3.
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet, max_token_length=7, show_progress=False
    )
    tokenizer.train_from_iterator(CHINESE, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **NAMED)


def metaspace(leading_space: bool) -> PreTrainedTokenizerFast:
    """SentencePiece's BPE with byte fallback, as LLaMA (leading space) and Gemma (none) have it."""
    learned = Tokenizer(models.BPE(unk_token="<unk>"))
    learned.pre_tokenizer = pre_tokenizers.Metaspace()
    learned.train_from_iterator(
        ENGLISH, trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    )
    state = models.BPE.__getstate__(learned.model)
    merges = [tuple(merge) for merge in json.loads(state)["merges"]]
    tokens = sorted(learned.get_vocab(), key=learned.get_vocab().__getitem__)
    tokens += [f"<0x{i:02X}>" for i in range(256)]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.add_special_tokens(SPECIAL)
    replace = normalizers.Replace(" ", "▁")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if leading_space:
        replace = normalizers.Sequence([normalizers.Prepend("▁"), replace])
        steps.append(decoders.Strip(" ", 1, 0))
    tokenizer.normalizer, tokenizer.decoder = replace, decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **NAMED)


def unigram() -> PreTrainedTokenizerFast:
    """SentencePiece's unigram with NFKC, as T5 has it: characters that it does not know are lost."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False,
        initial_alphabet=list("abcdefghijklmnopqrstuvwxyz.,日本"),
    )  # fmt: skip
    tokenizer.train_from_iterator(tiny.TEXTS + CHINESE, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **NAMED)


def wordpiece() -> PreTrainedTokenizerFast:
    """BERT's: lower case, without accents, "##" inside words, spaces taken from before punctuation."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(tiny.TEXTS + CHINESE, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **NAMED)


def sentencepiece_model() -> PreTrainedTokenizerBase:
    """A `tokenizer.model` file, read by LLaMA's own class."""
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder), vocab_size=350)
        return LlamaTokenizer.from_pretrained(folder)


def with_added(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Two words that were added whole, and a special token that has no name."""
    tokenizer.add_tokens(["labrador", "自行车"])
    tokenizer.add_tokens([AddedToken("<|turn|>", special=True, normalized=False)])
    return tokenizer


ALL: dict[str, PreTrainedTokenizerBase] = {
    "byte-level": tiny.byte_level_tokenizer(),
    "bytes": tiny.byte_level_tokenizer(vocab_size=260),
    "chinese bytes": chinese_bytes(),
    "metaspace": metaspace(leading_space=True),
    "metaspace, no leading space": metaspace(leading_space=False),
    "sentencepiece file": sentencepiece_model(),
    "unigram": unigram(),
    "wordpiece": wordpiece(),
    "byte-level, added": with_added(tiny.byte_level_tokenizer()),
    "metaspace, added": with_added(metaspace(leading_space=True)),
}
