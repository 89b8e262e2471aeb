"""Errors of keypoints against a loop, with points that are not annotated, and their means by part."""

import json
import math

import numpy as np
import pytest

from tcformer.metrics.points import PointTable, Skipped, image_point_table

NAMES, PARTS = ("a", "b", "c", "d"), ("arm", "arm", "leg", "leg")


def table(pred: np.ndarray, gt: np.ndarray, labelled: np.ndarray, reference: np.ndarray) -> PointTable:
    return image_point_table(
        pred, gt, labelled, reference, names=NAMES, parts=PARTS, reference_name="the longer side of the box"
    )


def random_case(people: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(people)
    gt = rng.uniform(0, 100, (people, 4, 2))
    labelled = rng.random((people, 4)) < 0.6
    labelled[:, 3] = False  # annotated nowhere
    gt[~labelled] = 1e6  # must not count
    return gt + rng.normal(0, 6, gt.shape), gt, labelled, rng.uniform(40, 120, people)


def test_measures_equal_those_of_a_loop() -> None:
    pred, gt, labelled, reference = random_case(50)
    found = table(pred, gt, labelled, reference)
    of_part: dict[str, list[tuple[float, float]]] = {"all": [], "arm": [], "leg": []}
    for k in range(4):
        errors = []
        for n in range(50):
            if labelled[n, k]:
                distance = math.dist(pred[n, k], gt[n, k])
                errors.append((distance, distance / reference[n]))
        of_part["all"] += errors
        of_part[PARTS[k]] += errors
        assert found.count[k] == len(errors)
        if not errors:
            assert all(np.isnan(values[k]) for values in found.measures.values())
            continue
        assert found.measures["EPE"][k] == pytest.approx(sum(e for e, _ in errors) / len(errors))
        assert found.measures["NME"][k] == pytest.approx(sum(r for _, r in errors) / len(errors))
        for name, threshold in (("PCK5", 0.05), ("PCK10", 0.1)):
            share = sum(r < threshold for _, r in errors) / len(errors)
            assert 0 < share < 1 and found.measures[name][k] == pytest.approx(share)
    means = found.by_part()
    assert set(means) == set(of_part)
    for part, errors in of_part.items():
        assert means[part]["EPE"] == pytest.approx(sum(e for e, _ in errors) / len(errors))
        assert means[part]["PCK10"] == pytest.approx(sum(r < 0.1 for _, r in errors) / len(errors))


def test_a_case_computed_by_hand() -> None:
    """Errors 5, 0 and 12 pixels of boxes of 100: 5 is not below 5 %."""
    gt = np.zeros((1, 4, 2))
    pred = np.array([[[3.0, 4.0], [0, 0], [0, 12], [9, 9]]])
    found = table(pred, gt, np.array([[True, True, True, False]]), np.array([100.0]))
    assert found.measures["EPE"][:3].tolist() == [5, 0, 12]
    assert found.measures["PCK5"][:3].tolist() == [0, 1, 0] and found.measures["PCK10"][:3].tolist() == [1, 1, 0]
    assert found.by_part()["arm"] == {"NME": 0.025, "EPE": 2.5, "PCK5": 0.5, "PCK10": 1.0}


def test_without_an_annotated_point_there_are_nulls() -> None:
    pred, gt, labelled, reference = random_case(3)
    nobody = table(pred[:0], gt[:0], labelled[:0], reference[:0])
    for found in (nobody, table(pred, gt, np.zeros_like(labelled), reference)):
        content = json.loads(json.dumps(found.to_json(), allow_nan=False))
        assert content["parts"]["arm"] == {"NME": None, "EPE": None, "PCK5": None, "PCK10": None}
        first = content["keypoints"][0]
        assert first == {"name": "a", "part": "arm", "count": 0, "NME": None, "EPE": None, "PCK5": None, "PCK10": None}


def test_the_file_names_measures_and_keypoints() -> None:
    content = table(*random_case(20)).to_json()
    assert content["measures"]["PCK5"] == "fraction of points with an error below 0.05 of the longer side of the box"
    assert [keypoint["name"] for keypoint in content["keypoints"]] == list(NAMES)
    assert content["keypoints"][3]["NME"] is None and content["keypoints"][0]["NME"] > 0
    assert Skipped("why").to_json() == {"skipped": "why"}


def test_wrong_arguments_are_errors() -> None:
    pred, gt, labelled, reference = random_case(5)
    with pytest.raises(ValueError, match="expected \\(N, K, 2\\)"):
        table(pred[:4], gt, labelled, reference)
    with pytest.raises(ValueError, match="reference length is 0"):
        table(pred, gt, labelled, reference * [1, 1, 0, 1, 1])
    with pytest.raises(ValueError, match="expected one length"):
        PointTable(NAMES, PARTS[:3], np.zeros(4, np.int64), {}, {})
