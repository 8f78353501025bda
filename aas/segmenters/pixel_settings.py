"""What a segmenter folder's processor settings say of the pixels: read, or refused."""

from collections.abc import Sequence
from typing import Any

BILINEAR = 2  # Pillow's number, which the settings hold
NEEDED = {"do_resize": True, "do_pad": True, "do_center_crop": False}


def pixel_statistics(settings: dict[str, Any], source: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of each channel in units of the pixel range (255), so that `(pixel - mean) / std` is
    what the settings of a `preprocessor_config.json` make of a pixel.

    Raises ValueError for settings that no segmenter here follows: another resampling, no resizing, a crop.
    """
    for name, needed in NEEDED.items():
        if settings.get(name) not in (None, needed):
            raise ValueError(f"{source}: its processor says {name} {settings[name]}, which is not done here.")
    if settings.get("resample") not in (None, BILINEAR):
        raise ValueError(f"{source}: its processor says resample {settings['resample']}; only {BILINEAR} is done here.")
    factor = settings.get("rescale_factor") if settings.get("do_rescale", True) else 1
    unit = 255 * (1 / 255 if factor is None else factor)
    if not settings.get("do_normalize", True):
        return [0.0] * 3, [1 / unit] * 3
    missing = [name for name in ("image_mean", "image_std") if settings.get(name) is None]
    if missing:
        raise ValueError(f"{source}: its processor's settings lack {missing[0]}.")
    return [mean / unit for mean in settings["image_mean"]], [std / unit for std in settings["image_std"]]
