"""Ground every noun phrase of a multimodal model's answer to a pixel mask, without grounding training.

    import aas
    grounding = aas.Grounder()("photo.jpg")
    grounding.save("out")
    item = aas.load_attention("run/photo.jpg.safetensors")  # of `aas infer-attn`

Names are imported when they are first used, so that `import aas` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aas.store.items import AttentionItem as AttentionItem
    from aas.store.items import read_item as load_attention
    from aas.tasks.ground import Grounder as Grounder
    from aas.tasks.ground import Grounding as Grounding

__version__ = "0.1.0"
__all__ = ["AttentionItem", "Grounder", "Grounding", "__version__", "load_attention"]
_WHERE = {
    "AttentionItem": ("aas.store.items", "AttentionItem"),
    "Grounder": ("aas.tasks.ground", "Grounder"),
    "Grounding": ("aas.tasks.ground", "Grounding"),
    "load_attention": ("aas.store.items", "read_item"),
}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        module, attribute = _WHERE[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module 'aas' has no attribute {name!r}")
