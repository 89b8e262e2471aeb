"""An exponential moving average (EMA) of the weights, which is validated and handed out in place of them."""

import copy
from pathlib import Path

from safetensors.torch import load_file
from torch.optim.swa_utils import get_ema_multi_avg_fn

from tcformer.models import Network

FILE = "ema.safetensors"


class WeightAverage:
    """The moving average of a network's weights: float32, as the weights are whatever the precision of the training.

    Update s, counted from 0, moves each value by (1 - d) of its distance to the weights after optimiser step s, with
    d = min(decay, (1 + s) / (10 + s)). So the average soon forgets the initial weights. This is the formula of
    TensorFlow's ExponentialMovingAverage with `num_updates`. As in timm's ModelEmaV3 the running statistics of batch
    normalisation are averaged in the same way, and integers are copied.

    Every worker has the same average, apart from running statistics, which differ between workers until the loop
    averages them. The training does not depend on it.

    Args:
        model: the network with its initial weights, on its device; it is copied.
        decay: d of a long training, such as 0.9999.

    Attributes:
        module: the network with the averaged weights, in evaluation mode.
    """

    def __init__(self, model: Network, decay: float) -> None:
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        self._decay = decay

    def update(self, model: Network, step: int) -> None:
        """Take in the weights of `model` after optimiser step `step`, counted from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        averages, values = [], []
        # Like `parameters()`, `state_dict()` refers to the values that the network computes with.
        for average, value in zip(self.module.state_dict().values(), model.state_dict().values(), strict=True):
            if average.is_floating_point():
                averages.append(average)
                values.append(value)
            else:
                average.copy_(value)
        get_ema_multi_avg_fn(decay)(averages, values, step)

    def load(self, folder: Path) -> None:
        """Read the average from the files of a checkpoint."""
        self.module.load_state_dict(load_file(folder / FILE))
