"""The models that the app was given to choose from: each loaded once, when it is first wanted."""

from dataclasses import dataclass
from functools import cached_property
from threading import RLock
from typing import TYPE_CHECKING, Any

from aas import registry
from aas.available import all_here
from aas.choices import TRAINING_FREE, PresetName
from aas.ground import Grounder
from aas.heads.named import head_path
from aas.heads.stored import read_head_file
from aas.lmms import load_lmm
from aas.maps import DEFAULT, source_named
from aas.phrases.parser import load_pipeline
from aas.presets import PRESETS, maps_for
from aas.segmenters import load_segmenter
from aas.segmenters.base import Segmenter
from aas.serve.options import Serve
from aas.stages.options import head_file

if TYPE_CHECKING:
    from spacy.language import Language

    from aas.lmms.base import LMM


@dataclass(frozen=True)
class Choice:
    """What answers: names of an LMM, a segmenter, a map source, a preset, and a mask head or none."""

    model: str
    segmenter: str
    maps: str = DEFAULT
    preset: PresetName = "paper"
    head: str = TRAINING_FREE


class Models:
    """A `Grounder` for each choice; those of one model share it."""

    def __init__(self, options: Serve):
        self.options = options
        self._lmms: dict[str, LMM] = {}
        self._segmenters: dict[str, Segmenter] = {}
        self._grounders: dict[Choice, Grounder] = {}
        self._loading = RLock()

    @property
    def choices(self) -> dict[str, list[str]]:
        """What can be chosen, by the fields of `Choice`; the first of each is what stands there at first."""
        models, segmenters = list(self.options.model), list(self.options.segmenter)
        named = [DEFAULT, *(name for name in registry.MAP_SOURCES if name != DEFAULT and _needs_no_argument(name))]
        maps = list(dict.fromkeys([maps_for(models[0]), *named]))
        heads = [TRAINING_FREE, *(name for name in self.options.head if name != TRAINING_FREE)]
        return {"model": models, "segmenter": segmenters, "maps": maps, "preset": list(PRESETS), "head": heads}

    @property
    def first(self) -> Choice:
        """What stands there at first."""
        return self.chosen({})

    def chosen(self, wanted: Any) -> Choice:
        """The choice of these names, the first where one is not named; ValueError for one that cannot be chosen."""
        given = wanted if isinstance(wanted, dict) else {}
        found: dict[str, Any] = {}
        for field, names in self.choices.items():
            found[field] = given.get(field, names[0])
            if found[field] not in names:
                raise ValueError(f"No {field} {found[field]!r} here: choose one of {', '.join(names)}.")
        return Choice(**found)

    def check(self) -> None:
        """FileNotFoundError or ValueError, before anything is loaded, where one of the models cannot be had."""
        for model in self.options.model:
            all_here(model, None, self.options.phrases)
        for segmenter in self.options.segmenter:
            all_here(segmenter=segmenter)
        for head in self.choices["head"][1:]:
            read_head_file(head_path(head))

    def grounder(self, choice: Choice) -> Grounder:
        """Raises ValueError or OSError for a model that cannot be loaded, or that the choice does not fit."""
        with self._loading:
            if choice not in self._grounders:
                self._grounders[choice] = self._made(choice)
            return self._grounders[choice]

    def _made(self, choice: Choice) -> Grounder:
        lmm, segmenter = self._lmm(choice.model), self._segmenter(choice.segmenter)
        asked: dict[str, Any] = {"preset": choice.preset, "maps": choice.maps}
        return Grounder(lmm, segmenter, self._pipeline, head=head_file(choice.head), **asked)

    @cached_property
    def _pipeline(self) -> "Language":
        return load_pipeline(self.options.phrases)

    def _lmm(self, name: str) -> "LMM":
        if name not in self._lmms:
            self._lmms[name] = load_lmm(name, self.options.device, self.options.dtype)
        return self._lmms[name]

    def _segmenter(self, name: str) -> Segmenter:
        if name not in self._segmenters:
            self._segmenters[name] = load_segmenter(name, self.options.device)
        return self._segmenters[name]


def _needs_no_argument(name: str) -> bool:
    try:
        source_named(name)
    except (ValueError, OSError):
        return False
    return True
