"""Draw the pictures of docs/gallery.md and the README anew, with the embedded models: `python scripts/make_gallery.py`.

They show what the models say and find today, so they are drawn again whenever the models or the drawing change. The
photographs are those of `make demo`.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import sample_photos
from PIL import Image

from aas import Grounder, Grounding
from aas.presets import MAPS_EMBEDDED
from aas.store.atomic import write_png
from aas.view import attention_sheet
from aas.view.report import About, Report
from aas.view.report_entry import entry

DOCS = Path(__file__).parent.parent / "docs"
GIVEN = {
    "coffee": "A cup of coffee on a saucer, a spoon, and a wooden table.",
    "astronaut": "A woman in an orange suit, a flag, and a helmet.",
}
WIDEST_PX = 1000


def write_picture(name: str, picture: Image.Image) -> None:
    """`docs/gallery/NAME.webp`, a tenth of a PNG's size."""
    picture.thumbnail((WIDEST_PX, 4 * WIDEST_PX))
    picture.save(DOCS / f"gallery/{name}.webp", quality=80, method=6)


def write_report(answers: list[Grounding]) -> None:
    """The viewer's page of the model's own answers, in one file."""
    report = Report(DOCS / "gallery/report.html", About("Gallery", [("Model", "embedded"), ("Maps", MAPS_EMBEDDED)]))
    for one in answers:
        report.add(one.name, entry(one.name, one.image, [one.panel()]))
    report.write()


def draw_all(photos: Path) -> None:
    """Of the sample photographs in a folder."""
    grounder = Grounder()
    answers = [grounder(photos / f"{name}.jpg") for name in sample_photos.NAMES]
    for grounding in answers:
        write_picture(grounding.name, grounding.draw())
    for name, words in GIVEN.items():
        write_picture(f"{name}-given", grounder(photos / f"{name}.jpg", answer=words).draw())
    cat = answers[sample_photos.NAMES.index("chelsea")]
    write_picture("tokens", attention_sheet.draw(cat.image, cat.answer, cat.attention))
    write_report(answers)
    write_png(DOCS / "example.png", cat.draw())


def main() -> None:
    """Write all of them."""
    (DOCS / "gallery").mkdir(exist_ok=True)
    with TemporaryDirectory() as folder:
        sample_photos.main(Path(folder))
        draw_all(Path(folder))


if __name__ == "__main__":
    main()
