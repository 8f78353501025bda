"""Maps of a model that shows nothing inside: it is asked about each phrase, band by band."""

from collections.abc import Sequence

import numpy as np

from aas.asking import Asking
from aas.geometry import stretched_view
from aas.lmms.base import LMM
from aas.lmms.yes_no import yes_probabilities
from aas.maps import DEFAULT, names_of, source_named
from aas.maps.blackbox import Blackbox
from aas.records import Answer, AttentionMaps, Phrase


def blackbox_of(asking: Asking) -> Blackbox | None:
    """The map source that asks about phrases, where there is one; `asking` then is without it."""
    names = names_of(asking.get("maps", DEFAULT))
    sources = [source for source in map(source_named, names) if isinstance(source, Blackbox)]
    if not sources:
        return None
    if len(names) > 1:
        raise ValueError("--maps: blackbox has a grid of its own, so that no other source goes with it.")
    asking["maps"] = DEFAULT
    return sources[0]


def asked_maps(
    blackbox: Blackbox, lmm: LMM, pixels: np.ndarray, answer: Answer, phrases: Sequence[Phrase], n_at_once: int
) -> AttentionMaps:
    """Of each phrase; `n_at_once` questions in a batch."""
    views, yes = blackbox.views(pixels), []
    for phrase in phrases:
        asked = [lmm.prepare(view, blackbox.question(phrase.text)) for view in views]
        parts = [yes_probabilities(lmm, asked[i : i + n_at_once]) for i in range(0, len(asked), n_at_once)]
        yes.append(np.concatenate(parts))
    height, width = pixels.shape[:2]
    view = stretched_view((blackbox.n_bands, blackbox.n_bands), (height, width))
    return blackbox.maps(answer, phrases, np.array(yes), view)
