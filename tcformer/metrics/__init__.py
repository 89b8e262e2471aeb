"""Metrics: accuracy, average precision, errors of landmarks and of 3D joints."""

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
