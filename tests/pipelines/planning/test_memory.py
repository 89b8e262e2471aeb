"""Memory of a training process: ZeRO's formulas, and activations against those of a real forward pass."""

from __future__ import annotations

import pytest
import torch

import tcformer
from pipelines.params import load_params
from pipelines.planning.memory import (
    BUCKET,
    activation_bytes,
    checkpoint_bytes,
    input_size,
    network_of,
    samples_per_group,
    state_memory,
)
from tcformer.models.accounting import count_parameters
from tcformer.tasks import TASKS
from tests.imports import ROOT

WEIGHTS, WORKERS = 1_000_000, 4


@pytest.mark.parametrize(
    ("stage", "bytes_of_weight"),
    [(0, 16), (1, 4 + 4 + 12 / WORKERS), (2, 4 + 16 / WORKERS), (3, 4 + 20 / WORKERS)],
)
def test_bytes_of_a_weight_by_zero_stage(stage: int, bytes_of_weight: float) -> None:
    """ZeRO's paper, figure 1, for float32 weights, whose copy in the optimiser ZeRO 1 to 3 also divide."""
    memory = state_memory(WEIGHTS, WORKERS, stage)
    assert memory.total - memory.buffers == pytest.approx(bytes_of_weight * WEIGHTS)
    averaged = state_memory(WEIGHTS, WORKERS, stage, has_average=True)
    assert averaged.total - memory.total == 4 * WEIGHTS
    assert memory.buffers == (4 * WEIGHTS if stage == 0 else 4 * BUCKET)


def test_one_worker_needs_no_buffer_to_send() -> None:
    assert state_memory(WEIGHTS, 1, 0).total == 16 * WEIGHTS


@pytest.mark.parametrize("bf16", [False, True])
def test_activations_are_those_that_a_real_forward_pass_saves(bf16: bool) -> None:
    size, images = (64, 64), 4
    with torch.device("meta"):
        model = tcformer.create_model("tcformer_nano", "imagenet", num_classes=3)
    predicted = activation_bytes(model, images, size, bf16)
    real = tcformer.create_model("tcformer_nano", "imagenet", num_classes=3)
    weights = {p.untyped_storage().data_ptr() for p in real.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage  # kept, so that no other memory gets its address
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        real(torch.randn(images, 3, *size))
    exact = sum(storage.nbytes() for place, storage in saved.items() if place not in weights)
    assert predicted == pytest.approx(exact, rel=0.1)
    assert next(model.parameters()).device.type == "meta", "the network is not changed"


@pytest.mark.slow
def test_activations_grow_with_the_batch_and_shrink_with_checkpointing() -> None:
    with torch.device("meta"):
        plain, saving = (
            tcformer.create_model("tcformer_light", "imagenet", activation_checkpointing=switch)
            for switch in (False, True)
        )
    one, two = (activation_bytes(plain, images, (64, 64), bf16=False) for images in (8, 16))
    assert two == pytest.approx(2 * one, rel=0.01)
    assert activation_bytes(saving, 8, (64, 64), bf16=False) < one / 3


@pytest.mark.parametrize("recipe", ["sample", "paper"])
def test_networks_of_both_recipes_without_data(recipe: str) -> None:
    params = load_params(ROOT / "params.yaml").model_copy(update={"recipe": recipe})
    specs = {task: params.active.spec_of(task) for task in TASKS}
    if recipe == "paper":
        assert count_parameters(network_of(specs["imagenet"])) == 25_594_731  # docs/models.md
        assert samples_per_group(specs["imagenet"]) == 2, "mixup"
        assert input_size(specs["wholebody"]) == (256, 192) and input_size(specs["mesh"]) == (224, 224)
    for task, spec in specs.items():
        training, model = params.active.training_of(task).training, network_of(spec)
        own = checkpoint_bytes(model, training)
        assert own >= 12 * count_parameters(model)
        averaged = training.model_copy(update={"ema_decay": 0.9, "keep": "best"})
        without = training.model_copy(update={"ema_decay": None, "keep": "last"})
        assert checkpoint_bytes(model, averaged) >= 20 * count_parameters(model)
        assert checkpoint_bytes(model, without) < checkpoint_bytes(model, averaged)
