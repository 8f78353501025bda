"""The answer in a terminal, its phrases coloured."""

from collections.abc import Sequence

from aas.records import Answer, GroundedPhrase
from aas.view.colours import colour_of, ink_on
from aas.view.text import Piece, pieces_of

_RESET = "\x1b[0m"


def coloured(answer: Answer, phrases: Sequence[GroundedPhrase], colour: bool = True) -> str:
    """The answer's text with each phrase on its own colour (24-bit ANSI codes); plain text without `colour`.

    Control characters of the model's text do not reach the terminal.
    """
    return "".join(_painted(piece) if colour else piece.text for piece in pieces_of(answer.text, phrases))


def _painted(piece: Piece) -> str:
    if piece.phrase is None:
        return piece.text
    # Colour behind the words and not in them: that reads on dark terminals as well as on light ones.
    background = colour_of(piece.phrase)
    codes = "\x1b[48;2;{};{};{}m\x1b[38;2;{};{};{}m".format(*background, *ink_on(background))
    # A colour that lasts over a line's end would fill the rest of the terminal's line.
    return "\n".join(f"{codes}{line}{_RESET}" if line else "" for line in piece.text.split("\n"))
