"""Train the embedded segmenter and print what it is worth on kept-out photographs.

    python scripts/embedded/train_segmenter.py --minutes 80

The encoder starts from the embedded LMM's tower, everything else from nothing (or from --init), on a few hundred
COCO photographs. One click per prompt; of SAM's three masks the last is taught the clicked instance or all of its
category, whichever is nearer, the middle one all of its category, the first the instance. Later clicks, boxes and
masks of a former round are taught on part of the prompts. Semantic classes are taught beside, on a head that is thrown
away: with so few photographs they are what makes the extent of a thing right.
"""

import argparse
import copy
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from parts import load_backbone
from pycocotools import mask as coco_mask
from safetensors.torch import load_file
from segmenter_data import (
    IGNORE,
    N_CLASSES,
    NOT_A_THING,
    SIZE,
    Example,
    Photograph,
    augment,
    box_of,
    choose_things,
    click,
    group_of,
    read_other_masks,
    read_persons,
    read_photographs,
)
from split import default_data_dir, kept_out
from torch import Tensor, nn
from transformers import SamImageProcessorPil, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig

from aas.backbones import Backbone
from aas.segmenters.embedded import EmbeddedSamConfig, EmbeddedSamModel, EmbeddedSamVisionConfig, EmbeddedSegmenter

N_THING_CLASSES = 80
WIDTH, EDGE_WIDTH = 128, 16  # channels of the embedding, and of the branch that redraws edges
PHOTOGRAPHS_PER_STEP, PROMPTS, PROMPTS_AGAIN, PROMPTS_REDRAWN = 4, 8, 2, 2
BACKBONE_RATE, WEIGHT_DECAY, WARMUP_STEPS = 1 / 3, 0.05, 100  # the first: times the others' learning rate
EMA_DECAY = 0.998
DICE, FOCAL, SEMANTIC, EDGE = 1.0, 10.0, 1.0, 1.0
LAST, GROUP = 2, 1
PIXEL_MEAN = PIXEL_STD = [0.5] * 3


def new_model(width: int) -> EmbeddedSamModel:
    config = EmbeddedSamConfig(
        vision_config=EmbeddedSamVisionConfig(
            image_size=SIZE, output_channels=width, num_pos_feats=width // 2, edge_width=EDGE_WIDTH
        ),
        prompt_encoder_config=SamPromptEncoderConfig(hidden_size=width, image_size=SIZE),
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=width, mlp_dim=4 * width, num_attention_heads=4, iou_head_hidden_dim=width
        ),
    )
    model = EmbeddedSamModel(config)
    initialize(model)
    return model


@torch.no_grad()
def initialize(model: EmbeddedSamModel) -> None:
    """Start values that let a click be felt where it is: without them the masks ignore it for thousands of steps."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        elif isinstance(module, nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=module.in_channels**-0.5)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.3)  # below the position features, which say where the click is
    transformer = model.mask_decoder.transformer
    cross_attentions = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        cross_attentions += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    for attention in cross_attentions:
        # Equal positions then have the largest product: a click attends to its surroundings, and they to it.
        attention.k_proj.weight.copy_(attention.q_proj.weight)
    for mlp in (*model.mask_decoder.output_hypernetworks_mlps, model.mask_decoder.iou_prediction_head):
        # Masks start near logit 0: otherwise training first silences these random masks, and the click with them.
        mlp.proj_out.weight.mul_(0.05)
    if model.edges is not None:
        model.edges.to_logits.weight.zero_()


def new_image_processor() -> SamImageProcessorPil:
    square, quarter = {"height": SIZE, "width": SIZE}, {"height": SIZE // 4, "width": SIZE // 4}
    return SamImageProcessorPil(
        size={"longest_edge": SIZE},
        pad_size=square,
        mask_size={"longest_edge": SIZE // 4},
        mask_pad_size=quarter,
        image_mean=PIXEL_MEAN,
        image_std=PIXEL_STD,
    )


def freeze_first_blocks(backbone: Backbone, n_blocks: int) -> None:
    """Edges and colours need no training, and the first blocks' backward pass is the dearest."""
    for part in (backbone.stem, *backbone.blocks[:n_blocks]):
        part.requires_grad_(False)


# ---------------------------------------------------------------------------------------------- batches


@dataclass(frozen=True)
class Batch:
    """B photographs with K prompts each, in input pixels.

    `pixels` [B, 3, SIZE, SIZE] in [-1, 1]; `points` [B, K, 1, 2]; `boxes` [B, PROMPTS_AGAIN, 4]; `fine`
    [B, K, SIZE/2, SIZE/2] in [0, 1], the instances; `whole` and `group` [B, K, SIZE/4, SIZE/4], instances and all of
    their category; `is_complete` [B]: 0 where the category's other things are not known; `semantic` int64
    [B, SIZE/8, SIZE/8].
    """

    pixels: Tensor
    points: Tensor
    boxes: Tensor
    fine: Tensor
    whole: Tensor
    group: Tensor
    is_complete: Tensor
    semantic: Tensor


def to_batch(examples: list[Example], rng: np.random.Generator) -> Batch:
    pixels, points, boxes, fine, group, semantic = [], [], [], [], [], []
    for example in examples:
        chosen = choose_things(example, PROMPTS, rng)
        pixels.append((example.image.astype(np.float32) / 127.5 - 1) * example.valid[..., None])
        points.append([[click(example.masks, i, rng)] for i in chosen])
        boxes.append([box_of(example.masks[i], rng) for i in chosen[:PROMPTS_AGAIN]])
        fine.append(example.masks[chosen])
        group.append(np.stack([group_of(example, i) for i in chosen]))
        semantic.append(example.semantic)

    def stack(arrays: list) -> Tensor:
        return torch.from_numpy(np.stack([np.asarray(a, np.float32) for a in arrays]))

    return Batch(
        stack(pixels).permute(0, 3, 1, 2),
        stack(points),
        stack(boxes),
        stack(fine),
        F.avg_pool2d(stack(fine), 2),
        F.avg_pool2d(stack(group), 2),
        stack([example.is_complete for example in examples]),
        stack(semantic).long(),
    )


def batches(photographs: list[Photograph], rng: np.random.Generator) -> Iterator[Batch]:
    """Without end; each epoch in another order."""
    examples: list[Example] = []
    while True:
        for i in rng.permutation(len(photographs)):
            example = augment(photographs[i], photographs[rng.integers(len(photographs))], rng)
            if example is not None:
                examples.append(example)
            if len(examples) == PHOTOGRAPHS_PER_STEP:
                yield to_batch(examples, rng)
                examples = []


# ----------------------------------------------------------------------------------------------- losses


def mask_loss(logits: Tensor, target: Tensor, balance: float) -> Tensor:
    """Dice and pixel loss of `logits` [..., h, w] against `target` in [0, 1]; one value per mask.

    The pixel loss goes from a cross-entropy where inside and outside weigh the same (`balance` 1) to SAM's focal
    loss (0). With focal loss from the start a new decoder learns to draw nothing, since things cover a few percent
    of the picture, and stays there (IoU 0.000 after 200 steps); with balanced loss to the end masks are too large.
    """
    p = logits.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    loss = DICE * (1 - (2 * (p * target).sum((-2, -1)) + 1) / (p.sum((-2, -1)) + target.sum((-2, -1)) + 1))
    if balance < 1:
        loss = loss + (1 - balance) * FOCAL * (cross_entropy * (p - target).square()).mean((-2, -1))
    if balance > 0:
        inside = (cross_entropy * target).sum((-2, -1)) / target.sum((-2, -1)).clamp(min=1)
        outside = (cross_entropy * (1 - target)).sum((-2, -1)) / (1 - target).sum((-2, -1)).clamp(min=1)
        loss = loss + balance * 0.5 * (inside + outside)
    return loss


def edge_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of `logits` [n, h, w] within three cells of the edge of `target` in [0, 1], one value a mask.

    Elsewhere nothing is at stake for an edge, and a mask's area would drown it.
    """
    inner, outer = -F.max_pool2d(-target, 7, 1, 3), F.max_pool2d(target, 7, 1, 3)
    near = (outer > 0.5) & (inner < 0.5)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (cross_entropy * near).sum((-2, -1)) / near.sum((-2, -1)).clamp(min=1)


def iou(logits: Tensor, target: Tensor) -> Tensor:
    a, b = logits > 0, target > 0.5
    return (a & b).sum((-2, -1)) / (a | b).sum((-2, -1)).clamp(min=1)


def three_mask_loss(
    logits: Tensor, scores: Tensor, whole: Tensor, group: Tensor, is_complete: Tensor, balance: float
) -> Tensor:
    """`logits` [B, K, 3, h, w], `scores` [B, K, 3], targets [B, K, h, w], `is_complete` [B].

    The last mask may be the clicked instance or all of its category, whichever it is nearer to: one click does not say
    which ("the sheep"). The first leans to the instance, the middle one is all of the category; it learns nothing where
    only some of the category's things are known.
    """
    known = is_complete[:, None]
    of_instance = mask_loss(logits, whole[:, :, None].expand_as(logits), balance)
    of_group = mask_loss(logits[:, :, GROUP:], group[:, :, None].expand_as(logits[:, :, GROUP:]), balance)
    nearer = torch.minimum(of_instance[..., LAST], of_group[..., -1])
    nearer = torch.minimum(of_instance[..., LAST], of_group[..., -1])
    either = torch.where(known > 0, nearer, of_instance[..., LAST])
    loss = either + 0.3 * of_instance.amin(-1) + 0.3 * of_instance[..., 0] + 0.3 * known * of_group[..., 0]
    with torch.no_grad():
        true_iou = torch.maximum(iou(logits, whole[:, :, None]), iou(logits, group[:, :, None]))
        # What the middle mask would be worth is not known where the category's other things are not.
        judged = torch.ones_like(scores)
        judged[:, :, GROUP] = known
    return loss.mean() + ((scores - true_iou).square() * judged).mean()


def semantic_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy; where only "not a thing" is known, of the probability of all stuff classes and void together."""
    log_p = logits.float().log_softmax(1)
    log_not_a_thing = log_p[:, N_THING_CLASSES:].logsumexp(1)
    known = target < N_CLASSES
    picked = log_p.gather(1, target.clamp(max=N_CLASSES - 1)[:, None])[:, 0]
    loss = -(torch.where(known, picked, log_not_a_thing)) * (target != IGNORE)
    # Most of a photograph is background: it counts less.
    weight = torch.where(target == NOT_A_THING, 0.3, 1.0) * (target != IGNORE)
    return (loss * weight).sum() / weight.sum().clamp(min=1)


class Trainee(nn.Module):
    """The model and the semantic head that is thrown away."""

    def __init__(self, model: EmbeddedSamModel):
        super().__init__()
        self.model = model
        self.balance = 1.0  # see mask_loss
        width = model.config.vision_config.output_channels
        # 4 x the classes: pixel-shuffled from stride 16 to the semantic maps' stride 8; the last class is void
        self.semantic = nn.Conv2d(width, 4 * (N_CLASSES + 1), 1)

    def loss(self, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Loss, and (for the log) the mean IoU of the last mask with the instance or its group."""
        embeddings = self.model.vision_encoder(batch.pixels).last_hidden_state
        semantic = F.pixel_shuffle(self.semantic(embeddings), 2)
        logits, scores = self.coarse(image_embeddings=embeddings, input_points=batch.points)
        loss = three_mask_loss(logits, scores, batch.whole, batch.group, batch.is_complete, self.balance)
        loss = loss + SEMANTIC * semantic_loss(semantic, batch.semantic)
        loss = loss + EDGE * self.loss_of_edges(batch, embeddings, logits)
        if rng.random() < 0.25:
            loss = loss + 0.3 * self.loss_of_later_prompt(batch, embeddings, logits[:, :PROMPTS_AGAIN, LAST], rng)
        last = logits[:, :, LAST].detach()
        return loss, torch.maximum(iou(last, batch.whole), iou(last, batch.group)).mean()

    def coarse(self, **prompt: Tensor | bool) -> tuple[Tensor, Tensor]:
        """The decoder's own logits [B, K, 3, SIZE/4, SIZE/4], not redrawn, and scores [B, K, 3]."""
        output = SamModel.forward(self.model, **prompt)
        return output.pred_masks, output.iou_scores

    def loss_of_edges(self, batch: Batch, embeddings: Tensor, logits: Tensor) -> Tensor:
        """The first and last masks of some prompts, redrawn; where a mask is not of the instance its edges are not
        its business."""
        k = PROMPTS_REDRAWN
        assert self.model.edges is not None
        features = self.model.edge_features(batch.pixels, embeddings)
        redrawn = self.model.edges(logits[:, :k, ::LAST], features)
        target = batch.fine[:, :k, None].expand_as(redrawn)
        with torch.no_grad():
            near = (iou(logits[:, :k, ::LAST], batch.whole[:, :k, None]) > 0.5).float()
        losses = edge_loss(redrawn.flatten(0, 2)[:, None], target.flatten(0, 2)[:, None])[:, 0]
        return (losses * near.flatten()).sum() / near.sum().clamp(min=1)

    def loss_of_later_prompt(
        self, batch: Batch, embeddings: Tensor, former: Tensor, rng: np.random.Generator
    ) -> Tensor:
        """Some prompts again: a second click where `former` [B, K', h, w] is wrong, or a box; at times its logits."""
        k = PROMPTS_AGAIN
        whole, group = (target[:, :k].flatten(0, 1) for target in (batch.whole, batch.group))
        prompt: dict[str, Tensor] = {}
        if rng.random() < 0.5:
            prompt["input_boxes"] = batch.boxes.flatten(0, 1)[:, None]
        else:
            points, labels = correction(former.detach().flatten(0, 1), whole, rng)
            prompt["input_points"] = torch.cat([batch.points[:, :k].flatten(0, 1), points[:, None]], 1)[:, None]
            prompt["input_labels"] = torch.stack([torch.ones_like(labels), labels], 1)[:, None]
        if rng.random() < 0.5:
            prompt["input_masks"] = former.detach().flatten(0, 1)[:, None]
        three = rng.random() < 0.6
        repeated = embeddings.repeat_interleave(k, 0)
        logits, scores = self.coarse(image_embeddings=repeated, multimask_output=three, **prompt)
        if three:
            known = batch.is_complete.repeat_interleave(k)
            return three_mask_loss(logits, scores, whole[:, None], group[:, None], known, self.balance)
        one = mask_loss(logits[:, 0, 0], whole, self.balance) + (scores[:, 0, 0] - iou(logits[:, 0, 0], whole)).square()
        return one.mean()


def correction(former: Tensor, whole: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A random point (x, y) [n, 2] in input pixels where `former` logits [n, h, w] are wrong, and labels [n]:
    1 where the thing was missed, 0 where too much was taken."""
    wrong = ((former > 0) != (whole > 0.5)).flatten(1).double() + 1e-9
    cell = torch.from_numpy(np.array([rng.choice(w.size, p=w / w.sum()) for w in wrong.numpy()]))
    labels = (whole.flatten(1).gather(1, cell[:, None])[:, 0] > 0.5).float()
    x, y = cell % former.shape[-1], cell // former.shape[-1]
    return torch.stack([x, y], 1).float() * 4 + 1.5, labels


# ------------------------------------------------------------------------------------------------ figures


def clicks_inside(photograph: Photograph) -> list[tuple[int, np.ndarray]]:
    """(index of the thing, point (x, y)): one uniformly random pixel of every instance, the same in every run."""
    rng = np.random.default_rng(photograph.image_id)
    clicks = []
    for i, thing in enumerate(photograph.things):
        if thing.is_stuff or thing.is_crowd or coco_mask.area(thing.rle) < 64:
            continue
        ys, xs = np.nonzero(coco_mask.decode(thing.rle))
        pixel = rng.integers(len(ys))
        clicks.append((i, np.array([xs[pixel], ys[pixel]], float)))
    return clicks


def ious(masks: np.ndarray, rle: dict) -> np.ndarray:
    """IoU of each of `masks` bool [n, H, W] with `rle`."""
    encoded = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
    return coco_mask.iou(encoded, [rle], [0])[:, 0]


ANSWERS = ("last", "best_score", "oracle", "disc", "image_box")


def ious_of_answers(masks: np.ndarray, scores: np.ndarray, rles: list[dict]) -> np.ndarray:
    """IoU of each of `ANSWERS`, against the best of `rles`; `masks` bool [5, H, W] are SAM's three, disc and box."""
    best_of = np.max([ious(masks, rle) for rle in rles], axis=0)
    return np.array([best_of[LAST], best_of[scores.argmax()], best_of[:3].max(), best_of[3], best_of[4]])


def with_baselines(masks: np.ndarray, point_xy: np.ndarray) -> np.ndarray:
    """`masks` bool [3, H, W], then a disc around the point that covers 9 % (as instances do on average), then all."""
    height, width = masks.shape[1:]
    y, x = np.mgrid[:height, :width]
    disc = (x - point_xy[0]) ** 2 + (y - point_xy[1]) ** 2 < 0.09 * height * width / math.pi
    return np.concatenate([masks, disc[None], np.ones((1, height, width), bool)])


def measure(segmenter: EmbeddedSegmenter, photographs: list[Photograph]) -> dict[str, float]:
    """Mean IoUs (fractions of 1) of one click inside a thing, at the photographs' own size.

    Per instance: `ANSWERS`, `last` by COCO's three sizes, and how far the score of the last mask is off. `phrase_*`:
    as phrases are judged: per photograph and category one instance is clicked, and the best IoU with the
    category's union or any single instance counts.
    """
    instances, areas, score_errors, phrases = [], [], [], []
    for photograph in photographs:
        clicks = clicks_inside(photograph)
        if not clicks:
            continue
        points = np.stack([point for _, point in clicks])[:, None]
        candidates = segmenter.masks(segmenter.encode([photograph.image])[0], points)
        asked: set[int] = set()
        for row in np.random.default_rng(photograph.image_id).permutation(len(clicks)):
            thing, scores = photograph.things[clicks[row][0]], candidates.scores[row]
            masks = with_baselines(candidates.masks[row], clicks[row][1])
            instances.append(ious_of_answers(masks, scores, [thing.rle]))
            areas.append(int(coco_mask.area(thing.rle)))
            score_errors.append(abs(scores[LAST] - instances[-1][0]))
            if thing.category not in asked:
                asked.add(thing.category)
                same = [t.rle for t in photograph.things if t.category == thing.category]
                phrases.append(ious_of_answers(masks, scores, [coco_mask.merge(same), *same]))
    last, size = np.array(instances)[:, 0], np.digitize(areas, (32**2, 96**2))
    figures = dict(zip(ANSWERS, np.mean(instances, 0), strict=True))
    figures |= {f"last_{name}": last[size == i].mean() for i, name in enumerate(("small", "medium", "large"))}
    figures["score_error"] = np.mean(score_errors)
    figures |= {f"phrase_{name}": value for name, value in zip(ANSWERS, np.mean(phrases, 0), strict=True)}
    return {name: round(float(value), 4) for name, value in figures.items()} | {
        "n_instances": len(instances),
        "n_phrases": len(phrases),
    }


# ----------------------------------------------------------------------------------------------- training


def learning_rate_factor(step: int, progress: float) -> float:
    """Warm-up, then a cosine over `progress` 0..1 of the epochs or minutes."""
    return min(1.0, (step + 1) / WARMUP_STEPS) * (0.5 + 0.5 * math.cos(math.pi * min(progress, 1.0)))


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, step: int) -> None:
    decay = min(EMA_DECAY, (step + 1) / (step + 10))
    for kept, new in zip(average.parameters(), model.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)


def save(model: EmbeddedSamModel, folder: Path) -> None:
    """Weights as float16, and the image processor."""
    copy.deepcopy(model).half().save_pretrained(folder)
    new_image_processor().save_pretrained(folder)


def new_optimizer(trainee: Trainee, learning_rate: float, n_frozen: int) -> torch.optim.Optimizer:
    """AdamW; biases, norms and the like do not decay, and the backbone, which knows ImageNet, learns more slowly."""
    trainee.model.shared_image_embedding.requires_grad_(False)
    freeze_first_blocks(trainee.model.vision_encoder.backbone, n_frozen)
    backbone = list(trainee.model.vision_encoder.backbone.parameters())
    in_backbone = {id(p) for p in backbone}
    others = [p for p in trainee.parameters() if id(p) not in in_backbone]
    groups = [
        {
            "params": [p for p in parameters if p.requires_grad and (p.ndim > 1) == decays],
            "lr": rate,
            "weight_decay": WEIGHT_DECAY * decays,
        }
        for parameters, rate in ((backbone, BACKBONE_RATE * learning_rate), (others, learning_rate))
        for decays in (True, False)
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.99))


class Log:
    """Means of the figures between two lines."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, ...]] = []

    def add(self, step: int, epochs: float, minutes: float, *row: float) -> None:
        self.rows.append(row)
        if len(self.rows) == 50:
            loss, last_iou, norm = np.mean(self.rows, 0)
            where = f"step {step} epoch {epochs:.1f} {minutes:.1f} min"
            print(f"{where}: loss {loss:.3f} IoU {last_iou:.3f} gradient {norm:.2f}", flush=True)
            self.rows = []


def train(
    trainee: Trainee, photographs: list[Photograph], choose: list[Photograph], args: argparse.Namespace
) -> tuple[EmbeddedSamModel, int]:
    """The running average of the weights at the end, and the number of steps. Saved on the way to `args.out`."""
    rng = np.random.default_rng(args.seed)
    optimizer = new_optimizer(trainee, args.learning_rate, args.frozen_blocks)
    full_rates = [group["lr"] for group in optimizer.param_groups]
    average = copy.deepcopy(trainee.model).eval()
    log, step = Log(), 0
    start = last_saved = time.time()
    for batch in batches(photographs, rng):
        minutes, epochs = (time.time() - start) / 60, step * PHOTOGRAPHS_PER_STEP / len(photographs)
        progress = epochs / args.epochs if args.epochs else minutes / args.minutes
        if progress >= 1:
            break
        trainee.balance = float(np.interp(progress, (0.05, 0.3), (1.0, 0.5)))
        for group, full_rate in zip(optimizer.param_groups, full_rates, strict=True):
            group["lr"] = full_rate * learning_rate_factor(step, progress)
        loss, last_iou = trainee.loss(batch, rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(trainee.parameters(), 1.0, error_if_nonfinite=True)
        optimizer.step()
        update_average(average, trainee.model, step)
        step += 1
        log.add(step, epochs, minutes, loss.item(), last_iou.item(), norm.item())
        if time.time() - last_saved > 60 * args.save_minutes:
            save(average, args.out)
            print("choose", json.dumps(measure(EmbeddedSegmenter(average, PIXEL_MEAN, PIXEL_STD), choose)), flush=True)
            last_saved = time.time()
    return average, step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=default_data_dir())
    parser.add_argument("--out", type=Path, default=Path("checkpoints/embedded/segmenter"))
    parser.add_argument("--init", type=Path, help="segmenter to go on from")
    parser.add_argument(
        "--tower",
        type=Path,
        help="LMM whose tower the encoder starts from (default: the embedded one, or --init's own encoder)",
    )
    parser.add_argument("--learning-rate", type=float, default=6e-4)
    parser.add_argument(
        "--frozen-blocks", type=int, default=2, help="first blocks of the encoder that stay as they are"
    )
    parser.add_argument("--minutes", type=float, default=65, help="stop after this time")
    parser.add_argument("--epochs", type=float, help="stop after so many epochs instead: the same on every machine")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-minutes", type=float, default=9, help="time between checkpoints")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    choose_ids, figure_ids = kept_out(args.data)
    val_photographs = read_photographs(args.data, "val2017")
    choose = [p for p in val_photographs if p.image_id in choose_ids]
    figure = [p for p in val_photographs if p.image_id in figure_ids]
    not_kept_out = [p for p in val_photographs if p.image_id not in {*choose_ids, *figure_ids}]
    complete = read_photographs(args.data, "train2017") + not_kept_out
    masked = {p.image_id for p in complete if p.things}
    persons = read_persons(args.data, masked | {*choose_ids, *figure_ids})
    photographs = [p for p in complete if p.things] + persons + read_other_masks(args.data)
    trainee = Trainee(new_model(WIDTH))
    if args.init:
        trainee.model.load_state_dict(load_file(args.init / "model.safetensors"), strict=False)
    if args.tower or not args.init:
        # It has learned from captions what things look like (ImageNet's weights before).
        tower = (args.tower or Path("checkpoints/embedded/lmm")) / "model.safetensors"
        load_backbone(trainee.model.vision_encoder.backbone, tower, "vision_tower.backbone.")

    start = time.time()
    average, steps = train(trainee, photographs, choose, args)
    seconds = time.time() - start
    save(average, args.out)
    segmenter = EmbeddedSegmenter.from_pretrained(args.out)
    report = {
        "photographs": len(photographs),
        "things": sum(len(p.things) for p in photographs),
        "steps": steps,
        "epochs": round(steps * PHOTOGRAPHS_PER_STEP / len(photographs), 1),
        "training_seconds": round(seconds),
        "seed": args.seed,
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in average.parameters()),
        "choose": measure(segmenter, choose),
        "figures": measure(segmenter, figure),
    }
    (args.out / "training.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
