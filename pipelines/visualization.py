"""What a trained network sees: the tokens of its stages and the points it predicts, for persons of the test set."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.tasks import build_task
from tcformer.draw import Partition


def draw_wholebody(
    weights: Path, options: dict[str, Any], data_root: Path, persons: int, threshold: float, scale: int, out: Path
) -> dict[str, Any]:
    """Draw the tokens and keypoints of ``persons`` test persons, evenly spread over the test set, into ``out``.

    Returns:
        Mean number of grid cells a token of each stage covers on the persons and around them.
    """
    import torch

    from tcformer import draw
    from tcformer.data.images import denormalise
    from tcformer.metrics.decode import decode_heat_maps
    from tcformer.models import load_model

    data = build_task("wholebody", options, data_root).val_set()
    model = load_model(weights).eval()
    indices = np.linspace(0, len(data) - 1, min(persons, len(data))).astype(int)
    examples, density = [], []
    with torch.inference_mode():
        for index in indices.tolist():
            sample = data.sample(index, None)
            images = torch.from_numpy(sample["image"])[None]
            heat_maps = model(images)
            positions, scores = decode_heat_maps(heat_maps)
            stride = images.shape[3] / heat_maps.shape[3]
            stages = model.backbone(images)
            points = np.concatenate([positions[0].numpy() * stride, scores[0].numpy()[:, None]], 1)
            truth = np.concatenate([sample["points"], sample["weights"][:, None]], 1)
            partitions = [_partition(stage, images) for stage in stages]
            examples.append(
                draw.Example(
                    denormalise(sample["image"]), partitions, points, truth, f"annotation {sample['annotation_id']}"
                )
            )
            mask = draw.person_mask(truth, (images.shape[2], images.shape[3]))
            if mask.any() and not mask.all():
                density.append([draw.cells_per_token(p.token_of_cell, p.grid_size, mask) for p in partitions])
    out.mkdir(parents=True, exist_ok=True)
    draw.write_png(out / "tokens.png", draw.token_sheet(examples, scale=scale, threshold=threshold))
    means = np.mean(density, axis=0).tolist() if density else []  # nothing to say where people fill every crop
    return {
        f"stage{stage + 1}": {"cells_per_token_on_person": on, "cells_per_token_around": around}
        for stage, (on, around) in enumerate(means)
    }


def _partition(stage: Any, images: Any) -> Partition:
    """The regions of a stage's tokens, or of a map's pixels where the backbone has no tokens."""
    from tcformer import Tokens

    grid = math.ceil(images.shape[2] / 4), math.ceil(images.shape[3] / 4)
    if isinstance(stage, Tokens) and stage.grid_size == grid:
        return Partition(stage.token_of_cell[0].numpy(), grid)
    size = stage.map_size if isinstance(stage, Tokens) else (stage.shape[2], stage.shape[3])
    return Partition.regular(size, grid)
