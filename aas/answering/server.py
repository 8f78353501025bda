"""One server: what it is asked, how often again, and what its refusals mean."""

import asyncio
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from aas.answering.address import KEY, checked_address
from aas.answering.protocol import TOKEN_IDS, Said, Wanted, answer_of, complaint, only_model, question_json
from aas.images import ImageLike
from aas.images.sent import data_url
from aas.loading import in_short

Shown = tuple[str, ImageLike]  # words about an image, if any, and the image
Named = tuple[str, str]  # the options that say its address and its model
NAMED = ("--answers-from", "--answers-model")
TRIES = 5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
CONNECT_S, ANSWER_S = 10.0, 600.0  # a slow server may have many questions before this one
AGAIN = {408, 425, 429, 500, 502, 503, 504}  # it is busy, or starts
NOBODYS_OWN = {301, 302, 307, 308, 401, 403, 404, 405}  # every question would be answered so


class ServerError(OSError):
    """The server answers nobody: the run ends, and goes on from there when it is started again."""


@dataclass(frozen=True)
class Server:
    """`address`: as http://HOST:PORT/v1; `model`: by the name that the server has for it. No other address is ever
    contacted: no proxy, no redirect. `in_flight`: questions at once."""

    address: str
    model: str
    in_flight: int = 16
    knows: dict[str, bool] = field(default_factory=lambda: {TOKEN_IDS: True}, compare=False)

    def client(self) -> httpx.AsyncClient:
        """For `ask`."""
        limits = httpx.Limits(max_connections=self.in_flight)
        return httpx.AsyncClient(**_settings(), limits=limits)

    async def ask(self, client: httpx.AsyncClient, shown: Sequence[Shown], question: str, wanted: Wanted) -> Said:
        """The answer about images, or to words alone. Raises ValueError where there is none for these images,
        ServerError where there is none for any."""
        urls = [(words, await asyncio.to_thread(data_url, image)) for words, image in shown]
        asked = question_json(self.model, urls, question, wanted)
        if self.knows[TOKEN_IDS]:
            response = await self._posted(client, asked | {TOKEN_IDS: True})
            if response.status_code not in (400, 422):
                return self._read(response)
        response = await self._posted(client, asked)
        if response.is_success:
            self.knows[TOKEN_IDS] = False
        return self._read(response)

    async def _posted(self, client: httpx.AsyncClient, asked: dict[str, Any]) -> httpx.Response:
        """The response, after as many tries as it takes."""
        for n in range(TRIES):
            try:
                response = await client.post(f"{self.address}/chat/completions", json=asked)
            except httpx.TransportError as error:
                if n + 1 == TRIES:
                    raise self._unreached(error) from error
                response = None
            if response is not None and (response.status_code not in AGAIN or n + 1 == TRIES):
                return response
            await asyncio.sleep(pause_s(n, response))
        raise AssertionError("the last try returns or raises")

    def _unreached(self, error: httpx.TransportError) -> Exception:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return ServerError(f"{self.address} cannot be reached ({in_short(error)}): is the server running?")
        return ValueError(f"{self.address} gave no answer in {TRIES} tries ({in_short(error)})")

    def _read(self, response: httpx.Response) -> Said:
        content = content_of(response, self.address)
        try:
            return answer_of(content)
        except ValueError as error:
            raise ValueError(f"{self.address}: {error}") from error


def server_at(address: str, model: str | None = None, in_flight: int = 16, named: Named = NAMED) -> Server:
    """The server that is there, asked for its model where `model` is None. `named`: the options that errors speak of.
    Raises ValueError for no address and for a server of several models, ServerError for one that is not there."""
    address = checked_address(address, named[0])
    if in_flight < 1:
        raise ValueError(f"--in-flight {in_flight}: at least one question must be asked at once.")
    if model is not None:
        return Server(address, model, in_flight)
    try:
        response = httpx.get(f"{address}/models", **_settings())
    except httpx.TransportError as error:
        raise ServerError(f"{address} cannot be reached ({in_short(error)}): is the server running?") from error
    return Server(address, only_model(_list_of(response, address, named[1]), named[1]), in_flight)


def _list_of(response: httpx.Response, address: str, option: str) -> Any:
    try:
        return content_of(response, address)
    except ValueError as error:  # as `transformers serve`, which fails where nothing was ever downloaded
        raise ValueError(f"{option}: name the server's model, since it gives no list ({error}).") from error


def _settings() -> dict[str, Any]:
    key = os.environ.get(KEY)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return {"timeout": httpx.Timeout(ANSWER_S, connect=CONNECT_S, pool=None), "trust_env": False, "headers": headers}


def content_of(response: httpx.Response, address: str) -> Any:
    """The JSON of a response; the server's own words where it is a refusal."""
    try:
        content = response.json()
    except ValueError:
        content = None if response.is_success else response.text
    if response.is_success:
        return content
    refusal = f"{address} answers {response.status_code} ({complaint(content) or response.reason_phrase})"
    if response.status_code not in NOBODYS_OWN:
        raise ValueError(refusal)
    advice = {401: f": its key goes into the environment variable {KEY}", 404: ": mostly the address ends with /v1"}
    raise ServerError(refusal + advice.get(response.status_code, ""))


def pause_s(n_tried: int, response: httpx.Response | None = None) -> float:
    """Before the next try: what the server asks for, or twice as long each time, never the same for all."""
    asked = response.headers.get("Retry-After", "") if response is not None else ""
    pause = float(asked) if asked.isdecimal() else FIRST_PAUSE_S * 2**n_tried * random.uniform(0.5, 1.5)
    return min(pause, LONGEST_PAUSE_S)
