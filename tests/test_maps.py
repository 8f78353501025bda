"""Every map source against an independent computation, on tiny random models."""

import json
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from aas.capture import Selection
from aas.lmms import answered
from aas.lmms.base import LMM
from aas.lmms.prepared import AskOptions, Prepared
from aas.lmms.sampling import Sampling
from aas.lmms.sources import made_maps
from aas.maps import names_of, source_named
from aas.maps.fused import smoothed
from tests import tiny

ANSWER = "A dog and a cat near a dog"
# Grouped queries; windows, soft-capped scores and four norms; gates and layers without attention; experts; mrope.
FAMILIES = ["llava", "gemma3", "paligemma2", "qwen3_5", "qwen3_vl_moe", "qwen2_vl", "exaone4_5", "idefics3"]
EVERY = ("mean", "layers", "ratio", "contrast", "values", "values:out", "sinkless:1.6", "lens", "lens:0", "cosine",
         "cosine:1", "tam",
         "rollout", "attribution", "attribution:attention", "attribution:signed", "fused")  # fmt: skip


@pytest.fixture(params=FAMILIES)
def lmm(request) -> LMM:
    return tiny.family(request.param)


def asked(lmm: LMM, question: str = "What is it?", answer: str | None = ANSWER, seed: int = 0) -> Prepared:
    return lmm.prepare(tiny.a_photo(seed=seed), question, answer, options=AskOptions(maps=("contrast",)))


def maps_of(lmm: LMM, name: str, one: Prepared) -> np.ndarray:
    """[T, N] of a source."""
    ((_, attention),) = lmm.run([one], AskOptions(maps=(name,)))
    assert attention.source == name and not attention.beside
    return attention.maps.reshape(len(attention.maps), -1)


def assert_same(ours: np.ndarray, expected: np.ndarray | Tensor, tolerance: float = 1e-5) -> None:
    expected = np.asarray(expected)
    assert ours.shape == expected.shape
    difference, largest = np.abs(ours - expected).max(), np.abs(expected).max()
    assert largest > 0 and difference / largest <= tolerance


@dataclass
class Seen:
    """One pass with transformers' own eager attention and its own outputs: of each layer with attention the matrix
    [1, H, S, S], in the graph, and what leaves the layer [S, D]; the values [H_kv, S, d]; the states behind the final
    norm [S, D]; the sequence, the image's columns and the answer's positions."""

    attention: dict[int, Tensor]
    left: dict[int, Tensor]
    values: dict[int, Tensor]
    states: Tensor
    token_ids: Tensor
    columns: Tensor
    answer: range


def seen(lmm: LMM, one: Prepared) -> Seen:
    assert one.answer_ids is not None
    decoder = lmm.model.get_decoder()
    left: dict[int, Tensor] = {}
    attention: dict[int, Tensor] = {}
    values: dict[int, Tensor] = {}
    hooks = []
    for i, layer in enumerate(decoder.layers):
        hooks.append(layer.register_forward_hook(lambda _, __, out, i=i: left.update({i: _first(out)[0]})))
        if hasattr(layer, "self_attn"):
            hooks.append(layer.self_attn.register_forward_hook(lambda _, __, out, i=i: attention.update({i: out[1]})))
            hooks.append(
                layer.self_attn.v_proj.register_forward_hook(
                    lambda module, __, out, i=i: values.update({i: _by_head(out[0], decoder.layers[i].self_attn)})
                )
            )
    states: list[Tensor] = []
    hooks.append(decoder.norm.register_forward_hook(lambda _, __, out: states.append(out[0])))
    inputs = lmm.with_answer(one.inputs, one.answer_ids)
    former = [module.training for module in lmm.model.modules()]
    lmm.model.eval()
    try:
        with lmm.eager(), torch.enable_grad():
            lmm.model(**inputs, **lmm.forward_arguments(inputs))
    finally:
        for hook in hooks:
            hook.remove()
        for module, was in zip(lmm.model.modules(), former, strict=True):
            module.training = was
    n_prompt, n_all = one.inputs["input_ids"].shape[1], inputs["input_ids"].shape[1]
    columns = one.grids[0].positions
    return Seen(attention, left, values, states[0], inputs["input_ids"][0], columns, range(n_prompt, n_all))


def _first(output: Tensor | tuple) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def _by_head(values: Tensor, attention: torch.nn.Module) -> Tensor:
    return values.reshape(len(values), -1, attention.head_dim).transpose(0, 1)


def rows_of(lmm: LMM, token_ids: Tensor) -> Tensor:
    return lmm.model.get_output_embeddings().weight[token_ids]


def test_attention_by_layers_and_heads(lmm):
    one = asked(lmm)
    eager = seen(lmm, one)
    rows = [i - 1 for i in eager.answer]
    kept = {i: a[0][:, rows][..., eager.columns].detach() for i, a in eager.attention.items()}
    last = max(kept)
    assert_same(maps_of(lmm, "mean", one), torch.stack(list(kept.values())).mean((0, 1)))
    weighted = (0.5 * kept[0].mean(0) + 2 * kept[last].mean(0)) / 2.5
    assert_same(maps_of(lmm, f"layers:0*0.5/{last}*2", one), weighted)
    assert_same(maps_of(lmm, f"heads:0.1/{last}.3", one), (kept[0][1] + kept[last][3]) / 2)
    mean = torch.stack(list(kept.values())).mean((0, 1))
    logarithm = (mean + mean.sum(1, keepdim=True) / mean.shape[1]).log()
    assert_same(maps_of(lmm, "ratio", one), logarithm - logarithm.mean(0))


def test_attention_weighted_by_values(lmm):
    one = asked(lmm)
    eager = seen(lmm, one)
    rows, by_norm, by_out = [i - 1 for i in eager.answer], [], []
    for i, attention in eager.attention.items():
        module = lmm.model.get_decoder().layers[i].self_attn
        n_heads, (n_kv, _, dim) = attention.shape[1], eager.values[i].shape
        for head in range(n_heads):
            weights = attention[0, head][rows][:, eager.columns].detach()
            value = eager.values[i][head * n_kv // n_heads][eager.columns].detach()
            written = value @ module.o_proj.weight[:, head * dim : (head + 1) * dim].T
            by_norm.append(weights * (value**2).sum(-1).sqrt())
            by_out.append(weights * (written.detach() ** 2).sum(-1).sqrt())
    assert_same(maps_of(lmm, "values", one), torch.stack(by_norm).mean(0))
    assert_same(maps_of(lmm, "values:out", one), torch.stack(by_out).mean(0))


def test_contrast_with_a_generic_question(lmm):
    one = asked(lmm)
    eager = seen(lmm, one)
    generic = seen(lmm, lmm.prepare(tiny.a_photo(), "Write a general description of the image.", "x"))
    rows, layers = [i - 1 for i in eager.answer], sorted(eager.attention)
    middle = layers[len(layers) * 2 // 5 : max(len(layers) * 4 // 5, len(layers) * 2 // 5 + 1)]
    ratios = []
    for layer in middle:
        theirs = generic.attention[layer][0, :, generic.answer[0] - 1, generic.columns].mean(0).detach()
        ours = eager.attention[layer][0][:, rows][..., eager.columns].mean(0).detach()
        ratios.append(ours / (theirs + theirs.sum() / len(theirs)).clamp(min=1e-8))
    assert_same(maps_of(lmm, "contrast", one), torch.stack(ratios).mean(0))


def test_sinks_are_taken_out(lmm):
    one, least = asked(lmm), 1.6
    eager = seen(lmm, one)
    if "qwen3_vl" in lmm.name:
        pytest.skip("the encoder's features are added to the image's tokens behind a layer")
    sizes = {i + 1: (h.abs() / (h**2).mean(-1, keepdim=True).sqrt()).detach() for i, h in eager.left.items() if i > 0}
    n_layers = lmm.text_config.num_hidden_layers
    dimensions = [d for d in range(64) if any(size[0, d] > least for i, size in sizes.items() if i < n_layers)]
    maps, n_sinks = [], 0
    for layer, attention in eager.attention.items():
        kept = attention[0].mean(0)[[i - 1 for i in eager.answer]][:, eager.columns].detach().clone()
        for j, column in enumerate(eager.columns.tolist()):
            if layer >= 2 and sizes[layer][column, dimensions].max() > least:
                kept[:, j], n_sinks = 0, n_sinks + 1
        maps.append(kept)
    assert dimensions and n_sinks
    assert_same(maps_of(lmm, f"sinkless:{least}", one), torch.stack(maps).mean(0))
    assert_same(maps_of(lmm, "sinkless:100", one), maps_of(lmm, "mean", one))


def test_lens(lmm):
    one = asked(lmm)
    eager = seen(lmm, one)
    words = rows_of(lmm, eager.token_ids[list(eager.answer)])
    assert_same(maps_of(lmm, "lens", one), (words @ eager.states[eager.columns].T).detach())
    early = lmm.model.get_decoder().norm(eager.left[0])[eager.columns]
    if "qwen3_vl" not in lmm.name:  # there the encoder's features are added to the image's tokens behind a layer
        assert_same(maps_of(lmm, "lens:0", one), (words @ early.T).detach())


def test_cosine(lmm):
    one = asked(lmm)
    came: dict[int, Tensor] = {}
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, given, named, i=i: came.update({i: (*given, *named.values())[0][0]}), with_kwargs=True
        )
        for i, layer in enumerate(lmm.model.get_decoder().layers)
    ]
    eager = seen(lmm, one)
    for hook in hooks:
        hook.remove()
    words = rows_of(lmm, eager.token_ids[list(eager.answer)])
    for name, layer in (("cosine", 0), ("cosine:1", 1)):
        states = came[layer][eager.columns]
        expected = 1 - cdist(words.detach().double(), states.detach().double(), "cosine")
        assert_same(maps_of(lmm, name, one), torch.from_numpy(expected))


def tam_written_out(lmm: LMM, one: Prepared) -> np.ndarray:
    """arXiv 2506.23270, one number at a time."""
    eager = seen(lmm, one)
    ids, states = eager.token_ids.tolist(), eager.states.detach().double()
    height, width = one.grids[0].view.size_hw
    image_ids = {ids[i] for i in eager.columns.tolist()}
    special = set(lmm.tokenizer.all_special_ids) | image_ids
    prompt = [i for i in range(eager.answer[0]) if ids[i] not in special]

    def score(token: int, position: int) -> float:
        return max(0.0, float(rows_of(lmm, torch.tensor(token)).detach().double() @ states[position]))

    maps = []
    for t in eager.answer:
        own = np.array([score(ids[t], j) for j in eager.columns.tolist()])
        earlier = [i for i in [*prompt, *range(eager.answer[0], t)] if ids[i] != ids[t]]
        relevance = np.array([score(ids[t], i) for i in earlier])
        others = [np.array([score(ids[i], j) for j in eager.columns.tolist()]) for i in earlier]
        interference = sum(r / (relevance.sum() + 1e-8) * m for r, m in zip(relevance, others, strict=True))
        scale = np.dot(own, interference) / max(np.dot(interference, interference), 1e-30)
        cleared = np.maximum(0, own - scale * interference)
        everything = np.concatenate([cleared, relevance, [0] * (len(prompt) > 0)])
        grid = ((cleared - everything.min()) / max(np.ptp(everything), 1e-30)).reshape(height, width)
        padded = np.pad(grid, 1, mode="reflect")
        filtered = np.zeros_like(grid)
        for y, x in product(range(height), range(width)):
            window = np.sort(padded[y : y + 3, x : x + 3].ravel())
            if window.mean() > 0:
                sigma = max(window.std() / window.mean(), 1e-6)
                weights = np.exp(-((np.arange(9) - 4) ** 2) / (2 * sigma**2))
                filtered[y, x] = (weights * window).sum() / weights.sum()
        maps.append(filtered.ravel())
    return np.array(maps)


def test_tam_against_its_formula_written_out(lmm):
    one = asked(lmm)
    assert_same(maps_of(lmm, "tam", one), tam_written_out(lmm, one))


def test_attribution_against_autograd(lmm):
    """Derivatives through the whole eager layer: of each token's logit behind each layer by that layer's matrix."""
    one = asked(lmm)
    eager = seen(lmm, one)
    norm = lmm.model.get_decoder().norm
    ways = {name: 0.0 for name in ("attribution", "attribution:attention", "attribution:signed")}
    for layer, attention in eager.attention.items():
        for t in eager.answer:
            logit = rows_of(lmm, eager.token_ids[t]) @ norm(eager.left[layer][t - 1])
            (by_matrix,) = torch.autograd.grad(logit, attention, retain_graph=True)
            text = [i for i in range(t) if eager.token_ids[i] not in eager.token_ids[eager.columns]]
            g, weights = by_matrix[0, :, t - 1], attention[0, :, t - 1].detach()
            head_weights = (g[:, eager.columns].amax(1).relu() - g[:, text].amax(1).relu()).relu()
            place = torch.zeros(len(eager.answer), 1)
            place[t - eager.answer[0]] = 1
            image = g[:, eager.columns]
            ways["attribution"] += place * (head_weights[:, None] * image.relu()).sum(0)
            ways["attribution:attention"] += place * (weights[:, eager.columns] * image.relu()).sum(0)
            ways["attribution:signed"] += place * (weights[:, eager.columns] * image).sum(0)
    for name, expected in ways.items():
        assert_same(maps_of(lmm, name, one), expected)


def test_rollout_against_full_matrices(lmm):
    one = asked(lmm)
    eager = seen(lmm, one)
    n_layers, n_all = lmm.text_config.num_hidden_layers, len(eager.token_ids)
    product_of_all = torch.eye(n_all, dtype=torch.float64)
    for layer in sorted(eager.attention):
        if layer < n_layers // 2:
            continue
        attention = eager.attention[layer][0].detach().double()
        weights = torch.stack([attention[h][:, eager.columns].max(1).values.mean() for h in range(len(attention))])
        mixed = (weights / weights.max())[:, None, None] * attention
        product_of_all = (mixed.mean(0) / 2 + torch.eye(n_all) / 2) @ product_of_all
    expected = product_of_all[[t - 1 for t in eager.answer]][:, eager.columns]
    ours = maps_of(lmm, "rollout", one)
    assert_same(ours, expected)
    assert np.abs(ours - expected.numpy()).max() <= 1e-6  # a whole row sums to at most 1


def test_one_pass_gives_all_and_a_batch_is_its_singles(lmm):
    together = [asked(lmm), asked(lmm, "Who sits on the wooden bench near the old tree?", "a cat", 1)]
    both = lmm.run(together, AskOptions(maps=EVERY))
    for one, (_, attention) in zip(together, both, strict=True):
        assert attention.sources == EVERY
        for name in EVERY:
            assert_same(attention.of(name).maps.reshape(len(attention.maps), -1), maps_of(lmm, name, one), 3e-5)


def test_generation_gives_what_a_replay_gives(lmm, monkeypatch):
    """Prompts and answers of different lengths, in a batch, and no answer is read once more."""
    together = [asked(lmm, answer=None), asked(lmm, "Who sits on the wooden bench near the old tree?", None, 1)]
    drawn = AskOptions(7, Sampling())  # else some random models say one word again and again
    first, second = (answer.token_ids for answer, _ in lmm.run(together, drawn))
    end = next(token for token in first[1:-1] if token not in second)
    monkeypatch.setattr(lmm.model.generation_config, "eos_token_id", end)
    monkeypatch.setattr(answered, "_told", None)
    sources = tuple(name for name in EVERY if name != "rollout")
    both = lmm.run(together, replace(drawn, maps=sources))
    assert len({len(answer.token_ids) for answer, _ in both}) == 2
    for one, (answer, generated) in zip(together, both, strict=True):
        given = replace(one, answer_ids=torch.tensor(answer.token_ids))
        ((_, replayed),) = lmm.run([given], AskOptions(maps=sources))
        for name in sources:
            assert_same(generated.of(name).maps, replayed.of(name).maps)
        np.testing.assert_allclose(generated.margins, replayed.margins, rtol=1e-4, atol=1e-6)
    ((_, alone),) = lmm.run(together[:1], drawn)
    assert_same(both[0][1].of("mean").maps, alone.maps)  # alone, they are written in slots


def test_a_gpu_writes_in_slots_and_reads_once_more(monkeypatch):
    lmm, options = tiny.family("llava"), AskOptions(4, maps=("attribution",))
    one = asked(lmm, answer=None)
    ((_, expected),) = lmm.run([one], options)
    monkeypatch.setattr(answered, "records_steps", lambda *_: True)
    monkeypatch.setattr(answered, "generated", None)
    ((_, attention),) = lmm.run([one], options)
    assert_same(attention.maps, expected.maps)


@pytest.mark.parametrize("names", [("mean", "tam", "attribution:signed"), ("mean", "lens")])
def test_fused_is_the_mean_of_standardised_maps(names):
    lmm = tiny.family("llava")
    one = asked(lmm)
    parts = []
    for name in names:
        maps = maps_of(lmm, name, one)
        if source_named(name).minus_token_mean:
            maps = maps - maps.mean(0)
        parts.append((maps - maps.mean(1)[:, None]) / maps.std(1)[:, None])
    expected = smoothed(torch.tensor(np.mean(parts, axis=0)), one.grids[0].view.size_hw)
    assert_same(maps_of(lmm, f"fused:{'+'.join(names)}", one), expected)


def test_fused_by_ranks():
    lmm = tiny.family("llava")
    one = asked(lmm)
    mean, tam = (maps_of(lmm, name, one) for name in ("mean", "tam"))
    ranks = [np.argsort(np.argsort(maps, 1, "stable"), 1) / 15 for maps in (mean - mean.mean(0), tam)]
    expected = smoothed(torch.tensor(np.mean(ranks, axis=0), dtype=torch.float32), one.grids[0].view.size_hw)
    assert_same(maps_of(lmm, "fused:rank:mean+tam", one), expected)


def test_the_smoothing_is_a_gaussian():
    spot = torch.zeros(1, 21 * 21)
    spot[0, 10 * 21 + 10] = 1
    smooth = smoothed(spot, (21, 21), 1.5).reshape(21, 21)
    y, x = np.mgrid[:21, :21]
    expected = np.exp(-((y - 10) ** 2 + (x - 10) ** 2) / (2 * 1.5**2))
    assert_same(smooth.numpy(), expected / expected.sum(), 1e-3)  # it is cut at four sigma
    torch.testing.assert_close(smoothed(torch.ones(1, 12), (3, 4)), torch.ones(1, 12))


def test_heads_of_a_calibration(tmp_path):
    lmm = tiny.family("llava")
    one = asked(lmm)
    file = tmp_path / "heads.json"
    file.write_text(json.dumps({"heads": [[0, 1], [2, 3, 3.0]]}))
    first, second = (maps_of(lmm, f"heads:{place}", one) for place in ("0.1", "2.3"))
    assert_same(maps_of(lmm, f"heads:{file}", one), (first + 3 * second) / 4)
    file.write_text('{"heads": []}')
    with pytest.raises(ValueError, match=r"heads\.json: not a calibration"):
        source_named(f"heads:{file}")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("men", "Unknown map source 'men'. Known: attribution"),
        ("mean:1", "mean:1: this source takes no argument"),
        ("layers:a", "'a' names no layers"),
        ("layers:1*0", "names no layers"),
        ("layers:2-9", "3 layers, numbered from 0: no 3"),
        ("rollout:7", "3 layers, numbered from 0: no 7"),
        ("heads:0.4", "4 heads, numbered from 0: no 4"),
        ("heads", "name a calibration"),
        ("lens:3", "3 layers, numbered from 0: no 3"),
        ("lens:last", "name one layer"),
        ("cosine:3", "3 layers, numbered from 0: no 3"),
        ("cosine:last", "name one layer"),
        ("sinkless:x", "give a number"),
        ("contrast:5", "3 layers, numbered from 0: no 5"),
        ("attribution:all", "unknown way 'all'. Known: dex-ar, attention, signed"),
        ("fused:mean+none", "Unknown map source 'none'"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name, reason):
    lmm = tiny.family("llava")
    with pytest.raises(ValueError, match=reason):
        lmm.run([asked(lmm)], AskOptions(maps=(name,)))


@pytest.mark.parametrize("maps", ["", "mean,,tam", "mean,mean"])
def test_names_are_different_and_there(maps):
    with pytest.raises(ValueError, match="one or more different names"):
        names_of(maps)


@pytest.mark.parametrize("family", ["mllama", "florence2"])
def test_cross_attention_has_no_states_of_the_image(family):
    lmm = tiny.family(family)
    one = asked(lmm)
    for name in ("lens", "cosine", "tam", "attribution", "rollout", "fused"):
        with pytest.raises(ValueError, match=f"--maps {name}: .*cannot give it: .*cross-attention"):
            lmm.run([one], AskOptions(maps=(name,)))
    for name in ("ratio", "values"):
        assert np.isfinite(maps_of(lmm, name, one)).all()


def test_what_does_not_go_together():
    lmm = tiny.family("llava")
    with pytest.raises(ValueError, match="choose their own layers and heads"):
        lmm.run([asked(lmm)], AskOptions(maps=("tam",), selection=Selection(heads=(0,))))
    with pytest.raises(ValueError, match="needs --alignment predict"):
        lmm.run([asked(lmm)], AskOptions(maps=("attribution",), alignment="self"))


def test_a_prompt_without_its_generic_question_is_refused():
    lmm = tiny.family("llava")
    with pytest.raises(ValueError, match="give `prepare` the same options"):
        lmm.run([lmm.prepare(tiny.a_photo(), "Who?")], AskOptions(2, maps=("contrast",)))


def test_views_that_are_combined():
    """Each grid is filtered by itself; then the maps are put together as attention is."""
    lmm = tiny.family("llava_next")
    one = asked(lmm)
    ((_, attention),) = lmm.run([one], AskOptions(maps=("tam", "fused"), view="combined"))
    assert attention.view.name == "combined" and np.isfinite(attention.of("fused").maps).all()


def test_only_what_is_needed_is_kept(monkeypatch):
    lmm, kept = tiny.family("llava"), []
    monkeypatch.setattr(
        "aas.lmms.answered.made_maps", lambda captured, *more: kept.append(captured) or made_maps(captured, *more)
    )
    for name in ("tam", "values", "heads:1.2", "rollout"):
        maps_of(lmm, name, asked(lmm))
    tam, values, heads, rollout = kept
    assert set(tam.states) == {3} and not (tam.values or tam.matrices or tam.derivatives)
    assert set(values.values) == {0, 1, 2} and values.word_rows is None
    assert list(heads.attention) == [1] and heads.attention[1].shape[0] == 1 and not heads.values
    assert set(rollout.matrices) == {1, 2} and -1 in rollout.attention
