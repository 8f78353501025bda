"""Many questions to a server at once: each item goes on when its answer is there."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TypeAlias, TypeVar

from anyio.from_thread import start_blocking_portal

from aas.answering.protocol import Said, Wanted
from aas.answering.server import Server, ServerError, Shown
from aas.images import ImageLike

T = TypeVar("T")
Asked: TypeAlias = "ImageLike | list[Shown] | None"
AHEAD = 2  # times as many items are taken as questions are in flight: none waits for who grounds the answers


def ask_all(
    server: Server, wanted: Wanted, items: Iterable[T], asked_of: Callable[[T], tuple[Asked, str]]
) -> Iterator[tuple[T, Said | Exception]]:
    """Each item with the server's answer, or with why there is none, as they come; `asked_of`: an item's image, if any,
    or several, each with words about it, and its question. Items are taken one by one, here, as places become free.
    Raises ServerError where the server answers nobody. Closed early, it asks no more."""
    with start_blocking_portal() as portal:
        asking = portal.call(_Asking, server, wanted)
        waiting: dict[Future[Said], T] = {}
        items = iter(items)
        try:
            while True:
                for item in _some(items, AHEAD * server.in_flight - len(waiting)):
                    waiting[portal.start_task_soon(asking.ask, *asked_of(item))] = item
                if not waiting:
                    return
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield waiting.pop(future), _said(future)
        finally:
            for future in waiting:
                future.cancel()
            portal.call(asking.client.aclose)


def _some(items: Iterator[T], n: int) -> Iterator[T]:
    return (item for _, item in zip(range(n), items, strict=False))


class _Asking:
    """In the event loop: the client, and places for those in flight."""

    def __init__(self, server: Server, wanted: Wanted):
        self.server, self.wanted = server, wanted
        self.client, self.places = server.client(), asyncio.Semaphore(server.in_flight)

    async def ask(self, asked: Asked, question: str) -> Said:
        shown = asked if isinstance(asked, list) else [] if asked is None else [("", asked)]
        async with self.places:
            return await self.server.ask(self.client, shown, question, self.wanted)


def _said(future: Future[Said]) -> Said | Exception:
    try:
        return future.result()
    except ServerError:
        raise
    except Exception as error:  # whatever one item's trouble is, it costs nobody else's result
        return error
