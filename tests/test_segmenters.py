"""Segmenters: tiny random ones against transformers' own calls, SAM against segment-anything's own predictor, and the
embedded one on a picture with an answer."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import AutoModelForMaskGeneration, SamImageProcessorPil, SamProcessor

from aas.paths import embedded_dir
from aas.segmenters import load_segmenter
from aas.segmenters.base import ImageEmbedding
from aas.segmenters.sam import SamSegmenter
from aas.segmenters.sam_decoding import PROMPTS_PER_DECODE
from aas.segmenters.sam_family import SamFamily
from aas.segmenters.sam_original import load_sam_checkpoint
from aas.segmenters.sam_records import SamCandidates
from tests.command import run
from tests.tiny.segmenters import FAMILIES, saved

SIZES_HW = [(96, 144), (150, 70), (64, 64), (5, 3), (1, 40), (1, 300)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return cache(lambda name: saved(name, tmp_path_factory.mktemp(name)))


@pytest.fixture(params=FAMILIES)
def folder(request: pytest.FixtureRequest, folders: Callable[[str], Path]) -> Path:
    """Of every family in turn."""
    return folders(request.param)


@pytest.fixture
def segmenter(folder: Path) -> SamFamily:
    return load_segmenter(str(folder))


@pytest.fixture(scope="module")
def sam(folders: Callable[[str], Path]) -> SamFamily:
    return load_segmenter(str(folders("sam")))


def photographs(sizes_hw: Sequence[tuple[int, int]] = SIZES_HW) -> list[np.ndarray]:
    """Smooth, as photographs are: a grey level more or less must not decide anything."""
    rng = np.random.default_rng(0)
    coarse = [Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)) for _ in sizes_hw]
    return [
        np.array(image.resize((width, height), Image.Resampling.BICUBIC))
        for image, (height, width) in zip(coarse, sizes_hw, strict=True)
    ]


def points_on(size_hw: tuple[int, int], n_prompts: int, n_points: int = 1) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.random((n_prompts, n_points, 2)) * (size_hw[1], size_hw[0])


def ids(sizes_hw: Sequence[tuple[int, int]]) -> list[str]:
    return [f"{width}x{height}" for height, width in sizes_hw]


def assert_same(ours: SamCandidates, logits: np.ndarray, scores: np.ndarray, tolerance: float = 1e-4) -> None:
    """`logits` [N, 3, H, W] at the photograph's size; pixels whose sign rounding may turn are not asked."""
    assert ours.masks.shape == logits.shape and ours.masks.dtype == bool
    assert ours.scores.dtype == np.float32
    clear = np.abs(logits) > tolerance
    assert (ours.masks == (logits > 0))[clear].all()
    assert clear.mean() > 0.99
    np.testing.assert_allclose(ours.scores, scores, atol=tolerance)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


# --------------------------------------------------------------------------- against transformers' own calls


@pytest.mark.parametrize("image", photographs(SIZES_HW[:5]), ids=ids(SIZES_HW[:5]))
@pytest.mark.parametrize("n_points", [1, 3])
@pytest.mark.parametrize("name", ["sam", "sam_hq"])
def test_sam_computes_what_transformers_computes(
    name: str, folders: Callable[[str], Path], image: np.ndarray, n_points: int
) -> None:
    points = points_on(image.shape[:2], PROMPTS_PER_DECODE + 3, n_points)
    labels = np.arange(points[..., 0].size).reshape(points.shape[:2]) % 2
    segmenter = load_segmenter(str(folders(name)))
    ours = segmenter.masks(segmenter.encode([image])[0], points, labels)

    model = AutoModelForMaskGeneration.from_pretrained(folders(name)).eval()
    processor = SamProcessor(SamImageProcessorPil.from_pretrained(folders(name)))
    inputs = processor(
        image,
        input_points=[points.tolist()],
        input_labels=[labels.tolist()],
        input_data_format="channels_last",
        return_tensors="pt",
    )
    with torch.no_grad():
        output = model(**inputs.to(torch.float32))
    (logits,) = processor.post_process_masks(
        output.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"], binarize=False
    )
    theirs, scores = logits.numpy(), output.iou_scores[0].numpy()
    if name == "sam_hq":  # sorts its masks by score: here both are
        order = np.argsort(-ours.scores, axis=1)
        assert (order != [0, 1, 2]).any()
        rows = np.arange(len(order))[:, None]
        ours = replace(ours, logits=ours.logits[rows, order], scores=ours.scores[rows, order])
    assert_same(ours, theirs, scores)


@pytest.mark.parametrize("image", photographs(SIZES_HW[:5]), ids=ids(SIZES_HW[:5]))
@pytest.mark.parametrize("name", ["sam2", "sam2_video", "sam3_tracker", "sam3_video"])
def test_sam2_computes_what_transformers_computes(name: str, folders: Callable[[str], Path], image: np.ndarray) -> None:
    """Its processor needs torchvision: the inputs are made by hand, as its documentation says."""
    points, labels = points_on(image.shape[:2], PROMPTS_PER_DECODE + 3, 2), np.tile([1, 0], (PROMPTS_PER_DECODE + 3, 1))
    segmenter = load_segmenter(str(folders(name)))
    ours = segmenter.masks(segmenter.encode([image])[0], points, labels)

    model = AutoModelForMaskGeneration.from_pretrained(folders(name)).eval()
    side, mean, std = 64, np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    if "sam3" in name:
        side, mean, std = 56, np.array([0.5] * 3), np.array([0.5] * 3)
    stretched = F.interpolate(
        torch.tensor(image).permute(2, 0, 1)[None].float(), (side, side), mode="bilinear", antialias=True
    ).round()
    by_pillow = np.array(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR), float)
    assert np.abs(stretched[0].permute(1, 2, 0).numpy() - by_pillow).max() <= 1
    pixels = (stretched / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    scaled = points / (image.shape[1], image.shape[0]) * side
    with torch.no_grad():
        output = model(
            pixel_values=pixels.float(),
            input_points=torch.tensor(scaled).float()[None],
            input_labels=torch.tensor(labels)[None],
        )
    logits = F.interpolate(output.pred_masks[0], image.shape[:2], mode="bilinear", align_corners=False)
    assert_same(ours, logits.numpy(), output.iou_scores[0].numpy())


# -------------------------------------------------------------------------------------- every family alike


def test_batch_equals_singles(segmenter: SamFamily) -> None:
    images = photographs()
    for image, together in zip(images, segmenter.encode(images), strict=True):
        (alone,) = segmenter.encode([image])
        assert together.size_hw == alone.size_hw == image.shape[:2]
        assert together.input_size_hw == alone.input_size_hw
        torch.testing.assert_close(together.features, alone.features, atol=1e-5, rtol=1e-4)


def test_a_prompt_does_not_depend_on_the_others(segmenter: SamFamily) -> None:
    (embedding,) = segmenter.encode(photographs()[:1])
    points = points_on(embedding.size_hw, PROMPTS_PER_DECODE + 2)
    together = segmenter.masks(embedding, points)
    assert together.logits.std(0).mean() > 0.01  # prompts do make a difference
    for i in (0, 1, PROMPTS_PER_DECODE - 1, PROMPTS_PER_DECODE + 1):
        alone = segmenter.masks(embedding, points[i : i + 1])
        np.testing.assert_allclose(alone.scores[0], together.scores[i], atol=1e-5)
        torch.testing.assert_close(alone.logits[0], together.logits[i], atol=1e-4, rtol=1e-4)


def test_photographs_share_the_decoder(segmenter):
    """With prompts of two kinds, and none: what each photograph alone gives, in a call for each kind."""
    images = photographs()[:3]
    embeddings = segmenter.encode(images)
    prompts = [points_on(image.shape[:2], n, p) for image, n, p in zip(images, (2, 3, 1), (1, 1, 2), strict=True)]
    asked = [(one, {"points_xy": points}) for one, points in zip(embeddings, prompts, strict=True)]
    asked.append((embeddings[0], {"points_xy": np.zeros((0, 1, 2))}))
    alone = [segmenter.masks(embedding, **given) for embedding, given in asked]
    calls = []
    with segmenter.model.mask_decoder.register_forward_hook(lambda *_: calls.append(1)):
        together = segmenter.masks_together(asked)
    assert len(calls) == 2 and len(together[3].scores) == 0
    for ours, theirs in zip(together[:3], alone[:3], strict=True):
        torch.testing.assert_close(ours.logits, theirs.logits, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)


def test_points_that_fill_up_rows_change_nothing_but_their_own_row(segmenter: SamFamily) -> None:
    (embedding,) = segmenter.encode(photographs()[:1])
    points = points_on(embedding.size_hw, 2, 2)
    labels = np.array([[1, 1], [1, -10]])
    both = segmenter.masks(embedding, points, labels)
    full = segmenter.masks(embedding, points[:1], labels[:1])
    np.testing.assert_allclose(both.scores[0], full.scores[0], atol=1e-5)


def test_boxes_and_coarse_masks(segmenter: SamFamily) -> None:
    (embedding,) = segmenter.encode(photographs()[:1])
    boxes = np.array([[3.0, 5.0, 60.0, 80.0], [10.0, 10.0, 40.0, 40.0]])
    coarse = np.random.default_rng(0).normal(size=(2, 16, 16))
    by_box = segmenter.masks(embedding, boxes_xyxy=boxes)
    by_both = segmenter.masks(embedding, boxes_xyxy=boxes, mask_logits=coarse)
    by_mask = segmenter.masks(embedding, mask_logits=coarse)
    for candidates in (by_box, by_both, by_mask):
        assert candidates.masks.shape == (2, 3, *embedding.size_hw)
        assert candidates.scores.shape == (2, 3)
    assert np.abs(by_box.scores - by_both.scores).max() > 1e-4
    second = segmenter.masks(embedding, boxes_xyxy=boxes[1:], mask_logits=coarse[1:])
    np.testing.assert_allclose(second.scores[0], by_both.scores[1], atol=1e-5)


@pytest.mark.parametrize("size_hw", [(60, 60), (40, 80), (120, 30)])
def test_coarse_masks_lie_on_the_photograph(folder: Path, segmenter: SamFamily, size_hw: tuple[int, int]) -> None:
    """Given on the photograph padded to a square; checked against transformers' call with the mask made by hand."""
    (embedding,) = segmenter.encode(photographs([size_hw]))
    height, width = (round(16 * side / max(size_hw)) for side in size_hw)
    covered = np.random.default_rng(0).normal(size=(height, width)).astype(np.float32)
    coarse = np.pad(covered, ((0, 16 - height), (0, 16 - width)))
    ours = segmenter.masks(embedding, mask_logits=coarse[None])

    by_hand = torch.from_numpy(coarse)[None, None]
    if "sam2" in folder.name or "sam3" in folder.name:  # the photograph fills the square: each cell covers more of it
        by_hand = F.interpolate(torch.from_numpy(covered)[None, None], (16, 16), mode="bilinear", align_corners=False)
    features = segmenter.decoder_features([feature[None] for feature in embedding.features])
    with torch.no_grad():
        theirs = segmenter.model(**features, input_masks=by_hand)
    logits = theirs.pred_masks[0, 0, theirs.iou_scores[0, 0].argsort()]
    torch.testing.assert_close(ours.logits[0, ours.scores[0].argsort()], logits, atol=1e-5, rtol=1e-4)

    finer = np.kron(coarse, np.ones((3, 3), np.float32))
    assert segmenter.masks(embedding, mask_logits=finer[None]).logits.shape == ours.logits.shape


def test_one_mask_of_each_prompt(segmenter: SamFamily) -> None:
    (embedding,) = segmenter.encode(photographs()[:1])
    candidates = segmenter.masks(embedding, points_on(embedding.size_hw, 4))
    assert (candidates.chosen(-1) == candidates.masks[:, -1]).all()
    best = candidates.scores.argmax(1)
    assert (candidates.chosen(best) == candidates.masks[np.arange(4), best]).all()


def test_half_precision_is_near(folder: Path, segmenter: SamFamily) -> None:
    half = load_segmenter(str(folder), dtype="bfloat16")
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.float32}
    image = photographs()[0]
    points = points_on(image.shape[:2], 3)
    rounded, exact = (s.masks(s.encode([image])[0], points) for s in (half, segmenter))
    assert rounded.scores.dtype == np.float32
    assert 0 < np.abs(rounded.scores - exact.scores).max() < 0.05
    assert (rounded.masks == exact.masks).mean() > 0.97


def test_overflow_is_an_error(sam: SamFamily) -> None:
    (embedding,) = sam.encode(photographs()[:1])
    broken = replace(embedding, features=(embedding.features[0] * torch.inf,))
    with pytest.raises(ValueError, match="not finite"):
        sam.masks(broken, np.zeros((2, 1, 2)))
    behind_scores = copy.deepcopy(sam)
    with torch.no_grad():
        behind_scores.model.mask_decoder.output_hypernetworks_mlps[3].proj_out.bias[0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        behind_scores.masks(embedding, np.zeros((2, 1, 2)))


def test_nothing_asked_nothing_answered(segmenter: SamFamily) -> None:
    (embedding,) = segmenter.encode(photographs()[:1])
    none = segmenter.masks(embedding, np.zeros((0, 1, 2)))
    assert none.masks.shape == (0, 3, *embedding.size_hw)
    assert none.chosen(-1).shape == (0, *embedding.size_hw)
    assert none.scores.shape == (0, 3)
    assert segmenter.encode([]) == []
    with pytest.raises(ValueError, match="needs points_xy"):
        segmenter.masks(embedding)
    with pytest.raises(ValueError, match="equally many"):
        segmenter.masks(embedding, np.zeros((2, 1, 2)), boxes_xyxy=np.zeros((3, 4)))


# ------------------------------------------------------------------------------------------- what is refused


def test_a_folder_that_is_not_whole(folders: Callable[[str], Path], tmp_path: Path) -> None:
    for file in folders("sam").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged or cut off"):
        load_segmenter(str(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no weights.*model\.safetensors"):
        load_segmenter(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}))
    with pytest.raises(ValueError, match=r"Unknown type of segmenter 'llava'. Known: .*sam_hq"):
        load_segmenter(str(tmp_path))
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        load_segmenter(str(tmp_path))


def test_missing_weights_are_not_made_up(folders: Callable[[str], Path], tmp_path: Path) -> None:
    model = AutoModelForMaskGeneration.from_pretrained(folders("sam"))
    weights = {k: v for k, v in model.state_dict().items() if k != "mask_decoder.iou_token.weight"}
    model.save_pretrained(tmp_path, state_dict=weights)
    SamImageProcessorPil.from_pretrained(folders("sam")).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lacks 1 .*iou_token"):
        load_segmenter(str(tmp_path))


@pytest.mark.parametrize("name", ["no/such-sam", "no-such-file.pth", "no/such@v1"])
def test_an_id_that_is_not_there(name: str) -> None:
    with pytest.raises(FileNotFoundError, match="No segmenter"):
        load_segmenter(name)


# ------------------------------------------------------------------ segment-anything's checkpoints and predictor


@contextmanager
def torchvision_for_segment_anything() -> Iterator[None]:
    """The three functions that segment-anything imports from it, only while it is imported; one of them is needed."""

    def resize(image: Image.Image, size_hw: tuple[int, int]) -> Image.Image:
        return image.resize((size_hw[1], size_hw[0]), Image.Resampling.BILINEAR)

    functions = {"resize": resize, "to_pil_image": Image.fromarray, "batched_nms": None, "box_area": None}
    names = ["", ".transforms", ".transforms.functional", ".ops", ".ops.boxes"]
    modules = {f"torchvision{name}": ModuleType(f"torchvision{name}") for name in names}
    for module in modules.values():
        vars(module).update(functions)
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]


@cache
def segment_anything() -> SimpleNamespace:
    if "torchvision" in sys.modules:
        import segment_anything.modeling as modeling
        from segment_anything import SamPredictor
    else:
        with torchvision_for_segment_anything():
            import segment_anything.modeling as modeling
            from segment_anything import SamPredictor
    return SimpleNamespace(modeling=modeling, SamPredictor=SamPredictor)


def original_sam(
    hidden: int = 32,
    heads: int = 2,
    global_layers: tuple[int, ...] = (1, 2),
    window: int = 3,
    side: int = 128,
    width: int = 64,
    decoder_heads: int = 8,
    mlp: int = 96,
    depth: int = 3,
) -> Any:
    """A Sam of segment-anything with random weights."""
    modeling, grid = segment_anything().modeling, side // 16
    model = modeling.Sam(
        image_encoder=modeling.ImageEncoderViT(
            depth=depth,
            embed_dim=hidden,
            img_size=side,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            num_heads=heads,
            use_rel_pos=True,
            global_attn_indexes=global_layers,
            window_size=window,
            out_chans=width,
        ),
        prompt_encoder=modeling.PromptEncoder(
            embed_dim=width, image_embedding_size=(grid, grid), input_image_size=(side, side), mask_in_chans=16
        ),
        mask_decoder=modeling.MaskDecoder(
            transformer_dim=width,
            transformer=modeling.TwoWayTransformer(depth=2, embedding_dim=width, mlp_dim=mlp, num_heads=decoder_heads),
            iou_head_hidden_dim=48,
        ),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    ).eval()
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            fan_in = parameter[0].numel() if len(parameter) > 1 else 1
            torch.nn.init.normal_(parameter, std=fan_in**-0.5)
        elif name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def predicted(model: Any, image: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """segment-anything's own masks and scores, one prompt at a time."""
    predictor = segment_anything().SamPredictor(model)
    predictor.set_image(image)
    both = [predictor.predict(xy, np.ones(len(xy)), multimask_output=True)[:2] for xy in points]
    return np.stack([masks for masks, _ in both]), np.stack([scores for _, scores in both])


def assert_agrees_with_predictor(segmenter: SamFamily, model: Any, image: np.ndarray) -> None:
    points = points_on(image.shape[:2], 5, 2)
    ours = segmenter.masks(segmenter.encode([image])[0], points)
    masks, scores = predicted(model, image, points)
    union = np.maximum((ours.masks | masks).sum((2, 3)), 1)
    empty = ~(ours.masks | masks).any((2, 3))
    assert (((ours.masks & masks).sum((2, 3)) / union + empty) >= 0.999).all()
    assert np.abs(ours.scores - scores).max() < 1e-4
    assert 0 < masks.mean() < 1


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    model, path = original_sam(), tmp_path_factory.mktemp("original") / "any_name.pth"
    torch.save(model.state_dict(), path)
    return model, path


@pytest.mark.filterwarnings("ignore:.*attention heads")
@pytest.mark.parametrize("image", photographs(), ids=ids(SIZES_HW))
def test_a_checkpoint_agrees_with_its_own_predictor(original: tuple[Any, Path], image: np.ndarray) -> None:
    if min(image.shape[:2]) * 128 / max(image.shape[:2]) < 0.5:
        pytest.skip("segment-anything cannot take it: it resizes the short side to nothing")
    model, path = original
    assert_agrees_with_predictor(load_segmenter(str(path)), model, image)


@pytest.mark.filterwarnings("ignore:.*attention heads")
def test_boxes_and_coarse_masks_agree_with_the_predictor(original: tuple[Any, Path]) -> None:
    model, path = original
    segmenter, image = load_segmenter(str(path)), photographs()[0]
    box, coarse = np.array([20.0, 10.0, 90.0, 80.0]), np.random.default_rng(0).normal(size=(1, 32, 32))
    assert segmenter.mask_side == 32
    predictor = segment_anything().SamPredictor(model)
    predictor.set_image(image)
    (embedding,) = segmenter.encode([image])
    for given in ({"box": box}, {"mask_input": coarse}, {"box": box, "mask_input": coarse}):
        masks, scores, _ = predictor.predict(**given)
        both = {"boxes_xyxy": box[None] if "box" in given else None, "mask_logits": given.get("mask_input")}
        ours = segmenter.masks(embedding, **both)
        assert iou(ours.masks[0], masks) >= 0.999
        assert np.abs(ours.scores[0] - scores).max() < 1e-4


@pytest.mark.filterwarnings("ignore:.*attention heads")
@pytest.mark.parametrize(
    "sizes",
    [
        {"hidden": 48, "heads": 3, "depth": 5, "global_layers": (1, 4), "window": 5},
        {"global_layers": (0, 1, 2), "mlp": 40},
        {"window": 8, "global_layers": (2,)},  # the window is the whole grid
        {"width": 256, "side": 96},
    ],
    ids=str,
)
def test_sizes_are_read_from_the_weights(sizes: dict[str, Any], tmp_path: Path) -> None:
    model = original_sam(**sizes)
    torch.save(model.state_dict(), tmp_path / "sam_vit_h_4b8939.pth")
    segmenter = load_segmenter(str(tmp_path / "sam_vit_h_4b8939.pth"))
    assert_agrees_with_predictor(segmenter, model, photographs()[0])


@pytest.mark.parametrize("size", ["b", "l", "h"])
def test_published_sizes_are_recognised(size: str) -> None:
    """The shapes of the published checkpoints, without their weights."""
    from aas.segmenters.sam_original import _config, transformers_name

    segment_anything()
    import segment_anything as package
    from transformers import SamModel

    with torch.device("meta"):
        weights = package.sam_model_registry[f"vit_{size}"]().state_dict()
        config = _config(weights, Path(f"sam_vit_{size}.pth"))
        expected = SamModel(config).state_dict()
    renamed = {transformers_name(name, 3): weight.shape for name, weight in weights.items()}
    shapes = {name: w.shape for name, w in expected.items() if not name.startswith("prompt_encoder.shared_embedding")}
    assert renamed == shapes
    vision, decoder = config.vision_config, config.mask_decoder_config
    depth, hidden, heads = {"b": (12, 768, 12), "l": (24, 1024, 16), "h": (32, 1280, 16)}[size]
    assert (vision.num_hidden_layers, vision.hidden_size, vision.num_attention_heads) == (depth, hidden, heads)
    assert (vision.image_size, vision.window_size, len(vision.global_attn_indexes)) == (1024, 14, 4)
    assert (decoder.num_attention_heads, decoder.attention_downsample_rate, decoder.mlp_dim) == (8, 2, 2048)


def test_an_unusual_decoder_is_said_aloud(original: tuple[Any, Path], tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="8 attention heads"):
        load_segmenter(str(original[1]))
    (tmp_path / "sam.pth").write_bytes(original[1].read_bytes())
    decoder = {"hidden_size": 64, "num_attention_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "sam", "mask_decoder_config": decoder}))
    assert load_segmenter(str(tmp_path / "sam.pth")).model.config.mask_decoder_config.num_attention_heads == 4


@pytest.mark.filterwarnings("ignore:.*attention heads")
@pytest.mark.parametrize("wrap", ["model", "state_dict", "module.", "model module.", "model state_dict module."])
def test_weights_inside_what_training_saves(original: tuple[Any, Path], tmp_path: Path, wrap: str) -> None:
    content = weights = original[0].state_dict()
    for wrapping in reversed(wrap.split()):
        behind = {f"module.{name}": weight for name, weight in content.items()}
        content = behind if wrapping == "module." else {wrapping: content, "epoch": 3}
    torch.save(content, tmp_path / "last.pth")
    loaded = load_sam_checkpoint(tmp_path / "last.pth").model.state_dict()
    assert torch.equal(loaded["mask_decoder.iou_token.weight"], weights["mask_decoder.iou_token.weight"])
    assert len(loaded) == len(weights) + 1, "transformers ties one more"


@pytest.mark.filterwarnings("ignore:.*attention heads")
def test_checkpoints_that_are_refused(original: tuple[Any, Path], tmp_path: Path) -> None:
    path, weights = tmp_path / "sam_vit_b_01ec64.pth", torch.load(original[1], weights_only=True)

    def refused(match: str) -> None:
        with pytest.raises(ValueError, match=match):
            load_sam_checkpoint(path)

    torch.save(weights | {"mask_decoder.hf_token.weight": torch.zeros(1, 64)}, path)
    refused("1 weights are not SAM's: mask_decoder.hf_token.weight")
    torch.save({k: v for k, v in weights.items() if "point_embeddings.3" not in k}, path)
    refused("1 are missing: prompt_encoder.point_embed.3.weight")
    torch.save({k: v for k, v in weights.items() if "pos_embed" not in k}, path)
    refused("lacks 'pos_embed'")
    torch.save({k: v for k, v in weights.items() if "blocks.1.norm1" not in k}, path)
    refused("2 are missing: vision_encoder.layers.1.layer_norm1")
    torch.save({"features.0.weight": torch.zeros(3)}, path)
    refused("is no SAM of segment-anything.*features.0.weight")
    torch.save({"image_encoder.trunk.blocks.0.norm1.weight": torch.zeros(3)}, path)
    refused("is a SAM 2")
    torch.save({"network": weights, "epoch": 3}, path)
    refused("holds network, epoch")
    torch.save([1, 2], path)
    refused("holds list")
    torch.save({"code": subprocess.Popen}, path)
    refused("Python objects, which are never loaded")
    path.write_bytes(b"not a checkpoint")
    refused("damaged")
    path.write_bytes(b"")
    refused("damaged")
    whole = original[1].read_bytes()
    for part in (0.1, 0.5, 0.999):
        path.write_bytes(whole[: int(part * len(whole))])
        refused("damaged")


class TestGoldenSam:
    """The same weights in both formats, trained: on photographs."""

    @pytest.fixture(scope="class")
    def folder(self, shared_dir: Path) -> Path:
        return shared_dir / "golden/models/sam-tiny"

    @pytest.fixture(scope="class")
    def original(self, folder: Path) -> Any:
        model = original_sam(
            hidden=64, heads=4, global_layers=(1, 2), window=7, side=256, width=64, decoder_heads=4, mlp=128
        )
        model.mask_decoder.iou_prediction_head = segment_anything().modeling.mask_decoder.MLP(64, 64, 4, 3)
        model.load_state_dict(torch.load(folder / "sam_tiny.pth", weights_only=True))
        return model

    @pytest.mark.parametrize("file", ["", "sam_tiny.pth"])
    @pytest.mark.parametrize("shape", ["landscape", "portrait", "square", "tiny", "line"])
    def test_agrees_with_segment_anything(
        self, folder: Path, original: Any, shared_dir: Path, file: str, shape: str
    ) -> None:
        photo = Image.open(shared_dir / "golden/images/dog.jpg").convert("RGB")
        image = {
            "landscape": photo,
            "portrait": photo.transpose(Image.Transpose.ROTATE_90),
            "square": photo.crop((200, 0, 734, 534)),
            "tiny": photo.resize((11, 7)),
            "line": photo.resize((300, 1)),
        }[shape]
        assert_agrees_with_predictor(load_segmenter(str(folder / file)), original, np.array(image))

    def test_both_formats_give_the_same(self, folder: Path, shared_dir: Path) -> None:
        image = np.array(Image.open(shared_dir / "golden/images/truck.jpg").convert("RGB"))
        points = points_on(image.shape[:2], 8)
        two = [load_segmenter(str(path)) for path in (folder, folder / "sam_tiny.pth")]
        ours, theirs = (segmenter.masks(segmenter.encode([image])[0], points) for segmenter in two)
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)
        assert (ours.masks == theirs.masks).mean() > 0.99999

    def test_grounds_with_a_checkpoint(self, folder: Path, shared_dir: Path, tmp_path: Path) -> None:
        photo, checkpoint = shared_dir / "golden/images/dog.jpg", folder / "sam_tiny.pth"
        code, said = run("ground", photo, "--segmenter", checkpoint, "--out", tmp_path)
        assert code == 0, said
        item = json.loads((tmp_path / "dog.json").read_text())
        assert len(item["pred_masks"]) == len(item["phrases"]) > 0


# ------------------------------------------------------------------------------------ the embedded one


@pytest.fixture(scope="module")
def embedded() -> SamSegmenter:
    try:
        embedded_dir("segmenter")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    return load_segmenter("embedded")


def disc_picture(size_hw: tuple[int, int], centre_xy: tuple[int, int], radius: int) -> tuple[np.ndarray, np.ndarray]:
    """An orange disc on grey-green, with a little noise, and its mask."""
    y, x = np.mgrid[: size_hw[0], : size_hw[1]]
    disc = (x - centre_xy[0]) ** 2 + (y - centre_xy[1]) ** 2 < radius**2
    image = np.where(disc[..., None], (240, 150, 30), (70, 100, 80)) + np.random.default_rng(0).normal(
        0, 4, (*size_hw, 3)
    )
    return image.clip(0, 255).astype(np.uint8), disc


@pytest.mark.parametrize(
    ("size_hw", "centre_xy", "radius"), [((480, 640), (420, 200), 90), ((640, 427), (150, 430), 80)]
)
def test_a_click_on_a_disc_gives_the_disc(
    embedded: SamSegmenter, size_hw: tuple[int, int], centre_xy: tuple[int, int], radius: int
) -> None:
    image, disc = disc_picture(size_hw, centre_xy, radius)
    x, y = centre_xy
    points = np.array([[[x, y]], [[x + radius // 2, y - radius // 2]], [[x - radius // 2, y]]])
    candidates = embedded.masks(embedded.encode([image])[0], points)
    assert candidates.masks.shape == (3, 3, *size_hw)
    assert min(iou(mask, disc) for mask in candidates.masks[:, -1]) > 0.75
    assert ((candidates.scores > -0.1) & (candidates.scores < 1.1)).all()


def test_embedded_batch_equals_singles(embedded: SamSegmenter) -> None:
    images = [disc_picture((300, 400), (200, 150), 60)[0], disc_picture((400, 250), (100, 300), 50)[0]]
    points = np.array([[[110.0, 160.0]], [[30.0, 30.0]]])
    for image, embedding in zip(images, embedded.encode(images), strict=True):
        alone = embedded.masks(embedded.encode([image])[0], points)
        together = embedded.masks(embedding, points)
        np.testing.assert_allclose(alone.scores, together.scores, atol=1e-4)
        assert (alone.masks == together.masks).mean() > 0.999


def test_embedded_loads_as_any_sam_folder(embedded: SamSegmenter) -> None:
    model = SamSegmenter.from_pretrained(embedded_dir("segmenter")).model
    assert type(model) is type(embedded.model)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_few_weights_are_small(embedded: SamSegmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    n_weights = sum(weight.numel() for weight in embedded.model.parameters())
    assert embedded.is_small
    monkeypatch.setattr("aas.devices.SMALL_WEIGHTS", n_weights - 1)
    assert not embedded.is_small


def test_an_embedding_of_another_segmenter_is_refused(embedded: SamSegmenter) -> None:
    with pytest.raises(ValueError, match="this segmenter's own"):
        embedded.masks(ImageEmbedding((4, 4), None), np.zeros((1, 1, 2)))
