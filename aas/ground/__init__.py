"""The whole way for an image: ask, find the noun phrases, point, segment.

`grounder.py`: the models loaded, and what may be asked of them; `steps.py`: the way in steps; `request.py`: what is
asked; `batches.py`: many requests; `bands.py`: maps of models that show nothing inside.
"""

from aas.ground.batches import ByGrounder, GroundingError
from aas.ground.grounder import Grounder
from aas.ground.request import Asked, Request

__all__ = ["Asked", "ByGrounder", "Grounder", "GroundingError", "Request"]
