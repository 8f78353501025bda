"""A model of a folder or of the hub, and what makes its inputs: whatever is wrong with its files in one line."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import AutoModelForImageTextToText, PreTrainedModel, ProcessorMixin

from aas import int8
from aas.loading import in_short, is_ours
from aas.model_files import check_processor, weight_files

if TYPE_CHECKING:
    from aas.lmms.family import Family


def pretrained(
    family: "type[Family]", source: str, revision: str, **options: Any
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """`options` are those of `from_pretrained`. ValueError where a file is missing or damaged, or does not fit."""
    processor = _processor(family, source, revision)  # may refuse the model, before the weights are read
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


def _processor(family: "type[Family]", source: str, revision: str) -> ProcessorMixin:
    try:
        processor = family.load_processor(source, revision)
    except Exception as error:  # missing, damaged, or a package that it needs
        if is_ours(error):
            raise
        check_processor(Path(source))
        raise ValueError(f"{source}: its tokenizer or processor cannot be loaded ({in_short(error)}).") from error
    check_processor(Path(source))
    family.check_template(processor, source)
    return processor
