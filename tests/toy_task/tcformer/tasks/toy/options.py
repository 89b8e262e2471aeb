"""The options of the toy task in params.yaml."""

from __future__ import annotations

from tcformer.parameters import parameters


@parameters
class ToyOptions:
    """What determines the head and the samples."""

    #: standard deviation of the target Gaussians in heat-map pixels
    sigma: float


@parameters
class ToyEvaluation:
    """How a trained network is measured."""

    #: pixels; points closer than this count as found
    tolerance: float


OPTIONS = ToyOptions
EVALUATION = ToyEvaluation
