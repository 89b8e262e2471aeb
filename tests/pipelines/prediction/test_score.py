"""Results of any program, measured against annotations of own keypoints and of Human3.6M."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

from pipelines.prediction.score import score_keypoints, score_mesh
from stages.cli import cli
from tcformer.data.mesh.files import load_bodies
from tcformer.errors import UserError
from tcformer.metrics.mesh import H36M_TO_J14, human36m_truth
from tcformer.tasks.mesh.task import true_joints
from tests import own_points, small


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    path = tmp_path / "val.json"
    path.write_text(json.dumps(own_points.content()))
    return path


def perfect(**changes: Any) -> list[dict[str, Any]]:
    """The annotations as results."""
    objects = [found for found in own_points.content()["annotations"] if found["category_id"] == 3]
    return [
        {
            "image_id": found["image_id"],
            "category_id": 3,
            "annotation_id": found["id"],
            "keypoints": found["keypoints"],
            "score": 0.9,
            **changes,
        }
        for found in objects
    ]


def written(folder: Path, content: object) -> Path:
    path = folder / "results.json"
    path.write_text(json.dumps(content))
    return path


def test_perfect_results(annotations: Path, tmp_path: Path) -> None:
    results = written(tmp_path, perfect())
    options = ["score", "keypoints", str(results), "--annotations", str(annotations)]
    printed = CliRunner().invoke(cli, [*options, "--json"], standalone_mode=False).output
    measures = json.loads(printed)
    assert measures["all"]["AP"] == 1 and measures["all"]["AR"] == 1 and measures["oks"] == 1
    assert measures["points"]["parts"]["all"]["NME"] == 0
    printed = CliRunner().invoke(cli, options, standalone_mode=False).output
    assert "| all points | 1.000 |" in printed and "mean OKS" in printed and "none" in printed, "APL: no large object"


def test_results_of_other_boxes_get_average_precision_alone(annotations: Path, tmp_path: Path) -> None:
    """Those without an annotation_id, or with one that is not that of their image."""
    for changes in ({"annotation_id": None}, {"annotation_id": 0}, {"annotation_id": 77}):
        measures, _ = score_keypoints(written(tmp_path, perfect(**changes)), annotations)
        assert measures["all"]["AP"] == 1 and set(measures) == {"all"}


def test_results_are_chosen_by_category(annotations: Path, tmp_path: Path) -> None:
    dogs = perfect(category_id=1, keypoints=[0.0] * 6, annotation_id=99)
    measures, _ = score_keypoints(written(tmp_path, perfect() + dogs), annotations, "cat")
    assert measures["oks"] == 1
    measures, _ = score_keypoints(written(tmp_path, perfect(category_id=1)), annotations)  # as `predict` writes them
    assert measures["oks"] == 1
    with pytest.raises(UserError, match=r"category_ids 1, 2: expected 3, that of 'cat'"):
        score_keypoints(written(tmp_path, perfect(category_id=1) + perfect(category_id=2)), annotations)


def test_missing_and_wrong_results_lower_the_measures(annotations: Path, tmp_path: Path) -> None:
    measures, _ = score_keypoints(written(tmp_path, perfect()[:3]), annotations)
    assert measures["oks"] == 0.75
    measures, _ = score_keypoints(written(tmp_path, []), annotations)
    assert measures["all"]["AP"] == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a list of results, found None"),
        ([None], r"result 0 \(counted from 0\): expected an object, found None"),
        (perfect(keypoints=None), r"field 'keypoints': expected 15 finite numbers .*, found None"),
        (perfect(keypoints=[1.0] * 51), "found 51 numbers"),
        (perfect(keypoints=[float("nan")] * 15), "finite"),
        (perfect(score=None), "field 'score': expected a number, found None"),
        (perfect(image_id=9), "field 'image_id': expected the id of an annotated image, found 9"),
        (perfect(category_id=[3]), "field 'category_id'"),
    ],
)
def test_wrong_files_give_one_sentence(annotations: Path, tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        score_keypoints(written(tmp_path, content), annotations)
    assert "\n" not in str(error.value)


def test_options_of_keypoints_are_refused_for_other_results(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        cli, ["score", "face", "a.json", "--annotations", "b", "--category", "cat"], standalone_mode=False
    )
    assert isinstance(done.exception, click.UsageError)


@pytest.fixture
def human36m(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """SPIN's file of three people, and the 17 joints of perfect results."""
    joints = np.ones((3, 24, 4))
    joints[..., :3] = np.random.default_rng(0).integers(-64, 64, (3, 24, 3)) / 64  # exact in float32
    path = tmp_path / "h36m.npz"
    names = np.array(["a.jpg", "b.jpg", "c.jpg"])
    np.savez(path, imgname=names, center=np.full((3, 2), 50.0), scale=np.ones(3), S=joints)
    perfect = np.zeros((3, 17, 3))
    perfect[:, H36M_TO_J14] = human36m_truth(joints)
    return path, perfect


def test_joints_of_bodies(human36m: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    annotations, perfect = human36m
    moved = [{"index": index, "joints": (perfect[index] + 5).tolist()} for index in (2, 0, 1)]
    options = ["score", "mesh", str(written(tmp_path, moved)), "--annotations", str(annotations)]
    assert "| people | MPJPE | PA-MPJPE |" in CliRunner().invoke(cli, options, standalone_mode=False).output
    measures = json.loads(CliRunner().invoke(cli, [*options, "--json"], standalone_mode=False).output)
    assert measures["mpjpe"] == 0 and measures["pa_mpjpe"] < 1e-9 and measures["count"] == 3
    larger = [{"index": row, "joints": (1.1 * perfect[row, H36M_TO_J14]).tolist()} for row in range(3)]
    measures, _ = score_mesh(written(tmp_path, larger), annotations)
    expected = 100 * np.linalg.norm(perfect[:, H36M_TO_J14], axis=-1).mean()
    assert measures["mpjpe"] == pytest.approx(expected, rel=1e-5) and measures["pa_mpjpe"] < 1e-3


def test_wrong_joints_give_one_sentence(human36m: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    annotations, perfect = human36m
    first = {"index": 0, "joints": perfect[0].tolist()}
    for content, message in [
        (None, "record 0"),
        ([{"index": 0, "joints": None}], "record 0"),
        ([{"index": 0, "joints": np.zeros((49, 3)).tolist()}], "17 joints of Human3.6M"),
        ([{"index": None, "joints": first["joints"]}], "record 0"),
        ([first, first], "record 1 .* each index once"),
        ([first], "2 of the 3 people .* the first is person 1"),
    ]:
        with pytest.raises(UserError, match=message) as error:
            score_mesh(written(tmp_path, content), annotations)
        assert "\n" not in str(error.value)
    np.savez(tmp_path / "2d.npz", imgname=np.array(["a.jpg"]), center=np.full((1, 2), 50.0), scale=np.ones(1))
    with pytest.raises(UserError, match="expected 3D joints"):
        score_mesh(written(tmp_path, [first]), tmp_path / "2d.npz")


@pytest.mark.slow
def test_bodies_of_3dpw(tmp_path: Path) -> None:
    """The annotated poses as results: only the neutral body differs from that of the person's gender."""
    root = small.generate("mesh", small.parameters(tmp_path), tmp_path)
    annotations, body = root / "3DPW/sequenceFiles/test", root / "body"
    bodies = load_bodies(annotations)
    records = [
        {"index": row, "pose": bodies.pose[row].tolist(), "shape": bodies.shape[row].tolist()}
        for row in range(len(bodies))
    ]
    options = ["score", "mesh", str(written(tmp_path, records)), "--annotations", str(annotations), "--json"]
    done = CliRunner().invoke(cli, [*options, "--body", str(body)], standalone_mode=False)
    measures = json.loads(done.output)
    assert measures["count"] == len(bodies) and 0 <= measures["mpjpe"] < 40
    true = true_joints(bodies, "3dpw", body, annotations)
    perfect = [{"index": row, "joints": true[row].tolist()} for row in range(len(bodies))]
    assert score_mesh(written(tmp_path, perfect), annotations, body)[0]["mpjpe"] < 1e-6
    turned = [{**record, "pose": [np.pi, 0.0, 0.0, *record["pose"][3:]]} for record in records]
    assert score_mesh(written(tmp_path, turned), annotations, body)[0]["mpjpe"] > 50
    with pytest.raises(UserError, match="and --body with the folder of the body models"):
        score_mesh(written(tmp_path, records), annotations)
    with pytest.raises(UserError, match="no SMPL_"):
        score_mesh(written(tmp_path, records), annotations, tmp_path)


def test_the_body_is_refused_for_other_results(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        cli, ["score", "classes", "a.json", "--annotations", "b", "--body", "c"], standalone_mode=False
    )
    assert isinstance(done.exception, click.UsageError)
