"""What is timed: answers with their maps, and masks, our way and the reference's; and where the time goes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_roofline import seconds
from gpu_shapes import photo
from PIL import Image
from torch.profiler import ProfilerActivity, profile
from transformers import SamImageProcessorPil

from aas.capture import Selection, evaluating
from aas.datasets.sources import ImageSource
from aas.engine.local import carry_out
from aas.engine.stage import Plan
from aas.engine.workers import half_the_cores, n_workers
from aas.lmms.base import LMM
from aas.lmms.prepared import AskOptions
from aas.segmenters.sam import SamSegmenter
from aas.stages.infer_attn import Answering, Request
from aas.store.attention import SUFFIX
from aas.store.runs import RunFolder

QUESTION = "Describe the image in detail, and say what every one of the people in it is doing."
N_PHRASES = 8
SHOWN = 12  # operations of a profile


class Answers:
    """`batch` photographs of noise, of which a model says `n_new` tokens each."""

    def __init__(self, lmm: LMM, batch: int, n_new: int):
        self.lmm, self.n_new, self.options = lmm, n_new, AskOptions(n_new)
        one = lmm.prepare(photo(), QUESTION)
        self.prepared = [one] * batch
        self.inputs, self.columns = lmm.collated([one.inputs] * batch, [one.grids[0].positions] * batch)

    def ours(self) -> None:
        self.lmm.run(self.prepared, self.options)

    def one_layer(self) -> None:
        """As `ours`, of which one layer's attention is kept: what is left of the time is nearly all the engine's."""
        self.lmm.run(self.prepared, replace(self.options, selection=Selection(layers=(0,))))

    def plain(self) -> None:
        """transformers' own `generate`, and nobody looks on."""
        with evaluating(self.lmm.model):
            self._generate()

    def reference(self) -> None:
        """Attention of all layers as matrices, of which the image's columns are kept."""
        with self.lmm.eager():
            output = self._generate(output_attentions=True, return_dict_in_generate=True)
        for step in output.attentions:
            torch.stack([layer[:, :, -1, self.columns[0]].float().mean(1) for layer in step]).mean(0).cpu()

    def _generate(self, **more: Any) -> Any:
        how = {"max_new_tokens": self.n_new, "do_sample": False, "pad_token_id": self.lmm.pad_id}
        return self.lmm.generate(self.inputs, **how, **more)

    def from_files(self, folder: Path, n: int) -> float:
        """Seconds of the stage for `n` JPEG files in batches of this size: read, resized, answered, written."""
        items = [Request(ImageSource(f"{i}.jpg", _saved(folder / f"{i}.jpg", i)), QUESTION) for i in range(n)]
        stage = Answering(self.lmm, self.options, RunFolder(folder / "run", SUFFIX))
        plan = Plan(len(self.prepared), n_workers(None, n, half_the_cores()), finishes_elsewhere=True)

        def all_of_them() -> None:
            failed = [reason for _, reason in carry_out(stage, items, plan) if reason is not None]
            if failed:
                raise ValueError(failed[0])

        (folder / "run").mkdir()
        return seconds(all_of_them, self.lmm.device.type)


def _saved(path: Path, seed: int) -> Path:
    """A photograph of smooth noise, as large a file as a photograph's."""
    small = Image.fromarray(photo(seed, (60, 80)))
    small.resize((640, 480), Image.Resampling.BICUBIC).save(path, quality=90)
    return path


class Masks:
    """`batch` photographs of noise with eight phrases each, of which a point is known."""

    def __init__(self, segmenter: SamSegmenter, batch: int):
        self.segmenter = segmenter
        self.photos = [photo(i) for i in range(batch)]
        rng = np.random.default_rng(0)
        self.points_xy = rng.integers(0, self.photos[0].shape[1::-1], (N_PHRASES, 1, 2)).astype(np.float32)

    def encode(self) -> list[Any]:
        return self.segmenter.encode(self.photos)

    def ours(self) -> None:
        """Encoder in batches, of each phrase one mask as large as the photograph, on the CPU."""
        for embedding in self.encode():
            self.segmenter.masks(embedding, self.points_xy).chosen(-1)

    @torch.inference_mode()
    def reference(self) -> None:
        """transformers' processor, model and post-processing, in float32: all three masks of each phrase."""
        side, model = self.segmenter.input_side, self.segmenter.model
        processor = SamImageProcessorPil(size={"longest_edge": side}, pad_size={"height": side, "width": side})
        for image in self.photos:
            given = processor(images=image, input_data_format="channels_last", return_tensors="pt").to(model.device)
            sizes = given["original_sizes"].tolist(), given["reshaped_input_sizes"].tolist()
            scale = torch.tensor([sizes[1][0][1] / sizes[0][0][1], sizes[1][0][0] / sizes[0][0][0]])
            points = (torch.from_numpy(self.points_xy) * scale)[None].to(model.device)
            output = model(pixel_values=given["pixel_values"], input_points=points, multimask_output=True)
            processor.post_process_masks([output.pred_masks[0]], *sizes)[0].cpu()


def profiled(call: Callable[[], object], device: str) -> list[dict[str, Any]]:
    """The operations that take most of the device's own time during a call, after one to warm up."""
    on_gpu = device.startswith("cuda")
    call()
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    with profile(activities=activities) as profiler:
        took = seconds(call, device)
    events = profiler.key_averages()
    own = {event.key: (event.self_device_time_total if on_gpu else event.self_cpu_time_total) for event in events}
    calls = {event.key: event.count for event in events}
    busiest = sorted(own, key=lambda key: -own[key])[:SHOWN]
    found = [{"operation": key, "ms": own[key] / 1e3, "of_time": own[key] / 1e6 / took, "calls": calls[key]}
             for key in busiest]  # fmt: skip
    return [{"operation": "all", "ms": took * 1e3, "of_time": sum(own.values()) / 1e6 / took, "calls": 1}, *found]
