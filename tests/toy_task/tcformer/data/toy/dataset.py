"""Pictures of one disc each, as `generate` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tcformer.data.images import normalise

SIZE = (64, 64)


class Discs:
    """The pictures of a split."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.glob("*.npz"))

    def __len__(self) -> int:
        return len(self.files)

    def sample(self, index: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """See `tcformer.tasks.base.Dataset`; an augmented one is turned upside down half of the time."""
        with np.load(self.files[index]) as content:
            image, points = content["image"], content["points"]
        if rng is not None and rng.random() < 0.5:
            image, points = image[::-1].copy(), points * [1, -1] + [0, SIZE[0] - 1]
        points = points.astype(np.float32)
        return {"image": normalise(image), "points": points, "weights": np.ones(2, np.float32), "index": index}
