from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import loaders
from pipelines.training.loading import Dataset
from tests.small import generate, parameters


@pytest.mark.parametrize("task", ["imagenet", "wholebody", "face", "mesh"])
def test_every_loader_spends_time_on_geometry(task: str, tmp_path: Path) -> None:
    params = parameters(tmp_path)
    generate(task, params, tmp_path)
    data: Dataset = params.sample.spec_of(task).build(tmp_path / task).train_set()
    seconds = dict.fromkeys(loaders.STAGES, 0.0)
    with loaders.timed_stages(seconds):
        for index in range(2):
            data.sample(index, np.random.default_rng(index))
    assert seconds["geometry"] > 0 and seconds["decode"] > 0
