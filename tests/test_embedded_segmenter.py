"""The embedded segmenter beside SAM's own classes: the branch that redraws edges, masks without specks."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from transformers import SamMaskDecoderConfig, SamPromptEncoderConfig

from aas.segmenters.embedded import EmbeddedSamConfig, EmbeddedSamModel, EmbeddedSamVisionConfig, EmbeddedSegmenter
from aas.segmenters.sam import SamSegmenter
from aas.segmenters.specks import without_specks

SIDE, WIDTH = 96, 32


def tiny_model(edge_width: int) -> EmbeddedSamModel:
    torch.manual_seed(0)
    vision = EmbeddedSamVisionConfig(
        image_size=SIDE, output_channels=WIDTH, num_pos_feats=WIDTH // 2, num_neck_blocks=1, edge_width=edge_width
    )
    config = EmbeddedSamConfig(
        vision_config=vision,
        prompt_encoder_config=SamPromptEncoderConfig(hidden_size=WIDTH, image_size=SIDE),
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=WIDTH, mlp_dim=64, num_attention_heads=2, iou_head_hidden_dim=WIDTH
        ),
    )
    return EmbeddedSamModel(config).eval()


@pytest.fixture(scope="module")
def with_edges() -> EmbeddedSamModel:
    return tiny_model(8)


@torch.no_grad()
def test_an_untrained_edge_branch_only_makes_masks_finer(with_edges):
    plain = tiny_model(0)
    plain.load_state_dict(with_edges.state_dict(), strict=False)
    pixels, points = torch.rand(2, 3, SIDE, SIDE), torch.tensor([[[[20.0, 30.0]], [[50.0, 9.0]]]] * 2)
    coarse = plain(pixels, input_points=points)
    fine = with_edges(pixels, input_points=points)
    assert fine.pred_masks.shape == (2, 2, 3, SIDE // 2, SIDE // 2)
    expected = torch.nn.functional.interpolate(coarse.pred_masks.flatten(0, 1), scale_factor=2, mode="bilinear")
    torch.testing.assert_close(fine.pred_masks.flatten(0, 1), expected)
    torch.testing.assert_close(fine.iou_scores, coarse.iou_scores)


@torch.no_grad()
def test_each_prompt_is_redrawn_beside_its_own_photograph(with_edges):
    torch.nn.init.normal_(with_edges.edges.to_logits.weight)
    pixels, points = torch.rand(2, 3, SIDE, SIDE), torch.tensor([[[[20.0, 30.0]], [[50.0, 9.0]]]] * 2)
    together = with_edges(pixels, input_points=points).pred_masks
    for i in range(2):
        for k in range(2):
            alone = with_edges(pixels[i : i + 1], input_points=points[i : i + 1, k : k + 1]).pred_masks
            torch.testing.assert_close(together[i, k], alone[0, 0], rtol=1e-4, atol=1e-5)
    embeddings = with_edges.get_image_embeddings(pixels)
    edges = with_edges.edge_features(pixels, embeddings)
    again = with_edges(image_embeddings=embeddings, edge_features=edges, input_points=points).pred_masks
    torch.testing.assert_close(again, together)
    with pytest.raises(ValueError, match="edge_features"):
        with_edges(image_embeddings=embeddings, input_points=points)


def test_the_segmenter_takes_points_boxes_and_masks(with_edges):
    segmenter = EmbeddedSegmenter(with_edges, [0.5] * 3, [0.5] * 3)
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    (embedding,) = segmenter.encode([image])
    found = segmenter.masks(embedding, np.array([[[10.0, 20.0]], [[70.0, 5.0]]]))
    assert found.masks.shape == (2, 3, 60, 80)
    box = np.array([[4.0, 5.0, 40.0, 50.0]])
    assert segmenter.masks(embedding, boxes_xyxy=box).scores.shape == (1, 3)
    logits = np.zeros((1, segmenter.mask_side, segmenter.mask_side), np.float32)
    assert segmenter.masks(embedding, boxes_xyxy=box, mask_logits=logits).masks.shape == (1, 3, 60, 80)
    plain = SamSegmenter(tiny_model(0), [0.5] * 3, [0.5] * 3)
    assert plain.masks(plain.encode([image])[0], np.array([[[10.0, 20.0]]])).masks.shape == (1, 3, 60, 80)


def test_masks_have_no_specks():
    rng = np.random.default_rng(0)
    mask = np.zeros((200, 300), bool)
    mask[50:150, 60:260] = True
    mask[80:120, 100:140] = False  # a hole of 1,600 pixels stays
    mask[10:14, 10:14] = True  # an island of 16 goes: the mask has 18,400 pixels
    mask[160:170, 10:20] = True  # of 100 stays
    noisy = mask ^ (rng.random(mask.shape) < 0.002)
    clean = without_specks(noisy)
    expected = mask.copy()
    expected[10:14, 10:14] = False
    assert (clean != expected).mean() < 0.002
    limit = 0.001 * noisy.sum()
    for part, structure in ((clean, np.ones((3, 3))), (~clean, None)):
        areas = np.bincount(ndimage.label(part, structure)[0].ravel())[1:]
        assert areas.min() >= limit
    few = np.zeros((20, 20), bool)
    few[3, 4] = True
    assert (without_specks(few) == few).all() and not without_specks(few & False).any()
