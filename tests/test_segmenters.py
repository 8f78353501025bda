"""Segmenters: a tiny random SAM against transformers' own path, and the embedded one on a picture with an answer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import SamConfig, SamImageProcessorPil, SamModel, SamProcessor

from aas.paths import embedded_dir
from aas.segmenters import load_segmenter
from aas.segmenters.base import PROMPTS_PER_DECODE
from aas.segmenters.sam import SamSegmenter

SIZES_HW = [(96, 144), (150, 70), (64, 64), (5, 3), (1, 40)]


@pytest.fixture(scope="module")
def sam_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SAM of 64 px with random weights, large enough that masks and scores differ between prompts."""
    config = SamConfig(
        vision_config={
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 64,
            "window_size": 2,
            "global_attn_indexes": [1],
            "output_channels": 32,
            "num_pos_feats": 16,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": 64},
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
    )
    torch.manual_seed(0)
    model = SamModel(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path_factory.mktemp("sam")
    model.save_pretrained(folder)
    square, quarter = {"height": 64, "width": 64}, {"height": 16, "width": 16}
    SamImageProcessorPil(
        size={"longest_edge": 64}, pad_size=square, mask_size={"longest_edge": 16}, mask_pad_size=quarter
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sam(sam_folder: Path) -> SamSegmenter:
    return SamSegmenter.from_pretrained(sam_folder)


def photographs(sizes_hw: Sequence[tuple[int, int]] = SIZES_HW) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes_hw]


def points_on(image: np.ndarray, n_prompts: int, n_points: int = 1) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.random((n_prompts, n_points, 2)) * (image.shape[1], image.shape[0])


@pytest.mark.parametrize("image", photographs(), ids=str(SIZES_HW).strip("[]").split("), "))
@pytest.mark.parametrize("n_points", [1, 3])
def test_computes_what_transformers_computes(
    sam: SamSegmenter, sam_folder: Path, image: np.ndarray, n_points: int
) -> None:
    points = points_on(image, PROMPTS_PER_DECODE + 3, n_points)
    labels = np.arange(points[..., 0].size).reshape(points.shape[:2]) % 2
    ours = sam.masks(sam.encode([image])[0], points, labels)

    model = SamModel.from_pretrained(sam_folder).eval()
    processor = SamProcessor(SamImageProcessorPil.from_pretrained(sam_folder))
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
    assert ours.masks.shape == (len(points), 3, *image.shape[:2])
    assert ours.masks.dtype == bool
    clear = logits.abs().numpy() > 1e-4
    assert (ours.masks == (logits.numpy() > 0))[clear].all()
    assert clear.mean() > 0.99
    np.testing.assert_allclose(ours.scores, output.iou_scores[0].numpy(), atol=1e-5)
    assert ours.scores.dtype == np.float32


def test_batch_equals_singles(sam: SamSegmenter) -> None:
    images = photographs()
    for image, together in zip(images, sam.encode(images), strict=True):
        (alone,) = sam.encode([image])
        assert together.size_hw == alone.size_hw == image.shape[:2]
        assert together.input_size_hw == alone.input_size_hw
        torch.testing.assert_close(together.features, alone.features, atol=1e-5, rtol=1e-4)


def test_a_prompt_does_not_depend_on_the_others(sam: SamSegmenter) -> None:
    (embedding,) = sam.encode(photographs()[:1])
    points = points_on(np.zeros((*embedding.size_hw, 3)), 5)
    together = sam.masks(embedding, points)
    for i in range(len(points)):
        alone = sam.masks(embedding, points[i : i + 1])
        np.testing.assert_allclose(alone.scores[0], together.scores[i], atol=1e-5)
        assert (alone.masks[0] == together.masks[i]).mean() > 0.999


def test_points_that_fill_up_rows_change_nothing_but_their_own_row(sam: SamSegmenter) -> None:
    (embedding,) = sam.encode(photographs()[:1])
    points = points_on(np.zeros((*embedding.size_hw, 3)), 2, 2)
    labels = np.array([[1, 1], [1, -10]])
    both = sam.masks(embedding, points, labels)
    full = sam.masks(embedding, points[:1], labels[:1])
    np.testing.assert_allclose(both.scores[0], full.scores[0], atol=1e-5)


def test_boxes_and_coarse_masks(sam: SamSegmenter) -> None:
    (embedding,) = sam.encode(photographs()[:1])
    boxes = np.array([[3.0, 5.0, 60.0, 80.0], [10.0, 10.0, 40.0, 40.0]])
    coarse = np.random.default_rng(0).normal(size=(2, 16, 16))
    by_box = sam.masks(embedding, boxes_xyxy=boxes)
    by_both = sam.masks(embedding, boxes_xyxy=boxes, mask_logits=coarse)
    by_mask = sam.masks(embedding, mask_logits=coarse)
    for candidates in (by_box, by_both, by_mask):
        assert candidates.masks.shape == (2, 3, *embedding.size_hw)
        assert candidates.scores.shape == (2, 3)
    assert np.abs(by_box.scores - by_both.scores).max() > 1e-4
    second = sam.masks(embedding, boxes_xyxy=boxes[1:], mask_logits=coarse[1:])
    np.testing.assert_allclose(second.scores[0], by_both.scores[1], atol=1e-5)


def test_nothing_asked_nothing_answered(sam: SamSegmenter) -> None:
    (embedding,) = sam.encode(photographs()[:1])
    none = sam.masks(embedding, np.zeros((0, 1, 2)))
    assert none.masks.shape == (0, 3, *embedding.size_hw)
    assert none.scores.shape == (0, 3)
    assert sam.encode([]) == []
    with pytest.raises(ValueError, match="needs"):
        sam.masks(embedding)


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


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


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
