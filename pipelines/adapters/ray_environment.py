"""What Ray needs around it: environment variables, a folder, a token; and what went wrong if it does not start.

Nothing here imports Ray, which reads the environment when it is imported.
"""

import os
import secrets
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tcformer.errors import UserError
from tcformer.files import can_write, temporary_folder

#: Bytes of the longest path of a folder for Ray: it makes sockets in it, whose paths may have 103 bytes on macOS.
LONGEST_FOLDER = 103 - len("/session_2026-11-26_05-33-27_123456_4194304/sockets/plasma_store.1")


def prepare_environment(local: bool) -> None:
    """Set what Ray reads from the environment; it must be there before `import ray`."""
    defaults = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "PYTHONWARNINGS": "ignore::FutureWarning",  # one line a gloo collective otherwise
    }
    if local:
        defaults |= {
            # Despite its name: "0" keeps all of Ray's servers on the loopback address, on every system.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            # Workers keep the memory that they free: a step's tensors then cost no page faults. Training ran 1.05 to
            # 1.3 times as fast with it (two workers on two cores, batches of 8 to 32 crops).
            "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
            "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
        }
        if Path("/sys/class/net/lo").exists():  # workers talk to each other on the loopback address too
            defaults |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def give_token() -> None:
    """Make a token for a Ray of this stage where Ray cannot keep one in the home folder: it would not start."""
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return
    if "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        return
    kept = os.path.expanduser("~/.ray/auth_token")
    if not os.path.isabs(kept) or not (os.access(kept, os.R_OK) or can_write(Path(kept).parent)):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def folder_for_ray() -> Path:
    """A private folder for Ray's temporary files, whose path is short enough for its sockets.

    It is in the folder that RAY_TMPDIR or TMPDIR names, or, with a sentence, in /tmp if that path is too long.

    Raises:
        UserError: another user can write to it, or it cannot be made.
    """
    wanted = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if len(os.fsencode(os.path.join(wanted, f"tcformer-{os.getuid()}", "ray"))) <= LONGEST_FOLDER:
        return temporary_folder("ray", wanted)
    folder = temporary_folder("ray", "/tmp")
    print(f"Ray's temporary files are in {folder}: its sockets need a shorter path than {wanted}", file=sys.stderr)
    return folder


def require_token(address: str) -> None:
    """Raise UserError if a Ray is joined over a network without authentication: whoever reaches it runs code on it."""
    host = address.rpartition("://")[2].rpartition(":")[0].strip("[]") or address
    if host in ("auto", "local", "localhost", "::1") or host.startswith("127."):
        return
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        raise UserError(
            f"the Ray at {address} is on another machine or open to others, and RAY_AUTH_MODE is not token: expected a "
            "Ray with token authentication, because whoever reaches it can run code there; set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN_PATH here and for `ray start` (docs/clusters.md, Security)"
        )


def not_joined(address: str, error: Exception) -> UserError:
    """The message for a Ray that cannot be joined."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].startswith("Version mismatch"):
        return UserError(
            f"the Ray at {address} runs other versions than this process: {' '.join(lines)}: expected the same Ray and "
            "Python; use the same environment on both sides"
        )
    return UserError(
        f"no Ray answers at {address} ({lines[0] if lines else type(error).__name__}): start one with `ray start "
        "--head`, or unset RAY_ADDRESS and cluster.address to use one of this machine's own"
    )


def start_patiently(start: Callable[[], object], stop: Callable[[], object]) -> None:
    """Call `start`, which starts a Ray; once more if Ray says that this took too long, as on a busy machine.

    Args:
        start: raises an exception with the words "timed out" if it took too long.
        stop: ends what a failed start left.

    Raises:
        UserError: the second start took too long as well.
    """
    for attempt in (1, 2):
        try:
            start()
            return
        except Exception as error:  # Ray has no type for it
            stop()
            if "timed out" not in str(error).lower():
                raise
            if attempt == 2:
                raise UserError(
                    "Ray did not start within its time limit, twice: expected that this machine has cores and memory "
                    "to spare; try again when it is less busy, or use --local, which needs no Ray"
                ) from None
            print("Ray did not start within its time limit: trying once more", file=sys.stderr)
