"""Boxes of people by torchvision's detector."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import torch
from numpy.typing import NDArray

from tcformer.errors import UserError
from tcformer.inference.boxes import Boxes

_PERSON = 1  # COCO's category


class PersonDetector:
    """torchvision's Faster R-CNN (ResNet-50 FPN v2, trained on COCO), whose weights torch downloads at the first use.

    Args:
        device: where it runs.
        least_score: boxes with a lower score are dropped.

    Raises:
        UserError: the weights are not on this machine and cannot be downloaded.
    """

    def __init__(self, device: torch.device, least_score: float = 0.5) -> None:
        from torchvision.models import detection

        weights = detection.FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1
        state = _downloaded(weights)
        # weights_backbone: else torchvision downloads those of ImageNet too.
        self._model = detection.fasterrcnn_resnet50_fpn_v2(
            weights=None, weights_backbone=None, box_score_thresh=least_score
        )
        self._model.load_state_dict(state)
        self._model.to(device).eval()
        self._device = device

    @torch.inference_mode()
    def __call__(self, image: NDArray[np.uint8]) -> Boxes:
        """The people in an image (H, W, 3) uint8 RGB, the most certain first."""
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).to(self._device).float() / 255
        [found] = self._model([pixels])
        people = found["labels"] == _PERSON
        corners = found["boxes"][people].double().cpu().numpy()
        scores = found["scores"][people].double().cpu().numpy()
        xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
        boxes = (xywh[:, 2:] > 0).all(1)
        return Boxes(xywh[boxes], scores[boxes], np.zeros(int(boxes.sum()), np.int64))


def _downloaded(weights: object) -> dict[str, torch.Tensor]:
    """The tensors of torchvision's weights, from torch's cache or else from the network."""
    url: str = weights.url  # type: ignore[attr-defined]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        state: dict[str, torch.Tensor] = weights.get_state_dict(progress=True, check_hash=True)  # type: ignore[attr-defined]
    except Exception as error:  # no network, no disk, a damaged file
        raise UserError(
            f"--detector torchvision: its weights cannot be loaded ({error}); they are downloaded once; on a machine "
            f"without a network put {url} into {folder} as {Path(urlsplit(url).path).name}, or give boxes instead"
        ) from error
    return state
