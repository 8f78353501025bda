"""What the eyes say of a word, before the decoder."""

from torch import Tensor
from torch.nn import functional as F

from aas.captured import Captured, Needs
from aas.maps.source import Source, checked_layers


class Cosine(Source):
    """How alike the answer's word and each image token are as the latter comes into the decoder, or (`cosine:2`) into a
    layer of it.

    M[t, j] = cos(w_y(t), x_j), w a row of the output matrix, x_j the state that comes into the layer: without the final
    norm, and without lengths, which differ between image tokens and say nothing of the word. It shows something where
    the projector has learned to bring image tokens near to the vectors of words.
    """

    def __init__(self, argument: str = ""):
        if argument and not argument.isdigit():
            raise ValueError(f"--maps cosine:{argument}: name one layer, counted from 0, like cosine:2.")
        self.layer = int(argument or 0)

    def needs(self, n_layers: int, n_heads: int) -> Needs:
        return Needs(residuals=checked_layers(frozenset([self.layer]), n_layers))

    def __call__(self, captured: Captured) -> Tensor:
        assert captured.word_rows is not None
        states = captured.residuals[self.layer]
        of_image = F.normalize(states[captured.columns.to(states.device)].float(), dim=-1)
        words = captured.word_rows[captured.answer.to(captured.word_rows.device)]
        return (F.normalize(words.to(states.device).float(), dim=-1) @ of_image.T).cpu()
