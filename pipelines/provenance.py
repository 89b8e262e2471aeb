"""What determined a result: code, parameters, data, versions."""

import hashlib
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "numpy", "ray", "deepspeed", "mlflow", "dvc", "pycocotools", "triton", "timm", "safetensors")
TRAINING_CODE = (
    "kernels",
    "tcformer/models",
    "tcformer/body",
    "tcformer/data",
    "tcformer/metrics",
    "tcformer/tasks",
    "pipelines/engine.py",
    "pipelines/deepspeed_engine.py",
    "pipelines/feed.py",
)


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_json(value: Any) -> str:
    """Hexadecimal SHA-256 of a value's canonical JSON: the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sha256_of_files(folder: Path, names: Iterable[str]) -> str:
    """One SHA-256 for the named files below ``folder``: their names and their bytes, in sorted order."""
    return sha256_of_json({name: sha256_of_file(folder / name) for name in sorted(names)})


def code_version() -> str:
    """SHA-256 of the sources that can change what a training computes: not of those that launch or record it."""
    names = [
        str(path.relative_to(ROOT))
        for place in TRAINING_CODE
        for path in ((ROOT / place).rglob("*") if (ROOT / place).is_dir() else [ROOT / place])
        if path.suffix in (".py", ".cpp", ".h")
    ]
    return sha256_of_files(ROOT, names)


def git_revision() -> str:
    """Commit of the working tree, with ``-dirty`` where tracked files differ from it; ``unknown`` outside git."""
    answers = []
    for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]):
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return "unknown"
        answers.append(done.stdout.strip())
    revision, changes = answers
    return f"{revision}-dirty" if changes else revision


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that take part in a result."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
