"""Our variants of the token reduction: the grid with the whole CTM path, places, clusters later; and CR-MTA."""

from __future__ import annotations

from itertools import pairwise
from math import ceil
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tcformer.errors import UserError
from tcformer.models import NetworkOptions, create_model, ctm, load_model, save_model
from tcformer.models.ctm import token_places, with_place
from tcformer.models.export import TOLERANCE, export_program, random_images, relative_difference
from tcformer.models.mta import MTA
from tcformer.models.tokens import Tokens
from tests.tcformer.models.test_network import NANO, nano, smooth_images

VARIANTS: list[dict[str, Any]] = [
    {"token_reduction": "ctm_grid"},
    {"place_weight": 0.5},
    {"token_reduction": "local_ctm", "place_weight": 0.5},
    {"token_reduction": "ctm_topk", "place_weight": 0.5},
    {"token_place": True},
    {"neck": "cr_mta"},
    {"token_reduction": "ctm_grid", "token_place": True, "neck": "cr_mta"},
]


def gradients(model: nn.Module, images: Tensor) -> list[Tensor]:
    model.zero_grad()
    model(images).square().sum().backward()
    return [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize(("height", "width"), [(96, 64), (50, 33), (29, 61)])
def test_variants_train_at_any_size(options: dict[str, Any], height: int, width: int) -> None:
    model = nano("wholebody", num_keypoints=5, **options).train()
    images = smooth_images(2, height, width)
    assert model(images).shape == (2, 5, ceil(height / 4), ceil(width / 4))
    first = gradients(model, images)
    assert all(g.isfinite().all() for g in first)
    assert all(torch.equal(a, b) for a, b in zip(first, gradients(model, images), strict=True))


@pytest.mark.parametrize("options", VARIANTS)
def test_backends_agree(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for backend in ("torch", "reference"):
        monkeypatch.setenv("TCFORMER_KERNELS", backend)
        found.append(gradients(nano("wholebody", **options).double(), smooth_images(2, 50, 33).double()))
    for fast, expected in zip(*found, strict=True):
        torch.testing.assert_close(fast, expected, rtol=1e-9, atol=1e-12)


# The grid.


@torch.no_grad()
def test_blocks_of_the_grid_by_hand() -> None:
    stages = nano("features", token_reduction="ctm_grid").backbone(smooth_images(2, 50, 33))  # a grid of 13 x 9
    for level, tokens in enumerate(stages):
        rows, columns = [i >> level for i in range(13)], [i >> level for i in range(9)]
        expected = [r * (columns[-1] + 1) + c for r in rows for c in columns]
        assert tokens.token_of_cell.tolist() == [expected, expected]
        assert tokens.features.shape[1] == (rows[-1] + 1) * (columns[-1] + 1)
        assert tokens.map_size == (rows[-1] + 1, columns[-1] + 1)


def test_the_grid_is_ctm_with_other_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    grid, clusters = (nano("wholebody", token_reduction=name) for name in ("ctm_grid", "ctm"))
    images = smooth_images(2, 64, 64)
    expected = gradients(grid, images)
    assert not torch.equal(gradients(clusters, images)[0], expected[0])

    def by_hand(x: Tensor, num_clusters: int, **_: Any) -> tuple[None, Tensor]:
        side = round(x.shape[1] ** 0.5)
        assert num_clusters == (side // 2) ** 2
        return None, torch.tensor([r // 2 * (side // 2) + c // 2 for r in range(side) for c in range(side)]).repeat(
            2, 1
        )

    monkeypatch.setattr(ctm, "dpc_knn", by_hand)
    assert all(torch.equal(a, b) for a, b in zip(gradients(clusters, images), expected, strict=True))


def test_clusters_begin_after_a_share_of_the_training(tmp_path: Any) -> None:
    images = smooth_images(2, 64, 48)
    model, grid, clusters = nano("wholebody", cluster_after=0.5), nano("wholebody", token_reduction="ctm_grid"), nano()
    with torch.no_grad():
        assert torch.equal(model(images), clusters(images)), "without a training loop, tokens are clustered"
        for share, expected in ((0.0, grid), (0.49, grid), (0.5, clusters), (0.3, grid), (1.0, clusters)):
            for network in (model, grid, clusters):
                network.set_progress(share)
            assert torch.equal(model(images), expected(images)), share
        assert not torch.equal(grid(images), clusters(images))
        model.set_progress(0.0)
        save_model(model, tmp_path / "model.safetensors")
        assert torch.equal(load_model(tmp_path / "model.safetensors").eval()(images), clusters(images))
    create_model("timm/resnet18", "wholebody").set_progress(0.5)


# Places.


def clustered(height: int, width: int) -> Tokens:
    with torch.no_grad():
        return nano("features").backbone(smooth_images(2, height, width))[1]


def test_places_of_tokens_by_hand() -> None:
    tokens = clustered(50, 33)  # a grid of 13 x 9
    places = token_places(tokens.plan, torch.float64)
    row, column = torch.meshgrid(torch.arange(13) - 6.0, torch.arange(9) - 4.0, indexing="ij")
    cells = torch.stack([row.flatten(), column.flatten()], 1).double() / 6.5
    for image in range(2):
        for token in range(tokens.features.shape[1]):
            own = cells[tokens.token_of_cell[image] == token]
            expected = torch.cat([own.mean(0), own.std(0, correction=0)])
            torch.testing.assert_close(places[image, token], expected, rtol=0, atol=2e-3)


def test_the_place_in_the_distance_by_hand() -> None:
    tokens, weight = clustered(50, 33), 0.7
    x = torch.randn(2, tokens.features.shape[1], 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = with_place(x, tokens, num_clusters=8, weight=weight)
    centre = token_places(tokens.plan, torch.float64)[:, :, :2] * 6.5  # in cells
    expected = torch.cdist(x, x).square() / 6 + weight * torch.cdist(centre, centre).square() / (13 * 9 / 8)
    torch.testing.assert_close(torch.cdist(y, y).square() / y.shape[2], expected, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_weight_0_is_the_paper_and_a_large_weight_makes_compact_clusters() -> None:
    images = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    plain, none, strong = nano("features"), nano("features", place_weight=0), nano("features", place_weight=1e4)
    spread = {}
    for name, model in (("plain", plain), ("none", none), ("strong", strong)):
        stages = model.backbone(images)
        spread[name] = token_places(stages[1].plan, torch.float32)[:, :, 2:].mean().item()
        if name == "none":
            for ours, expected in zip(stages, plain.backbone(images), strict=True):
                assert torch.equal(ours.features, expected.features)
                assert torch.equal(ours.token_of_cell, expected.token_of_cell)
    assert spread["none"] == spread["plain"] > 1.3 * spread["strong"]


def test_a_token_place_starts_small_and_depends_on_the_place() -> None:
    options = {"token_reduction": "ctm_grid", "token_place": True}
    with torch.no_grad():
        stages = nano("features", **options).backbone(torch.zeros(1, 3, 64, 64))
        without = nano("features", token_reduction="ctm_grid").backbone(torch.zeros(1, 3, 64, 64))
    # Inner tokens of a constant image are alike but for their places.
    inner = stages[1].features.unflatten(1, (8, 8))[:, 3:5, 3:5].flatten(1, 2)
    assert inner.std(1).max() > 1e-3
    assert without[1].features.unflatten(1, (8, 8))[:, 3:5, 3:5].flatten(1, 2).std(1).max() < 1e-4
    grown = {n for n, _ in nano("features", **options).named_parameters()} - {n for n, _ in nano().named_parameters()}
    assert grown == {f"backbone.ctm{i}.place.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")}


# CR-MTA.


def test_keys_of_the_neck_are_means_over_clusters() -> None:
    model = nano("wholebody", neck="cr_mta", num_keypoints=5)
    assert isinstance(model.neck, MTA)
    seen: list[tuple[Tensor, Tensor]] = []
    for block in model.neck.merge_blocks:
        block.register_forward_pre_hook(lambda _, inputs: seen.append((inputs[0], inputs[1])))
    with torch.no_grad():
        stages = model.backbone(smooth_images(2, 50, 33))
        model.neck(stages)
    last = stages[3]
    assert [fine.features.shape[1] for fine, _ in seen] == [s.features.shape[1] for s in stages[2::-1]]
    for fine, source in seen:
        assert source.features.shape[:2] == last.features.shape[:2]
        for image in range(2):
            cells = fine.features[image, fine.token_of_cell[image]] * last.cell_weight[image, :, None]
            own = torch.zeros_like(source.features[image]).index_add_(0, last.token_of_cell[image], cells)
            torch.testing.assert_close(source.features[image], own, rtol=1e-4, atol=1e-4)


def test_cr_mta_has_the_parameters_of_mta() -> None:
    shapes = [{n: p.shape for n, p in nano(neck=neck).named_parameters()} for neck in ("mta", "cr_mta")]
    assert shapes[0] == shapes[1]


@torch.no_grad()
def test_shapes_of_133_points_and_of_faces() -> None:
    for reduction in ("ctm", "ctm_topk", "local_ctm", "ctm_grid"):
        model = nano("wholebody", neck="cr_mta", token_reduction=reduction)
        assert model(smooth_images(1, 64, 48)).shape == (1, 133, 16, 12)
    assert nano("face", neck="cr_mta")(smooth_images(1, 64, 64)).shape == (1, 98, 16, 16)


# In all modes.


@pytest.mark.slow
def test_variants_are_exported() -> None:
    model = nano("features", token_reduction="ctm_grid", token_place=True)
    program, images = export_program(model, (50, 33)), random_images(3, image_size=(50, 33))
    with torch.no_grad():
        for own, expected in zip(program.module()(images), model(images), strict=True):
            assert relative_difference(own, expected) <= TOLERANCE


@pytest.mark.slow
def test_variants_are_traced_in_one_graph() -> None:
    model = nano("wholebody", num_keypoints=3, place_weight=0.5, token_place=True, neck="cr_mta").double()
    images = smooth_images(2, 50, 33).double()
    expected = gradients(model, images)
    # test_modes.py also traces the gradients (aot_eager), of the same operators, which takes a minute here.
    ours = torch.compile(model, fullgraph=True, backend="eager")
    model.zero_grad()
    ours(images).square().sum().backward()
    for p, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@torch.no_grad()
def test_shapes_alone() -> None:
    for options in VARIANTS:
        with torch.device("meta"):
            model = create_model(NANO, "wholebody", **options)
        assert model(torch.empty(2, 3, 64, 48, device="meta")).shape == (2, 133, 16, 12)


# Mistakes.


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("wholebody", {"neck": "cr_mta", "token_reduction": "conv"}, "token_reduction conv has none; choose"),
        ("imagenet", {"place_weight": -1}, "place_weight: expected a number of at least 0, found -1"),
        ("imagenet", {"place_weight": True}, "place_weight: expected a number"),
        ("imagenet", {"cluster_after": 1.0}, "cluster_after: expected a number of at least 0 and below 1"),
        ("imagenet", {"token_place": 1}, "token_place: expected True or False"),
        ("imagenet", {"place_weight": 0.1, "token_reduction": "ctm_grid"}, "ctm_grid does not cluster features"),
        ("imagenet", {"cluster_after": 0.1, "token_reduction": "conv"}, "conv does not cluster features"),
        ("imagenet", {"token_place": True, "token_reduction": "conv"}, "set it to false"),
    ],
)
def test_mistakes_are_reported(task: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_model(NANO, task, **options)


def test_the_neck_is_for_tcformer() -> None:
    with pytest.raises(UserError, match="the neck 'cr_mta' is for TCFormer, not for timm/resnet18"):
        create_model("timm/resnet18", "wholebody", neck="cr_mta")


def test_network_options() -> None:
    fixed = {"backbone": NANO, "local_parts": (4, 2, 1), "pretrained": False, "activation_checkpointing": False}
    own = {"token_reduction": "local_ctm", "place_weight": 0.5, "token_place": True, "cluster_after": 0.25}
    model = create_model(NANO, "imagenet", **NetworkOptions(**fixed, **own).model_options)
    module = model.backbone.ctm1
    assert {name: getattr(module.options, name) for name in own} == own
    kept = {name: value for name, value in own.items() if name != "cluster_after"}
    assert kept.items() <= model.config["options"].items()
    assert "cluster_after" not in model.config["options"], "it says how to train, not what the network is"
    with pytest.raises(ValueError, match="ctm_grid does not cluster features"):
        NetworkOptions(**fixed, **{**own, "token_reduction": "ctm_grid"})


def test_tokens_of_the_grid_are_unions_of_the_finer_stage() -> None:
    with torch.no_grad():
        stages = nano(token_reduction="ctm_grid").backbone(smooth_images(1, 61, 47))
    for fine, coarse in pairwise(stages):
        assert len(set(zip(fine.token_of_cell[0].tolist(), coarse.token_of_cell[0].tolist()))) == fine.features.shape[1]
