"""The answer in a terminal, its phrases coloured."""

from collections.abc import Sequence

from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from aas.records import Answer, GroundedPhrase
from aas.view.colours import RGB, colour_of, ink_on
from aas.view.sharing import thing_of_phrases, things
from aas.view.text import pieces_of


def coloured(answer: Answer, phrases: Sequence[GroundedPhrase], colour: bool | None = None) -> str:
    """The answer's text, each phrase on the colour of its mask.

    `colour`: whether the words go to a terminal; None: whether standard output is one. rich knows how many colours it
    has, and that NO_COLOR means none. Control characters of the model's text do not reach the terminal. Lines are not
    cut: the terminal wraps them.
    """
    thing_of = thing_of_phrases(things(phrases))
    text = Text()
    for piece in pieces_of(answer.text, phrases):
        text.append(piece.text, None if piece.phrase is None else _style(colour_of(thing_of[piece.phrase].colour)))
    console = Console(force_terminal=colour)
    with console.capture() as captured:
        console.print(text, end="", soft_wrap=True)
    return captured.get()


def _style(background: RGB) -> Style:
    # Colour behind the words and not in them: that reads on dark terminals as well as on light ones.
    return Style(color=Color.from_rgb(*ink_on(background)), bgcolor=Color.from_rgb(*background))
