"""Heat maps of keypoints: codecs (encoding, decoding, flip test) and the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcformer.lazy import lazy_exports

if TYPE_CHECKING:
    from tcformer.heatmaps.codecs import CODECS, Codec, make_codec
    from tcformer.heatmaps.loss import heat_map_loss, share_of_correct

_MODULES = {
    "CODECS": "codecs",
    "Codec": "codecs",
    "heat_map_loss": "loss",
    "make_codec": "codecs",
    "share_of_correct": "loss",
}

__all__ = ["CODECS", "Codec", "heat_map_loss", "make_codec", "share_of_correct"]

__getattr__ = lazy_exports(__name__, _MODULES)
