"""HG-LMM's released checkpoints: their names and shapes, and their forward pass, written out once more."""

from functools import cache

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    DeepseekVLConfig,
    DeepseekVLHybridConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    SamVisionConfig,
    SiglipVisionConfig,
)

from aas.geometry import stretched_view
from aas.heads.features import HeadShape, PhraseFeatures
from aas.heads.from_hglmm import head_of_hglmm, is_of_hglmm
from aas.heads.highres import HighResHead
from aas.heads.stored import load_head, read_head_file, save_head
from aas.stages.head_import import HeadImport, import_head
from aas.store.origin import Origin

D, SIDE = 128, 32
Weights = dict[str, Tensor]


def llama(n_layers: int, n_heads: int) -> LlamaConfig:
    return LlamaConfig(num_hidden_layers=n_layers, num_attention_heads=n_heads, hidden_size=D)


def deepseek() -> DeepseekVLConfig:
    """As DeepSeek-VL-1.3B: of 384 maps, which need no convolution to fit."""
    return DeepseekVLConfig(text_config=llama(24, 16), vision_config=SiglipVisionConfig(image_size=SIDE))


def hybrid() -> DeepseekVLHybridConfig:
    """As DeepSeek-VL-7B, by the size of its larger input."""
    return DeepseekVLHybridConfig(text_config=llama(3, 2), high_res_vision_config=SamVisionConfig(image_size=1024))


def llava() -> LlavaConfig:
    return LlavaConfig(text_config=llama(3, 2), vision_config={"model_type": "clip_vision_model", "image_size": SIDE})


@cache
def published(n_layers: int, n_heads: int, is_large: bool = False) -> Weights:
    """In the names of the public code, its widths, and an LMM of width D; `is_large`: of a larger input, as 7B's."""
    sizes: dict[str, tuple[int, ...]] = {"text_layer_weights": (n_layers,)}

    def layer(name: str, *size: int) -> None:
        sizes[f"{name}.weight"], sizes[f"{name}.bias"] = size, (size[0],)

    def batch_norm(name: str, width: int) -> None:
        layer(name, width)
        sizes[f"{name}.running_mean"], sizes[f"{name}.running_var"] = (width,), (width,)
        sizes[f"{name}.num_batches_tracked"] = ()

    layer("text_proj", 256, D)
    layer(f"lifg.ln{D}", D)
    for i, size in enumerate([(D // 16, D, 1, 1), (192, D // 16, 3, 3), (256, 192, 3, 3)], start=1):
        layer(f"lifg.conv{i}", *size)
    layer("lifg.dynamic_conv.controller.0", 256, 256)
    layer("lifg.dynamic_conv.controller.2", 48 * 256 + 48 * 48 + 48 + 48, 256)
    layer("lifg.dynamic_conv.ln48", 48)
    for name, before in {"1": 3, "2": 64, "3": 64, **({"1_2": 64, "1_3": 64} if is_large else {})}.items():
        layer(f"lcb.conv{name}.0", 64, before, 3, 3)
        batch_norm(f"lcb.conv{name}.1", 64)
    if is_large:  # is there, and never used
        layer("cliplayer.0", D, 64)
        layer("cliplayer.2", D, D)
    layer("lcb.proj", 128, 64, 1, 1)
    if n_layers * n_heads != 384:
        layer(f"ldsi.conv{n_layers * n_heads}to384", 384, n_layers * n_heads, 3, 3)
    layer("ldsi.conv384to96", 96, 384, 3, 3)
    layer("ldsi.conv96to128", 128, 96, 3, 3)
    layer("ldsi.conv192to128", 128, 192, 3, 3)
    for i in range(1, 5):
        layer(f"ldsi.reassemble_projs.stage{i}.0", 64, 128, 1, 1)
    if not is_large:
        layer("ldsi.reassemble_projs.stage4.1", 64, 64, 3, 3)
    layer("ldsi.spm_adapters.0", 64, 128, 1, 1)
    batch_norm("ldsi.spm_adapters.1", 64)
    units = ["resconvunit", *(f"refine_blocks.{i}.0" for i in range(4))]
    for name in [f"{unit}.conv.{k}" for unit in units for k in (0, 2)] + [f"refine_blocks.{i}.2" for i in range(4)]:
        layer(f"fuse_maskhead.{name}", 64, 64, 3, 3)
    layer("fuse_maskhead.mask_head_fpn.0", 64, 64, 3, 3)
    batch_norm("fuse_maskhead.mask_head_fpn.2", 64)
    layer("fuse_maskhead.mask_head_fpn.5", 32, 64, 3, 3)
    layer("fuse_maskhead.mask_head_fpn.7", 1, 32, 1, 1)
    random = torch.Generator().manual_seed(5)
    return {name: _filled(name, size, random) for name, size in sizes.items()}


def _filled(name: str, size: tuple[int, ...], random: torch.Generator) -> Tensor:
    if not size:
        return torch.tensor(7)
    numbers = torch.randn(size, generator=random)
    if name.endswith("running_var"):
        return numbers.abs() + 0.5
    return numbers / max(1.0, numbers[0].numel() ** 0.5)


def mask_by(w: Weights, attention: Tensor, states: Tensor, eyes: Tensor, pixels: Tensor) -> Tensor:
    """Of one phrase, [1, H, W], as the public code computes it."""

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = w[f"{name}.weight"]
        return F.conv2d(x, weight, w[f"{name}.bias"], stride, weight.shape[-1] // 2)

    def norm(name: str, x: Tensor) -> Tensor:
        means, variances = w[f"{name}.running_mean"], w[f"{name}.running_var"]
        return F.batch_norm(x, means, variances, w[f"{name}.weight"], w[f"{name}.bias"])

    def unit(name: str, x: Tensor) -> Tensor:
        return x + conv(f"{name}.conv.2", conv(f"{name}.conv.0", x).relu())

    def refined(number: int, x: Tensor) -> Tensor:
        name = f"fuse_maskhead.refine_blocks.{number}"
        return conv(f"{name}.2", F.interpolate(unit(f"{name}.0", x), scale_factor=2.0, mode="bilinear"))

    shares = w["text_layer_weights"].softmax(0)
    text = F.linear((states * shares[:, None, None]).sum(0), w["text_proj.weight"], w["text_proj.bias"]).mean(0)
    controller = "lifg.dynamic_conv.controller"
    hidden = F.linear(text, w[f"{controller}.0.weight"], w[f"{controller}.0.bias"]).relu()
    numbers = F.linear(hidden, w[f"{controller}.2.weight"], w[f"{controller}.2.bias"])
    first, second, first_bias, second_bias = numbers.split([48 * 256, 48 * 48, 48, 48])
    x = F.layer_norm(eyes.movedim(1, -1), (D,), w[f"lifg.ln{D}.weight"], w[f"lifg.ln{D}.bias"]).movedim(-1, 1)
    for i in (1, 2, 3):
        x = conv(f"lifg.conv{i}", x).relu()
    x = F.conv2d(x, first.view(48, 256, 1, 1), first_bias).relu()
    x = F.conv2d(x, second.view(48, 48, 1, 1), second_bias).movedim(1, -1)
    x = F.layer_norm(x, (48,), w["lifg.dynamic_conv.ln48.weight"], w["lifg.dynamic_conv.ln48.bias"]).movedim(-1, 1)
    pairs = x.reshape(4, 1, 96, *x.shape[2:])
    wide = attention if attention.shape[1] == 384 else conv(f"ldsi.conv{attention.shape[1]}to384", attention)
    narrow = conv("ldsi.conv384to96", wide)
    stages = [conv("ldsi.conv96to128", pairs[0])]
    stages += [conv("ldsi.conv192to128", torch.cat([narrow, one], 1)) for one in pairs[1:]]
    stages = [conv(f"ldsi.reassemble_projs.stage{i}.0", one) for i, one in enumerate(stages, start=1)]
    shallow = pixels[None]
    is_large = "lcb.conv1_2.0.weight" in w
    for i, stride in (
        (("1", 2), ("1_2", 1), ("1_3", 2), ("2", 1), ("3", 1)) if is_large else (("1", 2), ("2", 1), ("3", 1))
    ):
        shallow = norm(f"lcb.conv{i}.1", conv(f"lcb.conv{i}.0", shallow, stride)).relu()
    shallow = conv("lcb.proj", F.max_pool2d(shallow, 3, 2, 1))
    fine, middle, coarse = (F.interpolate(stages[i], size=(8 >> i, 8 >> i), mode="bilinear") for i in range(3))
    fine = fine + norm("ldsi.spm_adapters.1", conv("ldsi.spm_adapters.0", shallow)).relu()
    deepest = F.interpolate(stages[3], size=(1, 1), mode="bilinear") if is_large else None
    x = refined(3, conv("ldsi.reassemble_projs.stage4.1", stages[3], 2) if deepest is None else deepest)
    for i, one in enumerate((coarse, middle, fine)):
        x = refined(i, x + unit("fuse_maskhead.resconvunit", one))
    head = "fuse_maskhead.mask_head_fpn"
    x = norm(f"{head}.2", conv(f"{head}.0", x).relu())
    x = F.interpolate(x, scale_factor=2.0, mode="bilinear")
    return conv(f"{head}.7", conv(f"{head}.5", x).relu())[0]


def captured(n_channels: int, n_layers: int, side: int = SIDE) -> PhraseFeatures:
    """Of one phrase of three tokens; a cell has 16 pixels, as DeepSeek-VL's."""
    random = torch.Generator().manual_seed(2)

    def numbers(*size: int) -> Tensor:
        return torch.randn(size, generator=random)

    view = stretched_view((2, 2), (side, side))
    seen = {"eyes": numbers(8, D, 2, 2), "pixels": numbers(3, side, side)}
    attention = torch.rand(1, n_channels, 2, 2, generator=random)
    return PhraseFeatures(attention, (numbers(n_layers, 3, D),), view, (side, side), **seen)


@pytest.mark.parametrize(("config", "n_layers", "n_heads"), [(deepseek(), 24, 16), (llava(), 3, 2), (hybrid(), 3, 2)])
def test_a_released_checkpoint_becomes_a_head(config, n_layers, n_heads, tmp_path):
    """Beside weights of the frozen LMM, which are its own."""
    is_large, path = config.model_type == "deepseek_vl_hybrid", tmp_path / "hg.pth"
    weights = published(n_layers, n_heads, is_large)
    torch.save({"state_dict": weights | {"deepseek_vl.lm_head.weight": torch.zeros(1)}}, path)
    assert is_of_hglmm(path)
    head, one = head_of_hglmm(path, config), captured(n_layers * n_heads, n_layers, 2 * SIDE if is_large else SIDE)
    with torch.no_grad():
        expected = mask_by(weights, one.attention, one.states[0], one.eyes, one.pixels)
        ((logits,),) = head([one])
    assert expected.std() > 1e-3
    torch.testing.assert_close(logits.values, expected, rtol=1e-4, atol=1e-5)
    save_head(tmp_path / "head.safetensors", head, Origin("lmm", "abc"))
    again = load_head(tmp_path / "head.safetensors", Origin("lmm", "abc"))
    assert torch.equal(again([one])[0][0].values, logits.values)


def rename(weights: Weights, old: str, new: str) -> None:
    weights[new] = weights.pop(old)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda weights: weights.pop("lcb.conv2.1.running_var"), "lacks 1 .* the first is stem.layers.4.running_var"),
        (lambda weights: rename(weights, "lcb.proj.bias", "lcb.project.bias"), "lacks 1"),
        (lambda weights: weights.update({"lcb.conv4.0.weight": torch.zeros(1)}), "holds unknown 1"),
        (lambda weights: weights.update({"cliplayer.0.weight": torch.zeros(1)}), "holds unknown 1 .* cliplayer"),
        (lambda weights: rename(weights, "ldsi.conv6to384.weight", "ldsi.conv8to384.weight"), "with 8 attention maps"),
        (lambda weights: weights.update({"text_layer_weights": torch.zeros(4)}), "in other sizes 1 .*layer_weights"),
        (lambda weights: weights.update({"lifg.dynamic_conv.controller.2.bias": torch.zeros(9)}), "in other sizes 1"),
    ],
)
def test_other_checkpoints_are_refused(change, reason, tmp_path):
    weights = dict(published(3, 2))
    change(weights)
    torch.save(weights, tmp_path / "hg.pth")
    with pytest.raises(ValueError, match=reason):
        head_of_hglmm(tmp_path / "hg.pth", llava())


def test_the_command_tells_whose_checkpoint_it_is(tmp_path, capsys):
    torch.save(published(3, 2), tmp_path / "hg.pth")
    llava().save_pretrained(tmp_path / "lmm")
    out = tmp_path / "head.safetensors"
    assert import_head(HeadImport(file=tmp_path / "hg.pth", model=f"{tmp_path}/lmm", out=out)) == 0
    assert "a highres head for" in capsys.readouterr().out
    said = read_head_file(out)
    assert (said.kind, said.settings["norm"], said.segmenter) == ("highres", "batch", None)


def test_other_lmms_and_python_objects_are_refused(tmp_path):
    torch.save({"model": object()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="never loaded"):
        head_of_hglmm(tmp_path / "evil.pth", llava())
    with pytest.raises(ValueError, match="deepseek_vl_hybrid, llava, not for llava_next"):
        head_of_hglmm(tmp_path / "evil.pth", LlavaNextConfig())


def test_as_many_parameters_as_published():
    with torch.device("meta"):
        for shape, wanted in ((HeadShape(24, 16, 2048, input_side=384), 6.7), (HeadShape(32, 32, 4096), 11.8)):
            head = HighResHead(shape, norm="batch")
            assert round(sum(parameter.numel() for parameter in head.parameters()) / 1e6, 1) == wanted
