"""What libraries import at their start and `aas ground` never uses on a CPU is left until it is used.

For the command's own process: `import aas` changes nothing of any library.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


class _StandIn(ModuleType):
    """A module with a few names of the real one, which takes its place when anything else is asked of it."""

    __file__ = None  # who looks through all modules asks for it
    __path__: list[str] = []  # and who imports from it for this

    def __getattr__(self, name: str) -> Any:
        return getattr(_real(self.__name__), name)


class _Within(MetaPathFinder, Loader):
    """Finds what is inside a module that something stands in for."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        parent = fullname.rpartition(".")[0]
        if not isinstance(sys.modules.get(parent), _StandIn):
            return None
        inside = _real(parent).__path__
        return ModuleSpec(fullname, self) if fullname in sys.modules else PathFinder.find_spec(fullname, inside)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        found = sys.modules[spec.name]  # the real one has imported it meanwhile
        spec.loader_state = found.__spec__
        return found

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = module.__spec__ and module.__spec__.loader_state


def _real(name: str) -> ModuleType:
    if isinstance(sys.modules.get(name), _StandIn):
        del sys.modules[name]
    return import_module(name)


def _later(module: str, name: str, *arguments: Any, **named: Any) -> Any:
    """A call of the real one."""
    return getattr(_real(module), name)(*arguments, **named)


def _unmarked(fn: Callable[..., Any] | None = None, *_: Any, **__: Any) -> Any:
    """As a mark for torch's compiler, which compiles nothing here."""
    return fn if fn is not None else _unmarked


def _plain(name: str, known: Callable[[Any], bool], value: Any, **named: Any) -> bool:
    """What torch asks of the numbers and conditions of shapes: only of symbols there is something to find out."""
    return known(value) if isinstance(value, bool | int) else _later(SHAPES, name, value, **named)


SHAPES = "torch.fx.experimental.symbolic_shapes"  # sympy comes with it
MASKS = "torch._dynamo._trace_wrapped_higher_order_op"
STAND_INS: dict[str, Mapping[str, Callable[..., Any]]] = {
    "scipy.optimize": {"linear_sum_assignment": partial(_later, "scipy.optimize", "linear_sum_assignment")},
    "spacy.cli.info": {"info": partial(_later, "spacy.cli.info", "info")},
    "torch._dynamo": dict.fromkeys(("allow_in_graph", "assume_constant_result", "disable"), _unmarked),
    MASKS: {"TransformGetItemToIndex": partial(_later, MASKS, "TransformGetItemToIndex")},
    SHAPES: {name: partial(_plain, name, bool) for name in ("expect_true", "guard_or_false", "guard_or_true")}
    | {"is_nested_int": partial(_plain, "is_nested_int", lambda value: False)},
}


@contextmanager
def quick_imports() -> Iterator[None]:
    """Within, transformers and spaCy are imported, and what they then need not yet is not: SciPy, torch's compiler and
    distributed tensors, spaCy's command line. With a GPU, where models may be compiled, all is imported as ever."""
    import torch
    import transformers.utils as of_transformers

    with ExitStack() as stack:
        if not torch.cuda.is_available():
            sys.meta_path.insert(0, _Within())
            for name, content in STAND_INS.items():
                if name not in sys.modules:
                    sys.modules[name] = _StandIn(name)
                    vars(sys.modules[name]).update(content)
            # As on a machine whose torch was built without: a model in one process has no sharded tensors.
            for owner in (of_transformers, of_transformers.import_utils):
                stack.enter_context(_replaced(owner, "is_torch_distributed_available", lambda: False))
        yield


@contextmanager
def _replaced(owner: ModuleType, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
