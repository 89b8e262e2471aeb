import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tcformer.data.wholebody.dataset import annotated_crops, load_people
from tcformer.data.wholebody.keypoints import PART_FIELDS
from tcformer.errors import UserError
from tcformer.metrics import evaluate_wholebody, mean_pose, mean_pose_results, wholebody_oks
from tcformer.metrics.wholebody import STATS


@pytest.fixture
def ground_truth(samples: Path) -> Path:
    return samples / "coco_wholebody/annotations/coco_wholebody_val_v1.0.json"


@pytest.fixture
def results(samples: Path) -> Path:
    return samples / "coco_wholebody/results/example_pred.json"


@pytest.fixture
def golden(samples: Path) -> dict[str, Any]:
    """The official code's figures of `results`."""
    return json.loads((samples / "coco_wholebody/golden_metrics.json").read_text())["with_part_scores"]


@pytest.fixture
def truth(ground_truth: Path) -> dict[str, Any]:
    return json.loads(ground_truth.read_text())


def as_results(truth: dict[str, Any]) -> list[dict[str, Any]]:
    fields = ("image_id", "category_id", *PART_FIELDS.values())
    return [{**{f: a[f] for f in fields}, "score": 1.0, "annotation_id": a["id"]} for a in truth["annotations"]]


def test_official_example_gives_the_official_figures(
    truth: dict[str, Any], ground_truth: Path, results: Path, golden: dict[str, Any]
) -> None:
    names = ("AP", "AP .5", "AP .75", "AP (M)", "AP (L)", "AR", "AR .5", "AR .75", "AR (M)", "AR (L)")
    expected = {part: {s: golden[part][n] for s, n in zip(STATS, names)} for part in golden}
    for gt, found in ((ground_truth, results), (truth, json.loads(results.read_text()))):
        measured = evaluate_wholebody(gt, found)
        assert list(measured) == [*expected, "hand"]
        for part in expected:
            assert measured[part] == pytest.approx(expected[part], abs=1e-9)


def test_the_published_hand_figure_is_the_mean_of_both_hands(
    truth: dict[str, Any], ground_truth: Path, results: Path, golden: dict[str, Any]
) -> None:
    measured = evaluate_wholebody(ground_truth, results)["hand"]
    for name, official in (("AP", "AP"), ("AR75", "AR .75")):
        expected = (golden["lefthand"][official] + golden["righthand"][official]) / 2
        assert measured[name] == pytest.approx(expected, abs=1e-9)
    for annotation in truth["annotations"]:  # no left hand is annotated: there is no mean of both
        annotation["lefthand_kpts"] = [0] * 63
    measured_parts = evaluate_wholebody(truth, results)
    assert measured_parts["righthand"]["AP"] is not None and measured_parts["hand"]["AP"] is None


def test_ground_truth_as_predictions_is_perfect(truth: dict[str, Any]) -> None:
    measured = evaluate_wholebody(truth, as_results(truth))
    assert {value for part in measured.values() for value in part.values()} == {1.0}
    assert wholebody_oks(truth, as_results(truth)) == pytest.approx(1.0)


def test_a_bbox_in_the_results_changes_nothing(ground_truth: Path, results: Path) -> None:
    found = json.loads(results.read_text())
    with_boxes = [{**r, "bbox": [0.0, 0.0, 1.0, 1.0]} for r in found]
    assert evaluate_wholebody(ground_truth, with_boxes) == evaluate_wholebody(ground_truth, found)


def test_the_plain_score_stands_in_for_a_part_score(ground_truth: Path, results: Path) -> None:
    found = json.loads(results.read_text())
    plain = [{k: v for k, v in r.items() if not k.endswith("_score")} for r in found]
    same = [{**r, "face_score": r["score"]} for r in plain]
    assert evaluate_wholebody(ground_truth, plain) == evaluate_wholebody(ground_truth, same)
    assert evaluate_wholebody(ground_truth, plain)["face"] != evaluate_wholebody(ground_truth, found)["face"]


def test_parts_without_labels_are_none_and_crowds_ignored(truth: dict[str, Any]) -> None:
    for annotation in truth["annotations"]:
        annotation["foot_kpts"] = [0] * 18
    assert set(evaluate_wholebody(truth, as_results(truth))["foot"].values()) == {None}
    for annotation in truth["annotations"]:
        annotation["iscrowd"] = 1
    measured = evaluate_wholebody(truth, as_results(truth))
    assert {value for part in measured.values() for value in part.values()} == {None}
    assert wholebody_oks(truth, as_results(truth)) is None


def test_no_results_score_zero(truth: dict[str, Any]) -> None:
    measured = evaluate_wholebody(truth, [])
    assert measured["body"]["AP"] == 0 and measured["wholebody"]["AR"] == 0


def test_a_hand_without_confidence_is_no_detection(truth: dict[str, Any]) -> None:
    found = as_results(truth)
    for item in found:
        item["lefthand_kpts"] = [0.0 if i % 3 == 2 else v for i, v in enumerate(item["lefthand_kpts"])]
    measured = evaluate_wholebody(truth, found)
    assert measured["lefthand"]["AP"] == 0 and measured["righthand"]["AP"] == 1 and measured["wholebody"]["AP"] == 1


def test_inputs_are_left_alone(truth: dict[str, Any]) -> None:
    found = as_results(truth)
    before = deepcopy((truth, found))
    evaluate_wholebody(truth, found)
    assert (truth, found) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"face_kpts": [0.0] * 3}, "record 0 .* field 'face_kpts': expected 204 numbers .* found 3"),
        ({"image_id": 5}, "image_id 5 is not among the annotated images"),
        ({"score": float("nan")}, "record 0 .* expected finite numbers"),
    ],
)
def test_a_bad_result_is_named(truth: dict[str, Any], change: dict[str, Any], message: str) -> None:
    found = as_results(truth)
    found[0].update(change)
    with pytest.raises(UserError, match=message):
        evaluate_wholebody(truth, found)


def test_a_missing_field_or_file_is_named(truth: dict[str, Any], tmp_path: Path) -> None:
    found = as_results(truth)
    del found[0]["foot_kpts"]
    with pytest.raises(UserError, match=r"record 0 .* has no 'foot_kpts'"):
        evaluate_wholebody(truth, found)
    with pytest.raises(UserError, match=r"gone\.json: no such file; give the path of a result file"):
        evaluate_wholebody(truth, tmp_path / "gone.json")


def test_oks_counts_persons_without_prediction(truth: dict[str, Any]) -> None:
    found = as_results(truth)
    labelled = [a["id"] for a in truth["annotations"] if a["num_keypoints"]]
    kept = [r for r in found if r["annotation_id"] != labelled[0]]
    assert wholebody_oks(truth, kept) == pytest.approx(1 - 1 / len(labelled))
    with pytest.raises(UserError, match="no record has an annotation_id"):
        wholebody_oks(truth, [{**r, "annotation_id": 0} for r in found])


def test_mean_pose_of_one_person_is_that_person(truth: dict[str, Any]) -> None:
    truth["annotations"] = truth["annotations"][:1]
    people = load_people(truth)
    crops = annotated_crops(people)
    pose = mean_pose(people)
    found = mean_pose_results(pose, crops)
    assert wholebody_oks(people, found) == pytest.approx(1.0, abs=1e-6)
    never = people.keypoints[0, :, 2] == 0
    assert never.any() and (pose[never] == 0.5).all()


def test_mean_pose_is_a_weak_baseline(ground_truth: Path) -> None:
    people = load_people(ground_truth)
    found = mean_pose_results(mean_pose(people), annotated_crops(people))
    assert len(found) == 24
    value = wholebody_oks(people, found)
    assert value is not None and 0.02 < value < 0.5
    measured = evaluate_wholebody(people, found)["body"]["AP"]
    assert measured is not None and np.isfinite(measured) and measured < 0.2
