"""The networks: variants, options, building, weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcformer.lazy import lazy_exports

if TYPE_CHECKING:
    from tcformer.models.factory import create_model, list_models
    from tcformer.models.heads import MeshPrediction
    from tcformer.models.layer_depth import layer_depths
    from tcformer.models.networks import Network
    from tcformer.models.options import NECKS, TOKEN_REDUCTIONS, NetworkOptions
    from tcformer.models.released_weights import load_released_weights
    from tcformer.models.tokens import Tokens
    from tcformer.models.variants import VARIANTS, Variant
    from tcformer.models.weights import load_backbone, load_initial, load_model, read_about, save_model

_MODULES = {
    "MeshPrediction": "heads",
    "NECKS": "options",
    "Network": "networks",
    "NetworkOptions": "options",
    "TOKEN_REDUCTIONS": "options",
    "Tokens": "tokens",
    "VARIANTS": "variants",
    "Variant": "variants",
    "create_model": "factory",
    "layer_depths": "layer_depth",
    "list_models": "factory",
    "load_backbone": "weights",
    "load_initial": "weights",
    "load_model": "weights",
    "load_released_weights": "released_weights",
    "read_about": "weights",
    "save_model": "weights",
}

__all__ = [
    "NECKS",
    "TOKEN_REDUCTIONS",
    "VARIANTS",
    "MeshPrediction",
    "Network",
    "NetworkOptions",
    "Tokens",
    "Variant",
    "create_model",
    "layer_depths",
    "list_models",
    "load_backbone",
    "load_initial",
    "load_model",
    "load_released_weights",
    "read_about",
    "save_model",
]

__getattr__ = lazy_exports(__name__, _MODULES)
