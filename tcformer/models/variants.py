"""The variants of TCFormer, which differ in their sizes."""

from __future__ import annotations

from dataclasses import dataclass

FourInts = tuple[int, int, int, int]


@dataclass(frozen=True)
class Variant:
    """Sizes of a network. Tuples have an entry for each stage.

    Attributes:
        widths: channels of the tokens.
        depths: number of transformer blocks. The first one of the stages 2 to 4 is the block that follows the CTM.
        heads: number of attention heads of a block.
        mlp_ratios: hidden channels of the MLP of a block, divided by the width.
        reductions: spatial reduction of keys and values: factor by which each side of the map is smaller.
        neck_width: channels of the MTA neck and of its map.
        neck_heads: number of attention heads of the blocks of the neck.
        neck_mlp_ratio: hidden channels of the MLPs of the neck, divided by the width.
    """

    widths: FourInts
    depths: FourInts
    heads: FourInts
    mlp_ratios: FourInts
    reductions: FourInts = (8, 4, 2, 1)
    neck_width: int = 256
    neck_heads: int = 4
    neck_mlp_ratio: int = 4


VARIANTS = {
    # For the sample recipe: not in the paper, but designed to train fast on two CPU cores.
    "tcformer_nano": Variant(
        widths=(16, 32, 64, 128),
        depths=(1, 1, 1, 1),
        heads=(1, 2, 4, 8),
        mlp_ratios=(4, 4, 4, 4),
        neck_width=48,
        neck_heads=2,
        neck_mlp_ratio=2,
    ),
    # The three variants of the authors.
    "tcformer_light": Variant((64, 128, 320, 512), (2, 2, 2, 2), (1, 2, 5, 8), (8, 8, 4, 4)),
    "tcformer": Variant((64, 128, 320, 512), (3, 4, 6, 3), (1, 2, 5, 8), (8, 8, 4, 4)),
    "tcformer_large": Variant((64, 128, 320, 512), (3, 8, 27, 3), (1, 2, 5, 8), (8, 8, 4, 4)),
}
