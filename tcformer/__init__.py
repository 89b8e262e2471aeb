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

__all__ = [
    "Tokens",
    "create_model",
    "list_models",
    "load_backbone",
    "load_model",
    "load_released_weights",
    "save_model",
]


def __getattr__(name: str) -> Any:
    # Imported at the first use, so that the small modules (errors, tables) load without torch.
    if name in __all__:
        import tcformer.models

        return getattr(tcformer.models, name)
    raise AttributeError(f"module 'tcformer' has no attribute '{name}'")
