"""What a model is asked, and how."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor

from aas.capture import MEAN_OF_ALL, Selection
from aas.choices import Alignment, Decoding
from aas.lmms.grids import TokenGrid
from aas.lmms.sampling import Sampling
from aas.maps import DEFAULT

History = Sequence[tuple[str, str]]  # earlier questions about the same image, and their answers


@dataclass(frozen=True)
class Prepared:
    """One image and question, ready for the model: tensors of a batch of one, on the CPU, not yet padded."""

    question: str
    inputs: dict[str, Tensor]
    grids: tuple[TokenGrid, ...]
    answer_ids: Tensor | None = None  # int64 [T]: given, not to be generated
    generic: "Prepared | None" = None  # the same image with a generic question, for the map sources that need it

    @property
    def n_answer(self) -> int:
        """Tokens of the given answer."""
        return 0 if self.answer_ids is None else len(self.answer_ids)

    @property
    def length(self) -> int:
        """Tokens of the prompt and the given answer."""
        return self.inputs["input_ids"].shape[1] + self.n_answer


@dataclass(frozen=True)
class AskOptions:
    """How to ask, and what to keep of the attention.

    `max_new_tokens`: the model's own limit if None. Greedy without `sampling`. `view`: name of the grid whose maps are
    wanted, the model's first if None, or "combined". `selection` and `alignment`: see aas.capture. `seed`: of every
    image's own generators, for the tokens that are drawn and for the noise of an encoder that needs some. `maps`: names
    of map sources (docs/maps.md); with others than the mean, `selection` must be that of all layers and heads.
    `decoding`: who runs the steps, see `aas.choices.Decoding`; it changes no answer.
    """

    max_new_tokens: int | None = None
    sampling: Sampling | None = None
    selection: Selection = MEAN_OF_ALL
    alignment: Alignment = "predict"
    view: str | None = None
    seed: int = 0
    maps: tuple[str, ...] = (DEFAULT,)
    decoding: Decoding = "auto"


DEFAULT_OPTIONS = AskOptions()


def messages(question: str, history: History = (), **image: Image.Image) -> list[dict[str, Any]]:
    """A question about an image, behind earlier questions and their answers, as chat templates take it."""
    said = [("user", question)]
    for asked, answer in reversed(history):
        said = [("user", asked), ("assistant", answer), *said]
    (_, first), *later = said
    behind = [{"role": role, "content": [{"type": "text", "text": words}]} for role, words in later]
    return [{"role": "user", "content": [{"type": "image", **image}, {"type": "text", "text": first}]}, *behind]
