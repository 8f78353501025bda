"""Map sources of a model, side by side: where they point, and what they cost.

    python scripts/bench_maps.py --data ../shared/data [--model embedded] [--split figures|choose] [--json FOLDER]

Where: `aas compare maps` on the 75 kept-out photographs of a split, on the model's own answers and on their captions.
What they cost: on the first photographs of the split, with a caption given and with an answer of 24 tokens at most, the
time of each source alone (of the process on a CPU, so that others on the machine cost little) as a ratio to that of
`mean` on the same photograph (median), and the bytes that were kept for it.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent / "embedded"))
from split import default_data_dir, kept_out

from aas.evaluations.report import markdown
from aas.images import read_image
from aas.lmms import load_lmm
from aas.lmms.base import LMM
from aas.stages.compare_maps import compare_maps
from aas.stages.compare_maps_costs import Costs
from aas.stages.compare_maps_options import CompareMaps

MAPS = ("mean,layers,ratio,contrast,values,values:out,sinkless,rollout,lens,tam,attribution,attribution:attention,"
        "attribution:signed,fused:mean+tam,fused,fused:rank:mean+tam+attribution:signed")  # fmt: skip
QUESTION = "Describe the image in detail."
CAPTION = "A dog and a cat sit on a wooden bench near the old tree."


def split_files(data: Path, split: str, folder: Path) -> tuple[Path, Path]:
    """The split's photographs as an annotation of their own, and their captions as answers."""
    ids = set(kept_out(data)[split == "figures"])
    annotations = data / "coco/annotations"
    instances = json.loads((annotations / "instances_subset_val2017.json").read_text())
    instances["images"] = [image for image in instances["images"] if image["id"] in ids]
    instances["annotations"] = [one for one in instances["annotations"] if one["image_id"] in ids]
    names = {image["id"]: image["file_name"] for image in instances["images"]}
    captions = json.loads((annotations / "captions_subset_val2017.json").read_text())["annotations"]
    rows = [
        {"image": names[one["image_id"]], "id": str(one["id"]), "answer": " ".join(one["caption"].split())}
        for one in captions
        if one["image_id"] in ids
    ]
    truth, answers = folder / "instances.json", folder / "captions.jsonl"
    truth.write_text(json.dumps(instances))
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return truth, answers


def costs(lmm: LMM, sources: Sequence[str], images: Sequence[Path], answer: str | None, n_rounds: int) -> str:
    """A table of one way of asking; the first photograph once more in front, to warm up."""
    found, photographs = Costs(lmm, ("mean", *sources)), {path: read_image(path) for path in images}
    given = None
    if answer is not None:
        given = lmm.prepare(photographs[images[0]], QUESTION, answer).answer_ids.tolist()
    Costs(lmm, found.sources).look(photographs[images[0]], QUESTION, given)
    for path in tqdm([*images * n_rounds], unit="photograph"):
        found.look(photographs[path], QUESTION, given)
    rows = []
    for source, seconds in found.seconds.items():
        ratio = median(ours / theirs for ours, theirs in zip(seconds, found.seconds["mean"], strict=True))
        kept = f"{found.n_bytes[source] / 1e6:.1f}" if source in found.n_bytes else ""
        rows.append([source, f"{1000 * median(seconds):.0f}", f"{ratio:.2f}", kept])
    return markdown(["source", "ms", "by the time of mean", "MB kept"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=default_data_dir())
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--segmenter", default="embedded")
    parser.add_argument("--split", choices=["figures", "choose"], default="figures")
    parser.add_argument("--maps", default=MAPS)
    parser.add_argument("--no-masks", action="store_true", help="points and maps alone, without the segmenter")
    parser.add_argument("--no-deletion", action="store_true", help="without the deletion test, which takes longest")
    parser.add_argument("--no-own", action="store_true", help="given captions alone")
    parser.add_argument("--no-figures", action="store_true", help="costs alone")
    parser.add_argument("--rounds", type=int, default=1, help="of the measurement of costs; 0 for none")
    parser.add_argument("--json", type=Path, help="folder for own.json and given.json, and own.html and given.html")
    args = parser.parse_args()

    images = args.data / "coco/images/val2017"
    with TemporaryDirectory() as folder:
        truth, answers = split_files(args.data, args.split, Path(folder))
        ways = {} if args.no_figures else {"given": answers} if args.no_own else {"given": answers, "own": None}
        for way, given in ways.items():
            if args.json:
                args.json.mkdir(parents=True, exist_ok=True)
            print(f"\n## {way} answers, {args.split}\n")
            options = CompareMaps(
                images=images, gt=truth, maps=args.maps, answers=given, model=args.model, segmenter=args.segmenter,
                no_masks=args.no_masks, no_deletion=args.no_deletion, costs=0,
                json_file=args.json and args.json / f"{way}.json", page=args.json and args.json / f"{way}.html",
            )  # fmt: skip
            compare_maps(options)
        files = [images / entry["file_name"] for entry in json.loads(truth.read_text())["images"][:12]]
    if args.rounds:
        lmm = load_lmm(args.model)
        sources = [source for source in args.maps.split(",") if source != "mean"]
        for way, answer in {"given": CAPTION, **({} if args.no_own else {"own": None})}.items():
            print(f"\n## Costs, {way} answers\n\n{costs(lmm, sources, files, answer, args.rounds)}")


if __name__ == "__main__":
    main()
