"""OpenAI's chat completions: what is asked of a server, and what is read of what it says."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aas.spellings import whole_of
from aas.text import HALF

TOKEN_IDS = "return_token_ids"  # vLLM's and SGLang's; others ignore it, and strict ones refuse what they do not know
SHOWN = 200  # characters of a server's complaint


@dataclass(frozen=True)
class Wanted:
    """How the server's model is to answer: at most `max_tokens` of them; `temperature` 0 is greedy."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Said:
    """An answer, and its tokens where the server gives them."""

    text: str
    token_ids: tuple[int, ...] | None = None


def question_json(model: str, shown: Sequence[tuple[str, str]], question: str, wanted: Wanted) -> dict[str, Any]:
    """The request about images, `shown` by their URLs, each behind its words, if any; or in words alone."""
    content: Any = question  # servers of language models alone take no lists
    if shown:
        content = []
        for words, url in shown:
            content += [{"type": "text", "text": words}] if words else []
            content.append({"type": "image_url", "image_url": {"url": url}})
        content.append({"type": "text", "text": question})
    return {"model": model, "messages": [{"role": "user", "content": content}], "stream": False} | vars(wanted)


def answer_of(content: Any) -> Said:
    """The response's first choice; ValueError for one that holds no words."""
    try:
        choice = content["choices"][0]
        text = choice["message"]["content"] or ""
    except (KeyError, IndexError, TypeError):
        raise ValueError("the server's response holds no answer: is it a server of chat completions?") from None
    if not isinstance(text, str) or not text.strip():
        raise ValueError("the server's answer is empty")
    if HALF.search(text) or "\0" in text:
        raise ValueError("the server's answer holds half a character (a lone surrogate), or U+0000")
    return Said(text.strip(), _token_ids(choice.get("token_ids") or choice.get("response_token_ids")))


def _token_ids(given: Any) -> tuple[int, ...] | None:
    found = [whole_of(one) for one in given] if isinstance(given, list) else []
    whole = tuple(one for one in found if one is not None and 0 <= one < 2**31)
    return whole if whole and len(whole) == len(found) else None


def only_model(content: Any, option: str = "--answers-model") -> str:
    """The model that the server has, by its list; ValueError, which names the `option`, where it has none or
    several."""
    entries = content.get("data") if isinstance(content, dict) else None
    entries = entries if isinstance(entries, list) else []
    names = [entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
    if len(names) == 1:
        return names[0]
    several = f"it has {', '.join(names[:8])}" if names else "it does not say which it has"
    raise ValueError(f"{option}: which of the server's models? {several[0].upper()}{several[1:]}.")


def complaint(content: Any) -> str:
    """What a server says of a request that it refuses, from the places where such servers say it."""
    for key in ("error", "message", "detail"):
        if isinstance(content, dict) and content.get(key):
            content = content[key]
    return " ".join(str(content).split())[:SHOWN]
