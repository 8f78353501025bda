"""Make aas/view/fonts: Noto Sans, one file a script, cut down to what a picture's words need.

    pip install fonttools
    apt-get download fonts-noto-core fonts-noto-cjk      # Debian 12: 20201225-1 and 1:20220127+repack1-1
    for deb in fonts-noto-*.deb; do dpkg-deb -x $deb noto; done
    python scripts/make_fonts.py noto aas/view/fonts

Chinese, Japanese and Korean: the characters of GB 2312, Big5's first level, JIS X 0208 and KS X 1001 and all Hangul
syllables, in their forms of mainland China (one font holds one form of each). No hints: letters are drawn smooth.
"""

import sys
from pathlib import Path

from fontTools import subset

SCRIPTS = (
    *("Arabic", "Armenian", "Bengali", "Devanagari", "Ethiopic", "Georgian", "Gujarati", "Gurmukhi", "Hebrew"),
    *("Kannada", "Khmer", "Lao", "Malayalam", "Myanmar", "Oriya", "Sinhala", "Tamil", "Telugu", "Thai"),
)
SYMBOLS = {*range(0x2000, 0x2070), *range(0x2100, 0x2300), *range(0x2500, 0x27C0)}
CJK_COLLECTION, CHINESE_OF_COLLECTION = "NotoSansCJK-Regular.ttc", 2


def encoded(codec: str, lead_bytes: range = range(0xA1, 0xFF)) -> set[int]:
    """Code points of the two-byte characters of a national standard."""
    pairs = (bytes((lead, trail)).decode(codec, "ignore") for lead in lead_bytes for trail in range(0x40, 0xFF))
    return {ord(character) for character in pairs if len(character) == 1 and not character.isascii()}


def cjk() -> set[int]:
    standards = encoded("gb2312") | encoded("big5", range(0xA1, 0xC7)) | encoded("euc_jp") | encoded("euc_kr")
    return standards | {*range(0x3000, 0x3200), *range(0xAC00, 0xD7A4), *range(0xFF00, 0xFFF0)}


def cut(source: Path, target: Path, characters: set[int] | None = None, number: int = 0, plain: bool = False) -> None:
    """Write the part of a font that draws `characters` (all if None); `plain`: they stand side by side, unshaped."""
    options = subset.Options(hinting=False, font_number=number, notdef_outline=True, drop_tables=["DSIG"])
    options.name_IDs = [0, 1, 2, 4, 5, 6, 13, 14]  # with copyright and licence
    if plain:
        options.layout_features = ["ccmp"]
        options.drop_tables += ["BASE", "VORG", "vhea", "vmtx"]
    font = subset.load_font(str(source), options)
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=characters if characters is not None else font.getBestCmap().keys())
    cutter.subset(font)
    subset.save_font(font, str(target), options)
    print(f"{target}: {len(font.getGlyphOrder())} glyphs, {target.stat().st_size} bytes")


def main(source: Path, out: Path) -> None:
    files = {path.name: path for path in source.rglob("Noto*-Regular.tt[cf]")}
    out.mkdir(parents=True, exist_ok=True)
    for name in ("NotoSans", *(f"NotoSans{script}" for script in SCRIPTS)):
        cut(files[f"{name}-Regular.ttf"], out / f"{name}-Regular.ttf")
    for name in ("NotoSansMath", "NotoSansSymbols", "NotoSansSymbols2"):
        cut(files[f"{name}-Regular.ttf"], out / f"{name}-Regular.ttf", SYMBOLS, plain=True)
    cut(files[CJK_COLLECTION], out / "NotoSansCJK-Regular.otf", cjk(), CHINESE_OF_COLLECTION, plain=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
