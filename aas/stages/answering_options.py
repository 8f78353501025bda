"""The options of stages whose answers a server may give."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Self

from aas.answering.address import checked_address
from aas.stages.options import ANSWER, RUN, RunOptions

if TYPE_CHECKING:
    from aas.answering.server import Server
    from aas.datasets.answers import GivenAnswer


@dataclass(frozen=True, kw_only=True)
class ServedOptions(RunOptions):
    """Who answers, where it is not the model itself; the model then reads the answers, and its attention counts."""

    answers_from: Annotated[
        str | None,
        ANSWER(
            metavar="URL", help="Let a server answer: vLLM, SGLang, llama.cpp, Ollama. As http://localhost:8000/v1."
        ),
    ] = None
    answers_model: Annotated[
        str | None, ANSWER(help="With --answers-from: the server's name of its model. Default: the one that it has.")
    ] = None
    in_flight: Annotated[int, RUN(min=1, help="With --answers-from: questions that the server has at once.")] = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.answers_from is not None:
            checked_address(self.answers_from)
        elif self.answers_model is not None or self.in_flight != 16:
            raise ValueError("--answers-model and --in-flight are of --answers-from.")

    def with_server(self) -> Self:
        """With the name of the model that answers, which decides what the results are. Asks the server for it, where
        it is not given. Raises ValueError and OSError as `server_at`."""
        server = self.server()
        return self if server is None else replace(self, answers_model=server.model)

    def server(self) -> "Server | None":
        """The one that answers, if the model itself does not."""
        if self.answers_from is None:
            return None
        from aas.answering.server import server_at

        return server_at(self.answers_from, self.answers_model, self.in_flight)

    def inputs(self) -> dict[str, Any]:
        return super().inputs() | {"answers_from": self.answers_from}

    def deciding(self) -> dict[str, Any]:
        found = super().deciding()
        del found["in_flight"]
        if self.answers_model is None:  # so that runs of before it can be gone on with
            del found["answers_model"]
        return found


def check_asked(rows: Sequence["GivenAnswer"], options: ServedOptions) -> None:
    """ValueError where the lines of --answers have answers already, and a server is to give them."""
    if options.answers_from is not None and not all(row.is_asked for row in rows):
        raise ValueError("The lines of --answers have answers already: leave --answers-from out, or the answers.")
