"""The sizes that the network comes in."""

from __future__ import annotations

from dataclasses import dataclass

FourInts = tuple[int, int, int, int]


@dataclass(frozen=True)
class Variant:
    """Sizes of one network; tuples have an entry per stage.

    Attributes:
        widths: channels of the tokens.
        depths: transformer blocks; the first of stages 2 to 4 is the one that follows the CTM.
        heads: attention heads of a block.
        mlp_ratios: hidden channels of a block's MLP, divided by its width.
        reductions: spatial reduction of keys and values, divided out of each side of the map.
        neck_width: channels of the MTA neck and of the map it makes.
        neck_heads, neck_mlp_ratio: as above, for the neck's blocks.
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
    # For the sample recipe: not from the paper, but made to learn fast on two CPU cores.
    "tcformer_nano": Variant(
        widths=(16, 32, 64, 128),
        depths=(1, 1, 1, 1),
        heads=(1, 2, 4, 8),
        mlp_ratios=(4, 4, 4, 4),
        neck_width=48,
        neck_heads=2,
        neck_mlp_ratio=2,
    ),
    # The authors' three.
    "tcformer_light": Variant((64, 128, 320, 512), (2, 2, 2, 2), (1, 2, 5, 8), (8, 8, 4, 4)),
    "tcformer": Variant((64, 128, 320, 512), (3, 4, 6, 3), (1, 2, 5, 8), (8, 8, 4, 4)),
    "tcformer_large": Variant((64, 128, 320, 512), (3, 8, 27, 3), (1, 2, 5, 8), (8, 8, 4, 4)),
}
