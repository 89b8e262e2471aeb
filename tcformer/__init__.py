"""TCFormer: vision transformers whose tokens cluster where the image needs them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tcformer.extras import name_extras
from tcformer.files import give_numba_a_cache
from tcformer.lazy import lazy_exports

if TYPE_CHECKING:
    from tcformer.models import (
        Tokens,
        create_model,
        list_models,
        load_backbone,
        load_model,
        load_released_weights,
        save_model,
    )
    from tcformer.models.accounting import count_flops, count_parameters
    from tcformer.models.export import export_onnx, export_program
    from tcformer.models.timm_conventions import register_with_timm
    from tcformer.predictor import Predictor

_MODULES = {
    "Predictor": "predictor",
    "Tokens": "models.tokens",
    "count_flops": "models.accounting",
    "count_parameters": "models.accounting",
    "create_model": "models.factory",
    "export_onnx": "models.export",
    "export_program": "models.export",
    "list_models": "models.factory",
    "load_backbone": "models.weights",
    "load_model": "models.weights",
    "load_released_weights": "models.released_weights",
    "register_with_timm": "models.timm_conventions",
    "save_model": "models.weights",
}

__all__ = [
    "Predictor",
    "Tokens",
    "count_flops",
    "count_parameters",
    "create_model",
    "export_onnx",
    "export_program",
    "list_models",
    "load_backbone",
    "load_model",
    "load_released_weights",
    "register_with_timm",
    "save_model",
]

__getattr__ = lazy_exports(__name__, _MODULES)

name_extras()
give_numba_a_cache(Path(__file__).parent / "synthetic")
