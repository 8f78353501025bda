"""Sixteen photographs as the embedded models ground them, on one sheet: the samples and twelve that were kept out.

    python scripts/embedded/contact_sheet.py --samples samples --out docs/sheet.jpg

The twelve are those of the photographs for choosing with the lowest ids whose licence lets them be shown (CC BY,
CC BY-SA, no known restrictions): nobody picked them. `docs/sheet.md`, beside the sheet, names their owners' pages.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from caption_data import free_to_train
from PIL import Image
from sample_photos import NAMES
from split import default_data_dir, kept_out, manifest

from aas import Grounder

N_KEPT_OUT, N_COLUMNS = 12, 4
TILE_WH, GAP = (430, 330), 10  # pixels


def sheet(pictures: list[Image.Image]) -> Image.Image:
    """The pictures as large as a tile takes them, row by row."""
    n_rows = -(-len(pictures) // N_COLUMNS)
    (width, height), step_xy = TILE_WH, (TILE_WH[0] + GAP, TILE_WH[1] + GAP)
    page = Image.new("RGB", (N_COLUMNS * step_xy[0] + GAP, n_rows * step_xy[1] + GAP), "white")
    for i, picture in enumerate(pictures):
        row, column = divmod(i, N_COLUMNS)
        scale = min(width / picture.width, height / picture.height)
        small = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
        left = GAP + column * step_xy[0] + (width - small.width) // 2
        page.paste(small, (left, GAP + row * step_xy[1] + (height - small.height) // 2))
    return page


def kept_out_rows(data: Path) -> list[dict[str, str]]:
    """Rows of the manifest, by id."""
    wanted = set(sorted(free_to_train(data) & set(kept_out(data)[0]))[:N_KEPT_OUT])
    rows = [row for row in manifest(data) if int(row["image_id"]) in wanted]
    return sorted(rows, key=lambda row: int(row["image_id"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=default_data_dir())
    parser.add_argument("--samples", type=Path, required=True, help="folder that scripts/sample_photos.py wrote")
    parser.add_argument("--out", type=Path, default=Path("docs/sheet.jpg"))
    args = parser.parse_args()
    rows = kept_out_rows(args.data)
    files = [args.samples / f"{name}.jpg" for name in NAMES] + [args.data / "coco" / row["file"] for row in rows]
    grounder = Grounder()
    groundings = [grounder(file) for file in files]
    lines = [
        "# The photographs of the contact sheet",
        "",
        "Four of scikit-image (CC0), and of COCO val2017, from Flickr:",
    ]
    lines += [f"- {row['image_id']}: <{row['flickr_url']}>, COCO licence {row['licence_id']}" for row in rows]
    sheet([grounding.draw() for grounding in groundings]).save(args.out, quality=80)
    args.out.with_suffix(".md").write_text("\n".join(lines) + "\n")
    for file, grounding in zip(files, groundings, strict=True):
        print(file.name, "|", grounding.answer.text, "|", ", ".join(grounding.labels))


if __name__ == "__main__":
    main()
