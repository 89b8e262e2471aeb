"""Results of any program, measured against annotations of own keypoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from pipelines.prediction.score import score_keypoints
from stages.cli import cli
from tcformer.errors import UserError
from tests import own_points


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
