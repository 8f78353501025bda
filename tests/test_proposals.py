"""A head that chooses: a segmenter's proposals, what is looked at of them, and that the right one is learned."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from aas.geometry import stretched_view
from aas.heads.features import PhraseFeatures
from aas.heads.proposals import Choice, ProposalHead, chosen_apart
from aas.heads.stored import Origin, load_head, save_head
from aas.segmenters import load_segmenter
from aas.segmenters.proposals import Proposals, proposals
from aas.segmenters.sam_records import SamEmbedding
from aas.training import cache
from tests import planted, tiny
from tests.tiny import segmenters

SIDE = 16  # of a proposal


def head(dropout: float = 0.0) -> ProposalHead:
    torch.manual_seed(0)
    return ProposalHead(planted.SHAPE, width=8, dropout=dropout, segmenter=segmenters.sam())


def features(index: int, n_phrases: int = 1) -> PhraseFeatures:
    """Of a planted scene: the right mask is one of six proposals, and the maps know where it is, one of them badly."""
    one = planted.features(index, n_phrases=n_phrases, eyes=False)
    hw = one.image_hw
    random = torch.Generator().manual_seed(index)
    right = torch.nn.functional.interpolate(planted.truth(index)[None].float(), (SIDE, SIDE), mode="area")[0] - 0.5
    wrong = torch.nn.functional.interpolate(torch.randn(1, 5, 3, 3, generator=random), (SIDE, SIDE), mode="bilinear")
    logits = torch.cat([wrong[0, :2], right, wrong[0, 2:]]).half()
    found = Proposals(logits, torch.rand(6, generator=random), torch.arange(6) % 3, stretched_view((SIDE, SIDE), hw))
    maps = one.attention[:, 1:3].clone()
    embedding = SamEmbedding(hw, (torch.randn(32, 4, 4, generator=random),), (64, 64))
    return replace(one, maps=maps, proposals=found, embedding=embedding)


def test_proposals_differ_and_lie_on_the_photograph(tmp_path):
    sam = load_segmenter(str(segmenters.saved("sam", tmp_path / "sam")))
    (embedding,) = sam.encode([tiny.a_photo((40, 60))])
    found = proposals(sam, embedding)
    masks = (found.logits > 0).flatten(1).float()
    assert len(found.scores) == len(found.sizes) == len(masks) >= 1 and found.logits.dtype == torch.float16
    assert (found.scores.diff() <= 0).all() and found.logits.isfinite().all()
    common = masks @ masks.T
    ious = common / (masks.sum(1)[:, None] + masks.sum(1) - common).clamp(min=1)
    assert (ious - torch.eye(len(ious))).max() < 0.88
    side = found.logits.shape[1]
    assert not (found.logits[:, side * 40 // 60 + 1 :] > 0).any()  # the photograph is at the top of a square
    assert found.view.box_xyxy == pytest.approx((0, 0, 60, 60), abs=1)  # its input has whole pixels


def test_scores_against_one_written_out():
    one, network = features(0, n_phrases=2), head().eval()
    found = one.proposals
    state = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
    masks = (found.logits > 0).double().numpy()
    expected = np.zeros((2, 6))
    for p in range(2):
        words = one.states[p][:, -1].double().numpy()
        words = (words - words.mean(1, keepdims=True)) / np.sqrt(words.var(1, keepdims=True) + 1e-5)
        said = state["text.project.weight"] @ words.mean(0) + state["text.project.bias"]  # layers weigh the same yet
        for k in range(6):
            cells = masks[k].reshape(4, 4, 4, 4).mean((1, 3))
            thing = (one.embedding.features[0].double().numpy() * cells).sum((1, 2)) / cells.sum()
            thing = (thing - thing.mean()) / np.sqrt(thing.var() + 1e-5)
            thing = state["thing.weight"] @ thing + state["thing.bias"]
            on_grid = network._cells(one)[k].double().numpy()
            area, evidence = on_grid.mean(), []
            flat = one.maps[p].double().numpy().reshape(2, -1)
            flat = (flat - flat.mean(1, keepdims=True)) / flat.std(1, ddof=1, keepdims=True)
            evidence += [5 * np.corrcoef(m, on_grid.ravel())[0, 1] * np.sqrt(63 / 64) for m in flat]
            evidence += [(m * on_grid.ravel()).sum() / on_grid.sum() for m in flat]
            y, x = np.mgrid[:8, :8] / 8 + 1 / 16 - 0.5
            place = [3 * (y * on_grid).sum() / on_grid.sum(), 3 * (x * on_grid).sum() / on_grid.sum()]
            evidence += [5 * float(found.scores[k]), np.log(max(area, 1e-4)) / 2, 3 * area, *place]
            evidence += [float(k % 3 == i) for i in range(3)]
            expected[p, k] = state["evidence.weight"][0] @ evidence + state["evidence.bias"][0] + said @ thing / 8**0.5
    np.testing.assert_allclose(network.scores(one).detach().numpy(), expected, rtol=1e-3, atol=1e-3)


def test_the_right_proposal_is_learned():
    """As a head is trained; with it comes the mask of the highest score, at the proposals' cells."""
    network, images = head(), [features(i) for i in range(len(planted.SCENES))]
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(60):
        loss = sum(network.loss(x, network([x])[0], planted.truth(i)) for i, x in enumerate(images))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert all(parameter.grad is not None for parameter in network.parameters())
    for one in images:
        coarse, chosen = network.eval()([one])[0]
        assert isinstance(chosen, Choice) and chosen.scores.argmax(1).tolist() == [2]
        assert torch.equal(chosen.values[0], one.proposals.logits[2].float())
        assert coarse.values.shape == (1, 8, 8) and coarse.view == one.view


def squares(*corners: tuple[int, int]) -> Proposals:
    """Masks of 8 x 8 cells at (top, left)."""
    logits = torch.full((len(corners), SIDE, SIDE), -1.0)
    for one, (top, left) in zip(logits, corners, strict=True):
        one[top : top + 8, left : left + 8] = 1
    n = len(corners)
    return Proposals(
        logits.half(), torch.rand(n), torch.zeros(n, dtype=torch.int64), stretched_view((SIDE, SIDE), (64, 64))
    )


def test_phrases_that_name_other_things_have_other_masks():
    """Against every way to choose; two phrases of one name share a mask, and a sure choice stays."""
    found = squares((0, 0), (0, 2), (8, 8))
    scores = torch.tensor([[3.0, 2.9, 0.0], [3.0, 2.0, 2.5], [9.0, 0.0, 0.0]])
    assert chosen_apart(scores, found, None).tolist() == [0, 0, 0]
    assert chosen_apart(scores, found, ("cat", "cat", "cat")).tolist() == [0, 0, 0]
    assert chosen_apart(scores[:2], found, ("cat", "bed")).tolist() == [0, 2]
    assert chosen_apart(scores[[0, 2]], found, ("cat", "bed")).tolist() == [1, 0]
    ious = torch.tensor([[1, 0.6, 0], [0.6, 1, 0], [0, 0, 1.0]])
    names = ("cat", "bed", "cat")

    def worth(choice: tuple[int, ...]) -> float:
        pairs = [(i, j) for i in range(3) for j in range(i) if names[i] != names[j]]
        return float(
            sum(scores[i, k] for i, k in enumerate(choice)) - sum(ious[choice[i], choice[j]] for i, j in pairs)
        )

    best = max(itertools.product(range(3), repeat=3), key=worth)
    assert tuple(chosen_apart(scores, found, names).tolist()) == best


def test_the_head_is_told_what_phrases_name():
    network, one = head().eval(), features(0, n_phrases=2)
    one = replace(one, states=(one.states[0], one.states[0]), maps=one.maps[:1].expand(2, -1, -1, -1))
    same, other = (network([replace(one, names=names)])[0][1].values for names in (("cat", "cat"), ("cat", "bed")))
    assert torch.equal(same[0], same[1]) and not torch.equal(other[0], other[1])


def test_batches_are_singles_and_images_without_phrases_have_none():
    network, images = head().eval(), [features(i, n_phrases=n) for i, n in enumerate((3, 0, 1))]
    together = network(images)
    assert [len(stages[0].values) for stages in together] == [3, 0, 1]
    for one, stages in zip(images, together, strict=True):
        for ours, alone in zip(stages, network([one])[0], strict=True):
            torch.testing.assert_close(ours.values, alone.values)


def test_what_it_lacks_is_named():
    one, network = features(0), head()
    with pytest.raises(ValueError, match="proposals, which were not kept"):
        network([replace(one, proposals=None)])
    with pytest.raises(ValueError, match="looks at maps"):
        network([replace(one, maps=None)])
    with pytest.raises(ValueError, match="masks of a segmenter: name one"):
        ProposalHead(planted.SHAPE)


def test_files(tmp_path):
    """Its own tensors alone; and what it learns from is read as it was written."""
    network, one = head().eval(), features(1, n_phrases=2)
    origins = Origin("some/lmm", "abc"), Origin("some/sam", "def")
    save_head(tmp_path / "head.safetensors", network, *origins)
    loaded = load_head(tmp_path / "head.safetensors", origins[0], segmenters.sam(), origins[1])
    assert torch.equal(loaded([one])[0][1].values, network([one])[0][1].values)
    assert (tmp_path / "head.safetensors").stat().st_size < 10_000
    with pytest.raises(ValueError, match="was trained on the segmenter some/sam"):
        load_head(tmp_path / "head.safetensors", origins[0])

    cache.write_example(tmp_path / "one.safetensors", cache.Example(one, planted.truth(1).expand(2, -1, -1)))
    read = cache.read_example(tmp_path / "one.safetensors").features
    assert torch.equal(read.maps, one.maps) and read.proposals.view == one.proposals.view
    assert torch.equal(read.proposals.logits, one.proposals.logits)
    assert torch.equal(network([read])[0][1].values, network([one])[0][1].values)
