"""The token activation map: the lens without what other words say of the same places."""

import torch
from torch import Tensor
from torch.nn import functional as F

from aas.captured import Captured, Needs
from aas.maps.source import Source, by_grid


class Tam(Source):
    """The token activation map (arXiv 2506.23270): the lens with its interference removed, and a rank filter.

    With m_c[j] = relu(w_c . n(h_j)) of class c at position j: token t of class c = y_t has the relevance
    r_i = m_c[i] for each earlier word i of prompt and answer, 0 where that is c itself; interference
    I = sum_i r_i m_y(i) / (sum_i r_i + 1e-8); m' = relu(m_c - s I), s = <m_c, I> / <I, I> (least squares). Image and
    words are brought to 0 ... 1 together; then each cell is the mean of the 3 x 3 cells around it, sorted, the weight
    of rank k being exp(-(k - 4)^2 / (2 sigma^2)), sigma their standard deviation over their mean.
    """

    def needs(self, n_layers: int, n_heads: int) -> Needs:
        return Needs(states=frozenset([n_layers]))

    def __call__(self, captured: Captured) -> Tensor:
        assert captured.word_rows is not None
        states = captured.states[max(captured.states)]
        rows = captured.word_rows.to(states.device).float()
        columns, words, answer = (x.to(states.device) for x in (captured.columns, captured.words, captured.answer))
        context = torch.cat([words, answer[:-1]])  # the last token is before no other
        ids = captured.token_ids.to(states.device)
        own = F.relu(rows[answer] @ states[columns].float().T)  # [T, N]
        of_context = F.relu(rows[context] @ states[columns].float().T)  # [C, N]
        relevance = F.relu(rows[answer] @ states[context].float().T)  # [T, C]
        counts = (context < answer[:, None]) & (ids[context] != ids[answer][:, None])
        relevance = relevance * counts
        interference = relevance / (relevance.sum(1, keepdim=True) + 1e-8) @ of_context
        scale = (own * interference).sum(1) / (interference**2).sum(1).clamp(min=1e-30)
        cleared = F.relu(own - scale[:, None] * interference)
        both = torch.cat([cleared, relevance], dim=1)
        low, high = both.amin(1, keepdim=True), both.amax(1, keepdim=True)
        maps = (cleared - low) / (high - low).clamp(min=1e-30)
        return by_grid(maps, captured.grids_hw, rank_filtered).cpu()


def rank_filtered(maps: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """[T, h * w] as the rank-Gaussian filter leaves them; edges are reflected."""
    grid = maps.reshape(-1, 1, *size_hw)
    padded = F.pad(grid, (1, 1, 1, 1), mode="reflect" if min(size_hw) > 1 else "replicate")
    ordered = F.unfold(padded, 3).sort(dim=1).values  # [T, 9, h * w]
    mean = ordered.mean(1, keepdim=True)
    sigma = (ordered.std(1, keepdim=True, correction=0) / mean.clamp(min=1e-30)).clamp(min=1e-6)
    ranks = torch.arange(9, device=maps.device)[None, :, None]
    weights = torch.exp(-((ranks - 4) ** 2) / (2 * sigma**2))
    return (ordered * weights).sum(1) / weights.sum(1) * (mean[:, 0] > 0)
