"""Networks behave as users of timm expect. timm's own pvt_v2_b0 passes the same checks, so it is the reference.

Each check gets a function that builds a model with timm's options, as `timm.create_model(name, ...)` does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
from timm.models import group_parameters
from timm.optim import create_optimizer_v2, param_groups_layer_decay, param_groups_weight_decay
from torch import nn

import tcformer
from tcformer.errors import UserError
from tcformer.models import layer_depths, load_model, save_model
from tcformer.models.kernel_choice import use_kernels

Build = Callable[..., Any]
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))

#: Reference, ours, ours as timm builds it, and a baseline.
BUILDERS: dict[str, Build] = {
    "timm's pvt_v2_b0": partial(timm.create_model, "pvt_v2_b0"),
    "tcformer_nano": partial(tcformer.create_model, "tcformer_nano"),
    "tcformer_nano without CTM": partial(tcformer.create_model, "tcformer_nano", token_reduction="conv"),
    "timm.create_model": lambda **options: timm.create_model(tcformer.register_with_timm()[0], **options),
    "timm/pvt_v2_b0": partial(tcformer.create_model, "timm/pvt_v2_b0"),
}


@torch.no_grad()
def logits_of_a_new_model(build: Build) -> None:
    model = build().eval()
    assert model.num_classes == 1000 and model(IMAGES).shape == (2, 1000)


@torch.no_grad()
def features_without_classes(build: Build) -> None:
    model = build(num_classes=0).eval()
    assert model.num_classes == 0 and model(IMAGES).shape == (2, model.num_features)
    assert isinstance(model.get_classifier(), nn.Identity)


@torch.no_grad()
def parts_make_the_whole(build: Build) -> None:
    model = build(num_classes=7).eval()
    features = model.forward_features(IMAGES)
    assert torch.equal(model.forward_head(features), model(IMAGES))
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (2, model.num_features) == (2, model.head_hidden_size)
    assert torch.equal(model.get_classifier()(pooled), model(IMAGES))


@torch.no_grad()
def a_new_classifier(build: Build) -> None:
    model = build().double().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if not name.startswith("head.")}
    model.reset_classifier(5)
    assert model.num_classes == 5 and model.head.weight.shape[0] == 5 and model.head.training
    assert model.eval()(IMAGES.double()).shape == (2, 5)
    model.reset_classifier(0)
    assert model(IMAGES.double()).shape == (2, model.num_features)
    after = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("head.")}
    assert all(torch.equal(before[name], after[name]) for name in before)


@torch.no_grad()
def other_channels(build: Build) -> None:
    for channels in (1, 5):
        model = build(in_chans=channels, num_classes=3).eval()
        assert model.in_chans == channels and model(torch.zeros(1, channels, 64, 64)).shape == (1, 3)


@torch.no_grad()
def any_image_size(build: Build) -> None:
    assert build(num_classes=3).eval()(torch.zeros(1, 3, 96, 160)).shape == (1, 3)


@torch.no_grad()
def feature_maps_alone(build: Build) -> None:
    model = build(features_only=True).eval()
    maps = model(IMAGES)
    assert [m.shape[1] for m in maps] == model.feature_info.channels()
    assert [64 // m.shape[2] for m in maps] == model.feature_info.reduction() == [4, 8, 16, 32]
    model = build(features_only=True, out_indices=(1, 3)).eval()
    assert [64 // m.shape[2] for m in model(IMAGES)] == model.feature_info.reduction() == [8, 32]
    assert [m.shape[1] for m in model(IMAGES)] == model.feature_info.channels()


@torch.no_grad()
def intermediate_maps(build: Build) -> None:
    model = build().eval()
    final, maps = model.forward_intermediates(IMAGES)
    torch.testing.assert_close(model.forward_head(final), model(IMAGES))
    assert [m.shape[1] for m in maps] == [info["num_chs"] for info in model.feature_info]
    assert [64 // m.shape[2] for m in maps] == [info["reduction"] for info in model.feature_info]
    for indices, expected in ((2, [2, 3]), ([0, -1], [0, 3]), ((1,), [1])):
        found = model.forward_intermediates(IMAGES, indices=indices, intermediates_only=True)
        assert all(torch.equal(m, maps[i]) for m, i in zip(found, expected, strict=True))
    ran: list[str] = []
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    [first] = model.forward_intermediates(IMAGES, indices=[0], stop_early=True, intermediates_only=True)
    assert torch.equal(first, maps[0])
    early = len(ran)
    model.forward_intermediates(IMAGES)
    assert early < len(ran) / 2
    with pytest.raises((AssertionError, UserError), match=r"to 3|out of range"):
        model.forward_intermediates(IMAGES, indices=[4])


def layers_of_parameters(build: Build) -> None:
    model = build()
    names = {name for name, _ in model.named_parameters()}
    fine = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    coarse = group_parameters(model, model.group_matcher(coarse=True), reverse=True)
    assert set(fine) == set(coarse) == names
    assert max(coarse.values()) == 5, "stem, four stages, head"
    assert fine["head.weight"] == max(fine.values())
    [stem] = {depth for name, depth in fine.items() if "patch_embed" in name}
    assert stem == 0


def optimisers(build: Build) -> None:
    model = build()
    assert set(model.no_weight_decay()) <= {name for name, _ in model.named_parameters()}
    count = sum(1 for _ in model.parameters())
    for groups in (param_groups_layer_decay(model, layer_decay=0.7), param_groups_weight_decay(model, 0.05)):
        assert sum(len(group["params"]) for group in groups) == count
    create_optimizer_v2(model, "adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.7)


def gradient_checkpoints(build: Build) -> None:
    model = build(num_classes=3).train()
    found = []
    for enable in (False, True, False):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(IMAGES).square().sum().backward()
        found.append([p.grad.clone() for p in model.parameters()])
    for other in found[1:]:
        for a, b in zip(found[0], other):
            torch.testing.assert_close(a, b)


def data_config(build: Build) -> None:
    model = build()
    for about in (model.default_cfg, model.pretrained_cfg):
        assert about["num_classes"] == 1000 and about["classifier"] == "head" and about["input_size"] == (3, 224, 224)
        modules = dict(model.named_modules())
        if about["first_conv"]:
            assert isinstance(modules[about["first_conv"]], nn.Conv2d) and about["classifier"] in modules
    config = timm.data.resolve_model_data_config(model)
    assert config["mean"] == (0.485, 0.456, 0.406) and config["interpolation"] == "bicubic"
    timm.data.create_transform(**config)


def dropout(build: Build) -> None:
    model = build(num_classes=3, drop_rate=0.5).train()
    torch.manual_seed(0)
    assert not torch.equal(model(IMAGES), model(IMAGES))
    assert torch.equal(model.eval()(IMAGES), model(IMAGES))
    deep = build(drop_path_rate=0.5).train()
    assert not torch.equal(deep(IMAGES), deep(IMAGES))


def wrong_options(build: Build) -> None:
    for option in ("nonsense", "img_size"):
        with pytest.raises((TypeError, UserError), match=option):
            build(**{option: 224})


def copies_and_averages(build: Build) -> None:
    model = build(num_classes=3).eval()
    averaged = timm.utils.ModelEmaV3(model, decay=0.9)
    averaged.update(model, step=1)
    assert torch.equal(averaged.module(IMAGES), copy.deepcopy(model)(IMAGES))
    build(num_classes=3).load_state_dict(timm.utils.get_state_dict(model))


@torch.no_grad()
def other_types(build: Build) -> None:
    model = build(num_classes=3).eval()
    expected = model(IMAGES)
    assert model.to(torch.bfloat16)(IMAGES.bfloat16()).dtype == torch.bfloat16
    model = model.float().to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        model(IMAGES.contiguous(memory_format=torch.channels_last)).shape, expected.shape, rtol=0, atol=0
    )


def second_derivatives(build: Build) -> None:
    """As in a gradient penalty. Fused attention and the fast token operations have none: see the test below."""
    model = build(num_classes=3).train()
    images = IMAGES[:1].clone().requires_grad_()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), use_kernels("portable"):
        [grad] = torch.autograd.grad(model(images).square().sum(), images, create_graph=True)
        grad.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for name, p in model.named_parameters() if "fc1" in name)


CONVENTIONS = (
    logits_of_a_new_model,
    features_without_classes,
    parts_make_the_whole,
    a_new_classifier,
    other_channels,
    any_image_size,
    feature_maps_alone,
    intermediate_maps,
    layers_of_parameters,
    optimisers,
    gradient_checkpoints,
    data_config,
    dropout,
    wrong_options,
    copies_and_averages,
    other_types,
    second_derivatives,
)


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("convention", CONVENTIONS, ids=lambda convention: convention.__name__)
def test_conventions(convention: Callable[[Build], None], builder: str) -> None:
    torch.manual_seed(0)
    convention(BUILDERS[builder])


# What goes beyond the reference.


@pytest.mark.parametrize("task", ["imagenet", "wholebody"])
def test_second_derivatives_of_fast_operations_are_refused_with_what_to_do(task: str) -> None:
    model = tcformer.create_model("tcformer_nano", task)
    images = IMAGES[:1].clone().requires_grad_()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), use_kernels("torch"):
        [grad] = torch.autograd.grad(model(images).square().sum(), images, create_graph=True)
        with pytest.raises(RuntimeError, match=r"no second derivatives: set .*TCFORMER_KERNELS to portable"):
            grad.square().sum().backward()


@pytest.mark.parametrize("name", ["tcformer_nano", "tcformer_light", "timm/pvt_v2_b0", "timm/resnet18"])
def test_timm_divides_layers_as_the_training_does(name: str) -> None:
    for task in ("imagenet", "wholebody"):
        with torch.device("meta"):
            model = tcformer.create_model(name, task)
        assert group_parameters(model, model.group_matcher(), reverse=True) == layer_depths(model)


def test_pooling_can_be_switched_off() -> None:
    model = tcformer.create_model("tcformer_nano", num_classes=3).eval()
    pooled = model(IMAGES)
    model.reset_classifier(0, global_pool="")
    assert model(IMAGES).shape == (2, 4, model.num_features), "the tokens of the last stage"
    model.reset_classifier(3, global_pool="avg")
    assert model(IMAGES).shape == pooled.shape
    assert tcformer.create_model("tcformer_nano", global_pool="", num_classes=3)(IMAGES).shape == (2, 4, 3)
    for wrong in ({"num_classes": -1}, {"num_classes": 3, "global_pool": "max"}):
        with pytest.raises(UserError, match="model option"):
            model.reset_classifier(**wrong)
    with pytest.raises(UserError, match="keeps the pooling of timm"):
        tcformer.create_model("timm/pvt_v2_b0").reset_classifier(3, global_pool="")


@pytest.mark.parametrize(
    "options",
    [
        {"num_classes": 0},
        {"in_chans": 1, "num_classes": 3, "drop_rate": 0.1, "global_pool": ""},
        {"features_only": True, "out_indices": (-1, 1)},
        {},
    ],
)
def test_files_keep_these_options(options: dict[str, Any], tmp_path: Any) -> None:
    model = tcformer.create_model("tcformer_nano", **options).eval()
    if not options:
        model.reset_classifier(4, global_pool="")
    save_model(model, tmp_path / "a.safetensors")
    loaded = load_model(tmp_path / "a.safetensors").eval()
    images = torch.ones(1, model.in_chans, 64, 64)
    assert loaded.config == model.config
    for a, b in zip(loaded(images), model(images), strict=True):
        assert torch.equal(a, b)


def test_tokens_instead_of_maps() -> None:
    model = tcformer.create_model("tcformer_nano", "wholebody").eval()
    tokens = model.forward_intermediates(IMAGES, output_fmt="NLC", intermediates_only=True)
    assert all(torch.equal(a, b.features) for a, b in zip(tokens, model.backbone(IMAGES), strict=True))
    with pytest.raises(UserError, match="'NCHW' or 'NLC'"):
        model.forward_intermediates(IMAGES, output_fmt="NHWC")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("num_clases", "did you mean 'num_classes'"),
        ("in_channels", "did you mean 'in_chans'"),
        ("drop_path", "did you mean 'drop_path_rate'"),
        ("attn_drop_rate", "did you mean 'drop_path_rate'"),
        ("grad_checkpointing", "did you mean 'activation_checkpointing'"),
        ("img_size", "any size of at least 29 x 29 pixels"),
        ("checkpoint_path", "load_released_weights"),
        ("embed_dims", "choose one of tcformer_nano"),
        ("device", "model.to"),
    ],
)
def test_options_of_other_names_point_to_the_right_one(option: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tcformer.create_model("tcformer_light", "imagenet", **{option: 1})


@pytest.mark.parametrize("task", ["imagenet", "wholebody", "face", "keypoints"])
def test_the_last_layer_is_named(task: str) -> None:
    model = tcformer.create_model("tcformer_nano", task)
    assert hasattr(model.get_submodule(model.pretrained_cfg["classifier"]), "weight")


def test_images_of_wrong_size_for_hrnet() -> None:
    with torch.device("meta"):
        model = tcformer.create_model("timm/hrnet_w18_small")
    with pytest.raises(UserError, match="multiples of 32"):
        model.forward_intermediates(torch.zeros(1, 3, 60, 64))


def test_timm_lists_the_variants() -> None:
    names = tcformer.register_with_timm()
    assert tcformer.register_with_timm() == names == tcformer.list_models()
    assert set(timm.list_models("tcformer_l*")) == set(tcformer.list_models("tcformer_l*")) != set(names)
    assert timm.create_model("tcformer_nano", num_classes=4).config["options"]["num_classes"] == 4
    with pytest.raises(UserError, match="no weights to download"):
        timm.create_model("tcformer_nano", pretrained=True)
