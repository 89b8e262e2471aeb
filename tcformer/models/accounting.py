"""Count the parameters and multiplications of networks, and write the table of docs/models.md.

    python -m tcformer.models.accounting   # writes the table

The network runs on fake tensors, which have shapes but no values. So nothing is computed, and the counts do not depend
on the machine and its kernels.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tcformer.documents import replace_between
from tcformer.errors import UserError
from tcformer.models.ctm import CTM
from tcformer.models.factory import create_model
from tcformer.models.kernel_choice import use_kernels
from tcformer.models.variants import VARIANTS

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/models.md"
BEGIN, END = "<!-- table: python -m tcformer.models.accounting -->", "<!-- end of table -->"


@dataclass(frozen=True)
class Multiplications:
    """Multiply-accumulates of a forward pass of one image. Papers call them FLOPs.

    Normalisation, activations, softmax, additions and interpolation are not counted.

    Attributes:
        layers: linear layers and convolutions.
        attention: products of queries and keys, and of attention and values.
        clustering: distances between all pairs of tokens, once for each CTM (local_ctm: within parts of equal size).
        maps: merging of tokens, and sums in conversions between tokens and maps.
    """

    layers: int
    attention: int
    clustering: int
    maps: int

    @property
    def total(self) -> int:
        """The sum of all."""
        return self.layers + self.attention + self.clustering + self.maps


def count_parameters(model: nn.Module) -> int:
    """Count the trainable numbers. Buffers, such as the statistics of batch normalisation, are not counted."""
    return sum(p.numel() for p in model.parameters())


def count_flops(model: nn.Module, image_size: tuple[int, int]) -> Multiplications:
    """Count the multiply-accumulates for one image. Papers call them FLOPs.

    Args:
        model: from `create_model`, on any device, including "meta". It is not changed.
        image_size: (H, W), in pixels.

    Raises:
        UserError: the images are too small for the network.
    """
    maps = _Maps()
    counter = FlopCounterMode(display=False, depth=99, custom_mapping=_formulas(maps))
    # The mathematical form of attention consists of two products, which the counter knows.
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        torch.no_grad(),
        use_kernels("torch"),
        sdpa_kernel(SDPBackend.MATH),
        counter,
    ):
        tensors = (*model.named_parameters(), *model.named_buffers())
        state = {name: torch.empty(tensor.shape, dtype=tensor.dtype) for name, tensor in tensors}
        functional_call(model, state, torch.empty(1, getattr(model, "in_chans", 3), *image_size))

    counts = {name: {str(op): n for op, n in own.items()} for name, own in counter.get_flop_counts().items()}
    everything = counts["Global"]
    clustering = whole = 0
    for name, module in model.named_modules():
        if isinstance(module, CTM):
            own = counts[f"{type(model).__name__}.{name}"]
            distances = own.get("tcformer.dpc_knn", 0) + own.get("aten.baddbmm", 0)
            whole += distances
            clustering += distances // module.parts**2
    attention = everything.get("aten.bmm", 0)
    layers = sum(everything.values()) - attention - whole
    return Multiplications(layers // 2, attention // 2, clustering // 2, maps.total)


@dataclass
class _Maps:
    total: int = 0

    def add(self, multiplications: int) -> int:
        """Add to the total, and return 0: what the flop counter shall count instead."""
        self.total += multiplications
        return 0


def _formulas(maps: _Maps) -> dict[Any, Any]:
    """The flop counter's formulas of the token operations: twice the multiplications, from the shapes of arguments."""

    def dpc_knn(x: torch.Size, *_: object, **__: object) -> int:
        batch, n, channels = x
        return 2 * batch * n * n * channels

    def token_conv(
        x: torch.Size,
        weight: object,
        bias: object,
        skip: object,
        cells: list[torch.Size],
        links: list[torch.Size],
        size: list[int],
        *_: object,
        **__: object,
    ) -> int:
        batch, n, channels = x
        if links:  # the tokens are not the pixels of a grid
            maps.add(2 * prod(cells[0]) * channels)
        return 2 * batch * channels * (9 * size[0] * size[1] + (n if skip is not None else 0))

    op = torch.ops.tcformer
    return {
        op.dpc_knn: dpc_knn,
        op.token_conv: token_conv,
        op.merge_tokens: lambda x, *_, **__: maps.add(prod(x)),
        op.segment_sum: lambda x, index, *_, **__: maps.add(prod(index) * x[2]),
        op.upsample_tokens: lambda x, cell_weight, *_, **__: maps.add(prod(cell_weight) * x[2]),
        op.sum_blocks: lambda x, *_, **__: maps.add(prod(x)),
    }


# The table.

_PAPER = "paper"  # TCFormer (Zeng et al., CVPR 2022), table 4
_RELEASED = "released"  # networks built with the authors' code at commit 1ea72a8, counted
_HRNET = "HRNet"  # Wang et al., TPAMI 2020
_CLOSE = 0.02
_IMAGENET, _POSE, _FACE, _MESH = (224, 224), (256, 192), (256, 256), (224, 224)


@dataclass(frozen=True, eq=False)  # hashed by identity, for the cache of counts
class Entry:
    """A row of the table.

    Attributes:
        variant: argument of `create_model`.
        task: argument of `create_model`.
        size: (H, W) of the images.
        options: arguments of `create_model`.
        published: parameters in millions, multiplications in thousand millions, and their source.
    """

    variant: str
    task: str
    size: tuple[int, int]
    options: dict[str, Any] = field(default_factory=dict)
    published: tuple[float | None, float | None, str] | None = None


_OURS = {
    ("tcformer_light", "imagenet"): (14.232, None, _RELEASED),
    ("tcformer", "imagenet"): (25.6, 5.9, _PAPER),
    ("tcformer_large", "imagenet"): (62.819, None, _RELEASED),
    ("tcformer_light", "wholebody"): (16.419, None, _RELEASED),
    ("tcformer", "wholebody"): (27.782, None, _RELEASED),
    ("tcformer_large", "wholebody"): (65.006, None, _RELEASED),
}
_SIZES = {"imagenet": _IMAGENET, "wholebody": _POSE, "face": _FACE, "mesh": _MESH}

NETWORKS = [
    Entry(variant, task, size, published=_OURS.get((variant, task)))
    for task, size in _SIZES.items()
    for variant in VARIANTS
] + [Entry("tcformer_large", "wholebody", (384, 288), published=_OURS["tcformer_large", "wholebody"])]
ABLATIONS = [
    *(Entry("tcformer", "imagenet", _IMAGENET, {"token_reduction": r}) for r in ("ctm_topk", "conv", "local_ctm")),
    *(Entry("tcformer", "wholebody", _POSE, {"token_reduction": r}) for r in ("ctm_topk", "conv", "local_ctm")),
    Entry("tcformer", "wholebody", _POSE, {"token_reduction": "ctm_grid"}),
    *(Entry("tcformer", "wholebody", _POSE, {"neck": n}) for n in ("deconv", "cr_mta")),
    *(Entry("tcformer", "wholebody", _POSE, {"keypoints": k}) for k in ("body", "foot", "face", "hand")),
]
BASELINES = [
    Entry("timm/resnet50", "imagenet", _IMAGENET, published=(25.6, 4.1, _PAPER)),
    Entry("timm/resnet101", "imagenet", _IMAGENET),
    Entry("timm/resnet152", "imagenet", _IMAGENET, published=(60.2, 11.6, _PAPER)),
    Entry("timm/hrnet_w32", "imagenet", _IMAGENET, published=(41.2, 8.3, _PAPER)),
    Entry("timm/deit_small_patch16_224", "imagenet", _IMAGENET, published=(22.1, 4.6, _PAPER)),
    Entry("timm/swin_tiny_patch4_window7_224", "imagenet", _IMAGENET, published=(29.0, 4.5, _PAPER)),
    Entry("timm/pvt_v2_b2", "imagenet", _IMAGENET),
    Entry("timm/resnet50", "wholebody", _POSE),
    Entry("timm/resnet101", "wholebody", _POSE),
    Entry("timm/resnet152", "wholebody", _POSE),
    Entry("timm/hrnet_w32", "wholebody", _POSE, published=(28.5, None, _HRNET)),
    Entry("timm/hrnet_w48", "wholebody", _POSE, published=(63.6, None, _HRNET)),
    Entry("timm/hrnet_w48", "wholebody", (384, 288), published=(63.6, None, _HRNET)),
    Entry("timm/pvt_v2_b2", "wholebody", _POSE),
    Entry("timm/swin_tiny_patch4_window7_224", "wholebody", (224, 224)),
    Entry("timm/hrnet_w18", "face", _FACE, {"neck": "all_maps"}, published=(9.66, None, _HRNET)),
    Entry("timm/resnet50", "mesh", _MESH),
]


def build(entry: Entry) -> nn.Module:
    """Build the network of a row without memory for its weights."""
    with torch.device("meta"):
        return create_model(entry.variant, entry.task, **entry.options)


@cache
def _count(entry: Entry) -> tuple[int, Multiplications]:
    """Parameters and multiplications of a row; counting takes a second."""
    model = build(entry)
    return count_parameters(model), count_flops(model, entry.size)


def table() -> str:
    """Make the tables of docs/models.md, in Markdown."""
    paper = next(entry for entry in NETWORKS if (entry.variant, entry.task) == ("tcformer", "imagenet"))
    own = _count(paper)[1]
    # Distances of each token to the centres, which are a quarter of the tokens.
    again = own.clustering // 4
    lines = [
        "G: thousand million multiply-accumulates for one image (papers call them FLOPs). *layers*: linear layers "
        "and convolutions; *attention*: products of queries and keys, and of attention and values; *clustering*: one "
        "matrix of distances for each CTM; *maps*: merging of tokens, and sums in conversions between tokens and maps. "
        "Normalisation, activations and softmax are not counted. *published*: "
        f"{_PAPER} = table 4 of the paper, {_RELEASED} = counted with the authors' code, {_HRNET} = Wang et al. 2020.",
        "",
        f"The paper gives {_published(paper)} for TCFormer but does not say how it counts. We count "
        f"{_both(own.layers)} for layers only, {_both(own.layers + own.attention)} with attention, "
        f"**{_both(own.total)} with distances and maps**, and {_both(own.total + again)} if the distances to the "
        "centres are counted once more. The numbers in brackets count multiplication and addition as two operations. "
        "So the paper presumably counts a multiply-accumulate as one operation and includes the clustering, but no "
        f"count gives exactly its figure. Its figures for other networks are within {_CLOSE:.0%} of layers and "
        f"attention, except for {', '.join(_outliers())}.",
    ]
    for title, entries in (("Networks", NETWORKS), ("Ablations", ABLATIONS), ("Baselines", BASELINES)):
        lines += ["", f"### {title}", "", *_rows(entries)]
    return "\n".join(lines)


def _outliers() -> list[str]:
    """Baselines whose published multiplications differ from those counted here."""
    names = []
    for entry in BASELINES:
        if entry.published and entry.published[1]:
            own = _count(entry)[1].total / 1e9
            if abs(own / entry.published[1] - 1) > _CLOSE:
                names.append(f"{entry.variant} ({entry.published[1]} G, here {own:.2f})")
    return names


def _rows(entries: Iterable[Entry]) -> list[str]:
    lines = [
        "| network | task | H × W | options | parameters | layers G | attention G | clustering G | maps G | total G | "
        "published |",
        "|---|---|---|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for entry in entries:
        parameters, count = _count(entry)
        options = ", ".join(f"{name}={value}" for name, value in entry.options.items())
        parts = (count.layers, count.attention, count.clustering, count.maps, count.total)
        lines.append(
            f"| {entry.variant} | {entry.task} | {entry.size[0]} × {entry.size[1]} | {options} | "
            f"{parameters:,} | {' | '.join(_giga(part) for part in parts)} | {_published(entry)} |"
        )
    return lines


def _published(entry: Entry) -> str:
    if entry.published is None:
        return ""
    parameters, multiplications, source = entry.published
    numbers = [f"{parameters} M"] if parameters else []
    numbers += [f"{multiplications} G"] if multiplications else []
    return f"{', '.join(numbers)} ({source})"


def _both(multiplications: int) -> str:
    return f"{_giga(multiplications)} G ({_giga(2 * multiplications)})"


def _giga(multiplications: int) -> str:
    return f"{multiplications / 1e9:.2f}"


def with_table(document: str) -> str:
    """The document with a newly written table between its two marks.

    Raises:
        UserError: the marks are missing.
    """
    replace_between(document, BEGIN, END, "")  # missing marks are reported before the table is made, in half a minute
    return replace_between(document, BEGIN, END, f"\n\n{table()}\n\n")


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tcformer.models.accounting",
        description="Write the table of the parameters and multiplications of networks.",
    )
    parser.add_argument("--document", type=Path, default=DOCUMENT, help="the Markdown file with the table")
    document = parser.parse_args(arguments).document
    try:
        document.write_text(with_table(document.read_text(encoding="utf-8")), encoding="utf-8")
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
