"""Processors of families that also take videos, without their video part: that one alone needs torchvision."""

from transformers import AutoConfig, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING


def images_only(processor_class: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """`processor_class` for images and words: built of, loaded as and saved with these parts only."""
    parts = [part for part in processor_class.get_attributes() if part != "video_processor"]
    # Under its own name: a saved processor_config.json names a class that every reader knows.
    return type(processor_class.__name__, (processor_class,), {"get_attributes": classmethod(lambda cls: parts)})


def load_images_only(source: str, revision: str) -> ProcessorMixin:
    """The processor that belongs to the model type of a folder or hub id, for images and words."""
    config = AutoConfig.from_pretrained(source, revision=revision)
    return images_only(PROCESSOR_MAPPING[type(config)]).from_pretrained(source, revision=revision)
