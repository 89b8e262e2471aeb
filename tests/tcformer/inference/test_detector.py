"""torchvision's detector, with a stand-in for the download of its weights alone."""

from __future__ import annotations

from urllib.error import URLError

import numpy as np
import pytest
import torch

from tcformer.errors import UserError
from tcformer.inference import detector

pytestmark = pytest.mark.slow  # torchvision takes seconds


def test_without_weights_and_network_one_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(UserError, match=r"no network.*fasterrcnn_resnet50_fpn_v2_coco.*\.pth") as error:
        detector.PersonDetector(torch.device("cpu"))
    assert "\n" not in str(error.value)


def test_people_are_found_among_the_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models.detection import fasterrcnn_resnet50_fpn_v2

    torch.manual_seed(0)
    state = fasterrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None).state_dict()
    monkeypatch.setattr(detector, "_downloaded", lambda weights: state)
    people = detector.PersonDetector(torch.device("cpu"))

    def forward(images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        assert images[0].shape == (3, 40, 60) and float(images[0].max()) == 1
        corners = torch.tensor([[1.0, 2, 11, 22], [3, 4, 9, 9], [5, 5, 5, 9]])
        return [{"boxes": corners, "labels": torch.tensor([1, 2, 1]), "scores": torch.tensor([0.9, 0.8, 0.7])}]

    monkeypatch.setattr(people._model, "forward", forward)
    boxes = people(np.full((40, 60, 3), 255, np.uint8))
    assert boxes.xywh.tolist() == [[1, 2, 10, 20]], "no other object, no empty box"
    assert boxes.scores.tolist() == pytest.approx([0.9])
