"""Write the CC0 photographs that scikit-image ships into a folder: `python scripts/sample_photos.py samples`."""

import sys
from pathlib import Path

from PIL import Image
from skimage import data

NAMES = ("chelsea", "coffee", "astronaut", "rocket")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.jpg", quality=95)
    print(f"{len(NAMES)} photographs in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "samples"))
