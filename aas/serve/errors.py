"""What went wrong, as one line in the app; it ends nothing else."""

import logging

from aas.loading import in_short
from aas.text import harmless

log = logging.getLogger(__name__)


def said(error: Exception) -> str:
    """What people are told of it. A fault of our own is in the terminal too."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "The memory does not suffice for this photograph: try a smaller one, or a smaller model."
    if isinstance(error, ValueError | OSError):
        return harmless(str(error))
    log.exception("failed: %s", harmless(str(error)))
    return f"Something is wrong in the app itself ({in_short(error)}); the terminal says more."
