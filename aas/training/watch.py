"""What a training tells while it runs: a line each time its state is kept, pictures, and TensorBoard's curves."""

from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from aas.heads.head import MaskHead
from aas.store.atomic import write_png
from aas.store.keys import quoted
from aas.store.lines import add_lines
from aas.training.cache import Unusable
from aas.training.data import Lesson, evenly
from aas.training.examples import Examples
from aas.training.fit import validated
from aas.training.pictures import painted
from aas.training.recipe import Recipe

LOG, PICTURES, CURVES = "log.jsonl", "pictures", "tensorboard"
N_PICTURES = 4  # photographs, evenly spread over what is measured
CURVE_STEPS = 10  # between two points of the curve of the loss


def check_tensorboard(recipe: Recipe) -> None:
    """ValueError where it is wanted and not installed."""
    if recipe.tensorboard and find_spec("tensorboard") is None:
        raise ValueError('tensorboard: true needs it: pip install "attend-and-segment[train]"')


class Watch:
    """Told of each step's loss. Whenever the state is kept, `validation` is measured, and a few of its photographs,
    the `lessons` that its examples are of, are painted."""

    def __init__(self, recipe: Recipe, head: MaskHead, validation: Examples, lessons: Sequence[Lesson]):
        self.recipe, self.head, self.validation, self.lessons = recipe, head, validation, lessons
        self.bar = tqdm(total=recipe.steps, unit="step")
        self.curves = _curves(recipe.out / CURVES) if recipe.tensorboard else None

    def __call__(self, step: int, loss: float) -> None:
        self.bar.update(step - self.bar.n)
        is_kept = step % self.recipe.save_steps == 0 or step == self.recipe.steps
        if self.curves and (is_kept or step % CURVE_STEPS == 0):
            self.curves.add_scalar("loss", loss, step)
        if is_kept:
            self._keep(step, loss)

    def _keep(self, step: int, loss: float) -> None:
        line: dict[str, Any] = {"step": step, "loss": loss}
        if ious := validated(self.head, self.validation):
            coarse, best = np.mean([[one[0], one[-1]] for one in ious], axis=0).tolist()
            line |= {"validation_iou": best, "coarse_iou": coarse, "n_phrases": len(ious)}
        add_lines(self.recipe.out / LOG, [line])
        for name in ("validation_iou", "coarse_iou"):
            if self.curves and name in line:
                self.curves.add_scalar(name, line[name], step)
        self._paint(step)

    def _paint(self, step: int) -> None:
        for i in evenly(len(self.lessons), N_PICTURES):
            with suppress(Unusable):
                picture = painted(self.head, self.lessons[i], self.validation[i])
                name = quoted(self.lessons[i].key)
                write_png(self.recipe.out / PICTURES / f"{name}-{step:06d}.png", picture)
                if self.curves:
                    self.curves.add_image(name, np.asarray(picture), step, dataformats="HWC")

    def close(self) -> None:
        """Nothing more is told."""
        self.bar.close()
        if self.curves:
            self.curves.close()


def _curves(folder: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))
