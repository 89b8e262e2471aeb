"""The network: variants, building, weights."""

from tcformer.models.factory import create_model, list_models
from tcformer.models.networks import Network
from tcformer.models.tokens import Tokens
from tcformer.models.variants import VARIANTS, Variant
from tcformer.models.weights import load_backbone, load_model, read_about, save_model

__all__ = [
    "VARIANTS",
    "Network",
    "Tokens",
    "Variant",
    "create_model",
    "list_models",
    "load_backbone",
    "load_model",
    "read_about",
    "save_model",
]
