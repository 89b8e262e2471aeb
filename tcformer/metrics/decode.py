"""From heat maps to results in the COCO-WholeBody result format, as mmpose 0.x does it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tcformer.data.crops import to_image
from tcformer.data.keypoints import FLIP, NUM_KEYPOINTS, PART_FIELDS, PARTS, SIGMAS


def decode_heat_maps(heat_maps: Tensor) -> tuple[Tensor, Tensor]:
    """Positions and scores of the maxima.

    The position is the largest pixel's (the first one in a tie), moved by a quarter pixel along each axis
    towards the larger neighbour unless the pixel lies in the first two or the last row or column (mmpose's
    "default"). Where no value is above 0 it is (-1, -1).

    Args:
        heat_maps: (B, K, H, W).

    Returns:
        Positions (B, K, 2) float32 x, y in heat-map pixels, and the values there (B, K) float32.
    """
    maps = heat_maps.float()
    height, width = maps.shape[-2:]
    flat = maps.flatten(2)
    scores, index = flat.max(-1)  # (B, K)
    x, y = index % width, index // width

    inner = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)

    def slope(step: int) -> Tensor:
        before, after = (flat.gather(2, torch.where(inner, index + d, 0).unsqueeze(-1)) for d in (-step, step))
        return torch.sign(after - before).squeeze(-1)

    offset = 0.25 * torch.stack([slope(1), slope(width)], -1)
    points = torch.stack([x, y], -1) + offset
    return torch.where(scores.unsqueeze(-1) > 0, points, -1.0), scores


def flip_test(model: Callable[[Tensor], Tensor], images: Tensor, flip: NDArray[np.int64] = FLIP) -> Tensor:
    """Mean of the heat maps of images and of their mirror images.

    The mirrored maps are moved right by one pixel, because mirroring an image about its middle moves the grid
    of a map of lower resolution against it.

    Args:
        model: images (B, 3, H, W) -> heat maps (B, K, H / 4, W / 4).
        flip: (K,) which point of a mirrored image is which of the original.
    """
    maps = model(images).float()
    mirrored = model(images.flip(-1)).float()[:, torch.tensor(flip, device=images.device)].flip(-1)
    mirrored = torch.cat([mirrored[..., :1], mirrored[..., :-1]], -1)
    return 0.5 * (maps + mirrored)


def instance_score(scores: NDArray, box_score: ArrayLike, threshold: float) -> NDArray[np.float64]:
    """Box score x mean of the point scores above the threshold (0 if there is none).

    Args:
        scores: (B, K) scores of the points.
        box_score: (B,).
    """
    counted = scores > threshold
    mean = np.where(counted, scores, 0).sum(-1, dtype=np.float64) / np.maximum(counted.sum(-1), 1)
    return mean * np.asarray(box_score, np.float64)


def results(
    positions: Tensor,
    scores: Tensor,
    map_size: tuple[int, int],
    batch: Mapping[str, Tensor],
    threshold: float,
    predicted: NDArray[np.int64] | None = None,
) -> list[dict[str, Any]]:
    """Result records of a batch of decoded crops.

    A record has the fields of an official result (image_id, category_id, the five lists of x, y, score
    triplets in image pixels, score) and as mmpose writes them center and scale (the crop, in pixels and in
    200 pixels). It has no bbox, since pycocotools would then take its area instead of that of the body
    points. annotation_id is the ground-truth person whose box was used, 0 for a detection.

    Args:
        positions: (B, K, 2) x, y in heat-map pixels.
        scores: (B, K).
        map_size: (H, W) of the heat maps.
        batch: the samples: centre, extent, score, image_id, annotation_id.
        threshold: point scores above it count for the instance score.
        predicted: (K,) which of the 133 points these are; all if None. The others are (0, 0) with score 0.
    """
    centre, extent = (batch[key].cpu().numpy().astype(np.float64) for key in ("centre", "extent"))
    points = to_image(positions.cpu().numpy(), centre, extent, map_size)
    values = scores.cpu().numpy()
    totals = instance_score(values, batch["score"].cpu().numpy(), threshold)
    triplets = np.zeros((len(points), NUM_KEYPOINTS, 3))
    triplets[:, slice(None) if predicted is None else predicted] = np.concatenate([points, values[..., None]], -1)
    return [
        record(
            triplets[i],
            float(totals[i]),
            image_id=int(batch["image_id"][i]),
            annotation_id=int(batch["annotation_id"][i]),
            centre=centre[i],
            extent=extent[i],
        )
        for i in range(len(triplets))
    ]


def record(
    triplets: NDArray,
    score: float,
    *,
    image_id: int,
    annotation_id: int,
    centre: NDArray,
    extent: NDArray,
) -> dict[str, Any]:
    """One result record (see `results`) from (133, 3) x, y, score in image pixels."""
    return {
        "image_id": image_id,
        "category_id": 1,
        "annotation_id": annotation_id,
        **{PART_FIELDS[part]: triplets[PARTS[part]].ravel().tolist() for part in PARTS},
        "score": score,
        "center": centre.tolist(),
        "scale": (extent / 200).tolist(),
    }


def keypoints_of(record: Mapping[str, Any]) -> NDArray[np.float64]:
    """The (133, 3) triplets of a result record or an annotation."""
    return np.concatenate([record[PART_FIELDS[part]] for part in PARTS], dtype=np.float64).reshape(NUM_KEYPOINTS, 3)


def oks_nms(
    records: list[dict[str, Any]], threshold: float, predicted: NDArray[np.int64] | None = None
) -> list[dict[str, Any]]:
    """Drop, image by image, a result too similar to one of higher score.

    The similarity is the OKS over all predicted points whatever their scores, with the mean of the two crops' areas
    as the area. Equal scores keep their order.

    Args:
        records: results of any number of images, in any order.
        threshold: results of an OKS above it are taken for the same person.
        predicted: (K,) which of the 133 points are predicted; all if None.

    Returns:
        The records kept, in their order.
    """
    compared = np.zeros(NUM_KEYPOINTS, bool)
    compared[slice(None) if predicted is None else predicted] = True
    by_image: dict[int, list[int]] = defaultdict(list)
    for index, item in enumerate(records):
        by_image[item["image_id"]].append(index)
    kept: list[int] = []
    for members in by_image.values():
        order = sorted(members, key=lambda index: -records[index]["score"])
        points = np.stack([keypoints_of(records[index])[:, :2] for index in order])
        area = np.array([np.prod(np.multiply(records[index]["scale"], 200.0)) for index in order])
        alive = np.ones(len(order), bool)
        for i, index in enumerate(order):
            if alive[i]:
                kept.append(index)
                rest = np.flatnonzero(alive[i + 1 :]) + i + 1
                similarity = oks(points[rest], points[i], 0.5 * (area[rest] + area[i]), compared[None])
                alive[rest[similarity > threshold]] = False
    return [records[index] for index in sorted(kept)]


def oks(
    points: NDArray, reference: NDArray, area: ArrayLike, labelled: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Object keypoint similarity over the 133 points: mean of exp(-d² / (2 area (2 sigma)²)).

    Args:
        points: (N, 133, 2) pixels.
        reference: (133, 2) or (N, 133, 2) pixels.
        area: (N,) pixels².
        labelled: (N, 133) points to take into account; all by default. At least one a row.

    Returns:
        (N,) in [0, 1].
    """
    squared = np.square(np.asarray(points, np.float64) - reference).sum(-1)  # (N, 133)
    spread = 2 * np.square(2 * SIGMAS) * (np.asarray(area, np.float64)[:, None] + np.spacing(1))
    similarity = np.exp(-squared / spread)
    if labelled is None:
        return similarity.mean(-1)
    return (similarity * labelled).sum(-1) / labelled.sum(-1)
