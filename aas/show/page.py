"""What stands above and beside the photographs of a run's report.html."""

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aas.maps import DEFAULT
from aas.photographs import is_url, is_web
from aas.store.addresses import Spooled, folder_at
from aas.store.runs import RunFolder
from aas.store.shards import is_there

REPORT = "report.html"
EMBEDDED_NOTICE = (
    "The embedded model is small (56 million parameters, 2,000 photographs): expect simple captions and "
    "mistakes. A large one answers better: --model llava-hf/llava-1.5-7b-hf --segmenter facebook/sam-vit-huge"
)
ABOVE_EACH_ANSWER = ("question", "answer")


def facts_of(run: RunFolder, description: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Model, segmenter, maps, other options that were given and decide, command and date of a run, as far as its
    run.json says them."""
    arguments = description["arguments"]
    named = {"model": _model(description)} | {name: arguments.get(name) for name in ("segmenter", "preset")}
    if arguments.get("maps") != DEFAULT:
        named["maps"] = arguments.get("maps")
    named |= {
        name: value
        for name, value in description.get("options", {}).items()
        if name in arguments and name not in named and name not in ABOVE_EACH_ANSWER
    }
    facts = [(name.capitalize().replace("_", " "), _words(value)) for name, value in named.items() if value is not None]
    facts.append(("Command", f"aas {description['command']}"))
    if isinstance(run.path, Spooled):  # whose run.json came here just now
        return facts
    begun = datetime.fromtimestamp(run.description_path.stat().st_mtime)
    return [*facts, ("Date", f"{begun:%d %B %Y, %H:%M}".lstrip("0"))]


def _words(value: Any) -> str:
    """What an option's value in run.json says."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def notice_of(description: Mapping[str, Any]) -> str:
    """What people should know of a run's model."""
    return EMBEDDED_NOTICE if _model(description) == "embedded" else ""


def _model(description: Mapping[str, Any]) -> str | None:
    """Of `aas segment` that of the attention, where it is still there."""
    attn = description.get("inputs", {}).get("attn")
    if attn and is_there(folder_at(attn) / "run.json"):
        return RunFolder(folder_at(attn), "").description()["arguments"].get("model")
    return description["arguments"].get("model")


def links_of(item: Path, photograph: str | None, page: Path) -> dict[str, str]:
    """Where a photograph's files are, seen from `page`: its result, its picture, itself (a path or a web
    address; no browser follows others)."""
    files = {"JSON" if item.suffix == ".json" else "Maps": item, "PNG": item.with_suffix(".png")}
    found = {words: _href(file, page) for words, file in files.items() if is_there(file)}
    if photograph is None or (is_url(photograph) and not is_web(photograph)):
        return found
    if isinstance(page, Spooled) and not is_web(photograph):  # out of a store no way leads to a file
        return found
    if is_web(photograph):
        return found | {"Photograph": quote(photograph, safe=":/?#[]@!$&'()*+,;=%")}
    return found | {"Photograph": _href(Path(photograph), page)}


def _href(file: Path, page: Path) -> str:
    """A relative address that no browser takes for a scheme."""
    return "./" + quote(os.path.relpath(file, page.parent).replace(os.sep, "/"), errors="surrogateescape")
