"""What can be wrong with a prompt, told before the model runs."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from aas.capture import CaptureError, Selection
from aas.lmms.prepared import Prepared
from aas.loading import in_short
from aas.phrases.given import check_written

TRIALS = ("What is it?", "Who stands there?")  # questions whose prompts must differ


@contextmanager
def told_once(name: str) -> Iterator[None]:
    """What goes wrong with a trial prompt, in one line."""
    try:
        yield
    except Exception as error:  # jinja's own, TypeError, KeyError, …: by what the template or the settings lack
        raise ValueError(
            f"{name}: its processor makes no prompt of an image and a question "
            f"({in_short(error.__cause__ or error)}). Compare its chat template and processor settings "
            "with those that the model was published with."
        ) from error


def check_differ(one: object, other: object) -> None:
    """ValueError where two questions made the same prompt."""
    if one == other:
        raise ValueError("the question is left out of it")


def check_feature_layer(config: PreTrainedConfig, name: str) -> None:
    """ValueError where the config names a layer that the tower does not have: every image would fail."""
    count = getattr(getattr(config, "vision_config", None), "num_hidden_layers", None)
    named = getattr(config, "vision_feature_layer", None)
    for layer in named if isinstance(named, (list, tuple)) else [named]:
        if isinstance(layer, int) and isinstance(count, int) and not -count - 1 <= layer <= count:
            raise ValueError(
                f"{name}: its config.json says vision_feature_layer {layer}, and its tower has {count} layers."
            )


def check_settings(image_processor: object, assumed_settings: dict[str, bool]) -> None:
    """CaptureError where the image processor has other settings than a family takes for granted."""
    for name, assumed in assumed_settings.items():
        value = getattr(image_processor, name, None)
        if value is not None and bool(value) != assumed:
            raise CaptureError(
                f"The image processor's settings say {name} {value}: where this model then sees an image is not known."
            )


def check_length(prepared: Prepared, longest: int | None, is_encoder_decoder: bool) -> None:
    """CaptureError where image, question and answer do not fit a context of `longest` tokens."""
    length = prepared.length
    if is_encoder_decoder:  # the answer is a sequence of its own
        length = max(length - prepared.n_answer, prepared.n_answer)
    if longest and length >= longest:
        raise CaptureError(
            f"The image and the question take {length} tokens, the model's context holds {longest}: "
            "shrink the image or shorten the question."
        )


def check_answer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, token_ids: list[int], text: str | None
) -> None:
    """ValueError for tokens that the model does not have, an image among them, and those that do not write `text`."""
    embeddings = model.get_input_embeddings()
    n_tokens = getattr(embeddings, "num_embeddings", None) or len(tokenizer)
    unknown = [token for token in token_ids if not 0 <= token < n_tokens]
    if unknown:
        raise ValueError(f"The given token {unknown[0]} is none of the model's: it has {n_tokens}, numbered from 0.")
    if getattr(model.config, "image_token_id", None) in token_ids:
        raise ValueError("The given answer holds the model's image token: an answer is words alone.")
    if text and text.strip():
        check_written(tokenizer, token_ids, text)


def resolved(selection: Selection, config: PreTrainedConfig) -> Selection:
    """Indices from the end made positive; ValueError for those that a language model of this config does not have."""
    counts = {"layers": config.num_hidden_layers, "heads": config.num_attention_heads}
    found: dict[str, tuple[int, ...] | None] = {}
    for what, count in counts.items():
        indices = getattr(selection, what)
        wrong = [i for i in indices or () if not -count <= i < count]
        if wrong:
            raise ValueError(f"The model has {count} {what}, numbered from 0 (or from -1 at the end): no {wrong[0]}.")
        found[what] = None if indices is None else tuple(sorted({i % count for i in indices}))
    return Selection(found["layers"], found["heads"], selection.keep)
