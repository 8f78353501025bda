"""Ground every noun phrase of a multimodal model's answer to a pixel mask, without grounding training.

    import aas
    grounding = aas.Grounder()("photo.jpg")
    grounding.save("out")

Names are imported when they are first used, so that `import aas` costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aas.tasks.ground import Grounder as Grounder
    from aas.tasks.ground import Grounding as Grounding

__version__ = "0.1.0"
__all__ = ["Grounder", "Grounding", "__version__"]


def __getattr__(name: str) -> Any:
    if name in ("Grounder", "Grounding"):
        from aas.tasks import ground

        return getattr(ground, name)
    raise AttributeError(f"module 'aas' has no attribute {name!r}")
