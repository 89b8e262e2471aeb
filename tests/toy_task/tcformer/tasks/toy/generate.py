"""Generated pictures of one disc each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tcformer.parameters import parameters


@parameters
class GenerateToy:
    """How many discs."""

    seed: int
    train_images: int
    val_images: int


OPTIONS = GenerateToy


def generate(out: Path, options: GenerateToy, map: Callable[..., list[Any]]) -> None:
    """Write `out`/train/*.npz and `out`/val/*.npz; `map` applies a function to items in parallel."""
    for number, (split, count) in enumerate([("train", options.train_images), ("val", options.val_images)]):
        (out / split).mkdir(parents=True)
        map(partial(_write, out / split, options.seed, number), list(range(count)))


def _write(folder: Path, seed: int, split: int, index: int) -> None:
    rng = np.random.default_rng((seed, split, index))
    radius = rng.integers(6, 12)
    x, y = rng.integers(radius, 64 - radius, 2)
    rows, columns = np.mgrid[:64, :64]
    image = rng.integers(0, 60, (64, 64, 3)).astype(np.uint8)
    image[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = rng.integers(150, 255, 3)
    np.savez(folder / f"{index:04d}.npz", image=image, points=np.array([[x, y], [x + radius, y]], np.float32))
