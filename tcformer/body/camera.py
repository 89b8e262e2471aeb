"""The camera with which bodies are predicted."""

from __future__ import annotations

from typing import Final

#: Focal length over the side of the crop. Source: SPIN, which has 5000 pixels for a crop of 224.
FOCAL_OVER_SIDE: Final = 5000 / 224
