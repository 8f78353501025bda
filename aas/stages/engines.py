"""Who does the items: this process, one for each GPU, or a Ray cluster."""

from typing import Any

from aas.engine.filling import Engine
from aas.stages.options import RunOptions
from aas.store.addresses import Spooled


def engine_of(options: RunOptions) -> "Engine[Any] | None":
    """What the options say; None is this process alone. Raises ValueError for GPUs that are not there."""
    if options.engine == "ray":
        if options.address is not None and isinstance(getattr(options, "out", None), Spooled):
            raise ValueError(
                "--out at a URL is written through a folder of this machine, which actors of others do not see: leave "
                "--address out, or give --out a folder that all see and copy it with `aas merge`."
            )
        from aas.engine.cluster import Ray

        return Ray(options.address, *options.least_and_most_actors, uses_gpu=options.device != "cpu")
    if options.gpus is None:
        return None
    from aas.engine.processes import Processes

    devices = [device for device in _devices(options.gpus) for _ in range(options.workers_per_gpu)]
    return Processes(devices)


def _devices(gpus: str) -> list[str]:
    """`all`, `0,2` or `cuda:0,cpu` as names of devices."""
    import torch

    n_gpus = torch.cuda.device_count()
    there = f"This machine has {n_gpus or 'none'}."
    names = [str(i) for i in range(n_gpus)] if gpus == "all" else [name.strip() for name in gpus.split(",")]
    devices = [f"cuda:{name}" if name.isdecimal() else name for name in names]
    if not devices or any(name.isdecimal() and int(name) >= n_gpus for name in names):
        raise ValueError(f"--gpus {gpus}: no such GPU. {there}")
    return devices
