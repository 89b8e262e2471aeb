"""The networks: variants, options, building, weights."""

from tcformer.models.factory import create_model, list_models
from tcformer.models.heads import MeshPrediction
from tcformer.models.networks import Network
from tcformer.models.options import NECKS, TOKEN_REDUCTIONS, NetworkOptions
from tcformer.models.released_weights import load_released_weights
from tcformer.models.tokens import Tokens
from tcformer.models.variants import VARIANTS, Variant
from tcformer.models.weights import load_backbone, load_initial, load_model, read_about, save_model

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
    "list_models",
    "load_backbone",
    "load_initial",
    "load_model",
    "load_released_weights",
    "read_about",
    "save_model",
]
