"""The one exception whose message is written for the person at the terminal."""

from collections.abc import Iterable


class UserError(Exception):
    """Something that the user can put right: a file, a parameter, a machine setting.

    The message is one sentence that says what, where, what was expected and what to do. The stages print it
    without a traceback and exit with status 2.
    """


def listed(names: Iterable[str], most: int = 10) -> str:
    """The first `most` names, for a message; an ellipsis stands for the others."""
    names = list(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
