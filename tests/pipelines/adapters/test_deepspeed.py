"""The DeepSpeed engine computes in the precision that the parameters name, also where DeepSpeed would switch it off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest
import torch
import torch.distributed

import tcformer
from pipelines.adapters.deepspeed import deepspeed_config, start_deepspeed
from pipelines.params import Training
from pipelines.training.device import autocast, observed_dtypes
from pipelines.training.engine import EngineOptions
from pipelines.training.sampling import BatchPlan
from tests.pipelines.training.test_schedule import options as optimizer_options

CPU = torch.device("cpu")
BATCH = BatchPlan(global_batch=2, micro_batch=2, accumulation=1, workers=1)


def training(precision: Literal["auto", "fp32", "bf16"], zero_stage: Literal[0, 1, 2, 3] = 0) -> Training:
    return Training(
        seed=0,
        epochs=1,
        global_batch=2,
        micro_batch=2,
        precision=precision,
        zero_stage=zero_stage,
        ema_decay=None,
        checkpoint_every=1,
        validate_every=1,
        keep="last",
        log_every=1,
        optimizer=optimizer_options(lr=1e-3, clip_norm=1.0),
    )


@pytest.fixture(autouse=True, scope="module")
def one_worker() -> Iterator[None]:
    """A group of one worker; DeepSpeed keeps it, so the whole module shares it."""
    environment = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        yield
        torch.distributed.destroy_process_group()


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.is_autocast_enabled()` asks for CUDA's autocast: under it, as on a GPU, the answer is yes."""
    asked = torch.is_autocast_enabled
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind=None: asked(kind or "cpu"))


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_a_step_computes_in_the_precision_of_the_parameters(
    precision: Literal["fp32", "bf16"], dtype: torch.dtype, zero_stage: Literal[0, 1, 2, 3], as_on_a_gpu: None
) -> None:
    chosen = training(precision, zero_stage)
    torch.manual_seed(0)
    model = tcformer.create_model("tcformer_nano", "imagenet", num_classes=3)
    engine = start_deepspeed(model, EngineOptions(chosen, BATCH, steps=2, steps_per_epoch=1.0, device=CPU))
    images, labels = torch.randn(2, 3, 64, 64), torch.tensor([0, 2])
    before = [parameter.detach().clone() for parameter in engine.whole.parameters()]
    with autocast(chosen, CPU), observed_dtypes(engine.module) as seen:
        loss = torch.nn.functional.cross_entropy(engine(images).float(), labels)
    assert seen == {dtype}
    engine.backward(loss)
    engine.step()
    engine.gather()
    assert all(parameter.dtype == torch.float32 for parameter in engine.whole.parameters())
    assert any(not torch.equal(old, new) for old, new in zip(before, engine.whole.parameters(), strict=True))
    with autocast(chosen, CPU), torch.no_grad(), observed_dtypes(engine.module) as seen:
        engine.module(images)
    assert seen == {dtype}, "validation"


def test_gradients_are_never_communicated_in_half_precision() -> None:
    section = deepspeed_config(training("bf16"), BATCH, torch.bfloat16)["torch_autocast"]
    assert section == {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    assert deepspeed_config(training("fp32"), BATCH, torch.float32)["torch_autocast"] == {"enabled": False}
