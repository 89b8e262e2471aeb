"""Options of networks for tests of tasks."""

from __future__ import annotations

from tcformer.models import NetworkOptions

NETWORK = NetworkOptions(
    backbone="tcformer_nano",
    token_reduction="ctm",
    local_parts=(4, 2, 1),
    place_weight=0.0,
    token_place=False,
    cluster_after=0.0,
    pretrained=False,
    activation_checkpointing=False,
)
