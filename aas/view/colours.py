"""One palette for masks on photographs, words on white and words on black."""

RGB = tuple[int, int, int]

# All read as text on white (contrast of 4.5 and more). The first five stay apart with red-green colour blindness too,
# because they differ in lightness; beyond those the numbers in labels and legends help.
PALETTE: tuple[RGB, ...] = (
    (0x1F, 0x6F, 0xEB),  # blue
    (0xCF, 0x45, 0x00),  # vermilion
    (0x5B, 0x21, 0xB6),  # violet
    (0x00, 0x80, 0x6A),  # green
    (0xA3, 0x12, 0x6F),  # magenta
    (0x0B, 0x55, 0x63),  # petrol
    (0x7E, 0x16, 0x16),  # maroon
    (0x4F, 0x7A, 0x00),  # olive
    (0x7A, 0x5A, 0x00),  # ochre
    (0xD9, 0x2F, 0x4B),  # rose
    (0x5A, 0x64, 0x72),  # slate
    (0x23, 0x31, 0x8F),  # navy
)
BLACK: RGB = (0, 0, 0)
WHITE: RGB = (255, 255, 255)


def colour_of(index: int) -> RGB:
    """The colour of phrase `index`; the palette starts again after its last."""
    return PALETTE[index % len(PALETTE)]


def luminance(colour: RGB) -> float:
    """Relative luminance in [0, 1] (WCAG 2.2)."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: RGB, other: RGB) -> float:
    """Contrast ratio in [1, 21] (WCAG 2.2); text should have 4.5."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def ink_on(background: RGB) -> RGB:
    """White or black, whichever reads better; white where the two are close, as bold labels look calmer with it."""
    return WHITE if contrast(WHITE, background) >= 4.5 else BLACK


def mixed(colour: RGB, other: RGB, share: float) -> RGB:
    """`share` of `colour`, the rest of `other`."""
    red, green, blue = (round(a * share + b * (1 - share)) for a, b in zip(colour, other, strict=True))
    return red, green, blue


def light_ink(colour: RGB) -> RGB:
    """Words on `light_tint`: a little darker, as the tint takes contrast away."""
    return mixed(colour, BLACK, 0.84)


def light_tint(colour: RGB) -> RGB:
    """Behind words in `light_ink` on a white page."""
    return mixed(colour, WHITE, 0.12)


def dark_tint(colour: RGB) -> RGB:
    """Behind words in `dark_ink` on a dark page."""
    return mixed(colour, BLACK, 0.5)


def dark_ink(colour: RGB) -> RGB:
    """Words of a dark page that are recognised as those of `colour`."""
    return mixed(colour, WHITE, 0.4)


def hex_of(colour: RGB) -> str:
    """As CSS writes it."""
    return "#{:02x}{:02x}{:02x}".format(*colour)
