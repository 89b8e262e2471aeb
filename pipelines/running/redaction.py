"""Addresses without the passwords in them, for messages and records."""

import re

# The user and password before the host. Passwords may contain "@", and S3's secret keys "/"; what looks like a port is
# no password.
_USER = re.compile(r"(:/+)(?:[^/\s]*|[^/\s:]*:(?!\d+(?:[/\s]|$))[^\s@]*)@")
_SECRET = re.compile(
    r"([?&][^=&\s]*(?:key|secret|token|sig|signature|password|passwd|pwd|credential)[^=&\s]*=)[^&\s'\"]+", re.IGNORECASE
)


def redacted(text: str) -> str:
    """`text` with `***` in place of the user names, passwords and keys of all addresses in it.

    Args:
        text: an address, or a message that contains addresses.
    """
    return _SECRET.sub(r"\1***", _USER.sub(r"\1***@", text))
