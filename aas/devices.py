"""On which device a model runs, and with which numbers."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

from aas.choices import Dtype, check

SMALL_WEIGHTS = 60_000_000  # a model with more keeps all cores busy by itself, and several would need much memory


def is_small(model: "torch.nn.Module") -> bool:
    """Whether several of it fit side by side on a CPU, and one core each serves them best."""
    return sum(weight.numel() for weight in model.parameters()) <= SMALL_WEIGHTS


def default_device() -> str:
    """A GPU if there is one; of several, where torchrun or accelerate started a process for each, its own."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    own = os.environ.get("LOCAL_RANK", "")
    return f"cuda:{own}" if own.isdecimal() and int(own) < torch.cuda.device_count() else "cuda"


def torch_device(device: "str | torch.device | None") -> "torch.device":
    """The device of that name ("cpu", "cuda", "cuda:1"), the default one if None.

    ValueError, before anything is loaded, where this machine has no such device.
    """
    import torch

    try:
        chosen = torch.device(default_device() if device is None else device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, TypeError, ImportError) as error:  # torch's words: a page, or C++
        raise ValueError(_no_device(device)) from error
    if chosen.type == "meta":
        raise ValueError(_no_device(device))
    return chosen


def _no_device(device: object) -> str:
    import torch

    kind = torch.accelerator.current_accelerator(check_available=True)
    gpus = [f"{kind.type}:{i}" for i in range(torch.accelerator.device_count())] if kind else []
    return f"No device {str(device)!r} on this machine. There are: {', '.join(['cpu', *gpus])}."


def torch_dtype(dtype: "str | torch.dtype", device: "str | torch.device") -> "torch.dtype":
    """One of `aas.choices.Dtype`, or what it names. ValueError if unknown.

    `auto`: bfloat16 on a GPU that has it, float16 on an older one, float32 elsewhere.
    """
    import torch

    name = str(dtype).removeprefix("torch.")
    check("dtype", name, Dtype)
    if name == "auto" and torch.device(device).type == "cuda":
        name = "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float16"
    return torch.float32 if name == "auto" else getattr(torch, name)
