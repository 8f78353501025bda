"""How an LMM is loaded and asked, as keywords: what `Grounder` takes, and the commands give."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from aas.capture import Selection
from aas.choices import Alignment, Dtype, Keep, Quantize, check
from aas.lmms.prepared import AskOptions
from aas.lmms.sampling import Sampling
from aas.maps import DEFAULT, names_of, source_named

if TYPE_CHECKING:
    import torch
    from transformers import ProcessorMixin


class Loading(TypedDict, total=False):
    """How the LMM is loaded; see `aas.lmms.load_lmm`."""

    processor: "ProcessorMixin | None"
    base: str | None
    adapter: str | None
    dtype: "Dtype | torch.dtype"
    quantize: Quantize | None
    device_map: str | dict[str, Any] | None


class Asking(TypedDict, total=False):
    """How the LMM answers, and which of its attention counts; see `ask_options`."""

    layers: Sequence[int] | None
    heads: Sequence[int] | None
    alignment: Alignment
    view: str | None
    maps: str | Sequence[str]
    max_new_tokens: int | None
    temperature: float
    top_p: float
    seed: int


class How(Loading, Asking, total=False):
    """Both."""


def told_apart(how: How) -> tuple[Asking, Loading]:
    """Raises TypeError for a keyword that is none."""
    known = Asking.__annotations__ | Loading.__annotations__
    unknown = [name for name in how if name not in known]
    if unknown:
        raise TypeError(f"There is no option {unknown[0]!r}. Known: {', '.join(sorted(known))}, …")
    asking = {name: value for name, value in how.items() if name in Asking.__annotations__}
    loading = {name: value for name, value in how.items() if name in Loading.__annotations__}
    return asking, loading  # type: ignore[return-value]


def ask_options(
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    keep: Keep = "mean",
    alignment: Alignment = "predict",
    view: str | None = None,
    max_new_tokens: int | None = None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    maps: str | Sequence[str] = DEFAULT,
) -> AskOptions:
    """`layers`, `heads`: indices that are averaged (or kept apart, by `keep`), None for all; `temperature`: 0 is
    greedy; `maps`: "mean,tam" or a list of names; the others as in `AskOptions`. Raises ValueError or OSError for what
    cannot be."""
    check("alignment", alignment, Alignment)
    check("keep", keep, Keep)
    selection = Selection(None if layers is None else tuple(layers), None if heads is None else tuple(heads), keep)
    sampling = Sampling(temperature, top_p) if temperature else None
    names = names_of(maps)
    for name in names:
        source_named(name)  # complains about what it does not understand
    return AskOptions(max_new_tokens, sampling, selection, alignment, view, seed, names)
