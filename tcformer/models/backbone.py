"""The backbone: four stages, from the pixels of an image to fewer and fewer tokens."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tcformer.errors import UserError
from tcformer.models.block import Attention, Block, Mlp
from tcformer.models.ctm import make_reduction
from tcformer.models.layers import GridConv, PatchEmbed, TokenConv
from tcformer.models.options import ReductionOptions
from tcformer.models.tokens import Tokens
from tcformer.models.variants import Variant

NUM_STAGES = 4
_PATCH_STRIDE = 4


class Backbone(nn.Module):
    """The backbone of TCFormer.

    Stage 1 works on a grid of patches. Each later stage first merges the tokens of the stage before to a quarter.
    Modules have the names of the released checkpoints: `patch_embed1`, `block1` to `block4`, `norm1` to `norm4`, and
    `ctm1` to `ctm3` (ctm1 is between the stages 1 and 2).

    Args:
        variant: sizes.
        drop_path_rate: probability of dropping the residual branches of the last block in training. It grows linearly
            from 0 at the first block.
        reduction: how the tokens are reduced between stages.
        local_parts: with local_ctm, image parts along each side for each of the three CTMs.
        activation_checkpointing: recompute the activations of a block in the backward pass instead of storing them.
        in_chans: channels of the images.

    Attributes:
        widths: channels of the stages.
        strides: image pixels for each pixel of the maps of the stages.
    """

    def __init__(
        self,
        variant: Variant,
        drop_path_rate: float = 0.0,
        reduction: ReductionOptions = ReductionOptions(),  # noqa: B008
        local_parts: Sequence[int] = (4, 2, 1),
        activation_checkpointing: bool = False,
        in_chans: int = 3,
    ) -> None:
        super().__init__()
        self.variant = variant
        self.in_chans = in_chans
        self.widths = list(variant.widths)
        self.strides = [_PATCH_STRIDE * 2**stage for stage in range(NUM_STAGES)]
        self.activation_checkpointing = activation_checkpointing
        on_grid = reduction.token_reduction == "conv"
        depth = sum(variant.depths)
        rates = iter([drop_path_rate * block / max(depth - 1, 1) for block in range(depth)])
        self.patch_embed1 = PatchEmbed(variant.widths[0], in_chans)
        for stage in range(NUM_STAGES):
            width, heads = variant.widths[stage], variant.heads[stage]
            hidden = width * variant.mlp_ratios[stage]
            if stage > 0:
                ctm = make_reduction(variant.widths[stage - 1], width, reduction, local_parts[stage - 1])
                self.add_module(f"ctm{stage}", ctm)
            blocks = nn.ModuleList()
            for _ in range(variant.depths[stage]):
                attention = Attention(width, heads, variant.reductions[stage])
                conv = GridConv(hidden) if stage == 0 or on_grid else TokenConv(hidden, hidden, depth_wise=True)
                blocks.append(Block(attention, Mlp(width, hidden, conv), next(rates)))
            self.add_module(f"block{stage + 1}", blocks)
            self.add_module(f"norm{stage + 1}", nn.LayerNorm(width, eps=1e-6))

    def forward(self, images: Tensor, num_stages: int = NUM_STAGES) -> list[Tokens]:
        """Compute the tokens after each of the four stages.

        Args:
            images: (B, in_chans, H, W), normalised, of at least 29 x 29 pixels.
            num_stages: stop after so many stages.

        Raises:
            UserError: the images have another shape, or are too small.
        """
        self._check(images)
        features, grid_size = self.patch_embed1(images)
        tokens = Tokens.of_grid(features, grid_size)
        outputs = []
        for stage in range(1, num_stages + 1):
            source = log_weight = None
            if stage > 1:
                tokens, source, log_weight = getattr(self, f"ctm{stage - 1}")(tokens)
            for block in getattr(self, f"block{stage}"):
                tokens = self._run(block, tokens, source, log_weight)
                # Only the first block of a stage attends to the tokens before merging.
                source = log_weight = None
            tokens = tokens.with_features(getattr(self, f"norm{stage}")(tokens.features))
            outputs.append(tokens)
        return outputs

    def _run(self, block: Block, tokens: Tokens, source: Tokens | None, log_weight: Tensor | None) -> Tokens:
        if self.activation_checkpointing and self.training:
            return checkpoint(block, tokens, source, log_weight, use_reentrant=False)
        return block(tokens, source, log_weight)

    def _check(self, images: Tensor) -> None:
        # At least one key must be left of the grid of the first stage after spatial reduction.
        smallest = _PATCH_STRIDE * (self.variant.reductions[0] - 1) + 1
        if images.ndim != 4 or images.shape[1] != self.in_chans or images.shape[0] == 0:
            raise UserError(
                f"the network expects a batch of images (B, {self.in_chans}, H, W) with B of at least 1, found "
                f"{tuple(images.shape)}; stack images with channels first, or build the network with in_chans"
            )
        if min(images.shape[2:]) < smallest:
            raise UserError(
                f"the network expects images of at least {smallest} x {smallest} pixels, found "
                f"{images.shape[2]} x {images.shape[3]}; use a larger image size"
            )
