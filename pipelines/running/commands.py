"""Runs git and DVC as commands, always in a folder that is given."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pipelines.layout import dvc_environment
from tcformer.errors import UserError


def run_command(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder to its end, whatever its exit status; its output is text.

    Raises:
        FileNotFoundError: it is not installed.
    """
    # `python` in dvc.yaml must be this one, in the queue's worker too.
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, **dvc_environment(folder), "PATH": tools}
    # Files instead of pipes: DVC's queue worker inherits them, and a pipe would stay open until the worker ends.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, check=False, env=environment
        )
        out.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(command, done.returncode, out.read(), errors.read())


def git(folder: Path, *arguments: str) -> str:
    """What git prints in a folder.

    Raises:
        UserError: git is missing or fails; for most failures the folder is no repository, or has no commit.
    """
    # Another user may own the repository, as in a container: whoever runs its code trusts its git settings as well.
    command = ["git", "-c", f"safe.directory={folder.resolve()}", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError("git is not installed: expected it, because code and results belong to a commit") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(
            f"{folder}: `git {arguments[0]}` failed ({reason}): expected a git repository with a commit; run `git "
            "init` and commit the files"
        )
    return done.stdout


def dvc(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of DVC in a folder to its end, whatever its exit status."""
    return run_command([sys.executable, "-m", "dvc", *arguments], folder)


def dvc_cache(folder: Path) -> Path | None:
    """The cache folder of a repository's DVC; None where DVC is not set up."""
    if not (folder / ".dvc").is_dir():
        return None
    done = dvc(folder, "cache", "dir")
    return folder / ".dvc" / "cache" if done.returncode else (folder / done.stdout.strip().splitlines()[-1]).resolve()
