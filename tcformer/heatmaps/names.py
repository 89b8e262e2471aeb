"""The names of codecs and of decodings in params.yaml. This module loads without torch."""

from __future__ import annotations

from typing import Literal, TypeAlias

#: See `tcformer.heatmaps.codecs.CODECS`.
CodecName: TypeAlias = Literal["mmpose", "udp", "unbiased"]
#: See `tcformer.heatmaps.decode.REFINEMENTS`.
Refinement: TypeAlias = Literal["quarter_pixel", "taylor", "dark"]
#: A refinement, or that of the codec.
Decoding: TypeAlias = Literal["auto", Refinement]
