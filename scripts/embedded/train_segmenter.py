"""Train the embedded segmenter and print what it is worth on kept-out photographs.

    python scripts/embedded/train_segmenter.py --work work/segmenter --init checkpoints/embedded/segmenter

The encoder starts from --init, or from an LMM's tower (--tower), on COCO photographs and some others with masks. One
click per prompt; of SAM's three masks the last is taught the clicked instance or all of its category, whichever is
nearer, the middle one all of its category, the first the instance. Later clicks, boxes and masks of a former round are
taught on part of the prompts. Semantic classes are taught beside, on a head that is thrown away: with so few
photographs they are what makes the extent of a thing right.
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from parts import load_backbone
from safetensors.torch import load_file
from segmenter_batches import PHOTOGRAPHS_PER_STEP, PROMPTS_AGAIN, Batch, MaskBatches
from segmenter_data import N_CLASSES, SIZE, Photograph, read_other_masks, read_persons, read_photographs
from segmenter_figures import measure
from segmenter_losses import LAST, edge_loss, iou, mask_loss, semantic_loss, three_mask_loss
from split import default_data_dir, kept_out
from torch import Tensor, nn
from training import freeze_first_blocks, run_phase
from transformers import SamImageProcessorPil, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig

from aas.segmenters.embedded import EmbeddedSamConfig, EmbeddedSamModel, EmbeddedSamVisionConfig, EmbeddedSegmenter

WIDTH, EDGE_WIDTH = 128, 16  # channels of the embedding, and of the branch that redraws edges
PROMPTS_REDRAWN, CROP = 2, 128  # prompts of a photograph whose edges are taught, in squares of so many cells
BACKBONE_RATE = 1 / 3  # times the others' learning rate
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


class Trainee(nn.Module):
    """The model and the semantic head that is thrown away."""

    def __init__(self, model: EmbeddedSamModel, seed: int):
        super().__init__()
        self.model, self.seed = model, seed
        width = model.config.vision_config.output_channels
        # 4 x the classes: pixel-shuffled from stride 16 to the semantic maps' stride 8; the last class is void
        self.semantic = nn.Conv2d(width, 4 * (N_CLASSES + 1), 1)

    def losses(self, batch: Batch, balance: float) -> dict[str, Tensor]:
        """Weighted, by name; a fourth of the batches, chosen by step, are asked again. `balance`: see mask_loss."""
        rng = np.random.default_rng([self.seed, batch.step])
        embeddings = self.model.vision_encoder(batch.pixels).last_hidden_state
        semantic = F.pixel_shuffle(self.semantic(embeddings), 2)
        logits, scores = self.coarse(image_embeddings=embeddings, input_points=batch.points)
        found = {
            "mask": three_mask_loss(logits, scores, batch.whole, batch.group, batch.is_complete, balance),
            "semantic": semantic_loss(semantic, batch.semantic),
            "edge": self.loss_of_edges(batch, embeddings, logits, rng),
        }
        if rng.random() < 0.25:
            former = logits[:, :PROMPTS_AGAIN, LAST]
            found["later"] = 0.3 * self.loss_of_later_prompt(batch, embeddings, former, rng, balance)
        return found

    def coarse(self, **prompt: Tensor | bool) -> tuple[Tensor, Tensor]:
        """The decoder's own logits [B, K, 3, SIZE/4, SIZE/4], not redrawn, and scores [B, K, 3]."""
        output = SamModel.forward(self.model, **prompt)
        return output.pred_masks, output.iou_scores

    def loss_of_edges(self, batch: Batch, embeddings: Tensor, logits: Tensor, rng: np.random.Generator) -> Tensor:
        """The last masks of some prompts, redrawn around a place on the instance's edge; where a mask is not of the
        instance its edges are not its business."""
        k = PROMPTS_REDRAWN
        assert self.model.edges is not None
        features = self.model.edges.features(batch.pixels, embeddings)
        fine, coarse = batch.fine[:, :k].flatten(0, 1), logits[:, :k, LAST].flatten(0, 1)
        corners = [corner_at_edge(mask, rng) for mask in fine.cpu().numpy()]
        redrawn = self.model.edges(
            crops(coarse, [(y // 2, x // 2) for y, x in corners], CROP // 2)[:, None, None],
            crops(features.repeat_interleave(k, 0), corners, CROP),
        )
        with torch.no_grad():
            near = (iou(coarse, batch.whole[:, :k].flatten(0, 1)) > 0.5).float()
        losses = edge_loss(redrawn[:, 0], crops(fine, corners, CROP)[:, None])[:, 0]
        return (losses * near).sum() / near.sum().clamp(min=1)

    def loss_of_later_prompt(
        self, batch: Batch, embeddings: Tensor, former: Tensor, rng: np.random.Generator, balance: float
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
            return three_mask_loss(logits, scores, whole[:, None], group[:, None], known, balance)
        one = mask_loss(logits[:, 0, 0], whole, balance) + (scores[:, 0, 0] - iou(logits[:, 0, 0], whole)).square()
        return one.mean()


def corner_at_edge(mask: np.ndarray, rng: np.random.Generator) -> tuple[int, int]:
    """Even (y, x) of a square of CROP cells around a random place on the edge of `mask` [h, w], inside it."""
    inside = (mask > 0.5).astype(np.uint8)
    ys, xs = np.nonzero(inside - cv2.erode(inside, np.ones((3, 3), np.uint8)))
    at = rng.integers(len(ys)) if len(ys) else 0
    y, x = (ys[at], xs[at]) if len(ys) else (0, 0)
    top, left = (int(np.clip(v - CROP // 2, 0, n - CROP)) // 2 * 2 for v, n in zip((y, x), mask.shape, strict=True))
    return top, left


def crops(maps: Tensor, corners_yx: list[tuple[int, int]], side: int) -> Tensor:
    """A square of each of `maps` [n, ..., h, w]."""
    return torch.stack([m[..., y : y + side, x : x + side] for m, (y, x) in zip(maps, corners_yx, strict=True)])


def correction(former: Tensor, whole: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A random point (x, y) [n, 2] in input pixels where `former` logits [n, h, w] are wrong, and labels [n]:
    1 where the thing was missed, 0 where too much was taken."""
    wrong = ((former > 0) != (whole > 0.5)).flatten(1).double() + 1e-9
    cells = [rng.choice(w.size, p=w / w.sum()) for w in wrong.cpu().numpy()]
    cell = torch.tensor(cells, device=former.device)
    labels = (whole.flatten(1).gather(1, cell[:, None])[:, 0] > 0.5).float()
    x, y = cell % former.shape[-1], cell // former.shape[-1]
    return torch.stack([x, y], 1).float() * 4 + 1.5, labels


def learning_groups(trainee: Trainee, learning_rate: float) -> list[tuple[list[nn.Parameter], float]]:
    """The backbone, which knows what things look like, learns more slowly."""
    backbone = list(trainee.model.vision_encoder.backbone.parameters())
    in_backbone = {id(p) for p in backbone}
    others = [p for p in trainee.parameters() if id(p) not in in_backbone]
    return [(backbone, BACKBONE_RATE * learning_rate), (others, learning_rate)]


def photographs_for(data: Path) -> tuple[list[Photograph], list[Photograph], list[Photograph]]:
    """(to train on, for choosing, for the figures)."""
    choose_ids, figure_ids = kept_out(data)
    of_val = read_photographs(data, "val2017")
    choose = [p for p in of_val if p.image_id in choose_ids]
    figure = [p for p in of_val if p.image_id in figure_ids]
    not_kept_out = [p for p in of_val if p.image_id not in {*choose_ids, *figure_ids}]
    complete = [p for p in read_photographs(data, "train2017") + not_kept_out if p.things]
    masked = {p.image_id for p in complete}
    persons = read_persons(data, masked | {*choose_ids, *figure_ids})
    return complete + persons + read_other_masks(data), choose, figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=default_data_dir())
    parser.add_argument("--work", type=Path, required=True, help="folder for the state; a stopped run goes on from it")
    parser.add_argument("--out", type=Path, default=Path("checkpoints/embedded/segmenter"))
    parser.add_argument("--init", type=Path, help="segmenter to start from")
    parser.add_argument("--tower", type=Path, help="safetensors of an LMM whose tower the encoder starts from")
    parser.add_argument("--prefix", default="vision_tower.backbone.", help="of the tower's names in --tower")
    parser.add_argument("--learning-rate", type=float, default=4e-4)
    parser.add_argument(
        "--frozen-blocks", type=int, default=6, help="first blocks of the encoder that stay as they are"
    )
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=0, help="processes that make batches")
    parser.add_argument("--figures", action="store_true", help="at the end also on the photographs for the figures")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")  # TF32 where there is a GPU
    photographs, choose, figure = photographs_for(args.data)
    trainee = Trainee(new_model(WIDTH), args.seed)
    model = trainee.model
    if args.init:
        model.load_state_dict(load_file(args.init / "model.safetensors"), strict=False)
    if args.tower:
        load_backbone(model.vision_encoder.backbone, args.tower, args.prefix)
    trainee.to(args.device)
    model.shared_image_embedding.requires_grad_(False)
    freeze_first_blocks(model.vision_encoder.backbone, args.frozen_blocks)

    def losses(batch: Batch) -> dict[str, Tensor]:
        return trainee.losses(batch, float(np.interp(batch.step / args.steps, (0.05, 0.3), (1.0, 0.5))))

    log = run_phase(
        "segmenter",
        args.steps,
        learning_groups(trainee, args.learning_rate),
        MaskBatches(photographs, args.seed),
        losses,
        lambda: measure(EmbeddedSegmenter(model, PIXEL_MEAN, PIXEL_STD), choose),
        args.work,
        args.every,
        n_workers=args.workers,
    )
    model.cpu().half().save_pretrained(args.out)
    new_image_processor().save_pretrained(args.out)
    report = {
        "photographs": len(photographs),
        "things": sum(len(p.things) for p in photographs),
        "epochs": round(args.steps * PHOTOGRAPHS_PER_STEP / len(photographs), 1),
        "seed": args.seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        "log": log,
    }
    if args.figures:
        report["figures"] = measure(EmbeddedSegmenter.from_pretrained(args.out), figure)
    (args.out / "training.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
