"""What one model needs to write answers in slots: buffers that can be used again, and the graphs recorded on them."""

from collections.abc import Callable

from torch import nn
from transformers import PreTrainedModel

from aas.capture import Selection
from aas.decoding.slots import Slots
from aas.decoding.stash import SlotCapture
from aas.decoding.steps import Recorder, Steps

KEYS_AT_ONCE = 64  # recorded steps look at a multiple of so many keys: each number of them is a graph of its own


class Engine:
    """Slots of a model, the steps that they take and what is captured of them."""

    def __init__(
        self,
        model: PreTrainedModel,
        n_slots: int,
        capacity: int,
        selection: Selection,
        records: Callable[[nn.Module], bool],
        record: Recorder | None = None,
    ):
        n_layers = model.config.get_text_config(decoder=True).num_hidden_layers
        self.slots = Slots(n_layers, n_slots, capacity, model.device, grows=record is None)
        self.steps = Steps(model, self.slots, model.dtype, record)
        self.capture = SlotCapture(self.slots, self.steps.row, selection, records)
        self.weights = _places(model)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(None), ()  # a copy of a model has other weights, or is in another process: it makes its own

    @property
    def lag(self) -> int:
        """Steps whose tokens are not waited for: a GPU always has the next one to do."""
        return int(self.slots.length.device.type == "cuda")

    def size_for(self, n: int) -> int:
        """Slots that take part where `n` are wanted: of graphs there are few sizes."""
        return n if self.steps.record is None else min(1 << max(0, n - 1).bit_length(), self.slots.n_slots)

    def keys_for(self, n: int) -> int:
        """Keys that attention looks at where `n` are wanted: of graphs there are few lengths."""
        return n if self.steps.record is None else min(-(-n // KEYS_AT_ONCE) * KEYS_AT_ONCE, self.slots.capacity)

    def move(self, source: int, target: int) -> None:
        """What is in one slot goes into another."""
        self.steps.move(source, target)
        self.capture.move(source, target)

    def fits(self, model: PreTrainedModel, n_slots: int, capacity: int, selection: Selection) -> bool:
        """Whether it can be used again, for so much: its graphs know where weights and buffers are."""
        return (
            self.slots.n_slots >= n_slots
            and self.slots.capacity >= capacity
            and self.capture.selection.layers == selection.layers
            and self.weights == _places(model)
        )


def _places(model: nn.Module) -> int:
    """Of a model's weights in memory: another number where some were moved."""
    return hash(tuple(weight.data_ptr() for weight in model.parameters()))
