"""Which numbers a model computes with on a device."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

DTYPES = ("auto", "bfloat16", "float16", "float32")


def default_device() -> str:
    """A GPU if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def torch_dtype(name: str, device: str) -> "torch.dtype":
    """`auto`: bfloat16 on a GPU that has it, float16 on an older one, float32 elsewhere. ValueError if unknown."""
    import torch

    if name not in DTYPES:
        raise ValueError(f"Unknown dtype {name!r}. Known: {', '.join(DTYPES)}.")
    if name == "auto" and device.startswith("cuda"):
        name = "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float16"
    return torch.float32 if name == "auto" else getattr(torch, name)
