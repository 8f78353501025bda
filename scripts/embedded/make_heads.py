"""Which heads of the embedded LMM look at what is spoken of, for `--maps heads:embedded`.

    python scripts/embedded/make_heads.py [--data ../shared/data] [--out FILE.json]

writes checkpoints/embedded/heads/embedded.json: `aas calibrate` on 200 photographs and their captions, none of them
kept out for choosing or for the figures. The file names the weights: after another training it is refused, so make it
anew. Exit code 1, and no file, where two halves of the photographs do not agree on the heads.
"""

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from split import default_data_dir, kept_out

from aas.maps.calibration import SHIPPED
from aas.paths import embedded_dir
from aas.stages.calibrate import calibrate
from aas.stages.calibrate_options import Calibrate


def captions(data: Path) -> dict[str, str]:
    """One of each photograph, by its name as seen from coco/images."""
    held_out = {image_id for ids in kept_out(data) for image_id in ids}
    found: dict[str, str] = {}
    for split in ("train2017", "val2017"):
        content = json.loads((data / f"coco/annotations/captions_subset_{split}.json").read_text())
        names = {one["id"]: f"{split}/{one['file_name']}" for one in content["images"] if one["id"] not in held_out}
        for one in content["annotations"]:
            if one["image_id"] in names:
                found.setdefault(names[one["image_id"]], " ".join(one["caption"].split()))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=default_data_dir())
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--out", type=Path, default=embedded_dir(".") / SHIPPED / "embedded.json")
    args = parser.parse_args()
    args.out.parent.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder:
        answers = Path(folder) / "captions.jsonl"
        rows = [{"image": name, "answer": caption} for name, caption in captions(args.data).items()]
        answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
        options = Calibrate(model=args.model, images=args.data / "coco/images", answers=answers, out=args.out)
        return calibrate(options)


if __name__ == "__main__":
    sys.exit(main())
