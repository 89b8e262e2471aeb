"""From heat maps to results in image pixels, and the scores of results."""

import numpy as np
import pytest
import torch

from tcformer.data.crops import centre_and_extent, crop_matrix, transform_points
from tcformer.data.wholebody.keypoints import PART_FIELDS, PARTS
from tcformer.heatmaps import make_codec
from tcformer.metrics.wholebody_results import instance_score, keypoints_of, make_results

SIZE = (128, 96)


def test_a_point_is_recovered_within_half_a_heat_map_pixel() -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([[30.0, 40.0, 60.0, 90.0], [100.0, 20.0, 80.0, 50.0]])
    centre, extent = centre_and_extent(boxes, input_size=SIZE, padding=1.25)
    truth = boxes[:, None, :2] + rng.random((2, 133, 2)) * boxes[:, None, 2:]
    inside = np.stack(
        [transform_points(t, crop_matrix(c, e, rotation=0, input_size=SIZE)) for t, c, e in zip(truth, centre, extent)]
    )
    codec = make_codec("mmpose", input_size=SIZE, sigma=2.0)
    points, scores = codec.decode(codec.encode(torch.from_numpy(inside), torch.ones(2, 133))[0])
    numbers = torch.tensor([4, 5])
    batch = {
        "centre": torch.from_numpy(centre),
        "extent": torch.from_numpy(extent),
        "score": torch.tensor([1.0, 0.5]),
        "image_id": numbers,
        "annotation_id": numbers + 5,
    }
    found = make_results(points, scores, input_size=SIZE, batch=batch, threshold=0.2)
    pixel = extent[:, 0] / (SIZE[1] / 4)
    error = np.abs(np.stack([keypoints_of(r)[:, :2] for r in found]) - truth).max((1, 2))
    assert (error <= 0.5 * pixel + 1e-4).all()
    assert [r["score"] for r in found] == pytest.approx([1.0, 0.5])
    assert [(r["image_id"], r["annotation_id"], r["category_id"]) for r in found] == [(4, 9, 1), (5, 10, 1)]
    assert {f: len(found[0][f]) for f in PART_FIELDS.values()} == {
        PART_FIELDS[p]: 3 * (PARTS[p].stop - PARTS[p].start) for p in PARTS
    }
    assert "bbox" not in found[0]
    assert found[0]["scale"] == pytest.approx((extent[0] / 200).tolist())


def test_instance_score_counts_confident_points() -> None:
    scores = np.array([[0.1, 0.2, 0.3, 0.5], [0.1, 0.2, 0.0, -1.0]], np.float32)
    assert instance_score(scores, box_score=[0.5, 1.0], threshold=0.25).tolist() == pytest.approx([0.2, 0.0])
