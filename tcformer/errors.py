"""The one exception whose message is written for the person at the terminal."""


class UserError(Exception):
    """Something that the user can put right: a file, a parameter, a machine setting.

    The message is one sentence that says what, where, what was expected and what to do. The stages print it
    without a traceback and exit with status 2.
    """
