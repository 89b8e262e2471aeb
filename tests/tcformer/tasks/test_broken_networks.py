"""A network whose outputs are not numbers is reported, not measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipelines.params import Params
from tcformer.data import collate
from tcformer.data.official import Source
from tcformer.errors import UserError
from tcformer.tasks import TASKS
from tcformer.tasks.mesh.official import OFFICIAL
from tests.small import generate, parameters
from tests.tcformer.data.test_mesh_files import eft, write_eft


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Params:
    return parameters(tmp_path_factory.mktemp("params"))


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("task", TASKS)
def test_predictions_of_a_broken_network_are_refused(task: str, value: float, recipe: Params, tmp_path: Path) -> None:
    problem = recipe.sample.spec_of(task).build(
        generate(task, recipe, tmp_path), recipe.sample.evaluation_options_of(task)
    )
    model = problem.build_model().eval()
    data = problem.test_set()
    batch = collate([data.sample(0, None)])
    problem.predict(model, batch)
    last = [parameter for parameter in model.parameters() if parameter.ndim > 1][-1]
    with torch.no_grad():
        last.fill_(value)
    with pytest.raises(UserError, match=r"the network's [\w ]+ contain NaN or infinity"):
        problem.predict(model, batch)


def test_people_without_2d_keypoints_are_reported(tmp_path: Path) -> None:
    write_eft(tmp_path, eft(), eft(gt_keypoint_2d=None), eft(gt_keypoint_2d=None))
    source = Source(annotations="eft.json", images="images", key="options.mixture.0.sources.0", optional=True)
    (warning,) = OFFICIAL.take_inventory(tmp_path, [source]).warnings
    assert warning.startswith("eft.json: 2 of 3 people have no 2D keypoints: they are trained without")
    write_eft(tmp_path, eft())
    assert OFFICIAL.take_inventory(tmp_path, [source]).warnings == []
