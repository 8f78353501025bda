"""`aas segment gcg` against the reference way, in one run, with the same weights.

    python scripts/bench_segment.py                                   the embedded segmenter, 40 images
    python scripts/bench_segment.py --segmenter vit_b --images 4      a SAM of that shape, random weights
    python scripts/bench_segment.py --segmenter vit_h --device cuda

The reference takes one image at a time in float32 through transformers' own calls, upsamples every phrase's map to the
padded square to find its largest pixel, makes all three masks large and their run lengths in line. Ours is the stage as
the command runs it, its worker processes included. Both are timed from loaded models to written files; images are
noise, answers have eight phrases.
"""

import argparse
import json
import resource
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import AutoModelForMaskGeneration, SamConfig, SamImageProcessorPil, SamModel, SamVisionConfig

from aas import rle
from aas.geometry import padded_view
from aas.images import read_image
from aas.maps.mean import without_token_mean
from aas.maps.merge import phrase_map
from aas.paths import model_source
from aas.phrases.parser import load_pipeline, noun_phrases
from aas.records import Answer, AttentionMaps
from aas.segmenters import embedded, load_segmenter
from aas.stages.segment import segment
from aas.stages.segment_options import Segment
from aas.store.attention import AttentionItem, read_item, write_item

ANSWER = "A man and a woman with a dog on a bench next to a tree, a red car, an old bicycle and a white house."
# width, layers, heads, layers with global attention
SHAPES = {"vit_b": (768, 12, 12, [2, 5, 8, 11]), "vit_h": (1280, 32, 16, [7, 15, 23, 31])}
SIZE_HW = (480, 640)


def write_images(folder: Path, n: int) -> None:
    """Photographs of smooth noise, and an attention item for each."""
    rng = np.random.default_rng(0)
    words = ANSWER.split(" ")
    starts = np.cumsum([0] + [len(word) + 1 for word in words[:-1]])
    spans = tuple((int(start), int(start) + len(word)) for start, word in zip(starts, words, strict=True))
    for i in range(n):
        noise = cv2.resize(rng.integers(0, 256, (12, 16, 3), np.uint8), SIZE_HW[::-1], interpolation=cv2.INTER_CUBIC)
        (folder / "photos").mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).save(folder / f"photos/{i}.jpg")
        maps = rng.random((len(words), 24, 24), np.float32)
        attention = AttentionMaps(maps, padded_view((24, 24), SIZE_HW))
        answer = Answer("What?", ANSWER, tuple(range(len(words))), spans)
        write_item(folder / f"attn/{i}.jpg.safetensors", AttentionItem(f"{i}.jpg", SIZE_HW, answer, attention))


def segmenter_of(name: str, folder: Path) -> str:
    """`embedded`, or a folder with a SAM of that shape and random weights."""
    if name not in SHAPES:
        return name
    width, n_layers, n_heads, global_layers = SHAPES[name]
    vision = SamVisionConfig(
        hidden_size=width, num_hidden_layers=n_layers, num_attention_heads=n_heads, global_attn_indexes=global_layers
    )
    torch.manual_seed(0)
    SamModel(SamConfig(vision_config=vision)).save_pretrained(folder / name)
    SamImageProcessorPil().save_pretrained(folder / name)
    return str(folder / name)


def reference_way(folder: Path, segmenter_id: str, device: str, out: Path) -> float:
    """Seconds for all images, models loaded."""
    assert embedded.EmbeddedSamModel  # registers the embedded architecture
    pipeline = load_pipeline("embedded")
    source, _ = model_source(segmenter_id, "segmenter")
    model = AutoModelForMaskGeneration.from_pretrained(source, dtype=torch.float32).to(device).eval()
    processor = SamImageProcessorPil.from_pretrained(source)
    out.mkdir()
    start = time.perf_counter()
    for path in sorted((folder / "attn").iterdir()):
        item = read_item(path)
        image = read_image(folder / "photos" / item.image)
        height, width = image.shape[:2]
        side = max(height, width)
        maps = without_token_mean(item.attention.maps)
        phrases = noun_phrases(pipeline, item.answer)
        points = []
        for phrase in phrases:
            grid = torch.from_numpy(phrase_map(maps, phrase.token_indices, "mean"))[None, None]
            large = F.interpolate(grid, (side, side), mode="bicubic", align_corners=False)[0, 0]
            top, left = (side - height) // 2, (side - width) // 2
            y, x = divmod(int(large[top : top + height, left : left + width].flatten().argmax()), width)
            points.append([[x, y]])
        inputs = processor(images=image, input_data_format="channels_last", return_tensors="pt").to(device)
        sizes = inputs["original_sizes"].tolist(), inputs["reshaped_input_sizes"].tolist()
        scale = sizes[1][0][1] / width, sizes[1][0][0] / height
        with torch.inference_mode():
            output = model(
                pixel_values=inputs["pixel_values"],
                input_points=(torch.tensor(points, dtype=torch.float32) * torch.tensor(scale))[None].to(device),
                multimask_output=True,
            )
            (candidates,) = processor.post_process_masks([output.pred_masks[0]], *sizes)
        all_masks = candidates.cpu().numpy()
        masks = [rle.of_mask(three[-1]) for three in all_masks]
        result = {
            "image_id": path.name.split(".")[0],
            "phrases": [phrase.text for phrase in phrases],
            "points": [point[0] for point in points],
            "pred_masks": masks,
        }
        (out / f"{result['image_id']}.json").write_text(json.dumps(result))
    return time.perf_counter() - start


def agreement(ours: Path, theirs: Path) -> tuple[bool, float]:
    """Whether points are equal, and the share of masks that are, to the bit."""
    points, same = True, []
    for path in theirs.iterdir():
        one, other = json.loads((ours / path.name).read_text()), json.loads(path.read_text())
        points &= one["points"] == other["points"]
        same += [a == b for a, b in zip(one["pred_masks"], other["pred_masks"], strict=True)]
    return points, float(np.mean(same))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segmenter", default="embedded", help="embedded, vit_b, vit_h, or any segmenter")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto", help="of our image encoder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_images(folder, args.images)
        segmenter_id = segmenter_of(args.segmenter, folder)
        arguments = Segment(
            task="gcg",
            attn=folder / "attn",
            images=folder / "photos",
            out=folder,
            segmenter=segmenter_id,
            device=args.device,
            dtype=args.dtype,
        )
        ratios = []
        for turn in range(args.rounds):
            theirs, ours = folder / f"theirs{turn}", folder / f"ours{turn}"
            reference = reference_way(folder, segmenter_id, args.device, theirs)
            start = time.perf_counter()
            segment(replace(arguments, out=ours))
            seconds = time.perf_counter() - start
            start = time.perf_counter()
            load_pipeline("embedded")
            load_segmenter(segmenter_id, args.device, args.dtype)
            seconds -= time.perf_counter() - start  # of loading, which the reference's time leaves out too
            ratios.append(reference / seconds)
            print(f"reference {args.images / reference:.2f} images/s, ours {args.images / seconds:.2f} images/s")
        points, masks = agreement(ours, theirs)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{args.segmenter}: {statistics.median(ratios):.2f} times as fast, peak memory {peak:.2f} GB")
        print(f"points equal: {points}; masks equal to the bit: {masks:.1%}")


if __name__ == "__main__":
    main()
