"""What a mask head costs at the shapes of published LMMs: computed, and measured on a CPU with random maps.

    OMP_NUM_THREADS=1 python scripts/bench_heads.py --head unet --shape llava-1.5-7b [--phrases 5]

Of one photograph with so many phrases of three tokens: parameters, the bytes of what is captured of it, multiplications
and additions of the head (and of the image encoder of its SAM, ViT-L), CPU seconds of its forward pass, and how much
the process grew meanwhile. Weights are random; no LMM is loaded, whose own pass comes before.
"""

import argparse
import resource
import time

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import SamConfig, SamModel

from aas.geometry import stretched_view
from aas.heads.features import HeadShape, PhraseFeatures
from aas.heads.head import MaskHead
from aas.heads.highres import N_EYES, HighResHead
from aas.heads.proposals import ProposalHead
from aas.heads.unet import UNetHead
from aas.segmenters.proposals import Proposals
from aas.segmenters.sam_records import SamEmbedding

# name -> shape, and the grid's side
SHAPES = {
    "deepseek-vl-1.3b": (HeadShape(24, 16, 2048, input_side=384), 24),
    "llava-1.5-7b": (HeadShape(32, 32, 4096, input_side=336), 24),
    "llava-next-7b": (HeadShape(32, 32, 4096, 2, input_side=336), 48),
}
N_TOKENS = 3  # of a phrase
N_PROPOSALS = 70  # of a photograph
VIT_L = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "global_attn_indexes": [5, 11, 17, 23],
}


def a_head(kind: str, shape: HeadShape) -> MaskHead:
    """With random weights; the decoder of SAM is that of every size."""
    if kind == "highres":
        return HighResHead(shape).eval()
    made: type[UNetHead | ProposalHead] = UNetHead if kind == "unet" else ProposalHead
    tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "global_attn_indexes": [0]}
    return made(shape, segmenter=SamModel(SamConfig(vision_config=tiny))).eval()


def captured(head: MaskHead, side: int, n_phrases: int) -> PhraseFeatures:
    """Random, of a photograph of 640 x 480."""
    shape = head.shape
    attention = torch.rand(n_phrases, shape.n_channels, side, side)
    states = tuple(torch.randn(shape.n_layers, N_TOKENS, shape.hidden_size) for _ in range(n_phrases))
    one = PhraseFeatures(attention, states, stretched_view((side, side), (480, 640)), (480, 640))
    if head.needs_eyes:
        eyes, pixels = (
            torch.randn(N_EYES, shape.hidden_size, side, side),
            torch.randn(3, shape.input_side, shape.input_side),
        )
        return PhraseFeatures(**(vars(one) | {"eyes": eyes, "pixels": pixels}))
    embedding = SamEmbedding((480, 640), (torch.randn(256, 64, 64),), (768, 1024))
    seen: dict[str, object] = {"embedding": embedding}
    if head.chooses:
        sizes, scores = torch.arange(N_PROPOSALS) % 3, torch.rand(N_PROPOSALS)
        masks = torch.randn(N_PROPOSALS, 256, 256).half()
        seen["maps"] = torch.randn(n_phrases, len(head.sources), side, side)
        seen["proposals"] = Proposals(masks, scores, sizes, stretched_view((256, 256), (480, 640)))
    return PhraseFeatures(**(vars(one) | seen))  # type: ignore[arg-type]


def megabytes(one: PhraseFeatures) -> dict[str, float]:
    parts = {"attention": [one.attention], "states": one.states, "eyes": [one.eyes], "pixels": [one.pixels]}
    if one.proposals is not None:
        parts |= {"maps": [one.maps], "proposals": [one.proposals.logits]}
    if one.embedding is not None:
        parts["embedding"] = one.embedding.features
    return {name: sum(p.nbytes for p in some if p is not None) / 1e6 for name, some in parts.items()}


def flops_of_vit_l() -> int:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        SamModel(SamConfig(vision_config=VIT_L)).vision_encoder.eval()(torch.zeros(1, 3, 1024, 1024))
    return counter.get_total_flops()


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--head", choices=["unet", "highres", "proposals"], default="unet")
    parser.add_argument("--shape", choices=list(SHAPES), default="llava-1.5-7b")
    parser.add_argument("--phrases", type=int, default=5)
    args = parser.parse_args()
    shape, side = SHAPES[args.shape]
    head = a_head(args.head, shape)
    n_trained = sum(one.numel() for one in head.parameters() if one.requires_grad)
    one = captured(head, side, args.phrases)
    before = peak_mb()
    with FlopCounterMode(display=False) as counter:
        head([one])  # warms up
    grown = peak_mb() - before
    print(f"{args.head}, {args.shape}, {args.phrases} phrases of {N_TOKENS} tokens")
    print(f"trained parameters: {n_trained / 1e6:.2f} M")
    print("captured, MB:", ", ".join(f"{name} {size:.1f}" for name, size in megabytes(one).items() if size))
    print(f"head: {counter.get_total_flops() / 1e9:.1f} GFLOP", end="")
    print("" if head.needs_eyes else f"; SAM ViT-L's image encoder {flops_of_vit_l() / 1e9:.0f} GFLOP")
    start = time.process_time()
    head([one])
    print(f"forward pass: {time.process_time() - start:.2f} CPU s, for which the process grew by {grown:.0f} MB")


if __name__ == "__main__":
    main()
