"""Label Studio's run lengths of brush strokes: a stream of bits, in bytes.

A head says how many values follow (32 bits), how wide a value is less 1 (5 bits), and four widths of lengths less 1 (4
bits each). Then come packets: a bit, 1 for a value that is repeated, 0 for values one after another; which of the four
widths its length has (2 bits); the length less 1; the value or values. Values are the pixels' red, green, blue and
alpha, row by row; the mask is the alpha (https://github.com/thi-ng/umbrella, rle-pack).
"""

from collections.abc import Sequence

import numpy as np

CHANNELS = 4
HEAD_BITS, VALUE_BITS = 32 + 5 + 4 * 4, 8
LENGTH_BITS = (3, 4, 8, 16)
OPAQUE_FROM = 128  # strokes have soft edges


def encoded(mask: np.ndarray) -> list[int]:
    """Bytes of a bool mask [H, W]."""
    values = np.repeat(mask.ravel(), CHANNELS)
    bounds = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1, [len(values)]])
    head = f"{len(values):032b}{VALUE_BITS - 1:05b}" + "".join(f"{bits - 1:04b}" for bits in LENGTH_BITS)
    runs = zip(np.diff(bounds).tolist(), values[bounds[:-1]].tolist(), strict=True)
    bits = head + "".join(_packets(length, 255 * value) for length, value in runs)
    return np.packbits(np.frombuffer(bits.encode(), np.uint8) - ord("0")).tolist()


def _packets(length: int, value: int) -> str:
    packets = []
    while length:
        now = min(length, 1 << LENGTH_BITS[-1])
        width = next(i for i, bits in enumerate(LENGTH_BITS) if now <= 1 << bits)
        packets.append(f"1{width:02b}{now - 1:0{LENGTH_BITS[width]}b}{value:08b}")
        length -= now
    return "".join(packets)


def decoded(content: Sequence[int], size_hw: tuple[int, int]) -> np.ndarray:
    """The bool mask [H, W] of such bytes; ValueError for what are none, or those of another size."""
    try:
        bits = np.unpackbits(np.array(content, np.uint8))
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError("brush run lengths are no list of bytes") from error
    values = _Packets(bits, size_hw[0] * size_hw[1] * CHANNELS).values()
    return values.reshape(*size_hw, CHANNELS)[..., -1] >= OPAQUE_FROM


class _Packets:
    """The values of a stream of bits, uint8 0 or 1; ValueError unless there are `n` of them."""

    def __init__(self, bits: np.ndarray, n: int):
        self.bits, self.at, self.n = bits, 0, n
        if len(bits) < HEAD_BITS or self._read(32) != n:
            raise ValueError("brush run lengths are of another size, or cut off")
        self.value_bits = self._read(5) + 1
        self.length_bits = [self._read(4) + 1 for _ in LENGTH_BITS]
        if self.value_bits != VALUE_BITS:
            raise ValueError(f"brush run lengths have values of {self.value_bits} bits, not of {VALUE_BITS}")

    def values(self) -> np.ndarray:
        """uint8 [n]."""
        out, at = np.zeros(self.n, np.uint8), 0
        while at < self.n:
            is_run = self._read(1)
            length = self._read(self.length_bits[self._read(2)]) + 1
            if at + length > self.n:
                raise ValueError("brush run lengths go beyond their picture")
            out[at : at + length] = self._read(VALUE_BITS) if is_run else self._literal(length)
            at += length
        return out

    def _literal(self, length: int) -> np.ndarray:
        return np.packbits(self._take(VALUE_BITS * length))

    def _read(self, n_bits: int) -> int:
        return int("".join(map(str, self._take(n_bits).tolist())), 2)

    def _take(self, n_bits: int) -> np.ndarray:
        taken = self.bits[self.at : self.at + n_bits]
        if len(taken) < n_bits:
            raise ValueError("brush run lengths are cut off")
        self.at += n_bits
        return taken
