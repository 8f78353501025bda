"""What the image's tokens say themselves."""

from torch import Tensor

from aas.captured import Captured, Needs
from aas.maps.source import Source


class Lens(Source):
    """The logit of the answer's word in each image token's hidden state, behind the last layer or (`lens:12`) behind
    another.

    M[t, j] = w_y(t) . n(h_j), n the final norm, w a row of the output matrix. In late layers what patches say may have
    moved into the text's tokens (arXiv 2602.01530): an earlier layer then shows more.
    """

    def __init__(self, argument: str = ""):
        if argument and not argument.isdigit():
            raise ValueError(f"--maps lens:{argument}: name one layer, counted from 0, like lens:12.")
        self.layer = int(argument) if argument else None

    def needs(self, n_layers: int, n_heads: int) -> Needs:
        if self.layer is not None and self.layer >= n_layers:
            raise ValueError(f"--maps lens: the model has {n_layers} layers, numbered from 0: no {self.layer}.")
        return Needs(states=frozenset([n_layers if self.layer is None else self.layer + 1]))

    def __call__(self, captured: Captured) -> Tensor:
        assert captured.word_rows is not None
        states = captured.states[max(captured.states) if self.layer is None else self.layer + 1]
        of_image = states[captured.columns.to(states.device)].float()
        words = captured.word_rows[captured.answer.to(captured.word_rows.device)]
        return (words.to(states.device).float() @ of_image.T).cpu()
