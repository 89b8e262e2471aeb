"""What results are worth: decoding, average precision, accuracy."""

from tcformer.metrics.classification import accuracy
from tcformer.metrics.decode import decode_heat_maps, flip_test, oks, oks_nms
from tcformer.metrics.face import area_under_curve, evaluate_face, face_nme, failure_rate
from tcformer.metrics.mesh import mpjpe, pa_mpjpe
from tcformer.metrics.wholebody import evaluate_wholebody, mean_pose, mean_pose_results, wholebody_oks

__all__ = [
    "accuracy",
    "area_under_curve",
    "decode_heat_maps",
    "evaluate_face",
    "evaluate_wholebody",
    "face_nme",
    "failure_rate",
    "flip_test",
    "mean_pose",
    "mean_pose_results",
    "mpjpe",
    "oks",
    "oks_nms",
    "pa_mpjpe",
    "wholebody_oks",
]
