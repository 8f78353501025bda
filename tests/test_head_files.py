"""Files of mask heads: written and read back, refused beside other models, and made of the authors' checkpoints."""

import itertools
import re
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    DeepseekVLConfig,
    DeepseekVLHybridConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    SamConfig,
    SamModel,
)

from aas import catalogue, registry
from aas.heads.features import HeadShape
from aas.heads.from_flmm import FIRST, FOURIER, head_of_flmm
from aas.heads.highres import HighResHead
from aas.heads.named import head_path
from aas.heads.stored import load_head, read_head_file, save_head
from aas.heads.unet import UNetHead
from aas.store.origin import Origin
from tests import planted
from tests.test_heads import refining, with_embedding
from tests.tiny import segmenters

LMM, SAM = Origin("some/lmm", "abc123"), Origin("some/sam", "def456")


def test_a_head_is_written_and_read_back(tmp_path):
    torch.manual_seed(0)
    head, image = HighResHead(planted.SHAPE, width=16, norm="batch"), planted.features(0)
    head.train()([planted.features(1, n_phrases=3)])  # running statistics are a part of what was trained
    save_head(tmp_path / "head.safetensors", head, LMM)
    loaded = load_head(tmp_path / "head.safetensors", LMM)
    assert isinstance(loaded, HighResHead) and (loaded.width, loaded.norm, loaded.shape) == (16, "batch", planted.SHAPE)
    assert torch.equal(loaded([image])[0][0].values, head.eval()([image])[0][0].values)
    assert not loaded.training


def test_heads_by_name(tmp_path, monkeypatch):
    """A file, a folder, the hub's as it lies in the cache, by its revision, and one that ships."""
    folder = tmp_path / "folder"
    folder.mkdir()
    head = HighResHead(planted.SHAPE, width=16)
    save_head(folder / "head.safetensors", head, LMM)
    content = (folder / "head.safetensors").read_bytes()
    assert head_path(folder / "head.safetensors") == head_path(str(folder)) == folder / "head.safetensors"

    repository, commit = tmp_path / "hub/models--some--head", "0123456789abcdef0123456789abcdef01234567"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(commit)
    (snapshot := repository / "snapshots" / commit).mkdir(parents=True)
    (snapshot / "head.safetensors").write_bytes(content)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("some/head", f"some/head@{commit}"):
        assert read_head_file(head_path(name)).lmm == LMM
    for name in ("some/head@other", "some/other", "nowhere.safetensors", tmp_path):
        with pytest.raises(FileNotFoundError, match="No mask head"):
            head_path(name)

    monkeypatch.setattr(registry, "SHIPPED_HEADS", {"small": "head.safetensors"})
    monkeypatch.setattr("aas.heads.named.embedded_dir", lambda name: {"heads": folder}[name])
    assert head_path("small") == folder / "head.safetensors"
    rows = {row.get("head"): row for row in catalogue.rows_of("heads")}
    assert rows["small"]["what"] == "highres on some/lmm (abc123)" and "training-free" in rows


def test_only_what_was_trained_is_written(tmp_path):
    head, path = refining(), tmp_path / "head.safetensors"
    save_head(path, head, LMM, SAM)
    trained = {name for name, parameter in head.named_parameters() if parameter.requires_grad}
    assert load_file(path).keys() == trained
    torch.manual_seed(0)
    segmenter = segmenters.sam()  # the one that `refining` was made of: its frozen parts come from there
    torch.manual_seed(1)
    loaded, image = load_head(path, LMM, segmenter, SAM), with_embedding(planted.features(0))
    UNetHead(planted.SHAPE, width=8, side=32, segmenter=segmenter)
    assert torch.equal(loaded([image])[0][1].values.isfinite(), head([image])[0][1].values.isfinite())


def test_another_model_is_refused(tmp_path):
    path = tmp_path / "head.safetensors"
    save_head(path, refining(), LMM, SAM)
    for lmm, sam in ((Origin("some/lmm", "other"), SAM), (LMM, Origin("some/sam", "other")), (LMM, None)):
        with pytest.raises(
            ValueError, match=r"was trained on the (LMM|segmenter) some/(lmm|sam) \((abc123|def456)\), not"
        ):
            load_head(path, lmm, segmenters.sam(), sam)
    with pytest.raises(ValueError, match="trained on the LMM"):
        load_head(path, Origin("other/lmm"), segmenters.sam(), SAM)  # names count where no revision is known
    assert load_head(path, Origin("a/copy", "abc123"), segmenters.sam(), SAM)
    assert read_head_file(path).lmm == LMM and read_head_file(path).segmenter == SAM


def test_the_embedded_model_is_known_by_its_files():
    assert Origin.of("embedded", "lmm").revision == Origin.of("embedded", "lmm").revision is not None
    assert Origin.of("some/lmm", "lmm", "abc123") == LMM


def test_files_that_are_no_head(tmp_path):
    path = tmp_path / "head.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="is no mask head: `aas head train`"):
        load_head(path, LMM)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is no mask head, or damaged"):
        load_head(path, LMM)
    with pytest.raises(FileNotFoundError):
        load_head(tmp_path / "nowhere.safetensors", LMM)
    with pytest.raises(ValueError, match="made of a segmenter is saved with its name"):
        save_head(path, refining(), LMM)


def test_equal_heads_are_equal_files(tmp_path):
    """safetensors writes two names of metadata in an order of chance."""
    path, head = tmp_path / "head.safetensors", HighResHead(planted.SHAPE, width=16)
    assert len({(save_head(path, head, LMM), path.read_bytes()) for _ in range(8)}) == 1


def test_a_file_that_lacks_a_tensor_is_refused(tmp_path):
    path = tmp_path / "head.safetensors"
    save_head(path, HighResHead(planted.SHAPE, width=16), LMM)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    lacking = {name: tensor for name, tensor in tensors.items() if name != "shallow.bias"}
    for broken, reason in (
        (lacking, "lacks 1 of the head's tensors, the first is shallow.bias"),
        (tensors | {"more": torch.zeros(1)}, "holds unknown 1"),
        (tensors | {"shallow.bias": torch.zeros(1)}, "holds in other sizes 1"),
    ):
        save_file(broken, path, metadata)
        with pytest.raises(ValueError, match=reason):
            load_head(path, LMM)


# --------------------------------------------------------------------------------------- the authors' checkpoints

# Sizes of weights as the authors' code makes them, in its names: docs of mmcv's ConvModule, mmseg's UNet and
# segment-anything, written out here once more, of width 8 and a SAM of width 32.
WIDTHS = (8, 16, 32, 64)
CONFIG = LlavaConfig(text_config=LlamaConfig(num_hidden_layers=3, num_attention_heads=2, hidden_size=16))


def conv_module(prefix: str, before: int, after: int, kernel: int) -> dict[str, torch.Size]:
    return {
        f"{prefix}.conv.weight": torch.Size((after, before, kernel, kernel)),
        f"{prefix}.gn.weight": torch.Size((after,)),
        f"{prefix}.gn.bias": torch.Size((after,)),
    }


def published_sizes(channels: int = 6, width: int = 32, mlp: int = 32) -> dict[str, torch.Size]:
    sizes = {"text_proj.weight": (width, 16), "text_proj.bias": (width,), "text_layer_weights": (3,)}
    found = {name: torch.Size(size) for name, size in sizes.items()}
    before = channels
    for i, after in enumerate(WIDTHS):
        for k in range(2):
            found |= conv_module(f"mask_head.encoder.{i}.{int(i > 0)}.convs.{k}", before, after, 3)
            before = after
    for i, (shallow, deep) in enumerate(itertools.pairwise(WIDTHS)):
        found |= conv_module(f"mask_head.decoder.{i}.upsample.interp_upsample.1", deep, shallow, 1)
        found |= conv_module(f"mask_head.decoder.{i}.conv_block.convs.0", 2 * shallow, shallow, 3)
        found |= conv_module(f"mask_head.decoder.{i}.conv_block.convs.1", shallow, shallow, 3)
    found |= {"mask_head.conv_seg.weight": torch.Size((1, 8, 1, 1)), "mask_head.conv_seg.bias": torch.Size((1,))}
    return found | {f"sam.model.{name}": size for name, size in sam_sizes(width, mlp).items()}


def sam_sizes(width: int, mlp: int) -> dict[str, torch.Size]:
    """Of segment-anything's prompt encoder and mask decoder."""
    found: dict[str, tuple[int, ...]] = {"prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": (2, 16)}

    def layer(name: str, *size: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = size, (size[0],)

    for i in range(4):
        found[f"prompt_encoder.point_embeddings.{i}.weight"] = (1, width)
    for name in ("prompt_encoder.not_a_point_embed", "prompt_encoder.no_mask_embed", "mask_decoder.iou_token"):
        found[f"{name}.weight"] = (1, width)
    found["mask_decoder.mask_tokens.weight"] = (4, width)
    for i, size in ((0, (4, 1, 2, 2)), (1, (4,)), (3, (16, 4, 2, 2)), (4, (16,)), (6, (width, 16, 1, 1))):
        layer(f"prompt_encoder.mask_downscaling.{i}", *size)

    def attention(name: str, inner: int) -> None:
        for part in ("q_proj", "k_proj", "v_proj"):
            layer(f"{name}.{part}", inner, width)
        found[f"{name}.out_proj.weight"], found[f"{name}.out_proj.bias"] = (width, inner), (width,)

    transformer = "mask_decoder.transformer"
    for i in range(2):
        attention(f"{transformer}.layers.{i}.self_attn", width)
        attention(f"{transformer}.layers.{i}.cross_attn_token_to_image", width // 2)
        attention(f"{transformer}.layers.{i}.cross_attn_image_to_token", width // 2)
        layer(f"{transformer}.layers.{i}.mlp.lin1", mlp, width)
        layer(f"{transformer}.layers.{i}.mlp.lin2", width, mlp)
        for norm in range(1, 5):
            layer(f"{transformer}.layers.{i}.norm{norm}", width)
    attention(f"{transformer}.final_attn_token_to_image", width // 2)
    layer(f"{transformer}.norm_final_attn", width)
    found["mask_decoder.output_upscaling.0.weight"] = (width, width // 4, 2, 2)
    found["mask_decoder.output_upscaling.3.weight"] = (width // 4, width // 8, 2, 2)
    for i, n in ((0, width // 4), (3, width // 8)):
        found[f"mask_decoder.output_upscaling.{i}.bias"] = (n,)
    layer("mask_decoder.output_upscaling.1", width // 4)
    heads = {f"mask_decoder.output_hypernetworks_mlps.{i}": (width, width // 8) for i in range(4)}
    heads["mask_decoder.iou_prediction_head"] = (16, 4)
    for name, (hidden, out) in heads.items():
        for i, size in enumerate(((hidden, width), (hidden, hidden), (out, hidden))):
            layer(f"{name}.layers.{i}", *size)
    return {name: torch.Size(size) for name, size in found.items()}


@pytest.fixture
def sam() -> SamModel:
    torch.manual_seed(0)
    return segmenters.sam()


@pytest.fixture
def published(sam) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(3)
    found = {name: torch.randn(size, generator=random) for name, size in published_sizes().items()}
    found[FOURIER] = sam.prompt_encoder.shared_embedding.positional_embedding.detach().clone()
    return found


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        *(kind(text_config=CONFIG.text_config) for kind in (DeepseekVLConfig, DeepseekVLHybridConfig, LlavaNextConfig)),
    ],
    ids=lambda config: config.model_type,
)
def test_a_released_checkpoint_becomes_a_head(published, sam, tmp_path, config):
    torch.save(published, tmp_path / "flmm.pth")
    head = head_of_flmm(tmp_path / "flmm.pth", config, sam)
    ours = head.state_dict()
    for theirs, name in {
        "mask_head.encoder.0.0.convs.1.conv.weight": "unet.down.0.1.0.weight",
        "mask_head.encoder.3.1.convs.0.gn.bias": "unet.down.3.0.1.bias",
        "mask_head.decoder.2.upsample.interp_upsample.1.conv.weight": "unet.narrow.2.0.weight",
        "mask_head.decoder.1.conv_block.convs.0.gn.weight": "unet.up.1.0.1.weight",
        "mask_head.conv_seg.bias": "unet.out.bias",
        "text_layer_weights": "text.layer_weights",
        "sam.model.mask_decoder.output_hypernetworks_mlps.0.layers.2.bias":
            "refiner.mask_decoder.output_hypernetworks_mlps.0.proj_out.bias",
        "sam.model.prompt_encoder.mask_downscaling.6.weight": "refiner.prompt_encoder.mask_embed.conv3.weight",
    }.items():  # fmt: skip
        assert torch.equal(ours[name], published[theirs])
    # Each number of the file that a mask depends on is in the head, once.
    trained = [parameter for parameter in head.parameters() if parameter.requires_grad]
    unused = re.compile(r"iou_prediction|mlps\.[123]|point_embeddings\.[01]|not_a_point|no_mask|gaussian")
    used = [weight for name, weight in published.items() if not unused.search(name)]
    assert sorted(p.detach().sum().item() for p in trained) == sorted(weight.sum().item() for weight in used)
    assert head([with_embedding(planted.features(0))])[0][1].values.isfinite().all()


def test_two_views_are_told_by_the_channels(published, sam, tmp_path):
    published[FIRST] = published[FIRST].repeat(1, 2, 1, 1)
    torch.save(published, tmp_path / "next.pth")
    assert head_of_flmm(tmp_path / "next.pth", CONFIG, sam).shape.n_views == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda weights: weights.pop("text_proj.bias"),
            "lacks 1 of the head's tensors, the first is text.project.bias",
        ),
        (lambda weights: weights.update(extra=torch.zeros(1)), "holds unknown 1 of the head's tensors"),
        (lambda weights: weights.pop(FIRST), "is no checkpoint of F-LMM"),
        (lambda weights: weights.update({FOURIER: torch.zeros(2, 16)}), "trained with another SAM"),
        (lambda weights: weights.update({FIRST: torch.zeros(8, 7, 3, 3)}), "with 7 attention maps"),
        (lambda weights: weights.update({"text_proj.bias": torch.zeros(5)}), "in other sizes 1"),
    ],
)
def test_other_checkpoints_are_refused(published, sam, tmp_path, change, reason):
    change(published)
    torch.save(published, tmp_path / "flmm.pth")
    with pytest.raises(ValueError, match=reason):
        head_of_flmm(tmp_path / "flmm.pth", CONFIG, sam)


def test_python_objects_are_never_loaded(sam, tmp_path):
    torch.save({"model": object()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="never loaded"):
        head_of_flmm(tmp_path / "evil.pth", CONFIG, sam)


def test_the_shape_of_published_models():
    with torch.device("meta"):
        head = UNetHead(HeadShape(24, 16, 2048), segmenter=SamModel(SamConfig()))
    n_sam = sum(parameter.numel() for parameter in head.refiner.parameters())
    assert round(n_sam / 1e6, 2) == 4.06  # SAM's prompt encoder and mask decoder, as published
    assert replace(HeadShape.of(CONFIG), input_side=0) == replace(planted.SHAPE, input_side=0)
