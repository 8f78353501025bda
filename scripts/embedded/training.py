"""One phase of training: steps, a moving average of the weights, figures now and then, and going on after a stop."""

import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from aas.backbones import Backbone


class Batch:
    """What a dataclass of tensors needs to be a batch."""

    def to(self, device: torch.device) -> Self:
        tensors = {k: v.to(device, non_blocking=True) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **tensors)  # type: ignore[type-var]


SomeBatch = TypeVar("SomeBatch", bound=Batch)


def freeze_first_blocks(backbone: Backbone, n_blocks: int) -> None:
    """Edges and colours need no training, and the first blocks' backward pass is the dearest."""
    for part in (backbone.stem, *backbone.blocks[:n_blocks]):
        part.requires_grad_(False)


def shuffled(index: int, n: int, seed: int, *more: int) -> int:
    """The `index`-th of endless epochs over `n` things, each epoch in another order: all once before any twice."""
    epoch, at = divmod(index, n)
    return int(np.random.default_rng([seed, epoch, *more]).permutation(n)[at])


class Average:
    """Exponential moving average of the weights that are trained; what is evaluated and kept."""

    def __init__(self, parameters: list[nn.Parameter], decay: float):
        self.parameters, self.decay = parameters, decay
        self.weights = [p.detach().clone() for p in parameters]
        self.n = 0

    @torch.no_grad()
    def update(self) -> None:
        self.n += 1
        torch._foreach_lerp_(self.weights, list[Tensor](self.parameters), 1 - min(self.decay, self.n / (self.n + 10)))

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's weights and their average."""
        for parameter, weights in zip(self.parameters, self.weights, strict=True):
            kept = parameter.clone()
            parameter.copy_(weights)
            weights.copy_(kept)

    def state_dict(self) -> dict:
        return {"weights": self.weights, "n": self.n}

    def load_state_dict(self, state: dict) -> None:
        self.weights, self.n = state["weights"], state["n"]


def optimizer_for(groups: Iterable[tuple[Iterable[nn.Parameter], float]]) -> torch.optim.AdamW:
    """AdamW over (parameters, learning rate); only matrices and kernels decay."""
    split = []
    for parameters, lr in groups:
        trained = [p for p in parameters if p.requires_grad]
        for matrix, decay in ((True, 0.05), (False, 0.0)):
            some = [p for p in trained if (p.ndim > 1) == matrix]
            if some:
                split.append({"params": some, "lr": lr, "weight_decay": decay})
    return torch.optim.AdamW(split, betas=(0.9, 0.98), fused=True)


def cosine(step: int, n_steps: int, warmup: int) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, n_steps - warmup)))


class Steps(Dataset):
    """Batches by step, as DataLoader's workers want them."""

    def __init__(self, batches: Callable[[int], Any]):
        self.batches = batches

    def __getitem__(self, step: int) -> Any:
        return self.batches(step)


def run_phase(
    name: str,
    n_steps: int,
    groups: list[tuple[list[nn.Parameter], float]],
    batches: Callable[[int], SomeBatch],
    losses: Callable[[SomeBatch], dict[str, Tensor]],
    figures: Callable[[], dict[str, float]],
    work: Path,
    every: int,
    decay: float = 0.998,
    n_workers: int = 0,
) -> list[dict]:
    """Train until step `n_steps` and leave the averaged weights in the model; returns the log.

    `batches(step)` -> a step's batch, made by `n_workers` processes (0: by this one); `losses(batch)` -> {name:
    weighted loss}. Every so many steps `figures()` of the averaged weights are logged and the state is written to
    `work/<name>.pt`; a phase that was stopped goes on from there, to the same weights.
    """
    optimizer = optimizer_for(groups)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    average = Average(parameters, decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: cosine(s, n_steps, min(100, n_steps // 10)))
    state: dict[str, Any] = {"optimizer": optimizer, "average": average, "scheduler": scheduler}
    path, log, first = work / f"{name}.pt", [], 0
    if path.exists():
        saved = torch.load(path, weights_only=True, map_location=parameters[0].device)
        for key, value in state.items():
            value.load_state_dict(saved[key])
        with torch.no_grad():
            for parameter, weights in zip(parameters, saved["parameters"], strict=True):
                parameter.copy_(weights)
        log, first = json.loads(saved["log"]), saved["step"]
    running: dict[str, float] = {}
    started = time.time()
    loader = DataLoader(Steps(batches), batch_size=None, sampler=range(first, n_steps), num_workers=n_workers)
    for step, batch in enumerate(loader, start=first):
        torch.manual_seed(step)  # dropout of a phase that goes on is that of one which never stopped
        parts = losses(batch.to(parameters[0].device))
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(parts.values())).sum().backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        scheduler.step()
        average.update()
        for key, loss in parts.items():
            running[key] = 0.98 * running.get(key, loss.item()) + 0.02 * loss.item()
        if (step + 1) % every == 0 or step + 1 == n_steps:
            average.swap()
            entry = {"phase": name, "step": step + 1, "seconds": round(time.time() - started)} | running | figures()
            log.append(entry)
            print(*(f"{k}={v:.3f}" if isinstance(v, float) else f"{k}={v}" for k, v in entry.items()), flush=True)
            average.swap()
            saved = {key: value.state_dict() for key, value in state.items()}
            saved |= {"parameters": parameters, "log": json.dumps(log), "step": step + 1}
            torch.save(saved, path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)
    average.swap()
    return log
