"""The exception whose message is written for the user of the command line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class UserError(Exception):
    """An error that the user can correct: a file, a parameter, a setting of the machine.

    The message says where the error is, what is wrong, what was expected and what to do. The stages print it without
    a traceback and exit with status 2.
    """


def listed(names: Iterable[str], most: int = 10) -> str:
    """The first `most` names, separated by commas, for a message; an ellipsis stands for the others."""
    names = list(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def require_finite(output: Tensor, what: str) -> None:
    """Raise UserError if a network's output contains NaN or infinity; `what` names the output, in the plural."""
    if not bool(output.isfinite().all()):
        raise UserError(
            f"the network's {what} contain NaN or infinity: expected numbers; its weights are damaged or its training "
            "diverged: train again with a lower learning rate, or use other weights"
        )
