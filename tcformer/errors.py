"""The exception whose message is written for the user of the command line."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor

_KEPT: Final = "\n\t"
#: Categories of letters that a terminal obeys instead of showing them, or that cannot be printed: controls, halves of a
#: letter, separators of lines.
_NOT_SHOWN: Final = ("Cc", "Cs", "Zl", "Zp")
#: Invisible marks that turn the direction of the text behind them.
_TURNING: Final = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def printable(text: str) -> str:
    """`text` with escapes such as `\\x1b` in place of letters that would control the terminal.

    Names and texts of other people's files reach the terminal in messages; their escape codes must not.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        letter.encode("unicode_escape").decode("ascii")
        if letter in _TURNING or (unicodedata.category(letter) in _NOT_SHOWN and letter not in _KEPT)
        else letter
        for letter in text
    )


class UserError(Exception):
    """An error that the user can correct: a file, a parameter, a setting of the machine.

    The message says where the error is, what is wrong, what was expected and what to do. The stages print it without
    a traceback and exit with status 2.

    Args:
        message: see above; it becomes `printable`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


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
