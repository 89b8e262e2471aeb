import pytest
import torch

from tcformer.metrics.classification import accuracy, rank_of_label


def test_rank_of_the_right_class() -> None:
    logits = torch.tensor([[0.1, 3.0, 2.0], [0.1, 3.0, 2.0], [1.0, 1.0, 1.0], [float("nan"), 0.0, 1.0]])
    assert rank_of_label(logits, torch.tensor([1, 0, 1, 2])).tolist() == [0, 2, 1, 2]


def test_rank_zero_is_argmax() -> None:
    logits = torch.randint(0, 4, (200, 6), generator=torch.Generator().manual_seed(0)).float()
    labels = torch.arange(200) % 6
    assert torch.equal(rank_of_label(logits, labels) == 0, logits.argmax(1) == labels)


def test_images_given_twice_count_once() -> None:
    records = [{"index": i, "rank": r} for i, r in ((0, 0), (1, 4), (2, 5), (1, 4), (3, 0))]
    assert accuracy(records) == {"top1": 0.5, "top5": 0.75, "count": 4}
    with pytest.raises(ValueError):
        accuracy([])
