"""Ablations, heads and the baselines' backbones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from kernels import dpc_knn
from tcformer.data.wholebody.keypoints import FLIP, NUM_KEYPOINTS, PARTS, SUBSETS, flip_within, subset
from tcformer.errors import UserError
from tcformer.models import create_model
from tcformer.models.ctm import nearest_important, part_of_token
from tcformer.models.heads import MeshHead, rotations_from_6d
from tests.tcformer.models.test_network import NANO, nano, smooth_images
from tests.tcformer.networks import NETWORK

TCFORMER = "tcformer"


def parameters(variant: str, task: str, **options: Any) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in create_model(variant, task, **options).parameters())


@pytest.mark.parametrize(
    ("task", "options", "expected"),
    [
        # Without clustering it is PVTv2-B2: the strided convolutions lose the importance scores.
        ("imagenet", {"token_reduction": "conv"}, 25_362_856),
        ("imagenet", {"token_reduction": "ctm_topk"}, 25_594_731),
        ("imagenet", {"token_reduction": "local_ctm"}, 25_594_731),
        ("wholebody", {}, 27_782_152),
        ("wholebody", {"token_reduction": "conv"}, 27_550_277),
        ("wholebody", {"neck": "deconv"}, 29_311_752),
        ("wholebody", {"keypoints": "body"}, 27_782_152 - 116 * 257),
        ("wholebody", {"keypoints": "foot"}, 27_782_152 - 127 * 257),
        ("wholebody", {"keypoints": "face"}, 27_782_152 - 65 * 257),
        ("wholebody", {"keypoints": "hand"}, 27_782_152 - 91 * 257),
        ("face", {}, 27_782_152 - 35 * 257),
        ("mesh", {}, 26_978_336),
    ],
)
def test_parameters_of_ablations_and_heads(task: str, options: dict[str, Any], expected: int) -> None:
    assert parameters(TCFORMER, task, **options) == expected


@pytest.mark.parametrize(
    ("backbone", "task", "options", "millions"),
    [
        ("resnet50", "imagenet", {}, 25.56),  # torchvision's count
        ("resnet50", "wholebody", {}, 34.03),  # SimpleBaseline: 34.0
        ("resnet101", "wholebody", {}, 53.02),  # 53.0
        ("resnet152", "wholebody", {}, 68.66),  # 68.6
        ("hrnet_w32", "wholebody", {}, 28.54),  # HRNet: 28.5
        ("hrnet_w48", "wholebody", {}, 63.60),  # 63.6
        ("hrnet_w18", "face", {"neck": "all_maps"}, 9.66),  # HRNetV2: 9.66
        ("pvt_v2_b2", "imagenet", {}, 25.36),
        ("swin_tiny_patch4_window7_224", "imagenet", {}, 28.29),
        ("deit_small_patch16_224", "imagenet", {}, 22.05),
        ("resnet50", "mesh", {}, 26.98),  # HMR
    ],
)
def test_parameters_of_baselines(backbone: str, task: str, options: dict[str, Any], millions: float) -> None:
    assert parameters(f"timm/{backbone}", task, **options) / 1e6 == pytest.approx(millions, abs=0.006)


@pytest.mark.parametrize("backbone", ["resnet18", "hrnet_w18_small", "pvt_v2_b0", "deit_tiny_patch16_224"])
@torch.no_grad()
def test_baselines_give_what_the_tasks_expect(backbone: str) -> None:
    images = smooth_images(2, 96, 64)
    models = {task: create_model(f"timm/{backbone}", task).eval() for task in ("imagenet", "wholebody", "face", "mesh")}
    assert models["imagenet"](images).shape == (2, 1000)
    assert models["wholebody"](images).shape == (2, NUM_KEYPOINTS, 24, 16)
    assert models["face"](images).shape == (2, 98, 24, 16)
    assert models["mesh"](images).rotations.shape == (2, 24, 3, 3)
    for m in create_model(f"timm/{backbone}", "features").eval()(images):
        assert m.ndim == 4


@pytest.mark.parametrize("reduction", ["ctm", "ctm_topk", "conv", "local_ctm"])
@pytest.mark.parametrize(("height", "width"), [(96, 64), (50, 33), (29, 61)])
def test_every_reduction_trains_at_any_size(reduction: str, height: int, width: int) -> None:
    for neck in ("mta", "deconv"):
        model = nano("wholebody", token_reduction=reduction, neck=neck, num_keypoints=5).train()
        output = model(smooth_images(2, height, width))
        assert output.shape == (2, 5, -(-height // 4), -(-width // 4))
        output.square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        # Without noise it is the same again.
        assert torch.equal(model.eval()(smooth_images(2, height, width)), model(smooth_images(2, height, width)))


@torch.no_grad()
def test_features_are_the_stages_maps() -> None:
    model = nano("features")
    images = smooth_images(2, 64, 96)
    assert [tuple(m.shape) for m in model(images)] == [
        (2, 16, 16, 24),
        (2, 32, 8, 12),
        (2, 64, 4, 6),
        (2, 128, 2, 3),
    ]


def test_activation_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = nano("imagenet", activation_checkpointing=checkpointing, drop_path_rate=0.3).train()
        torch.manual_seed(1)
        model(smooth_images(2, 64, 48)).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


# Token reductions.


@torch.no_grad()
def test_local_clusters_stay_within_their_parts() -> None:
    model = nano("features", token_reduction="local_ctm").eval()
    height, width = 100, 72
    stages = model.backbone(smooth_images(2, height, width))
    rows, columns = -(-height // 4), -(-width // 4)
    for tokens, parts in zip(stages[1:], (4, 2, 1), strict=True):
        row, column = torch.arange(rows) * parts // rows, torch.arange(columns) * parts // columns
        part_of_cell = (row[:, None] * parts + column).flatten()
        for token_of_cell in tokens.token_of_cell:
            pairs = set(zip(token_of_cell.tolist(), part_of_cell.tolist()))
            assert len(pairs) == tokens.features.shape[1], "a token lies in one part alone"
        part = part_of_token(tokens, parts=parts)
        assert torch.equal(part, part.sort()[0]), "clusters are numbered part by part"


def test_the_most_important_tokens_become_centres() -> None:
    g = torch.Generator().manual_seed(0)
    x, importance = torch.randn(2, 20, 3, generator=g), torch.randn(2, 20, generator=g)
    importance[:, 3] = importance[:, 11] = 5.0  # a tie
    assign = nearest_important(x, importance, num_clusters=5)
    for i in range(2):
        centres = importance[i].sort(descending=True, stable=True)[1][:5].sort()[0]
        expected = torch.cdist(x[i : i + 1].double(), x[i : i + 1, centres].double())[0].argmin(1)
        assert torch.equal(assign[i], expected)
        assert assign[i, centres].tolist() == list(range(5))
    assert torch.equal(
        nearest_important(torch.zeros(1, 6, 2), torch.zeros(1, 6), num_clusters=3)[0], torch.tensor([0, 1, 2, 0, 0, 0])
    )


@torch.no_grad()
def test_one_part_is_global_clustering() -> None:
    images = smooth_images(2, 64, 64)
    whole, local = nano("imagenet"), nano("imagenet", token_reduction="local_ctm", local_parts=(1, 1, 1))
    assert torch.equal(whole(images), local(images))
    assert dpc_knn(torch.rand(1, 16, 4), 4)[1].shape == (1, 16)


# Heads.


def test_rotations() -> None:
    g = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(5, 3, 3, generator=g))[0]
    q = q * torch.linalg.det(q)[:, None, None]
    assert torch.allclose(rotations_from_6d(q[:, :, :2].flatten(1)), q, atol=1e-6)
    made = rotations_from_6d(torch.randn(7, 24, 6, generator=g))
    assert torch.allclose(made @ made.mT, torch.eye(3).expand_as(made), atol=1e-5)
    assert torch.allclose(torch.linalg.det(made), torch.ones(7, 24), atol=1e-5)


def test_the_mesh_head_starts_at_its_mean_and_corrects_it_three_times() -> None:
    torch.manual_seed(0)
    head = MeshHead(8)
    head.reset_parameters()
    pose = torch.eye(3)[:, [1, 0]].flatten().repeat(24)
    head.set_mean(pose, torch.arange(10.0), torch.tensor([0.5, 0.1, -0.1]))
    assert {"mean"} <= set(head.state_dict()), "the mean travels with the weights"
    rotations, shape, camera = head.eval()(torch.randn(3, 8))
    assert torch.allclose(rotations, rotations_from_6d(pose[:6]).expand(3, 24, 3, 3), atol=0.2)
    assert torch.allclose(shape, torch.arange(10.0).expand(3, 10), atol=0.2)
    assert torch.allclose(camera, torch.tensor([0.5, 0.1, -0.1]).expand(3, 3), atol=0.2)
    for layer in (head.decpose, head.decshape, head.deccam):
        nn.init.zeros_(layer.weight)
    with torch.no_grad():
        head.deccam.bias.fill_(0.25)
    assert torch.allclose(head(torch.randn(3, 8)).camera[:, 0], torch.full((3,), 0.5 + 3 * 0.25))


def test_deconvolutions_start_as_simple_baseline() -> None:
    model = create_model(NANO, "wholebody", neck="deconv")
    stds = [m.weight.std().item() for m in model.neck.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert stds == pytest.approx([0.001] * 3, rel=0.05)


# Keypoint subsets.


def test_subsets_of_keypoints() -> None:
    assert {name: len(subset(name)) for name in SUBSETS} == {"all": 133, "body": 17, "foot": 6, "face": 68, "hand": 42}
    assert subset("hand").tolist() == list(range(91, 133))
    for name in SUBSETS:
        points = subset(name)
        assert (points[flip_within(points)] == FLIP[points]).all()
    assert set(PARTS) == set(SUBSETS["all"])


# Mistakes.


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((TCFORMER, "wholebody"), {"token_reduction": "topk"}, "did you mean 'ctm_topk'"),
        ((TCFORMER, "wholebody"), {"neck": "deconvolution"}, "did you mean 'deconv'"),
        ((TCFORMER, "wholebody"), {"neck": "finest_map"}, "is for HRNet, not for tcformer"),
        (("timm/resnet50", "wholebody"), {"neck": "mta"}, "is for TCFormer, not for timm/resnet50"),
        ((TCFORMER, "wholebody"), {"keypoints": "hands"}, "did you mean 'hand'"),
        ((TCFORMER, "imagenet"), {"local_parts": (4, 3, 1)}, "each a divisor of the one before"),
        ((TCFORMER, "imagenet"), {"pretrained": True}, "no option for tcformer"),
        (("timm/resnet5", "imagenet"), {}, "timm has no model 'resnet5'"),
        (("timm/hrnet_w18", "imagenet"), {"drop_path_rate": 0.1}, "set drop_path to 0"),
    ],
)
def test_mistakes_are_reported(arguments: tuple[str, str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_model(*arguments, **options)


def test_hrnet_tells_the_sizes_it_takes() -> None:
    with pytest.raises(UserError, match=r"sides are multiples of 32, found 100 x 64"):
        create_model("timm/hrnet_w18_small", "wholebody")(torch.zeros(1, 3, 100, 64))


def test_pretrained_weights_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"pretrained weights of timm/resnet18 cannot be downloaded"):
        create_model("timm/resnet18", "imagenet", pretrained=True)


def test_network_options() -> None:
    options = replace(NETWORK, backbone="tcformer", token_reduction="local_ctm", activation_checkpointing=True)
    assert parameters(options.backbone, "imagenet", **options.model_options) == 25_594_731
    with pytest.raises(ValueError, match="did you mean 'tcformer_light'"):
        replace(NETWORK, backbone="tcformer_lite")
    with pytest.raises(ValueError, match="give a weights file as initial"):
        replace(NETWORK, backbone="tcformer", pretrained=True)
