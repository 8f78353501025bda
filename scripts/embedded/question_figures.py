"""What the embedded LMM answers to questions of A-OKVQA about photographs that no model was trained on.

    python scripts/embedded/question_figures.py [--show]

Each question is also asked about another photograph, which tells what its answer owes to the picture. `exact`: how many
of ten people gave that answer, three or more count as 1 (VQA accuracy, without a leading article); `within`: whether an
answer of theirs is part of it. Intervals: 95 %, bootstrap over photographs.
"""

import argparse
import json
import re
from pathlib import Path

from answer_figures import interval
from split import default_data_dir, kept_out
from tqdm import tqdm

from aas.images import read_image
from aas.lmms import load_lmm

FURTHER = 20  # how many questions on the other photograph's question is


def plain(text: str) -> str:
    return re.sub(r"^(a|an|the) ", "", re.sub(r"[^\w ]", "", text.lower()).strip())


def scores(answer: str, people: list[str]) -> dict[str, float]:
    said, theirs = plain(answer), [plain(one) for one in people]
    return {"exact": min(1.0, theirs.count(said) / 3), "within": float(any(one and one in said for one in theirs))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=default_data_dir())
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--show", action="store_true", help="print each question, the answer, and those of people")
    args = parser.parse_args()
    kept = {image_id for some in kept_out(args.data) for image_id in some}
    lines = (args.data / "coco_text/aokvqa_val.jsonl").read_text().splitlines()
    asked = [one for one in map(json.loads, lines) if one["coco_image_id"] in kept]
    paths = [args.data / f"coco/images/val2017/{one['coco_image_id']:012}.jpg" for one in asked]
    lmm = load_lmm(args.model, None)
    found: dict[str, dict[str, dict[int, list[float]]]] = {}
    for i, one in enumerate(tqdm(asked, unit="question")):
        for about, path in (("its photograph", paths[i]), ("another one", paths[(i + FURTHER) % len(paths)])):
            answer = lmm.ask(read_image(path), one["question"])[0].text
            if args.show and path == paths[i]:
                tqdm.write(f"{one['question']} {answer} ({', '.join(sorted(set(one['direct_answers'])))})")
            for name, score in scores(answer, one["direct_answers"]).items():
                of = found.setdefault(name, {}).setdefault(about, {})
                of.setdefault(one["coco_image_id"], []).append(score)
    for name, ways in found.items():
        for about, of in ways.items():
            figure = interval(*zip(*((sum(some), len(some)) for some in of.values()), strict=True))
            print(f"{name}, {about}: {figure['mean']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}] of {figure['n']}")


if __name__ == "__main__":
    main()
