"""The joints of body models and of SPIN's annotation files: names, orders, mirror images.

Left and right are the person's own.

Source: nkolot/SPIN, constants.py (BSD-3-Clause); smplx, vertex_joint_selector.py for the order of the vertices.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

#: Number of SMPL's joints.
NUM_JOINTS: Final = 24

#: Number of SMPL's shape coefficients that are used.
NUM_SHAPES: Final = 10

#: The 21 vertices that smplx appends to the 24 joints of the kinematic tree, in its order.
VERTEX_JOINTS: Final = (
    *("nose", "reye", "leye", "rear", "lear"),
    *("LBigToe", "LSmallToe", "LHeel", "RBigToe", "RSmallToe", "RHeel"),
    *(f"{side}{finger}" for side in "lr" for finger in ("thumb", "index", "middle", "ring", "pinky")),
)

#: SPIN's 49 joints: the 25 of OpenPose's BODY_25, then the 24 of the fields `part` and `S`.
SPIN_NAMES: Final = (
    *("OP nose", "OP neck", "OP right shoulder", "OP right elbow", "OP right wrist", "OP left shoulder"),
    *("OP left elbow", "OP left wrist", "OP mid hip", "OP right hip", "OP right knee", "OP right ankle"),
    *("OP left hip", "OP left knee", "OP left ankle", "OP right eye", "OP left eye", "OP right ear", "OP left ear"),
    *("OP left big toe", "OP left small toe", "OP left heel", "OP right big toe", "OP right small toe"),
    *("OP right heel", "right ankle", "right knee", "right hip", "left hip", "left knee", "left ankle"),
    *("right wrist", "right elbow", "right shoulder", "left shoulder", "left elbow", "left wrist", "neck (LSP)"),
    *("head top (LSP)", "pelvis (MPII)", "thorax (MPII)", "spine (H36M)", "jaw (H36M)", "head (H36M)", "nose"),
    *("left eye", "right eye", "left ear", "right ear"),
)
NUM_OPENPOSE: Final = 25

#: (49,) index of each of SPIN's joints among smplx's 45 joints followed by the 9 of `Regressors.extra`.
SPIN_JOINTS: Final = (
    *(24, 12, 17, 19, 21, 16, 18, 20, 0, 2, 5, 8, 1, 4, 7, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34),
    *(8, 5, 45, 46, 4, 7, 21, 19, 17, 16, 18, 20, 47, 48, 49, 50, 51, 52, 53, 24, 26, 25, 28, 27),
)

#: (18,) index in BODY_25 of each point of OpenPose's COCO model, which 3DPW uses.
OPENPOSE_18: Final = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)


def _mirrored(names: tuple[str, ...]) -> NDArray[np.int64]:
    swap = {"left": "right", "right": "left"}
    order = np.array([names.index(" ".join(swap.get(word, word) for word in name.split(" "))) for name in names])
    order.setflags(write=False)
    return order


#: (49,) joint i of a mirrored image is joint SPIN_FLIP[i] of the original. Its own inverse.
SPIN_FLIP: Final = _mirrored(SPIN_NAMES)

#: (24,) joint i of a mirrored body is joint SMPL_FLIP[i] of the original. Its own inverse.
SMPL_FLIP: Final = np.array([0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22])
SMPL_FLIP.setflags(write=False)
