"""What the token inspector of the report shows of a picture: the tokens of each stage, their importance and density."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tcformer.draw import Example, png_bytes
from tcformer.models.ctm import CTM, Reduced, part_of_token, with_place
from tcformer.models.tokens import Tokens

NEIGHBOURS = 5  # the k of DPC-KNN's density, as in `kernels.dpc_knn`


@dataclass(frozen=True)
class MergeRecord:
    """What a CTM knew of the tokens that it merged, for one picture.

    Attributes:
        importance: (N,) p; a token's weight in the merge is e^p.
        density: (N,) DPC-KNN's local density, from 0 to 1; None if the clusters do not depend on it.
    """

    importance: NDArray[np.float32]
    density: NDArray[np.float32] | None


@contextmanager
def recorded_merges(backbone: nn.Module) -> Iterator[list[MergeRecord | None]]:
    """Record what the token reductions of a backbone see of the first image of a batch.

    Yields:
        A list that each forward pass extends by a record for each reduction, None for one without importance.
    """
    records: list[MergeRecord | None] = []

    def on_merge(ctm: nn.Module, arguments: tuple[Tokens], reduced: Reduced) -> None:
        assert isinstance(ctm, CTM)
        records.append(_record(ctm, arguments[0], reduced))

    handles = [module.register_forward_hook(on_merge) for module in backbone.modules() if isinstance(module, CTM)]
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()


def _record(ctm: CTM, tokens: Tokens, reduced: Reduced) -> MergeRecord | None:
    if reduced.source is None or reduced.log_weight is None:
        return None
    features, parts = reduced.source.features, None
    if ctm.options.token_reduction not in ("ctm", "local_ctm") or ctm.on_grid:
        density = None
    else:
        if ctm.options.place_weight:
            merged = reduced.tokens.features.shape[1]
            features = with_place(features, tokens, merged, ctm.options.place_weight)
        if ctm.parts > 1:
            parts = part_of_token(tokens, ctm.parts)
        density = local_density(features[0], parts).numpy().astype(np.float32)
    return MergeRecord(reduced.log_weight[0, :, 0].numpy().astype(np.float32), density)


def local_density(x: Tensor, parts: Tensor | None = None, k: int = NEIGHBOURS) -> Tensor:
    """DPC-KNN's density of each token: exp(-mean of its k smallest squared distances / C), its own 0 among them.

    Args:
        x: (N, C) features.
        parts: (N,) the part of the image of each token, if neighbours are sought within it; None: everywhere.
        k: number of neighbours; all tokens of the part if there are fewer.

    Returns:
        (N,) float64.

    Source: TCFormer, equation 1.
    """
    x = x.double()
    density = x.new_empty(len(x))
    for part in [torch.ones(len(x), dtype=torch.bool)] if parts is None else [parts == p for p in parts.unique()]:
        distance = torch.cdist(x[part], x[part], compute_mode="donot_use_mm_for_euclid_dist").square()
        near = distance.topk(min(k, int(part.sum())), largest=False)[0]
        density[part] = torch.exp(-near.mean(1) / x.shape[1])
    return density


def inspected(example: Example, merges: Sequence[MergeRecord | None]) -> dict[str, Any]:
    """A picture for the token inspector, to be written as JSON.

    Args:
        example: the picture and its tokens.
        merges: what merged the tokens of all stages but the last; fewer where the backbone has no such merges.

    Returns:
        "label"; "image", a PNG; "grid", rows and columns of the first stage's tokens; and for each of "stages" its
        number of "tokens", the token of each grid cell, row by row ("cells"), "importance" and "density" of each token,
        both null where nothing was recorded. Arrays are in Base64: uint16 for cells, float32 otherwise, little-endian.
    """
    records = [*merges, *(None for _ in example.partitions)]
    stages = [
        {
            "tokens": partition.num_tokens,
            "cells": _base64(partition.token_of_cell, "<u2"),
            "importance": None if record is None else _base64(record.importance, "<f4"),
            "density": None if record is None or record.density is None else _base64(record.density, "<f4"),
        }
        for partition, record in zip(example.partitions, records)
    ]
    return {
        "label": example.label,
        "image": base64.b64encode(png_bytes(example.image)).decode("ascii"),
        "grid": list(example.partitions[0].grid_size),
        "stages": stages,
    }


def _base64(values: NDArray[Any], dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode("ascii")
