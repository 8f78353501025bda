"""`aas show masks`: pictures of what `aas segment` made, beside the ground truth."""

import sys
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from aas.images import read_image
from aas.photographs import located
from aas.progress import bar_for
from aas.show.stored import Truths, answer_of, found_in, paired, photograph_file
from aas.store.atomic import check_writable, write_png
from aas.store.instances import InstanceResult
from aas.store.keys import quoted
from aas.store.photographs import Folder, folder_of
from aas.store.readers import READERS
from aas.store.results import Result
from aas.store.status import open_run
from aas.text import harmless
from aas.view import mask_sheet
from aas.view.sharing import things

Pictures = tuple[Image.Image, Image.Image]  # of one image: the whole, and its cell of the contact sheet
CONTACT_SHEET = "contact_sheet.png"
MAX_CELLS = 100


def show_masks(
    folder: Path, out: Path, images: Path | None = None, truth: Path | None = None, only: list[str] | None = None
) -> int:
    """Write `NAME.png` for every image of a run of `aas segment` or `aas import`, and a contact sheet; returns the exit
    code.

    `images`: where the photographs are, from run.json if None. `truth`: a COCO or GranD-f mask annotation, by default
    the run's --ref-anno where that has masks. `only`: ids of the images to show.
    """
    check_writable(out)
    run, description = open_run(folder)
    if not description["command"].startswith(("segment", "import")):
        raise ValueError(f"{folder} holds a run of `aas {description['command']}`, which has no masks.")
    inputs = description.get("inputs", {})
    photographs = folder_of(images or located(inputs.get("images") or folder))  # an imported run says where each one is
    annotation = truth or (Path(inputs["ref_anno"]) if inputs.get("ref_anno") else None)
    truths = Truths(annotation)
    wanted = run.items()
    if only:
        unknown = [name for name in only if name not in wanted]
        if unknown:
            raise ValueError(f"{folder} holds no image {unknown[0]!r}.")
        wanted = {name: wanted[name] for name in only}
    read = READERS[description["command"]]
    cells: list[Image.Image] = []
    n_failed = 0
    for key, path in tqdm(wanted.items(), unit="image", **bar_for(len(wanted))):
        try:
            picture, cell = _pictures(key, read(path), path, photographs, truths)
        except (ValueError, OSError) as error:
            n_failed += 1
            tqdm.write(f"failed: {harmless(str(error))}", file=sys.stderr)
            continue
        print(_save(picture, out / f"{quoted(key)}.png"))
        if len(cells) < MAX_CELLS:
            cells.append(cell)
    if len(cells) > 1:
        print(_save(mask_sheet.contact_sheet(cells), out / CONTACT_SHEET))
    return 3 if n_failed else 0


def _pictures(key: str, item: Result | InstanceResult, path: Path, photographs: Folder, truths: Truths) -> Pictures:
    image = read_image(photograph_file(item, key, photographs, truths.file_names))
    predicted = found_in(item, path, image.shape[:2])
    truth, shown = truths.of(item.image_id, image.shape[:2]), things(predicted)
    beside = None if truth is None else paired(predicted, shown, truth)
    picture = mask_sheet.draw(image, answer_of(item), predicted, shown, beside)
    return picture, mask_sheet.thumbnail(image, predicted, key)


def _save(picture: Image.Image, target: Path) -> Path:
    write_png(target, picture)
    return target
