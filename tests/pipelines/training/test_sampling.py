"""The order of samples depends on the seed and the step, never on who loads them."""

from typing import Any

import numpy as np
import pytest

from pipelines.training.loading import training_batches, validation_batches
from pipelines.training.sampling import BatchPlan, SampleOrder, steps_in, usable_workers
from tcformer.errors import UserError


class Numbers:
    """Samples that say which they are and what their generator drew."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size

    def sample(self, index: int, rng: np.random.Generator | None) -> dict[str, Any]:
        return {"index": index, "drawn": float(rng.random()) if rng is not None else 0.0}


def steps_of(workers: int, largest: int, processes: int = 0, first: int = 0) -> list[list[tuple[int, float]]]:
    """(index, drawn) of every sample of each step, in global order."""
    plan = BatchPlan.divide(12, largest, workers)
    found: list[list[tuple[int, float]]] = [[] for _ in range(first, 5)]
    for rank in range(workers):
        batches = training_batches(Numbers(17), plan, rank, 3, first, 5, processes)
        for step in found:
            for _ in range(plan.accumulation):
                batch = next(batches)
                step += zip(batch["index"].tolist(), batch["drawn"].tolist())
    return [sorted(step) for step in found]


@pytest.mark.parametrize(("workers", "largest"), [(1, 12), (1, 4), (2, 6), (3, 2), (4, 100), (12, 1)])
def test_steps_hold_the_same_samples_for_any_number_of_workers(workers: int, largest: int) -> None:
    assert steps_of(workers, largest) == steps_of(1, 5)


@pytest.mark.slow
def test_loader_processes_change_nothing() -> None:
    assert steps_of(2, 3, processes=1) == steps_of(2, 3)


def test_a_resumed_training_continues_the_order() -> None:
    assert steps_of(2, 6, first=3) == steps_of(2, 6)[3:]


def test_every_epoch_shows_every_sample_once() -> None:
    order = SampleOrder(17, seed=3)
    drawn = [order[position] for position in range(3 * 17)]
    for epoch in range(3):
        assert sorted(index for e, index in drawn if e == epoch) == list(range(17))
    assert [i for _, i in drawn[:17]] != [i for _, i in drawn[17:34]]


def test_augmentation_differs_between_epochs() -> None:
    plan = BatchPlan.divide(4, 4, 1)
    drawn = [b["drawn"].tolist() for b in training_batches(Numbers(4), plan, 0, 3, 0, 2, 0)]
    assert set(drawn[0]).isdisjoint(drawn[1])


def test_validation_covers_each_sample_once() -> None:
    seen = [
        i for rank in range(3) for batch in validation_batches(Numbers(10), rank, 3, 2) for i in batch["index"].tolist()
    ]
    assert sorted(seen) == list(range(10))


def test_more_workers_than_samples() -> None:
    assert list(validation_batches(Numbers(1), 1, 2, 4)) == []


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(UserError, match="global_batch = 10 cannot be shared by 4 workers"):
        BatchPlan.divide(10, 4, 4)


def test_no_sample_at_all_is_refused() -> None:
    with pytest.raises(UserError, match="training set is empty"):
        SampleOrder(0, 1)


@pytest.mark.parametrize(
    ("fewest", "most", "group", "expected"),
    [(1, 8, 1, [1, 2, 3, 4, 6, 8]), (2, 8, 2, [2, 3, 4, 6]), (5, 7, 1, [6]), (8, 8, 1, [8])],
)
def test_numbers_of_workers_that_share_a_batch(fewest: int, most: int, group: int, expected: list[int]) -> None:
    assert usable_workers(24, fewest, most, group) == expected


def test_a_range_without_any_usable_number_is_refused() -> None:
    with pytest.raises(UserError, match=r"global_batch = 24 cannot be shared by any number of workers from 9 to 11"):
        usable_workers(24, 9, 11)
    with pytest.raises(UserError, match=r"global_batch = 24 cannot be shared by 5 workers: choose a multiple of 5"):
        usable_workers(24, 5, 5)


def test_a_training_has_at_least_one_step() -> None:
    assert steps_in(1, 3, 64) == 1
    assert steps_in(10, 100, 50) == 20


@pytest.mark.parametrize(
    ("global_batch", "largest", "workers", "micro", "accumulation"),
    [(12, 12, 1, 12, 1), (12, 5, 1, 4, 3), (12, 3, 2, 2, 3), (12, 1000, 3, 4, 1), (20, 5, 2, 2, 5)],
)
def test_micro_batches_hold_whole_pairs(
    global_batch: int, largest: int, workers: int, micro: int, accumulation: int
) -> None:
    plan = BatchPlan.divide(global_batch=global_batch, largest_micro_batch=largest, workers=workers, group=2)
    assert (plan.micro_batch, plan.accumulation) == (micro, accumulation)
    assert plan.micro_batch * plan.accumulation * workers == global_batch


def test_pairs_that_no_micro_batch_can_hold_are_refused() -> None:
    with pytest.raises(UserError, match="global_batch = 6 cannot be shared by 2 workers and the groups of 2 samples"):
        BatchPlan.divide(global_batch=6, largest_micro_batch=3, workers=2, group=2)
    with pytest.raises(UserError, match=r"micro_batch = 1 holds no group of 2 samples .*: choose at least 2"):
        BatchPlan.divide(global_batch=8, largest_micro_batch=1, workers=2, group=2)
