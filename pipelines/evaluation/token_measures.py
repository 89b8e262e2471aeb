"""How healthy the tokens of a trained network are: measured on a few images, with one optimiser step on a copy."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.params import Training
from pipelines.trained import model_from_bytes
from pipelines.training.device import be_deterministic, this_device
from pipelines.training.optimizer import build_optimizer
from tcformer.data.batch import collate, evenly_spread
from tcformer.memory import keep_freed_memory
from tcformer.metrics.points import ALL, Skipped
from tcformer.metrics.tokens import Region, Shares, adjusted_rand_index, on_grid, shares, twins_in_one_token
from tcformer.models import Network, Tokens
from tcformer.models.backbone import NUM_STAGES, Backbone
from tcformer.tasks import ALL_TASKS, Batch, Task, TaskSpec

Partitions = list[NDArray[np.int64]]  # of each stage: (images, cells), the token of each cell of the first stage's grid


@dataclass(frozen=True)
class TokenMeasurement:
    """What measures the tokens of a network on images of the validation set.

    Attributes:
        task: with the options that the network was trained with.
        data_root: folder of the dataset.
        weights: bytes of the network's file.
        images: how many images are used, evenly spread over the validation set; 0: none.
        training: optimiser and learning rate of the step that may change the clusters, and the largest micro batch.
    """

    task: TaskSpec
    data_root: Path
    weights: bytes
    images: int
    training: Training

    def measure(self) -> dict[str, Any]:
        """The content of tokens.json (docs/measures.md): measures by stage, or why there are none."""
        if not self.images:
            return Skipped(f"evaluate.{self.task.name}.tokens is 0").to_json()
        device = this_device()
        be_deterministic(self.training.seed, device)
        keep_freed_memory()
        model = model_from_bytes(self.weights).to(device).eval()
        if not isinstance(model.backbone, Backbone):
            return Skipped(f"the backbone {self.task.network.backbone} has no tokens").to_json()
        task = self.task.build(self.data_root)
        data = task.val_set()
        samples = [data.sample(index, None) for index in evenly_spread(len(data), self.images)]
        regions = [ALL_TASKS[self.task.name].region(task, sample) for sample in samples]
        size = self.training.micro_batch
        batches = [
            {name: value.to(device) for name, value in collate(samples[start : start + size]).items()}
            for start in range(0, len(samples), size)
        ]
        partitions, means, grid = partitions_and_means(model, batches)
        image_size = tuple(samples[0]["image"].shape[1:])
        stages = [follow_people(of_stage, regions, image_size, grid) for of_stage in partitions]
        for stage, before, after in zip(stages, partitions, self._after_a_step(task, model, batches), strict=True):
            stage["rand_index"] = float(np.mean([adjusted_rand_index(a, b) for a, b in zip(before, after)]))
        for number, stage in enumerate(stages):
            with _replaced(model, number, means[number]):
                stage["blanked"] = _validate(task, model, batches)
        return {
            "images": len(samples),
            "cells": grid[0] * grid[1],
            "learning_rate": self.training.optimizer.lr,
            "intact": _validate(task, model, batches),
            "stages": {f"stage{number}": stage for number, stage in enumerate(stages, 1)},
        }

    def _after_a_step(self, task: Task, model: Network, batches: Sequence[Batch]) -> Partitions:
        """The partitions after one step of the training's optimiser, with new moments, on the loss of the images."""
        stepped = copy.deepcopy(model)
        optimizer = build_optimizer(stepped, self.training.optimizer)
        images = sum(len(batch["image"]) for batch in batches)
        for batch in batches:
            (task.loss(stepped, batch)["loss"] * (len(batch["image"]) / images)).backward()
        optimizer.step()
        return partitions_and_means(stepped, batches)[0]


def headline_measures(tokens: dict[str, Any]) -> dict[str, Any]:
    """The few numbers of tokens.json that metrics.json contains: those of the last stage, or none."""
    if "stages" not in tokens:
        return {}
    name, stage = list(tokens["stages"].items())[-1]
    return {
        name: {
            "density": stage["density"],
            "purity": stage["purity"],
            "twins_in_one_token": stage["twins_in_one_token"].get(ALL),
            "rand_index": stage["rand_index"],
        }
    }


@torch.no_grad()
def partitions_and_means(model: Network, batches: Sequence[Batch]) -> tuple[Partitions, list[Tensor], tuple[int, int]]:
    """Partitions and mean features (C,) over the tokens of all images, of each stage; and the grid of the first."""
    cells: list[list[NDArray[np.int64]]] = [[] for _ in range(NUM_STAGES)]
    means: list[Tensor] = [torch.zeros(()) for _ in range(NUM_STAGES)]
    images = sum(len(batch["image"]) for batch in batches)
    grid = (0, 0)
    for batch in batches:
        stages: list[Tokens] = model.backbone(batch["image"])
        grid = stages[0].grid_size
        for number, tokens in enumerate(stages):
            of_images = tokens.token_of_cell.cpu().numpy()
            cells[number] += [on_grid(image, tokens.grid_size, grid) for image in of_images]
            means[number] = means[number].to(tokens.features) + tokens.features.mean(1).sum(0) / images
    return [np.stack(of_stage) for of_stage in cells], means, grid


@contextmanager
def _replaced(model: Network, stage: int, feature: Tensor) -> Iterator[None]:
    """While open, neck and head see all tokens of a stage with one feature (C,); later stages see the tokens."""

    def replace(module: torch.nn.Module, args: tuple[Tensor, ...], output: list[Tokens]) -> list[Tokens]:
        blank = feature.expand_as(output[stage].features).contiguous()
        return [tokens.with_features(blank) if i == stage else tokens for i, tokens in enumerate(output)]

    handle = model.backbone.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def _validate(task: Task, model: Network, batches: Sequence[Batch]) -> dict[str, float]:
    """The loss and the validation's measures, means over the images."""
    totals: dict[str, float] = {}
    for batch in batches:
        for name, value in task.validate(model, batch).items():
            totals[name] = totals.get(name, 0.0) + float(value)
    count = totals.pop("count")
    return {name.removesuffix("_sum"): total / count for name, total in totals.items()}


def follow_people(
    partitions: NDArray[np.int64], regions: Sequence[Region | None], image_size: tuple[int, int], grid: tuple[int, int]
) -> dict[str, Any]:
    """How the tokens of a stage lie on the people.

    Args:
        partitions: (images, cells) the token of each cell of the grid.
        regions: of each image where the person is; None where nothing is annotated.
        image_size: height and width of the crops, pixels.
        grid: rows and columns.
    """
    measured, pairs = [], dict[str, NDArray[np.int64]]()
    for tokens, region in zip(partitions, regions, strict=True):
        if region is None:
            continue
        if region.mask is not None and (found := shares(tokens, region.mask, grid)):
            measured.append(found)
        for part, counts in twins_in_one_token(tokens, region, image_size, grid).items():
            for name in (ALL, part):
                pairs[name] = pairs.get(name, np.zeros(2, np.int64)) + counts
    mean = Shares(*np.mean(measured, 0).tolist()) if measured else None
    return {
        "tokens": int(partitions.max()) + 1,
        "area_share": mean and mean.area,
        "token_share": mean and mean.tokens,
        "density": mean and mean.tokens / mean.area,
        "purity": mean and mean.purity,
        "person_purity": mean and mean.person_purity,
        "twins_in_one_token": {
            part: int(together) / int(every) if every else None for part, (together, every) in pairs.items()
        },
    }
