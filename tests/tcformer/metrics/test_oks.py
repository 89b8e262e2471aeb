"""Object keypoint similarity by hand, and non-maximum suppression."""

from typing import Any

import numpy as np
import pytest

from tcformer.data.wholebody.keypoints import SIGMAS
from tcformer.metrics.oks import oks, oks_nms
from tcformer.metrics.wholebody_results import keypoints_of, make_result


def person(shift: float, score: float, image_id: int = 1) -> dict[str, Any]:
    points = np.random.default_rng(0).uniform(0, 100, (133, 2)) + [shift, 0]
    triplets = np.concatenate([points, np.ones((133, 1))], 1)
    centre, extent = np.array([50.0, 50.0]), np.array([100.0, 100.0])
    return make_result(triplets, score, image_id=image_id, annotation_id=0, centre=centre, extent=extent)


def test_oks_of_a_shift_by_hand() -> None:
    truth = np.zeros((133, 2))
    value = oks(np.full((1, 133, 2), [3.0, 4.0]), truth, [10000.0])
    assert value[0] == pytest.approx(np.mean(np.exp(-25 / (2 * 10000 * (2 * SIGMAS) ** 2))))
    only_hip = np.arange(133) == 11
    value = oks(np.full((1, 133, 2), [3.0, 4.0]), truth, [10000.0], only_hip[None])
    assert value[0] == pytest.approx(np.exp(-25 / (2 * 10000 * (2 * 0.107) ** 2)))


def test_nms_drops_the_weaker_duplicate_of_the_same_image_only() -> None:
    people = [
        person(0, 0.5),
        person(0.1, 0.9),
        person(0.1, 0.3, image_id=2),
        person(40, 0.1),
        person(0.05, 0.5),
    ]
    kept = oks_nms(people, threshold=0.9)
    assert [people.index(p) for p in kept] == [1, 2, 3]
    assert oks_nms([], threshold=0.9) == []


def test_nms_keeps_the_first_of_equals_and_does_not_chain() -> None:
    assert oks_nms([person(0, 0.5), person(0, 0.5)], threshold=0.9)[0]["keypoints"][0] == person(0, 0.5)["keypoints"][0]
    # B is a duplicate of A, and C of B, but C is not one of A. B is dropped first, so C stays.
    a, b, c = person(0, 0.9), person(0.6, 0.8), person(1.2, 0.7)
    between = [float(oks(keypoints_of(x)[None, :, :2], keypoints_of(y)[:, :2], [1e4])[0]) for x, y in ((a, b), (a, c))]
    threshold = sum(between) / 2
    assert [p["score"] for p in oks_nms([a, b, c], threshold=threshold)] == [0.9, 0.7]
