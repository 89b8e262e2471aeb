"""The eps of the LayerNorm in the patch embedding, the one number in which mmpose's TCFormer differs from the authors'.

It belongs to the weights: a network computes what its weights were trained for only with their eps.
"""

from __future__ import annotations

from typing import Final

from tcformer.models.backbone import Backbone
from tcformer.models.networks import Network

DEFAULT_EPS: Final = 1e-5  # of the authors' code
MMPOSE_EPS: Final = 1e-6  # of mmpose 0.x

#: The option of `create_model`, which is in the config of a network only if it is not `DEFAULT_EPS`.
OPTION: Final = "patch_norm_eps"


def set_patch_norm_eps(model: Network, eps: float) -> None:
    """Set the eps, also in the config of the network; do nothing for the backbones of timm."""
    if isinstance(model.backbone, Backbone):
        model.backbone.patch_embed1.norm.eps = eps
        model.config["options"].pop(OPTION, None)
        if eps != DEFAULT_EPS:
            model.config["options"][OPTION] = eps
