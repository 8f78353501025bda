"""A head learns from captured examples: AdamW, a learning rate that rises and falls, resumed to the same bits."""

import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from aas.heads.head import MaskHead
from aas.heads.losses import mask_ious
from aas.store.atomic import write_bytes
from aas.training.cache import Unusable
from aas.training.examples import Examples, next_usable
from aas.training.recipe import Recipe

COLD = 1e-5  # of the learning rate: where it begins to rise
MOMENTS = ("exp_avg", "exp_avg_sq")
Tell = Callable[[int, float], None]  # the number of steps done, the last one's loss


def learning_rate(step: int, recipe: Recipe) -> float:
    """Of a step: linear over the warm-up, then a cosine to 0 behind the last one."""
    n_warm = round(recipe.warmup * recipe.steps)
    if step < n_warm:
        return recipe.learning_rate * (COLD + (1 - COLD) * step / n_warm)
    share = (step - n_warm) / max(1, recipe.steps - n_warm)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


@dataclass(frozen=True)
class Order:
    """Which of `n` examples a process sees at each place of its training: every epoch another permutation."""

    n: int
    seed: int
    process: int = 0
    n_processes: int = 1

    def __call__(self, place: int) -> int:
        epoch, i = divmod(place * self.n_processes + self.process, self.n)
        random = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return int(torch.randperm(self.n, generator=random)[i])


def fit(head: MaskHead, examples: Examples, recipe: Recipe, state: Path, tell: Tell = lambda *_: None) -> None:
    """Train `head` for the recipe's steps, going on from the file `state`, which is written every `save_steps` and at
    the end: on a CPU with the same bits as if it had never stopped. ValueError where a loss is not finite."""
    accelerator = Accelerator(mixed_precision=recipe.precision)
    trained = {name: parameter for name, parameter in head.named_parameters() if parameter.requires_grad}
    optimiser = torch.optim.AdamW(trained.values(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    head.to(accelerator.device)
    start = _read_state(state, head, trained, optimiser, recipe)
    network, fast = accelerator.prepare(head.train(), optimiser)
    order = Order(len(examples), recipe.seed, accelerator.process_index, accelerator.num_processes)
    for step in range(start, recipe.steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, recipe)
        places = range(step * recipe.batch_size, (step + 1) * recipe.batch_size)
        some = [next_usable(examples, order(place)).to(accelerator.device) for place in places]
        torch.manual_seed(recipe.seed * 1_000_003 + step)  # of dropout
        with accelerator.autocast():
            logits = network([one.features for one in some])
        losses = [head.loss(one.features, of, one.truth) for of, one in zip(logits, some, strict=True)]
        loss = torch.stack(losses).mean()
        if not loss.isfinite():
            raise ValueError(f"The loss of step {step} is not a finite number: lower learning_rate, or precision: no.")
        fast.zero_grad()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(trained.values(), recipe.clip)
        fast.step()
        tell(step + 1, float(loss.detach()))
        if accelerator.is_main_process and ((step + 1) % recipe.save_steps == 0 or step + 1 == recipe.steps):
            _write_state(state, head, trained, optimiser, recipe, step + 1)


@torch.no_grad()
def validated(head: MaskHead, examples: Examples) -> list[list[float]]:
    """The IoU of each phrase with its truth, by each of the logits that the head makes, coarse first, where it is."""
    was_training = head.training
    head.eval()
    found: list[list[float]] = []
    for i in range(len(examples)):
        with suppress(Unusable):
            example = examples[i].to(next(head.parameters()).device)
            stages = head([example.features])[0]
            ious = [mask_ious(logits, example.truth, example.features.image_hw).tolist() for logits in stages]
            found += map(list, zip(*ious, strict=True))
    head.train(was_training)
    return found


def _write_state(
    path: Path,
    head: MaskHead,
    trained: Mapping[str, Tensor],
    optimiser: torch.optim.Optimizer,
    recipe: Recipe,
    step: int,
) -> None:
    tensors = {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
    for name, parameter in trained.items():
        for moment in MOMENTS:
            if parameter in optimiser.state:
                tensors[f"{moment}.{name}"] = optimiser.state[parameter][moment]
    content = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    said = json.dumps({"step": step, "recipe": _deciding(recipe)})  # under one name: several come in any order
    write_bytes(path, save(content, {"training": said}))


def _read_state(
    path: Path, head: MaskHead, trained: Mapping[str, Tensor], optimiser: torch.optim.Optimizer, recipe: Recipe
) -> int:
    """The number of steps that are done; 0 where there is no state."""
    if not path.is_file():
        return 0
    try:
        with safe_open(path, "pt") as file:
            said = json.loads(file.metadata()["training"])
            step, made_by = said["step"], said["recipe"]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
        head.load_state_dict({name: tensors[f"head.{name}"] for name in head.state_dict()})
    except (SafetensorError, TypeError, KeyError, RuntimeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no state of this head's training: name another folder, or delete it.") from error
    if made_by != _deciding(recipe):
        raise ValueError(f"{path} is of a training by another recipe: repeat that to go on, or name another `out`.")
    for name, parameter in trained.items():
        moments = {moment: tensors.get(f"{moment}.{name}") for moment in MOMENTS}
        if all(moment is not None for moment in moments.values()):
            placed = {moment: values.to(parameter.device) for moment, values in moments.items() if values is not None}
            optimiser.state[parameter] = {"step": torch.tensor(float(step)), **placed}
    return int(step)


def _deciding(recipe: Recipe) -> str:
    """What decides the numbers of a training; how often it is kept, and where, does not."""
    free = ("out", "images", "validation", "save_steps", "cache", "tensorboard")
    return json.dumps({name: value for name, value in asdict(recipe).items() if name not in free}, default=str)
