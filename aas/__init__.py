"""Ground every noun phrase of a multimodal model's answer to a pixel mask, without grounding training.

    import aas
    grounding = aas.Grounder()("photo.jpg")
    grounding.save("out")
    item = aas.load_attention("run/photo.jpg.safetensors")  # of `aas infer-attn`

Names are imported when they are first used, so that `import aas` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from aas.version import __version__

if TYPE_CHECKING:
    from aas.ground import Grounder as Grounder
    from aas.ground import GroundingError as GroundingError
    from aas.grounding import Grounding as Grounding
    from aas.images import ImageError as ImageError
    from aas.store.attention import AttentionItem as AttentionItem
    from aas.store.attention import read_item as load_attention

__all__ = ["AttentionItem", "Grounder", "Grounding", "GroundingError", "ImageError", "__version__", "load_attention"]
_WHERE = {
    "AttentionItem": ("aas.store.attention", "AttentionItem"),
    "Grounder": ("aas.ground", "Grounder"),
    "Grounding": ("aas.grounding", "Grounding"),
    "GroundingError": ("aas.ground", "GroundingError"),
    "ImageError": ("aas.images", "ImageError"),
    "load_attention": ("aas.store.attention", "read_item"),
}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        from aas.imports import collector_paused

        module, attribute = _WHERE[name]
        with collector_paused():
            return getattr(import_module(module), attribute)
    raise AttributeError(f"module 'aas' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
