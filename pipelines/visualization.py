"""What a trained network sees: the tokens of its stages and what it predicts, for samples of the test set."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.params import Drawing
from pipelines.tasks import build_task
from tcformer.draw import Example, Partition


def draw_examples(
    task: str, weights: Path, options: dict[str, Any], data_root: Path, drawing: Drawing, out: Path
) -> dict[str, Any]:
    """Draw tokens and predictions for persons evenly spread over the validation set, into ``out``.

    Returns:
        Mean number of grid cells a token of each stage covers on the persons and around them.
    """
    import torch

    from tcformer import draw
    from tcformer.models import load_model

    problem: Any = build_task(task, options, data_root)
    show = {"wholebody": _show_points, "face": _show_points, "mesh": _show_body}[task]
    data = problem.val_set()
    model = load_model(weights).eval()
    indices = np.linspace(0, len(data) - 1, min(drawing.persons, len(data))).astype(int)
    examples, density = [], []
    with torch.inference_mode():
        for index in indices.tolist():
            sample = data.sample(index, None)
            images = torch.from_numpy(sample["image"])[None]
            partitions = [_partition(stage, images) for stage in model.backbone(images)]
            example, mask = show(problem, sample, model(images), partitions, drawing.scale)
            examples.append(example)
            if mask.any() and not mask.all():
                density.append([draw.cells_per_token(p.token_of_cell, p.grid_size, mask) for p in partitions])
    out.mkdir(parents=True, exist_ok=True)
    sheet = draw.token_sheet(examples, scale=drawing.scale, threshold=drawing.keypoint_threshold)
    draw.write_png(out / "tokens.png", sheet)
    means = np.mean(density, axis=0).tolist() if density else []  # nothing to say where people fill every crop
    return {
        f"stage{stage + 1}": {"cells_per_token_on_person": on, "cells_per_token_around": around}
        for stage, (on, around) in enumerate(means)
    }


Shown = tuple[Example, NDArray[np.bool_]]


def _show_points(
    problem: Any, sample: dict[str, Any], heat_maps: Any, partitions: list[Partition], scale: int
) -> Shown:
    """Predicted points over the annotated ones, and the mask of the person or face."""
    from tcformer import draw
    from tcformer.data.images import denormalise
    from tcformer.heatmaps import decode_heat_maps

    size = sample["image"].shape[1:]
    positions, scores = decode_heat_maps(heat_maps)
    found = np.concatenate([positions[0].numpy() * (size[1] / heat_maps.shape[3]), scores[0].numpy()[:, None]], 1)
    truth = np.concatenate([sample["points"], sample["weights"][:, None]], 1)
    mask = draw.face_mask if problem.name == "face" else draw.person_mask
    if problem.name == "wholebody":
        found = problem.complete(found)
    label = f"annotation {sample['annotation_id']}" if "annotation_id" in sample else f"face {sample['index']}"
    return Example(denormalise(sample["image"]), partitions, found, truth, label), mask(truth, size)


def _show_body(problem: Any, sample: dict[str, Any], prediction: Any, partitions: list[Partition], scale: int) -> Shown:
    """The predicted body over the crop, and its silhouette as the mask."""
    from tcformer import draw
    from tcformer.data.images import denormalise

    body = problem.surface
    vertices = body(prediction.rotations, prediction.shape).vertices[0].numpy()
    camera, faces = prediction.camera[0].numpy(), body.faces
    image = denormalise(sample["image"])
    picture = draw.body(image, vertices, faces, camera, scale=scale)
    mask = draw.body_mask(vertices, faces, camera, image.shape[:2])
    return Example(image, partitions, drawn=picture, label=f"frame {sample['index']}"), mask


def _partition(stage: Any, images: Any) -> Partition:
    """The regions of a stage's tokens, or of a map's pixels where the backbone has no tokens."""
    from tcformer import Tokens

    grid = math.ceil(images.shape[2] / 4), math.ceil(images.shape[3] / 4)
    if isinstance(stage, Tokens) and stage.grid_size == grid:
        return Partition(stage.token_of_cell[0].numpy(), grid)
    size = stage.map_size if isinstance(stage, Tokens) else (stage.shape[2], stage.shape[3])
    return Partition.regular(size, grid)
