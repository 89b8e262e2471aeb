"""TCFormer: vision transformers whose tokens cluster where the image needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

__all__ = [
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
    "save_model",
]

# Modules that are commands as well, which their package therefore does not import.
_COMMANDS = {
    "count_flops": "tcformer.models.accounting",
    "count_parameters": "tcformer.models.accounting",
    "export_onnx": "tcformer.models.export",
    "export_program": "tcformer.models.export",
}


def __getattr__(name: str) -> Any:
    # Imported at the first use, so that the small modules (errors, tables) load without torch.
    if name in __all__:
        from importlib import import_module

        return getattr(import_module(_COMMANDS.get(name, "tcformer.models")), name)
    raise AttributeError(f"module 'tcformer' has no attribute '{name}'")
