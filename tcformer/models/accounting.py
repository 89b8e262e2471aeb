"""What networks cost: parameters and multiplications, by shapes alone, and the table of docs/models.md.

    python -m tcformer.models.accounting   # writes the table afresh

Nothing is computed and no memory taken: the network runs on tensors without values, so the counts are the same for
whatever kernels a machine runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
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
from tcformer.models.kernel_choice import kernels_named
from tcformer.models.variants import VARIANTS

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/models.md"
BEGIN, END = "<!-- table: python -m tcformer.models.accounting -->", "<!-- end of table -->"


@dataclass(frozen=True)
class Multiplications:
    """Multiply-accumulates of one forward pass of one image; each is one, papers call them FLOPs.

    Norms, activations, softmax, additions and interpolation are not counted.

    Attributes:
        layers: linear layers and convolutions.
        attention: products of queries and keys, and of attention and values.
        clustering: distances of all tokens from all, once at each CTM (within parts of equal size for local_ctm).
        maps: merging tokens, and sums on their way to maps and back.
    """

    layers: int
    attention: int
    clustering: int
    maps: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.layers + self.attention + self.clustering + self.maps


def count_parameters(model: nn.Module) -> int:
    """Numbers that training changes. Buffers, such as the statistics of batch normalisation, do not count."""
    return sum(p.numel() for p in model.parameters())


def count_flops(model: nn.Module, image_size: tuple[int, int]) -> Multiplications:
    """Multiply-accumulates for one image of (H, W) pixels, normalised as FLOPs are in papers: one each.

    Args:
        model: from `create_model`, on any device, also "meta"; it is not changed.
        image_size: (H, W), in pixels.

    Raises:
        UserError: the images are too small for the network.
    """
    maps = _Maps()
    counter = FlopCounterMode(display=False, depth=99, custom_mapping=_formulas(maps))
    # Attention in its mathematical form is two products that the counter knows.
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        torch.no_grad(),
        kernels_named("torch"),
        sdpa_kernel(SDPBackend.MATH),
        counter,
    ):
        tensors = (*model.named_parameters(), *model.named_buffers())
        state = {name: torch.empty(tensor.shape, dtype=tensor.dtype) for name, tensor in tensors}
        functional_call(model, state, torch.empty(1, 3, *image_size))

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
        """Note them here, and none there where layers are counted."""
        self.total += multiplications
        return 0


def _formulas(maps: _Maps) -> dict[Any, Any]:
    """Twice the multiplications of the token operations, from the shapes of their arguments, which come in order."""

    def dpc_knn(x: torch.Size, *_: Any, **__: Any) -> int:
        batch, n, channels = x
        return 2 * batch * n * n * channels

    def token_conv(
        x: torch.Size, weight: Any, bias: Any, skip: Any, cells: list[Any], links: list[Any], size: list[int], *_: Any,
        **__: Any,
    ) -> int:  # fmt: skip
        batch, n, channels = x
        if links:  # tokens are no pixels
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
_RELEASED = "released"  # the authors' code at commit 1ea72a8, built and counted
_HRNET = "HRNet"  # Wang et al., TPAMI 2020
_CLOSE = 0.02
_IMAGENET, _POSE, _FACE, _MESH = (224, 224), (256, 192), (256, 256), (224, 224)


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    Attributes:
        variant, task, options: of `create_model`.
        size: (H, W) of the images.
        published: parameters in millions, multiplications in thousand millions, and where both stand.
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
    Entry("tcformer", "wholebody", _POSE, {"neck": "deconv"}),
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
    """The network of a row, without memory for its weights."""
    with torch.device("meta"):
        return create_model(entry.variant, entry.task, **entry.options)


def table() -> str:
    """The tables of docs/models.md, in Markdown."""
    paper = next(entry for entry in NETWORKS if (entry.variant, entry.task) == ("tcformer", "imagenet"))
    model = build(paper)
    own = count_flops(model, paper.size)
    # What comparing each token with the centres again would add: a quarter as many tokens.
    again = own.clustering // 4
    lines = [
        "G: thousand million multiply-accumulates (papers' FLOPs; twice as many if multiplication and addition count "
        "as two) for one image. *layers*: linear layers and convolutions; *attention*: products of queries and keys, "
        "and with values; *clustering*: one matrix of distances a CTM; *maps*: merging, and sums between tokens and "
        "maps. Norms, activations and softmax do not count. *published*: "
        f"{_PAPER} = the paper's table 4, {_RELEASED} = the authors' code counted, {_HRNET} = Wang et al. 2020.",
        "",
        f"The paper gives TCFormer {_published(paper)} and not how it counts. Ours, for layers alone: "
        f"{_both(own.layers)}; with attention: {_both(own.layers + own.attention)}; **with distances and maps: "
        f"{_both(own.total)}**; if the distances to the centres count once more: {_both(own.total + again)}; "
        "in brackets, when multiplication and addition count as two. So the paper presumably counts a "
        "multiply-accumulate as one, and the clustering too; none of these gives its figure exactly. Its figures "
        f"for other networks are within {_CLOSE:.0%} of layers and attention, but for {', '.join(_strangers())}.",
    ]
    for title, entries in (("Networks", NETWORKS), ("Ablations", ABLATIONS), ("Baselines", BASELINES)):
        lines += ["", f"### {title}", "", *_rows(entries)]
    return "\n".join(lines)


def _strangers() -> list[str]:
    """Baselines whose published multiplications are not those counted here."""
    names = []
    for entry in BASELINES:
        if entry.published and entry.published[1]:
            own = count_flops(build(entry), entry.size).total / 1e9
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
        model = build(entry)
        count = count_flops(model, entry.size)
        options = ", ".join(f"{name}={value}" for name, value in entry.options.items())
        parts = (count.layers, count.attention, count.clustering, count.maps, count.total)
        lines.append(
            f"| {entry.variant} | {entry.task} | {entry.size[0]} × {entry.size[1]} | {options} | "
            f"{count_parameters(model):,} | {' | '.join(_giga(part) for part in parts)} | {_published(entry)} |"
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
        prog="python -m tcformer.models.accounting", description="Write the table of networks and what they cost."
    )
    parser.add_argument("--document", type=Path, default=DOCUMENT, help="the Markdown file that holds the table")
    document = parser.parse_args(arguments).document
    try:
        document.write_text(with_table(document.read_text(encoding="utf-8")), encoding="utf-8")
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
