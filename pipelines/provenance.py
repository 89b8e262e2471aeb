"""What determined a result: code, parameters, data, versions."""

import hashlib
import json
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
    "pipelines/training/loop.py",
    "pipelines/adapters/deepspeed.py",
    "pipelines/training/loading.py",
)


def sha256_of_json(value: Any) -> str:
    """Hexadecimal SHA-256 of a value's canonical JSON: the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
