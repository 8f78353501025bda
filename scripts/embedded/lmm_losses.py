"""The three losses, all from captions: next token, words, attention."""

import torch
from lmm_batches import IGNORE, Batch
from lmm_model import GRID, N_CELLS, RECORDED
from torch import Tensor
from torch.nn import functional as F
from transformers import LlavaForConditionalGeneration


def cells_of(model: LlavaForConditionalGeneration, pixels: Tensor) -> Tensor:
    """Projected cells [B, N_CELLS, width]."""
    return torch.stack(list(model.model.get_image_features(pixels).pooler_output))


def cosines(cells: Tensor, word_embeddings: Tensor) -> Tensor:
    """Of each cell [B, N_CELLS, width] with each word [n_concepts, width], float32 [B, N_CELLS, n_concepts]."""
    return F.normalize(cells.float(), dim=-1) @ F.normalize(word_embeddings.float(), dim=-1).T


def smoothed(scores: Tensor) -> Tensor:
    """Gaussian blur over the grid, one cell wide: `scores` [B, N_CELLS, C].

    Single cells are noisy: on the photographs for choosing it brings the point of the shipped cells' scores on the
    thing in 0.54 instead of 0.44 of the phrases.
    """
    kernel = torch.exp(-torch.arange(-3.0, 4.0, device=scores.device).square() / 2)
    kernel = (kernel / kernel.sum()).expand(scores.shape[2], 1, 1, -1)
    grid = F.pad(scores.float().transpose(1, 2).unflatten(2, (GRID, GRID)), (3, 3, 3, 3), mode="reflect")
    grid = F.conv2d(grid, kernel, groups=len(kernel))
    return F.conv2d(grid, kernel.transpose(2, 3), groups=len(kernel)).flatten(2).transpose(1, 2)


def by_quarter(x: Tensor) -> Tensor:
    """[B, N_CELLS, C] -> [B, 4, N_CELLS / 4, C]."""
    half = GRID // 2
    return x.unflatten(1, (2, half, 2, half)).permute(0, 1, 3, 2, 4, 5).reshape(len(x), 4, half * half, x.shape[-1])


def word_loss(lens: Tensor, targets: Tensor, n_mosaics: int, scale: float) -> Tensor:
    """Cross-entropy between the words' scores (mean of the best cosines) and their share of the captions.

    The best sixth of a quarter's cells, or the best tenth of a whole picture's.
    """
    quarters = by_quarter(lens[:n_mosaics]).topk(N_CELLS // 4 // 6, dim=2).values.mean(2)
    whole = lens[n_mosaics:].topk(N_CELLS // 10, dim=1).values.mean(1)
    scores = torch.cat([quarters.flatten(0, 1), whole]) * scale
    target = torch.cat([targets[:n_mosaics].flatten(0, 1), targets[n_mosaics:, 0]])
    return -(target * scores.log_softmax(-1)).sum(-1).mean()


def quarter_mask() -> Tensor:
    """bool [5, N_CELLS]: the cells of each quarter; the last row is every cell."""
    cell = torch.arange(N_CELLS)
    quarter = (cell // GRID >= GRID // 2) * 2 + (cell % GRID >= GRID // 2)
    return torch.cat([quarter == torch.arange(4)[:, None], torch.ones(1, N_CELLS, dtype=torch.bool)])


def attention_loss(maps: Tensor, lens: Tensor, batch: Batch, sharpness: float) -> Tensor:
    """Cross-entropy of the attention that predicts a word against where the word scores in `lens`.

    `maps` [B, T, N_CELLS], attention over all keys. Half of the loss is of the maps themselves (what goes to text is
    lost, so that the image is looked at), half of what remains of them without their answer's mean, which is what the
    method reads.
    """
    b, t = torch.nonzero(batch.concepts >= 0, as_tuple=True)
    score = lens.detach()[b, :, batch.concepts[b, t]]
    inside = quarter_mask().to(maps.device)[batch.quarter[b, t]]
    score = (score - score.mean(1, keepdim=True)) / (score.std(1, keepdim=True) + 1e-6)
    target = score.mul(sharpness).masked_fill(~inside, -torch.inf).softmax(-1)
    raw = maps[b, t].clamp_min(1e-8).log()
    # Softplus not the positive part: cells below the mean must be able to rise. Uniform attention is 1 / N_CELLS.
    above_mean = F.softplus((maps - answer_means(maps, batch))[b, t] * 2 * N_CELLS)
    residual = (above_mean / above_mean.sum(-1, keepdim=True)).log()
    return -(target * (raw + residual) / 2).sum(-1).mean()


def answer_means(maps: Tensor, batch: Batch) -> Tensor:
    """For each row of an answer the mean map of that answer's rows, [B, T, N_CELLS]; for other rows zero."""
    same = batch.segment[:, :, None] == batch.segment[:, None, :]
    same = (same & batch.answer[:, :, None] & batch.answer[:, None, :]).to(maps.dtype)
    return (same / same.sum(-1, keepdim=True).clamp_min(1)) @ maps


def attention_mask(segment: Tensor, image_at: int, n_image: int) -> Tensor:
    """Additive float [B, 1, S, S]: causal; a question and its answer see the beginning, the image and themselves."""
    before, after = segment[:, :image_at], segment[:, image_at:]
    full = torch.cat([before, torch.zeros(len(segment), n_image, dtype=segment.dtype), after], dim=1)
    length = full.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segment.device).tril()
    visible = causal & ((full[:, None, :] == 0) | (full[:, None, :] == full[:, :, None]))
    return torch.zeros(visible.shape, device=segment.device).masked_fill(~visible, -1e9)[:, None]


def text_forward(
    model: LlavaForConditionalGeneration, batch: Batch, cells: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Hidden states of the text rows [B, T, width], and the attention maps [B, T, N_CELLS] where there is an image."""
    language = model.model.language_model
    embeds = language.embed_tokens(batch.ids)
    at, n_image = batch.image_at, 0 if cells is None else cells.shape[1]
    position = batch.position
    if cells is not None:
        embeds = torch.cat([embeds[:, :at], cells.to(embeds.dtype), embeds[:, at:]], dim=1)
        image_position = torch.arange(at, at + n_image, device=embeds.device).expand(len(embeds), -1)
        position = torch.cat([position[:, :at], image_position, position[:, at:]], dim=1)
    RECORDED.maps = []
    RECORDED.columns = slice(at, at + n_image)
    RECORDED.rows = slice(at + n_image, None) if n_image == 0 else slice(at + n_image, embeds.shape[1])
    mask = attention_mask(batch.segment, at, n_image)
    hidden = language(
        inputs_embeds=embeds, attention_mask=mask, position_ids=position, use_cache=False
    ).last_hidden_state
    hidden = torch.cat([hidden[:, :at], hidden[:, at + n_image :]], dim=1)
    if not n_image:
        return hidden, None
    maps = torch.stack(RECORDED.maps).float().mean(0)
    return hidden, F.pad(maps, (0, 0, at, 0))


def token_loss(model: LlavaForConditionalGeneration, hidden: Tensor, batch: Batch, smoothing: float) -> Tensor:
    keep = batch.labels != IGNORE
    return F.cross_entropy(model.lm_head(hidden[keep]).float(), batch.labels[keep], label_smoothing=smoothing)
