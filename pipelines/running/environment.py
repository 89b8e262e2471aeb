"""Environment variables that tools need on machines where their own choice of a folder fails.

They are set when `pipelines` is imported: before the tools read them, and in Ray's workers on other machines too.
"""

import getpass
import os
from contextlib import suppress

from tcformer.errors import UserError
from tcformer.files import temporary_folder, user_cache


def complete_environment() -> None:
    """Name private folders for the caches of tools, and a user name if the system knows none.

    Variables that are set already stay as they are.
    """
    if user_cache() is None:
        with suppress(UserError):  # the tools then say themselves what they cannot write
            caches = temporary_folder("cache")
            os.environ["XDG_CACHE_HOME"] = str(caches)  # C++ operations of `kernels`, fonts, downloads of timm
            os.environ.setdefault("TRITON_HOME", str(caches))
            os.environ.setdefault("MPLCONFIGDIR", str(caches / "matplotlib"))
    try:
        getpass.getuser()
    except (KeyError, OSError):  # a container runs with a number that is not in its /etc/passwd
        os.environ["USER"] = f"user{os.getuid()}"
