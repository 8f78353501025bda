"""What a model does beside attending to the image, for the map sources that need it (`aas.captured.Needs`)."""

from aas.internals.decoder import Decoder, output_matrix
from aas.internals.watch import Internals

__all__ = ["Decoder", "Internals", "output_matrix"]
