"""`aas doctor`: what this machine has, and whether a model does here what its family says."""

import importlib.util
import os
import platform
import shutil
import subprocess
import time
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from transformers.utils import is_torchvision_available

from aas.decoding.memory import bytes_of_keys_and_values
from aas.lmms import load_lmm
from aas.lmms.base import LMM
from aas.lmms.checks import FEWEST_CELLS, GREY, SQUARE_RGB, compare_with_eager, fitted_scales, plant_squares

PACKAGES = ("attend-and-segment", "torch", "transformers", "tokenizers", "spacy", "segment-anything", "pycocoevalcap",
            "peft", "bitsandbytes", "flash-attn", "torchvision")  # fmt: skip
PICTURES_HW = ((480, 640), (640, 427), (320, 800))
SEPARATION = 0.9  # a trained tower mixes its patches: tokens inside a planted square still change most
DIFFERENCE = {torch.float32: 1e-4}
DIFFERENCE_OF_HALF = 5e-2  # of the largest value: what a 16-bit model's own rounding makes
GIBIBYTE, MEBIBYTE = 2**30, 2**20
QUESTION = "What is in the picture?"


def environment() -> dict[str, Any]:
    """What this machine has."""
    cuda = torch.cuda.is_available()
    hub = os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface")
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "gpus": [_gpu(i) for i in range(torch.cuda.device_count())] if cuda else [],
        "bfloat16": bool(cuda and torch.cuda.is_bf16_supported()),
        "cores": os.cpu_count(),
        "java": _java(),
        "spacy_pipelines": {name: importlib.util.find_spec(name) is not None for name in ("en_core_web_lg",)},
        "hub_cache": {"folder": hub, "exists": os.path.isdir(hub), "offline": bool(os.environ.get("HF_HUB_OFFLINE"))},
        "free_disk_gib": round(shutil.disk_usage(".").free / GIBIBYTE, 1),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _gpu(index: int) -> dict[str, Any]:
    free, total = torch.cuda.mem_get_info(index)
    name = torch.cuda.get_device_name(index)
    return {"name": name, "free_gib": round(free / GIBIBYTE, 1), "total_gib": round(total / GIBIBYTE, 1)}


def _java() -> str | None:
    """METEOR needs it."""
    if shutil.which("java") is None:
        return None
    lines = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr.splitlines()
    return lines[0] if lines else "unknown version"


def examine(lmm: LMM) -> dict[str, Any]:
    """Views, planted squares, capture against eager, memory: what `aas doctor MODEL` prints."""
    squares = {f"{w}x{h}": [asdict(found) for found in plant_squares(lmm, (h, w))] for h, w in PICTURES_HW}
    scales = {f"{w}x{h}": fitted_scales(lmm, (h, w)) for h, w in PICTURES_HW}
    picture = _picture(PICTURES_HW[0])
    against = compare_with_eager(lmm, picture, QUESTION)
    allowed = DIFFERENCE.get(lmm.model.dtype, DIFFERENCE_OF_HALF)
    prepared = lmm.prepare(picture, QUESTION)
    geometry_holds = all(found["separation"] >= SEPARATION for views in squares.values() for found in views)
    geometry_holds &= all(scale == 1 for views in scales.values() for scale in views)
    return {
        "model": lmm.name,
        "family": type(lmm).__name__,
        "class": type(lmm.model).__name__,
        "dtype": str(lmm.model.dtype).removeprefix("torch."),
        "device": str(lmm.device),
        "attention": lmm.text_config._attn_implementation,
        "layers": lmm.text_config.num_hidden_layers,
        "heads": lmm.text_config.num_attention_heads,
        "views": [
            {"name": g.view.name, "size_hw": g.view.size_hw, "box_xyxy": g.view.box_xyxy} for g in prepared.grids
        ],
        "prompt_tokens": prepared.length,
        "planted_squares": squares,
        "fitted_scales": scales,
        "against_eager": asdict(against) | {"allowed": allowed},
        "memory": memory(lmm, prepared.length),
        "supported": geometry_holds and against.difference <= allowed,
    }


def _picture(size_hw: tuple[int, int]) -> np.ndarray:
    """Grey, with a square: any model has something to say."""
    height, width = size_hw
    picture = np.full((height, width, 3), GREY, np.uint8)
    picture[height // 4 : height // 2, width // 4 : width // 2] = SQUARE_RGB
    return picture


def memory(lmm: LMM, n_prompt: int) -> dict[str, Any]:
    """Of the weights, and of each image of a batch beside them: its cache at the longest answer, and its maps."""
    cache = bytes_of_keys_and_values(lmm.text_config, lmm.model.dtype, n_prompt + lmm.max_new_tokens)
    maps = 4 * lmm.max_new_tokens * n_prompt
    weights = sum(p.numel() * p.element_size() for p in lmm.model.parameters())
    return {
        "weights_gib": round(weights / GIBIBYTE, 3),
        "per_image_mib": round((cache + maps) / MEBIBYTE, 1),
        "prompt_tokens": n_prompt,
        "max_new_tokens": lmm.max_new_tokens,
    }


def doctor(model: str | None, **loading: Any) -> tuple[dict[str, Any], bool]:
    """The report and whether all is well. `loading`: as for load_lmm."""
    report: dict[str, Any] = {"environment": environment()}
    if model is None:
        return report, True
    start = time.perf_counter()
    lmm = load_lmm(model, **loading)
    report["model"] = {"seconds_to_load": round(time.perf_counter() - start, 1)} | examine(lmm)
    return report, report["model"]["supported"]


def as_text(report: dict[str, Any]) -> str:
    """The report as a card for people."""
    lines = _environment_lines(report["environment"])
    if "model" in report:
        lines += ["", *_model_lines(report["model"])]
    return "\n".join(lines)


def _row(name: str, value: object) -> str:
    return f"  {name:<18}{value}"


def _environment_lines(found: dict[str, Any]) -> list[str]:
    packages = found["packages"]
    gpus = [f"{gpu['name']}, {gpu['free_gib']} of {gpu['total_gib']} GiB free" for gpu in found["gpus"]]
    here = [f"{name} {number}" for name, number in packages.items() if number]
    absent = [name for name, number in packages.items() if not number]
    lines = [
        "This machine",
        _row("python", found["python"]),
        _row("packages", ", ".join(here)),
        _row("not installed", ", ".join(absent) or "-"),
        _row("GPU", "; ".join(gpus) or f"none: {found['cores']} CPU cores"),
        _row("Java", found["java"] or "none: METEOR is left out of evaluations"),
        _row("en_core_web_lg", "yes" if found["spacy_pipelines"]["en_core_web_lg"] else "no"),
        _row("hub cache", f"{found['hub_cache']['folder']}{' (offline)' if found['hub_cache']['offline'] else ''}"),
        _row("free disk", f"{found['free_disk_gib']} GiB"),
    ]
    if packages["torchvision"] and not is_torchvision_available():
        lines.append(_row("problem", "torchvision is installed and cannot be imported: pip uninstall torchvision"))
    return lines


def _model_lines(found: dict[str, Any]) -> list[str]:
    against, needs = found["against_eager"], found["memory"]
    views = [
        f"{view['name']} {view['size_hw'][0]} x {view['size_hw'][1]}{' (default)' if i == 0 else ''}"
        for i, view in enumerate(found["views"])
    ]
    worst = min(square["separation"] for views in found["planted_squares"].values() for square in views)
    scale = max((s for scales in found["fitted_scales"].values() for s in scales), key=lambda s: abs(s - 1))
    coarse = [view for view in found["views"] if min(view["size_hw"]) < FEWEST_CELLS]
    few = f" (on so few cells as {coarse[0]['name']} has, a scale of 1.2 may go unseen)" if coarse else ""
    verdict = "supported" if found["supported"] else "NOT to be trusted: see the checks"
    return [
        f"{found['model']}: {verdict}",
        _row("family", f"{found['family']} ({found['class']}), {found['layers']} layers of {found['heads']} heads"),
        _row("runs", f"{found['dtype']} on {found['device']}, {found['attention']}, in {found['seconds_to_load']} s"),
        _row("views at 640x480", ", ".join(views)),
        _row("planted squares", f"{_sign(worst >= SEPARATION)}  {worst:.3f} of 1 (at least {SEPARATION})"),
        _row("small squares", f"{_sign(scale == 1)}  the views fit best at {scale:.2f} of their size{few}"),
        _row(
            "against eager",
            f"{_sign(against['difference'] <= against['allowed'])}  differs by {against['difference']:.1e} of the "
            f"largest value (at most {against['allowed']:.0e}), {against['tokens']} tokens",
        ),
        _row(
            "memory",
            f"{needs['weights_gib']} GiB of weights; {needs['per_image_mib']} MiB for each image of a batch "
            f"({needs['prompt_tokens']} prompt tokens, answers up to {needs['max_new_tokens']})",
        ),
    ]


def _sign(good: bool) -> str:
    return "ok" if good else "FAILS"
