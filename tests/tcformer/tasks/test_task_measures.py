"""Errors of each keypoint and regions of people, on generated data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.params import Params
from tcformer.body.camera import project
from tcformer.data.wholebody.dataset import annotation_file, load_people
from tcformer.data.wholebody.keypoints import PART_FIELDS, PARTS
from tcformer.metrics.points import Skipped
from tcformer.metrics.wholebody_results import make_result
from tcformer.tasks import TASKS, Task
from tcformer.tasks.mesh.measures import fit_camera
from tests.small import generate, parameters


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Params, Path]:
    folder = tmp_path_factory.mktemp("data")
    params = parameters(folder)
    for task in ("wholebody", "face", "mesh"):
        generate(task, params, folder)
    return params, folder


def built(name: str, data: tuple[Params, Path]) -> Task:
    params, root = data
    return params.sample.spec_of(name).build(root / name, params.sample.evaluation_options_of(name))


def shifted_people(task: Any, shift: np.ndarray) -> list[dict[str, Any]]:
    people = load_people(annotation_file(task.root, "val"))
    shown = np.where(people.keypoints[..., 2:] > 0, people.keypoints + [*shift, 0], 1e4)
    return [
        make_result(
            shown[i], 1.0, image_id=int(people.image_id[i]), annotation_id=int(people.annotation_id[i]),
            centre=np.zeros(2), extent=np.ones(2),
        )
        for i in range(len(people))
    ]  # fmt: skip


def test_whole_body_points_are_measured_where_they_are_annotated(data: tuple[Params, Path]) -> None:
    task: Any = built("wholebody", data)
    path = annotation_file(task.root, "val")
    original = path.read_text()
    content = json.loads(original)
    for annotation in content["annotations"]:
        annotation["keypoints"][2] = 0  # no nose
    content["annotations"][0]["keypoints"][17] = 0  # no left shoulder in one person
    path.write_text(json.dumps(content))
    try:
        found = TASKS["wholebody"].keypoints(task, shifted_people(task, np.array([3.0, -4.0])))
    finally:
        path.write_text(original)
    assert not isinstance(found, Skipped)
    table = found["val"]
    visible = np.array(
        [np.concatenate([a[field][2::3] for field in PART_FIELDS.values()]) for a in content["annotations"]]
    )
    assert table.count.tolist() == (visible > 0).sum(0).tolist()
    measured = table.count > 0
    assert 0 < measured.sum() < 133 and not measured[0]
    assert table.measures["EPE"][measured].tolist() == pytest.approx([5.0] * measured.sum())
    k = int(measured.argmax())
    sides = [max(a["bbox"][2:]) for a, seen in zip(content["annotations"], visible[:, k] > 0, strict=True) if seen]
    assert table.measures["NME"][k] == pytest.approx(np.mean([5 / side for side in sides]))
    assert [list(table.parts).count(part) for part in PARTS] == [17, 6, 68, 21, 21]


def test_detections_and_subsets(data: tuple[Params, Path]) -> None:
    params, root = data
    spec, evaluation = params.sample.spec_of("wholebody"), params.sample.evaluation_options_of("wholebody")
    detected = spec.build(root / "wholebody", replace(evaluation, boxes="detections"))
    assert isinstance(TASKS["wholebody"].keypoints(detected, []), Skipped)
    hands: Any = replace(spec, options=replace(spec.options, keypoints="hand")).build(root / "wholebody", evaluation)
    found = TASKS["wholebody"].keypoints(hands, shifted_people(hands, np.zeros(2)))
    assert not isinstance(found, Skipped)
    assert len(found["val"].names) == 42 and set(found["val"].parts) == {"lefthand", "righthand"}


@pytest.mark.parametrize("name", ["wholebody", "face", "mesh"])
def test_points_of_a_person_lie_in_its_region(name: str, data: tuple[Params, Path]) -> None:
    task = built(name, data)
    sample = task.val_set().sample(0, None)
    region = TASKS[name].region(task, sample)
    assert region is not None and region.mask is not None
    height, width = sample["image"].shape[1:]
    assert region.mask.shape == (height, width) and 0.03 < region.mask.mean() < 0.7
    column, row = np.floor(region.points[region.labelled] + 0.5).astype(int).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    assert inside.mean() > 0.9
    grown = region.mask.copy()
    for axis in (0, 1):
        grown |= np.roll(grown, 1, axis) | np.roll(grown, -1, axis)
    assert grown[row[inside], column[inside]].mean() > 0.8
    pairs = np.concatenate(list(region.twins.values()))
    assert len(np.unique(pairs)) == pairs.size and region.labelled[pairs].all(1).any()


def test_twins_of_a_front_view_lie_left_and_right(data: tuple[Params, Path]) -> None:
    """The person's left eye is at the image's right."""
    task = built("face", data)
    region = TASKS["face"].region(task, task.val_set().sample(0, None))
    assert region is not None
    right, left = region.twins["eyes"].T
    assert (region.points[left, 0] > region.points[right, 0]).all()


def test_a_camera_is_found_again() -> None:
    rng = np.random.default_rng(0)
    joints = rng.normal(size=(20, 3)) * [0.3, 0.5, 0.2]
    camera = torch.tensor([[0.8, 0.15, -0.1]], dtype=torch.float64)
    points = project(torch.tensor(joints)[None], camera)[0].numpy()
    assert fit_camera(joints, points) == pytest.approx(camera[0].numpy(), abs=1e-6)


def test_a_person_without_a_body_or_points_has_no_mask(data: tuple[Params, Path]) -> None:
    task = built("mesh", data)
    sample = task.val_set().sample(0, None)
    unknown = {**sample, "has_smpl": 0.0}
    few = {**sample, "keypoints": sample["keypoints"] * (np.arange(49) < 3)[:, None]}
    for case in (unknown, few):
        region = TASKS["mesh"].region(task, case)
        assert region is not None and region.mask is None
