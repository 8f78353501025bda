"""Files of tensors whose bytes are those of what they hold, and of nothing else."""

import json

from aas.store.pieces import ALIGNED, LENGTH


def ordered(content: bytes) -> bytes:
    """A safetensors file with its metadata sorted: the library writes them in an order of chance."""
    start = LENGTH + int.from_bytes(content[:LENGTH], "little")
    header = json.loads(content[LENGTH:start])
    text = json.dumps({"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header})
    encoded = text.encode()
    encoded += b" " * (-len(encoded) % ALIGNED)
    return len(encoded).to_bytes(LENGTH, "little") + encoded + content[start:]
