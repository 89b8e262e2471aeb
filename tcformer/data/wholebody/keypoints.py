"""The 133 points of COCO-WholeBody V1.0: names, order, left/right pairs, OKS sigmas, skeleton.

The order is body 17 | foot 6 | face 68 | left hand 21 | right hand 21. It is not the order of the fields in an
annotation. Left and right are the person's own.

Source: the documentation and evaluation code of the dataset (github.com/jin-s13/COCO-WholeBody).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcformer.data.mirror import flip_permutation

NUM_KEYPOINTS: Final = 133

#: The slice of the 133 points of each part.
PARTS: Final = MappingProxyType(
    {
        "body": slice(0, 17),
        "foot": slice(17, 23),
        "face": slice(23, 91),
        "lefthand": slice(91, 112),
        "righthand": slice(112, 133),
    }
)

#: The outer corners of the person's right and left eye among the 68 points of the face.
EYE_CORNERS: Final = (36, 45)

#: The field of annotations and results that contains the x, y, v triplets of each part.
PART_FIELDS: Final = MappingProxyType(
    {
        "body": "keypoints",
        "foot": "foot_kpts",
        "face": "face_kpts",
        "lefthand": "lefthand_kpts",
        "righthand": "righthand_kpts",
    }
)

_BODY = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder"),
    *("left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip"),
    *("left_knee", "right_knee", "left_ankle", "right_ankle"),
)
_FOOT = ("left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel")
_HAND = (
    "hand_root",
    *(
        f"{finger}{joint}"
        for finger in ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
        for joint in (1, 2, 3, 4)
    ),
)

#: The 133 names. Face points are numbered as in 300-W / iBUG 68: the contour starts on the left of the image.
NAMES: Final[tuple[str, ...]] = (
    *_BODY,
    *_FOOT,
    *(f"face-{i}" for i in range(68)),
    *(f"left_{name}" for name in _HAND),
    *(f"right_{name}" for name in _HAND),
)


def _mirrored(first: int, last: int) -> list[tuple[int, int]]:
    """The pairs of a run of points whose mirror image is the reversed run."""
    return [(first + i, last - i) for i in range((last - first + 1) // 2)]


#: The 61 left/right pairs. The other 11 points (nose, chin, bridge and tip of the nose, centres of the lips) are their
#: own mirror images.
FLIP_PAIRS: Final[tuple[tuple[int, int], ...]] = (
    *((i, i + 1) for i in range(1, 17, 2)),
    *((i, i + 3) for i in range(17, 20)),
    *_mirrored(23, 39),  # contour
    *_mirrored(40, 49),  # brows
    *_mirrored(54, 58),  # nostrils
    *((59, 68), (60, 67), (61, 66), (62, 65), (63, 70), (64, 69)),  # eyes
    *_mirrored(71, 77),  # upper outer lip
    *_mirrored(78, 82),  # lower outer lip
    *_mirrored(83, 87),  # upper inner lip
    *_mirrored(88, 90),  # lower inner lip
    *((i, i + 21) for i in range(91, 112)),
)


#: (133,) int64: point i of a mirrored image is point FLIP[i] of the original. Its own inverse.
FLIP: Final = flip_permutation(NUM_KEYPOINTS, FLIP_PAIRS)

_HAND_SIGMAS = """
    .029 .022 .035 .037 .047 .026 .025 .024 .035 .018 .024 .022 .026 .017 .021 .021 .032 .020 .019 .022 .031
"""
_SIGMAS = f"""
    .026 .025 .025 .035 .035 .079 .079 .072 .072 .062 .062 .107 .107 .087 .087 .089 .089
    .068 .066 .066 .092 .094 .094
    .042 .043 .044 .043 .040 .035 .031 .025 .020 .023 .029 .032 .037 .038 .043 .041 .045
    .013 .012 .011 .011 .012 .012 .011 .011 .013 .015
    .009 .007 .007 .007 .012 .009 .008 .016 .010 .017 .011 .009 .011 .009 .007 .013 .008 .011 .012 .010 .034
    .008 .008 .009 .008 .008 .007 .010 .008 .009 .009 .009 .007 .007 .008 .011 .008 .008 .008 .010 .008
    {_HAND_SIGMAS}
    {_HAND_SIGMAS}
"""


def _sigmas() -> NDArray[np.float64]:
    values = np.array([float(s) for s in _SIGMAS.split()])
    values.setflags(write=False)
    return values


#: (133,) float64: sigma of each point in the object keypoint similarity, in units of the square root of the person's
#: area. The published values of feet and face differ between left and right.
SIGMAS: Final = _sigmas()

#: Pairs of points that are drawn as bones.
SKELETON: Final[tuple[tuple[int, int], ...]] = (
    *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12)),
    *((5, 6), (5, 7), (6, 8), (7, 9), (8, 10)),
    *((1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
    *((15, 17), (15, 18), (15, 19), (16, 20), (16, 21), (16, 22)),
    *(
        bone
        for wrist, hand in ((9, 91), (10, 112))
        for base in range(hand + 1, hand + 21, 4)
        for bone in ((wrist, base), (base, base + 1), (base + 1, base + 2), (base + 2, base + 3))
    ),
)

#: The two sets of the half-body augmentation: body points above the hips, and hips, legs and feet.
UPPER_BODY: Final = tuple(range(0, 11))
LOWER_BODY: Final = tuple(range(11, 23))

#: The parts of each set of keypoints that a network can predict.
SUBSETS: Final = MappingProxyType(
    {
        "all": tuple(PARTS),
        "body": ("body",),
        "foot": ("foot",),
        "face": ("face",),
        "hand": ("lefthand", "righthand"),
    }
)


def subset(name: str) -> NDArray[np.int64]:
    """Indices (K,), ascending, of the points of one of `SUBSETS` among the 133."""
    return np.concatenate([np.arange(NUM_KEYPOINTS)[PARTS[part]] for part in SUBSETS[name]])


def flip_within(points: NDArray[np.int64]) -> NDArray[np.int64]:
    """`FLIP` for a subset of points.

    Args:
        points: (K,) indices among the 133, as of `subset`.

    Returns:
        (K,): point i of the subset in a mirrored image is point `result[i]` of the subset in the original.
    """
    place = {int(point): i for i, point in enumerate(points)}
    return np.array([place[int(FLIP[point])] for point in points])
