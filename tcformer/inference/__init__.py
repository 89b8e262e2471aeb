"""Prediction for any picture: weights of any origin, pictures, boxes, results. `tcformer.Predictor` combines them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcformer.lazy import lazy_exports

if TYPE_CHECKING:
    from tcformer.inference.base import Result, Settings, TaskPredictor
    from tcformer.inference.boxes import Boxes
    from tcformer.inference.detector import PersonDetector
    from tcformer.inference.pictures import read_picture
    from tcformer.inference.recognise import LoadedWeights, load_any_weights

_MODULES = {
    "Boxes": "boxes",
    "LoadedWeights": "recognise",
    "PersonDetector": "detector",
    "Result": "base",
    "Settings": "base",
    "TaskPredictor": "base",
    "load_any_weights": "recognise",
    "read_picture": "pictures",
}

__all__ = [
    "Boxes",
    "LoadedWeights",
    "PersonDetector",
    "Result",
    "Settings",
    "TaskPredictor",
    "load_any_weights",
    "read_picture",
]

__getattr__ = lazy_exports(__name__, _MODULES)
