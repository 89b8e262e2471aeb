"""Metrics: accuracy, average precision, errors of landmarks and of 3D joints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcformer.lazy import lazy_exports

if TYPE_CHECKING:
    from tcformer.metrics.classification import accuracy
    from tcformer.metrics.face import area_under_curve, evaluate_face, face_nme, failure_rate
    from tcformer.metrics.mesh import mpjpe, pa_mpjpe
    from tcformer.metrics.oks import oks, oks_nms
    from tcformer.metrics.wholebody import evaluate_wholebody, mean_pose, mean_pose_results, wholebody_oks

__all__ = [
    "accuracy",
    "area_under_curve",
    "evaluate_face",
    "evaluate_wholebody",
    "face_nme",
    "failure_rate",
    "mean_pose",
    "mean_pose_results",
    "mpjpe",
    "oks",
    "oks_nms",
    "pa_mpjpe",
    "wholebody_oks",
]

_MODULES = {
    "accuracy": "classification",
    "area_under_curve": "face",
    "evaluate_face": "face",
    "evaluate_wholebody": "wholebody",
    "face_nme": "face",
    "failure_rate": "face",
    "mean_pose": "wholebody",
    "mean_pose_results": "wholebody",
    "mpjpe": "mesh",
    "oks": "oks",
    "oks_nms": "oks",
    "pa_mpjpe": "mesh",
    "wholebody_oks": "wholebody",
}

__getattr__ = lazy_exports(__name__, _MODULES)
