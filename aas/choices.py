"""What can be chosen by a word: in the commands, in Python, and nowhere spelled out again."""

from typing import Any, Literal, get_args

Alignment = Literal["predict", "self"]
ConfidenceKind = Literal["calibrated", "uncalibrated", "token"]
# Where a model allows it, answers are written in slots (aas.decoding), on a GPU by recorded steps ("auto") or step by
# step ("steps"); or by transformers' `generate`.
Decoding = Literal["auto", "steps", "generate"]
Dtype = Literal["auto", "bfloat16", "float16", "float32"]
Fit = Literal["pad", "stretch"]
Keep = Literal["mean", "layers", "heads"]
Kind = Literal["pronouns", "unseen"]
Look = Literal["thought", "given", "whole"]
MaskChoice = Literal["last", "best-score", "best-attention"]
Merge = Literal["mean", "max", "first"]
PresetName = Literal["paper", "reference-2024", "reference-2025"]
PromptKind = Literal["point", "mask"]
Quantize = Literal["4bit", "8bit"]
ReadOut = Literal["argmax", "centroid", "region"]
Show = Literal["both", "crop"]
Task = Literal["gcg", "instance", "expressions"]
ThoughtWords = Literal["object", "all"]
HEAD_THRESHOLD = 0.5  # probability above which a pixel belongs to a trained head's mask
TRAINING_FREE = "training-free"  # masks by prompts, where trained heads are to choose from
Words = Literal["root", "chunk"]


def check(name: str, value: Any, choices: Any) -> None:
    """Raise ValueError for a `value` of option `name` that is none of the words of a Literal."""
    if value not in get_args(choices):
        raise ValueError(f"Unknown {name} {value!r}. Known: {', '.join(get_args(choices))}.")
