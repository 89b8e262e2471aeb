"""What a training needs of this machine, checked before it starts: folders that can be written, and room in them."""

import tempfile
from pathlib import Path

from pipelines.training.checkpoint import KEPT
from tcformer.errors import UserError

BYTES_OF_WEIGHT = 4
BYTES_IN_CHECKPOINT = 20  # of each weight: itself twice, two moments of AdamW, a moving average; four bytes each


def require_writable(folder: Path, what: str) -> None:
    """Create `folder`, and raise UserError if no file can be made in it.

    Args:
        folder: it may exist.
        what: is written there, for the message.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"{folder}: {what} cannot be written there ({error.strerror}): expected a folder that can be written; "
            "change its owner or its mode, or work in a copy of the repository"
        ) from None


def bytes_needed(weights: int) -> int:
    """Bytes of a training's checkpoints and outputs, for a network of so many weights."""
    # One more than are kept exists while it is written. The final one and the outputs contain weights alone.
    return weights * (BYTES_IN_CHECKPOINT * (KEPT + 1) + 2 * BYTES_OF_WEIGHT)
