from typing import Any

import numpy as np
import pytest
import torch

from tcformer.data.crops import centre_and_extent, crop_matrix, transform_points
from tcformer.data.wholebody.keypoints import FLIP, PART_FIELDS, PARTS, SIGMAS
from tcformer.heatmaps import decode_heat_maps, flip_test, gaussian_heat_maps
from tcformer.metrics.oks import oks, oks_nms
from tcformer.metrics.wholebody_results import instance_score, keypoints_of, make_result, make_results

SIZE, MAP = (128, 96), (32, 24)


def loop_decode(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The published loop: argmax, quarter offset, -1 where nothing is above 0."""
    people, points, height, width = maps.shape
    where = np.full((people, points, 2), -1.0)
    best = maps.reshape(people, points, -1).max(-1)
    for n in range(people):
        for k in range(points):
            if best[n, k] <= 0:
                continue
            y, x = divmod(int(maps[n, k].argmax()), width)
            where[n, k] = x, y
            if 1 < x < width - 1 and 1 < y < height - 1:
                slope = [
                    maps[n, k, y, x + 1] - maps[n, k, y, x - 1],
                    maps[n, k, y + 1, x] - maps[n, k, y - 1, x],
                ]
                where[n, k] += np.sign(slope) * 0.25
    return where, best


def test_decoding_is_the_published_loop() -> None:
    maps = torch.randn(3, 50, 8, 6, generator=torch.Generator().manual_seed(0))
    maps[0, 0] = -1
    maps[0, 1] = 0
    points, scores = decode_heat_maps(maps)
    expected, best = loop_decode(maps.numpy())
    assert np.allclose(points, expected) and np.allclose(scores, best)
    assert points[0, :2].tolist() == [[-1, -1], [-1, -1]]


def test_a_point_is_recovered_within_half_a_heat_map_pixel() -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([[30.0, 40.0, 60.0, 90.0], [100.0, 20.0, 80.0, 50.0]])
    centre, extent = centre_and_extent(boxes, SIZE, 1.25)
    truth = boxes[:, None, :2] + rng.random((2, 133, 2)) * boxes[:, None, 2:]
    inside = np.stack([transform_points(t, crop_matrix(c, e, 0, SIZE)) for t, c, e in zip(truth, centre, extent)])
    maps, _ = gaussian_heat_maps(torch.from_numpy(inside), torch.ones(2, 133), SIZE, MAP, 2.0)
    points, scores = decode_heat_maps(maps)
    numbers = torch.tensor([4, 5])
    batch = {
        "centre": torch.from_numpy(centre),
        "extent": torch.from_numpy(extent),
        "score": torch.tensor([1.0, 0.5]),
        "image_id": numbers,
        "annotation_id": numbers + 5,
    }
    found = make_results(points, scores, MAP, batch, 0.2)
    pixel = extent[:, 0] / MAP[1]
    error = np.abs(np.stack([keypoints_of(r)[:, :2] for r in found]) - truth).max((1, 2))
    assert (error <= 0.5 * pixel + 1e-4).all()
    assert [r["score"] for r in found] == pytest.approx([1.0, 0.5])
    assert [(r["image_id"], r["annotation_id"], r["category_id"]) for r in found] == [(4, 9, 1), (5, 10, 1)]
    assert {f: len(found[0][f]) for f in PART_FIELDS.values()} == {
        PART_FIELDS[p]: 3 * (PARTS[p].stop - PARTS[p].start) for p in PARTS
    }
    assert "bbox" not in found[0]
    assert found[0]["scale"] == pytest.approx((extent[0] / 200).tolist())


def test_a_quarter_offset_halves_the_error() -> None:
    true = torch.tensor([10.3, 7.8])
    grid = torch.stack(torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="xy"), -1)
    maps = torch.exp(-(grid - true).square().sum(-1) / 8)[None, None]
    points, _ = decode_heat_maps(maps)
    assert points[0, 0].tolist() == [10.25, 7.75]


def test_flip_test_averages_with_the_mirrored_answer() -> None:
    """A network that answers with Gaussians at known points of the image or of its mirror image."""
    points = torch.rand(1, 133, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([80.0, 110.0]) + 8
    points = (points / 4).floor() * 4
    weights = torch.ones(1, 133)
    mirrored = torch.stack([95 - points[..., 0], points[..., 1]], -1)[:, FLIP.copy()]

    def network(images: torch.Tensor) -> torch.Tensor:
        plain = bool(images[0, 0, 0, 0] > 0)
        return gaussian_heat_maps(points if plain else mirrored, weights, SIZE, MAP, 2.0)[0]

    images = torch.zeros(1, 3, *SIZE)
    images[..., 0] = 1
    averaged, _ = decode_heat_maps(flip_test(network, images, FLIP))
    plain, _ = decode_heat_maps(network(images))
    assert (averaged - plain).abs().max() <= 0.5


def test_instance_score_counts_confident_points() -> None:
    scores = np.array([[0.1, 0.2, 0.3, 0.5], [0.1, 0.2, 0.0, -1.0]], np.float32)
    assert instance_score(scores, [0.5, 1.0], 0.25).tolist() == pytest.approx([0.2, 0.0])


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


def test_nms_drops_the_weaker_double_of_the_same_image_only() -> None:
    people = [
        person(0, 0.5),
        person(0.1, 0.9),
        person(0.1, 0.3, image_id=2),
        person(40, 0.1),
        person(0.05, 0.5),
    ]
    kept = oks_nms(people, 0.9)
    assert [people.index(p) for p in kept] == [1, 2, 3]
    assert oks_nms([], 0.9) == []


def test_nms_keeps_the_first_of_equals_and_does_not_chain() -> None:
    assert oks_nms([person(0, 0.5), person(0, 0.5)], 0.9)[0]["keypoints"][0] == person(0, 0.5)["keypoints"][0]
    # B doubles A and C doubles B, but C does not double A: B is dropped before it could count, so C stays.
    a, b, c = person(0, 0.9), person(0.6, 0.8), person(1.2, 0.7)
    between = [float(oks(keypoints_of(x)[None, :, :2], keypoints_of(y)[:, :2], [1e4])[0]) for x, y in ((a, b), (a, c))]
    threshold = sum(between) / 2
    assert [p["score"] for p in oks_nms([a, b, c], threshold)] == [0.9, 0.7]
