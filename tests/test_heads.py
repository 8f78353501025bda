"""Mask heads: against independent computations, at the published sizes, in batches, and over-fitting planted scenes."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aas import registry
from aas.geometry import padded_view, stretched_view
from aas.heads.features import HeadShape, MaskLogits, PhraseFeatures
from aas.heads.head import MaskHead, TextMixing
from aas.heads.highres import HighResHead, eye_layers
from aas.heads.losses import mask_ious, mask_loss
from aas.heads.proposals import ProposalHead
from aas.heads.refiner import SamRefiner
from aas.heads.unet import UNetHead
from aas.segmenters.sam_records import SamEmbedding
from tests import planted
from tests.tiny import segmenters

DEEPSEEK_1B = HeadShape(24, 16, 2048, input_side=384)
DEEPSEEK_7B = HeadShape(30, 32, 4096, input_side=1024)
LLAVA_7B = HeadShape(32, 32, 4096, input_side=336)
HEADS = {
    "unet": lambda: UNetHead(planted.SHAPE, width=8, side=32),
    "highres": lambda: HighResHead(planted.SHAPE, width=16),
}


@pytest.fixture(params=sorted(HEADS))
def head(request) -> MaskHead:
    torch.manual_seed(0)
    return HEADS[request.param]().eval()


def refining() -> UNetHead:
    torch.manual_seed(0)
    return UNetHead(planted.SHAPE, width=8, side=32, segmenter=segmenters.sam()).eval()


def with_embedding(one: PhraseFeatures, seed: int = 0) -> PhraseFeatures:
    """As a SAM of 64 pixels would have encoded the photograph."""
    features = torch.randn(32, 4, 4, generator=torch.Generator().manual_seed(seed))
    height, width = one.image_hw
    scale = 64 / max(one.image_hw)
    return replace(one, embedding=SamEmbedding(one.image_hw, (features,), (int(height * scale), int(width * scale))))


def n_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# ------------------------------------------------------------------------------------------------ published sizes


@pytest.mark.parametrize(
    ("shape", "unet", "text", "highres"),
    [
        (DEEPSEEK_1B, 7.40, 0.52, 6.7),
        (DEEPSEEK_7B, 7.74, 1.05, 11.6),
        (LLAVA_7B, 7.77, 1.05, 11.8),
        (replace(LLAVA_7B, n_views=2), 8.36, 1.05, None),  # LLaVA-NeXT: coarse and fine
    ],
)
def test_as_many_parameters_as_published(shape, unet, text, highres):
    with torch.device("meta"):
        assert round(n_parameters(UNetHead(shape)) / 1e6, 2) == unet
        assert round(n_parameters(TextMixing(shape, 256)) / 1e6, 2) == text
        if highres:
            fine = HighResHead(shape)
            assert round(n_parameters(fine) / 1e6, 1) == highres
            assert round(n_parameters(fine.filter) / 1e6, 2) == 3.84


def test_the_registry_knows_them():
    classes = {name: registry.load(registry.MASK_HEADS, name, "mask head") for name in registry.MASK_HEADS}
    assert classes == {"unet": UNetHead, "highres": HighResHead, "proposals": ProposalHead}


# -------------------------------------------------------------------------------- against independent computations


def norm1(x: Tensor, module: nn.Module) -> Tensor:
    """Group norm of one group, written out."""
    mean, var = x.mean((1, 2, 3), keepdim=True), x.var((1, 2, 3), unbiased=False, keepdim=True)
    return (x - mean) / (var + 1e-5).sqrt() * module.weight[:, None, None] + module.bias[:, None, None]


def block(x: Tensor, layers: nn.Module) -> Tensor:
    """Convolution, norm, ReLU."""
    return norm1(F.conv2d(x, layers[0].weight, padding=layers[0].weight.shape[-1] // 2), layers[1]).relu()


def double(x: Tensor) -> Tensor:
    return F.interpolate(x, size=[2 * n for n in x.shape[2:]], mode="bilinear")


def test_the_unet_against_one_written_out():
    head, one = HEADS["unet"](), planted.features(0, n_phrases=3)
    scrambled(head)
    u = head.unet
    maps = one.attention / one.attention.flatten(2).sum(-1)[..., None, None]
    x = F.interpolate(maps, size=(32, 32), mode="bilinear")
    a = block(block(x, u.down[0][0]), u.down[0][1])
    b = block(block(F.max_pool2d(a, 2), u.down[1][0]), u.down[1][1])
    c = block(block(F.max_pool2d(b, 2), u.down[2][0]), u.down[2][1])
    d = block(block(F.max_pool2d(c, 2), u.down[3][0]), u.down[3][1])
    c = torch.cat([c, block(double(d), u.narrow[2])], 1)
    c = block(block(c, u.up[2][0]), u.up[2][1])
    b = torch.cat([b, block(double(c), u.narrow[1])], 1)
    b = block(block(b, u.up[1][0]), u.up[1][1])
    a = torch.cat([a, block(double(b), u.narrow[0])], 1)
    a = block(block(a, u.up[0][0]), u.up[0][1])
    expected = F.conv2d(a, u.out.weight, u.out.bias)[:, 0]
    ((coarse,),) = head([one])
    assert coarse.view.box_xyxy == one.view.box_xyxy
    torch.testing.assert_close(coarse.values, expected, rtol=1e-5, atol=1e-5)


def residual(x: Tensor, unit: nn.Module) -> Tensor:
    first, second = unit.layers[1], unit.layers[3]
    y = F.conv2d(x.relu(), first.weight, first.bias, padding=1)
    return x + F.conv2d(y.relu(), second.weight, second.bias, padding=1)


def conv(x: Tensor, layer: nn.Module, stride: int = 1) -> Tensor:
    return F.conv2d(x, layer.weight, layer.bias, stride=stride, padding=layer.weight.shape[-1] // 2)


def test_the_highres_head_against_one_written_out():
    """One phrase, layer by layer, with loops where the head has products of all."""
    head, one = HEADS["highres"]().eval(), planted.features(1)
    scrambled(head)
    shares = torch.softmax(head.text.layer_weights, 0)
    mixed = sum(share * states for share, states in zip(shares, one.states[0], strict=True))
    text = (mixed @ head.text.project.weight.T + head.text.project.bias).mean(0)
    hidden = (head.filter.weights[0].weight @ text + head.filter.weights[0].bias).relu()
    numbers = head.filter.weights[2].weight @ hidden + head.filter.weights[2].bias
    n, m = 12, 64  # 3/4 and 4 times the width
    first, rest = numbers[: n * m].reshape(n, m), numbers[n * m :]
    first_bias, second, second_bias = rest[:n], rest[n : n + n * n].reshape(n, n), rest[n + n * n :]
    filtered = []
    for layer in one.eyes:
        x = F.layer_norm(layer.movedim(0, -1), (16,), head.eyes.norm.weight, head.eyes.norm.bias).movedim(-1, 0)[None]
        for i in (0, 2, 4):
            x = conv(x, head.eyes.layers[i]).relu()
        x = (torch.einsum("oc,chw->ohw", first, x[0]) + first_bias[:, None, None]).relu()
        x = torch.einsum("oc,chw->ohw", second, x) + second_bias[:, None, None]
        x = F.layer_norm(x.movedim(0, -1), (n,), head.filter.norm.weight, head.filter.norm.bias).movedim(-1, 0)
        filtered.append(x)
    attention = conv(conv(one.attention, head.fit), head.attention)
    pairs = [torch.cat(filtered[i : i + 2])[None] for i in (0, 2, 4, 6)]
    stages = [conv(pairs[0], head.shallow), *(conv(torch.cat([p, attention], 1), head.deeper) for p in pairs[1:])]
    pyramid = [
        F.interpolate(conv(stage, narrow), size=(side, side), mode="bilinear")
        for stage, narrow, side in zip(stages, head.narrow, (8, 4, 2, 1), strict=True)
    ]
    x = conv(one.pixels[None], head.stem.layers[0], 2).relu()
    x = conv(conv(x, head.stem.layers[2]).relu(), head.stem.layers[4]).relu()
    x = norm1(conv(F.max_pool2d(x, 3, 2, 1), head.stem.layers[7]), head.stem.layers[8])
    pyramid[0] = pyramid[0] + norm1(conv(x, head.stem.narrow[0]), head.stem.narrow[1]).relu()
    top = head.top_down
    x = pyramid[3]
    for i, refine in enumerate(top.refine):
        x = conv(double(residual(x, refine.residual)), refine.out)
        if i < 3:
            x = x + residual(pyramid[2 - i], top.skip)
    x = double(norm1(conv(x, top.before[0]).relu(), top.before[2]))
    expected = conv(conv(x, top.after[0]).relu(), top.after[2])[0]
    ((logits,),) = head([one])
    assert logits.values.shape == (1, 32, 32)  # as fine as the pixels
    torch.testing.assert_close(logits.values, expected, rtol=1e-4, atol=1e-5)


def test_sam_is_told_of_mask_box_and_words():
    head, one = refining(), with_embedding(planted.features(1, n_phrases=3))
    scrambled(head)
    (coarse, refined), sam = head([one])[0], head.refiner
    side = 16
    for i in range(3):
        logits = coarse.on_image((24, 32))[i]
        rows, columns = (logits > 0).nonzero().T
        box = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) * 2.0  # 32 pixels to 64
        # The photograph fills the square's 12 upper rows of 16.
        prompt = torch.full((side, side), min(-1.0, coarse.on_image((24, 32), (12, 16)).min()))
        prompt[:12] = coarse.on_image((24, 32), (12, 16))[i]
        sparse, dense = sam.prompt_encoder(None, None, box[None, None], prompt[None, None])
        words = head.text([one.states[i]])[0]
        tokens = torch.cat([sparse, words[None, None]], dim=2)
        expected, _ = sam.mask_decoder(one.embedding.features[0][None], sam.positions, tokens, dense, False)
        torch.testing.assert_close(refined.values[i], expected[0, 0, 0], rtol=1e-4, atol=1e-4)
    assert refined.view.box_xyxy == (0, 0, 32, 32) and refined.view.size_hw == (side, side)


def test_an_empty_coarse_mask_is_boxed_by_the_whole_photograph():
    refiner, one = SamRefiner(segmenters.sam()), with_embedding(planted.features(0))
    boxes = []
    refiner.prompt_encoder.register_forward_pre_hook(lambda _, given: boxes.append(given[2]))
    view = padded_view((8, 8), one.image_hw)
    refiner(MaskLogits(torch.full((1, 8, 8), -3.0), view), [torch.zeros(1, 32)], one.embedding)
    assert boxes[0].tolist() == [[[0, 0, 48, 64]]]


def test_padding_falls_away_without_rounding():
    """A ramp over a padded square is the same ramp over the photograph, between the centres of its cells."""
    view = padded_view((8, 8), (40, 100))
    ramp = torch.linspace(-30, 70, 17)[1::2]  # y of the centres of the cells
    on_image = MaskLogits(ramp[None, :, None].expand(1, 8, 8), view).on_image((40, 100))
    torch.testing.assert_close(on_image[0], (torch.arange(40) + 0.5)[:, None].expand(40, 100))


# ------------------------------------------------------------------------------------------- batches and bad input


def scrambled(module: nn.Module) -> None:
    """Numbers that make a difference everywhere, norms and biases too."""
    random = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=random)


def test_batches_are_singles(head):
    images = [planted.features(i, n_phrases=n) for i, n in enumerate((2, 1, 0, 3))]
    together = head(images)
    assert [len(logits[-1].values) for logits in together] == [2, 1, 0, 3]
    for one, logits in zip(images, together, strict=True):
        torch.testing.assert_close(head([one])[0][-1].values, logits[-1].values, rtol=1e-4, atol=1e-5)
    last = images[-1]
    alone = replace(last, attention=last.attention[1:2], states=last.states[1:2])
    torch.testing.assert_close(head([alone])[0][-1].values[0], together[-1][-1].values[1], rtol=1e-4, atol=1e-5)


def test_refined_batches_are_singles_and_images_without_phrases_have_none():
    head = refining()
    images = [with_embedding(planted.features(i, n_phrases=n), seed=i) for i, n in enumerate((3, 0, 1))]
    together = head(images)
    assert [len(logits) for logits in together] == [2, 1, 2] and len(together[1][0].values) == 0
    torch.testing.assert_close(head(images[:1])[0][1].values, together[0][1].values, rtol=1e-4, atol=1e-4)


def test_what_was_captured_of_another_lmm_is_refused(head):
    other = replace(planted.SHAPE, n_layers=4)
    with pytest.raises(ValueError, match="made for an LMM of 3 layers, 2 heads and width 16"):
        head([planted.features(0, other)])
    with pytest.raises(ValueError, match="made for an LMM"):
        head([planted.features(0, replace(planted.SHAPE, hidden_size=24))])


def test_what_a_head_lacks_is_named():
    with pytest.raises(ValueError, match="needs layers of the vision encoder"):
        HEADS["highres"]()([planted.features(0, eyes=False)])
    few = planted.features(0)
    with pytest.raises(ValueError, match="looks at 8 layers of the vision encoder in width 16, not at 5"):
        HEADS["highres"]()([replace(few, eyes=few.eyes[:5])])
    with pytest.raises(ValueError, match="a segmenter, which has not encoded"):
        refining()([few])
    with pytest.raises(ValueError, match="has no tokens"):
        replace(few, states=(few.states[0][:, :0],))
    with pytest.raises(ValueError, match="Sam2Model has not SAM's mask decoder"):
        SamRefiner(segmenters.sam2())


# ------------------------------------------------------------------------------- defects that are not inherited


@pytest.mark.parametrize("side", [42, 50])
def test_pyramids_of_odd_sides_fit(side):
    """LLaVA's 336 pixels give 84, 42, 21 and 11 cells: doubling 11 does not fit 21. So do an eighth of its sides."""
    shape = replace(planted.SHAPE, input_side=side)
    ((logits,),) = HighResHead(shape, width=16).eval()([planted.features(0, shape)])
    assert logits.values.shape[0] == 1 and logits.values.isfinite().all()
    assert side - 4 < logits.values.shape[1] <= side


def test_a_head_without_sam_has_a_loss(head):
    image = planted.features(0, n_phrases=2)
    loss = mask_loss(head([image])[0], planted.truth(0).expand(2, -1, -1), image.image_hw)
    loss.backward()
    assert loss.ndim == 0 and loss.isfinite()


def test_heads_in_bfloat16_give_logits_of_each_phrase(head):
    (logits,) = head.bfloat16()([planted.features(0, n_phrases=2)])[0]
    assert logits.values.shape[0] == 2 and logits.on_image((32, 24)).dtype == torch.float32


def test_training_does_not_depend_on_a_batch(head):
    """Statistics of few phrases are what batch norm would normalise by."""
    for module in head.train().modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    images = [planted.features(i) for i in range(2)]
    together = head(images)[0][0].values
    torch.testing.assert_close(head(images[:1])[0][0].values, together, rtol=1e-4, atol=1e-5)


def test_batch_norm_is_there_for_published_weights():
    buffers = dict(HighResHead(planted.SHAPE, width=16, norm="batch").named_buffers())
    assert sum(name.endswith("running_mean") for name in buffers) == 5  # three of the stem, its end, the mask's


def test_every_trained_parameter_gets_a_gradient():
    head, image = refining(), with_embedding(planted.features(3))
    mask_loss(head([image])[0], planted.truth(3), image.image_hw).backward()
    without = [name for name, p in head.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    assert not [name for name, p in head.named_parameters() if not p.requires_grad and p.grad is not None]


def test_eyes_look_at_the_published_layers():
    assert eye_layers(24) == (3, 6, 9, 12, 15, 18, 20, 23)
    assert eye_layers(3) == (0, 0, 1, 1, 1, 2, 2, 2)


# ------------------------------------------------------------------------------------------------------ learning


def test_the_loss_against_one_written_out():
    logits, truth = torch.tensor([[[1.0, -2.0], [0.5, 3.0]]]), torch.tensor([[[True, False], [False, True]]])
    p = [1 / (1 + 2.718281828459045**-x) for x in (1.0, -2.0, 0.5, 3.0)]
    entropy = -sum(torch.tensor(q).log() for q in (p[0], 1 - p[1], 1 - p[2], p[3])) / 4
    dice = 1 - (2 * (p[0] + p[3]) + 1) / (sum(p) + 2 + 1)
    stage = MaskLogits(logits, stretched_view((2, 2), (4, 4)))
    torch.testing.assert_close(mask_loss([stage, stage], truth, (4, 4)), 2 * (entropy + dice))


def test_empty_masks_have_a_loss_and_an_iou():
    empty, stage = (
        torch.zeros(1, 4, 4, dtype=torch.bool),
        MaskLogits(torch.full((1, 2, 2), -9.0), stretched_view((2, 2), (4, 4))),
    )
    assert mask_loss([stage], empty, (4, 4)).isfinite()
    assert mask_ious(stage, empty, (4, 4)).tolist() == [1.0]
    assert mask_ious(stage, ~empty, (4, 4)).tolist() == [0.0]


@pytest.mark.parametrize(("name", "rate", "n_steps"), [("unet", 1e-2, 90), ("highres", 5e-3, 110)])
def test_six_planted_scenes_are_learned(name, rate, n_steps):
    torch.manual_seed(0)
    head = HEADS[name]()
    images = [planted.features(i) for i in range(len(planted.SCENES))]
    truths = [planted.truth(i) for i in range(len(planted.SCENES))]
    optimiser = torch.optim.AdamW(head.parameters(), lr=rate)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_steps)
    for _ in range(n_steps):
        losses = [mask_loss(*three) for three in zip(head(images), truths, (i.image_hw for i in images), strict=True)]
        optimiser.zero_grad()
        torch.stack(losses).mean().backward()
        optimiser.step()
        falling.step()
    head.eval()
    ious = [mask_ious(s[-1], t, i.image_hw) for s, t, i in zip(head(images), truths, images, strict=True)]
    assert torch.cat(ious).min() > 0.9
