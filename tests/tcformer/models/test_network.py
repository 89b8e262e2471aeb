from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from math import ceil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import tcformer
from tcformer.errors import UserError
from tcformer.models import VARIANTS, create_model, list_models
from tcformer.models.layers import DropPath

ROOT = Path(__file__).resolve().parents[3]
NANO = "tcformer_nano"


def smooth_images(batch: int, height: int, width: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, 3, 6, 6, generator=g)
    images = nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return images + 0.1 * torch.randn(images.shape, generator=g)


def nano(task: str = "wholebody", **options: float) -> nn.Module:
    torch.manual_seed(0)
    return create_model(NANO, task, **options).eval()


@pytest.mark.parametrize(
    ("variant", "classifier", "pose"),
    [
        ("tcformer_light", 14_231_659, 16_419_080),
        ("tcformer", 25_594_731, 27_782_152),
        ("tcformer_large", 62_818_923, 65_006_344),
    ],
)
def test_parameter_counts(variant: str, classifier: int, pose: int) -> None:
    for task, expected in (("imagenet", classifier), ("wholebody", pose)):
        with torch.device("meta"):
            model = create_model(variant, task)
        assert sum(p.numel() for p in model.parameters()) == expected


def test_list_models() -> None:
    assert tcformer.list_models() == list_models() == list(VARIANTS)
    assert {"tcformer_nano", "tcformer_light", "tcformer", "tcformer_large"} == set(list_models())


@pytest.mark.parametrize(("height", "width"), [(128, 96), (64, 64), (29, 29), (97, 131), (50, 33)])
@torch.no_grad()
def test_shapes_of_any_size(height: int, width: int) -> None:
    model = nano(num_keypoints=7)
    stages = model.backbone(smooth_images(2, height, width))
    grid = size = (ceil(height / 4), ceil(width / 4))
    count = grid[0] * grid[1]
    for tokens, channels in zip(stages, VARIANTS[NANO].widths, strict=True):
        assert tokens.features.shape == (2, count, channels)
        assert (tokens.map_size, tokens.grid_size) == (size, grid)
        assert tokens.token_of_cell.shape == tokens.cell_weight.shape == (2, grid[0] * grid[1])
        assert tokens.token_of_cell.dtype == torch.int64
        # Every token owns a cell, and its cells' weights add up to 1.
        total = torch.zeros(2, count).scatter_add_(1, tokens.token_of_cell, tokens.cell_weight)
        torch.testing.assert_close(total, torch.ones(2, count), rtol=1e-4, atol=0)
        count, size = ceil(count / 4), (ceil(size[0] / 2), ceil(size[1] / 2))
    assert model(smooth_images(2, height, width)).shape == (2, 7, *grid)


@torch.no_grad()
def test_tokens_of_a_stage_are_unions_of_the_finer_stage() -> None:
    stages = nano().backbone(smooth_images(2, 96, 96))
    for fine, coarse in pairwise(stages):
        for fine_tokens, coarse_tokens in zip(fine.token_of_cell, coarse.token_of_cell):
            pairs = set(zip(fine_tokens.tolist(), coarse_tokens.tolist()))
            assert len(pairs) == fine.features.shape[1]


@pytest.mark.parametrize("task", ["imagenet", "wholebody"])
@torch.no_grad()
def test_an_image_does_not_depend_on_its_batch(task: str) -> None:
    model, images = nano(task), smooth_images(4, 64, 48)
    together = model(images)
    for i in range(4):
        torch.testing.assert_close(model(images[i : i + 1]), together[i : i + 1], rtol=1e-4, atol=1e-6)
    own = model.backbone(images[2:3])
    for tokens, all_tokens in zip(own, model.backbone(images)):
        assert torch.equal(tokens.token_of_cell[0], all_tokens.token_of_cell[2])


@pytest.mark.parametrize("task", ["imagenet", "wholebody"])
def test_repeated_training_steps_are_identical(task: str) -> None:
    def gradients() -> list[Tensor]:
        model = nano(task, drop_path_rate=0.3).train()
        torch.manual_seed(1)
        model(smooth_images(2, 64, 48)).square().sum().backward()
        return [p.grad for p in model.parameters()]

    for a, b in zip(gradients(), gradients(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("task", ["imagenet", "wholebody"])
@pytest.mark.parametrize("value", [0.0, 1.0, -1e3])
def test_constant_images(task: str, value: float) -> None:
    # Every token ties with every other one.
    model = nano(task).train()
    images = torch.full((2, 3, 64, 48), value)
    output = model(images)
    output.square().sum().backward()
    assert output.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert torch.equal(model(images), output)


@pytest.mark.parametrize("task", ["imagenet", "wholebody"])
@torch.no_grad()
def test_ten_runs_are_identical(task: str) -> None:
    model, images = nano(task), torch.cat([smooth_images(2, 96, 72), torch.full((1, 3, 96, 72), 0.7)])
    first = model(images)
    assert all(torch.equal(model(images), first) for _ in range(9))


@pytest.mark.slow
@torch.no_grad()
def test_a_constant_image_does_not_depend_on_its_batch() -> None:
    # The layers' rounding depends on the batch and the threads; it must not decide between equal tokens.
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        model, flat, other = nano("wholebody"), torch.full((1, 3, 224, 192), 0.7), smooth_images(1, 224, 192)
        alone = model(flat)[0]
        for batch, places in ((torch.cat([flat, flat]), (0, 1)), (torch.cat([other, flat, other]), (1,))):
            output = model(batch)
            for place in places:
                torch.testing.assert_close(output[place], alone, rtol=0, atol=1e-5 * alone.abs().max().item())
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "size"), [("imagenet", (224, 224)), ("wholebody", (384, 288))])
def test_the_large_network_trains(task: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = create_model("tcformer_large", task, activation_checkpointing=True).train()
    output = model(smooth_images(1, *size))
    assert output.shape == ((1, 1000) if task == "imagenet" else (1, 133, size[0] // 4, size[1] // 4))
    output.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("task", ["imagenet", "wholebody"])
def test_backends_agree(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = []
    for backend in ("torch", "reference"):
        monkeypatch.setenv("TCFORMER_KERNELS", backend)
        model = nano(task).double()
        model(smooth_images(2, 50, 33).double()).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for fast, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("task", ["imagenet", "wholebody"])
def test_bfloat16(task: str) -> None:
    images = smooth_images(2, 64, 48)
    with torch.no_grad():
        expected = nano(task)(images)
    model = nano(task).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(images)
    output.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    whole = nano(task).bfloat16()(images.bfloat16())
    assert whole.dtype == torch.bfloat16
    # Near ties cluster differently, so single values may differ a good deal.
    for low in (output, whole):
        pair = torch.stack([low.detach().float().flatten(), expected.flatten()])
        assert torch.corrcoef(pair)[0, 1] > 0.9


@pytest.mark.parametrize("everywhere", [False, True])
def test_hooks_may_keep_what_they_see(everywhere: bool) -> None:
    model, images = nano("imagenet"), smooth_images(1, 64, 64)
    seen: list[tuple[Tensor, Tensor]] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        if isinstance(module, nn.Linear) and isinstance(output, Tensor):
            seen.append((output, output.clone()))

    with torch.no_grad():
        expected = model(images)
        if everywhere:
            handles = [nn.modules.module.register_module_forward_hook(keep)]
        else:
            handles = [m.register_forward_hook(keep) for m in model.modules() if isinstance(m, nn.Linear)]
        try:
            assert torch.equal(model(images), expected)
        finally:
            for handle in handles:
                handle.remove()
    assert len(seen) > 10
    assert all(torch.equal(output, at_first) for output, at_first in seen)


def test_every_parameter_gets_a_gradient() -> None:
    for task in ("imagenet", "wholebody"):
        model = nano(task)
        model(smooth_images(2, 64, 48)).square().sum().backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_initialisation() -> None:
    torch.manual_seed(0)
    model = create_model("tcformer_light", "wholebody")
    std = {name: p.std().item() for name, p in model.named_parameters() if p.ndim > 1}
    head = "keypoint_head.final_layer"
    assert std[f"{head}.weight"] == pytest.approx(0.001, rel=0.02)
    assert std["backbone.block2.0.mlp.fc1.weight"] == pytest.approx(0.02, rel=0.02)
    assert std["backbone.patch_embed1.proj.weight"] == pytest.approx((2 / (49 * 64)) ** 0.5, rel=0.02)
    assert std["backbone.block2.0.mlp.dwconv.weight"] == pytest.approx((2 / 9) ** 0.5, rel=0.02)
    norms = {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, nn.LayerNorm)}
    assert norms == {name for name, p in model.named_parameters() if p.ndim == 1 and not name.endswith("bias")}
    for name, p in model.named_parameters():
        if p.ndim == 1:
            assert torch.equal(p, torch.ones_like(p) if name in norms else torch.zeros_like(p)), name


def test_drop_path() -> None:
    rates = [
        m.rate
        for m in create_model("tcformer_light", "imagenet", drop_path_rate=0.14).modules()
        if isinstance(m, DropPath)
    ]
    assert rates == pytest.approx([0.02 * i for i in range(8)])
    torch.manual_seed(0)
    drop, x = DropPath(0.25), torch.ones(4000, 2, 3)
    y = drop(x)
    kept = y[:, 0, 0] != 0
    assert torch.equal(y, kept[:, None, None].expand_as(y) / 0.75)
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert drop.eval()(x) is x


def test_config_rebuilds_the_network() -> None:
    model = create_model(NANO, "imagenet", num_classes=5)
    options = {
        "num_classes": 5,
        "drop_path_rate": 0.0,
        "token_reduction": "ctm",
        "local_parts": [4, 2, 1],
        "place_weight": 0.0,
        "token_place": False,
    }
    expected = {"variant": NANO, "task": "imagenet", "options": options}
    assert model.config == json.loads(json.dumps(model.config)) == expected
    assert create_model(model.config["variant"], model.config["task"], **options).config == expected


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("tcformer_lite", "imagenet"), {}, "did you mean 'tcformer_light'"),
        (("tcformer", "wholebodies"), {}, "did you mean 'wholebody'"),
        (("tcformer", "imagenet"), {"num_class": 5}, "did you mean 'num_classes'"),
        (("tcformer", "imagenet"), {"num_classes": -1}, "num_classes: expected an integer"),
        (("tcformer", "wholebody"), {"num_keypoints": 1.5}, "num_keypoints: expected an integer"),
        (("tcformer", "wholebody"), {"drop_path_rate": 1.0}, "drop_path_rate: expected a number"),
    ],
)
def test_wrong_names_and_options(arguments: tuple[str, str], options: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_model(*arguments, **options)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((0, 3, 64, 64), "B of at least 1"),
        ((3, 64, 64), "B, 3, H, W"),
        ((1, 1, 64, 64), "B, 3, H, W"),
        ((1, 3, 28, 64), "at least 29 x 29 pixels, found 28 x 64"),
    ],
)
def test_wrong_images(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        nano()(torch.zeros(shape))


@pytest.mark.slow
def test_import_needs_torch_and_numpy_alone() -> None:
    code = (
        "import sys, tcformer; assert 'torch' not in sys.modules; tcformer.create_model\n"
        "foreign = {'cv2', 'PIL', 'timm', 'numba', 'pycocotools', 'safetensors', 'torchvision', 'ray'}\n"
        "print(sorted(foreign & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert run.stdout == "[]\n"
    assert run.stderr == ""
