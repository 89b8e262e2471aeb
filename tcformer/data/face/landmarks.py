"""The 98 face landmarks of WFLW: order, left/right pairs, contours, attributes.

Left and right are the person's own: point 0 and the eye of point 60 are on the person's right, which is on the left in
an image of a face that looks into the camera.

Source: the documentation of the dataset and the code of HRNet and PFLD, which agree on the pairs.
"""

from __future__ import annotations

from typing import Final

from tcformer.data.mirror import flip_permutation

NUM_LANDMARKS: Final = 98

#: The flags of a face, in the order of the official lists.
ATTRIBUTES: Final = ("pose", "expression", "illumination", "make-up", "occlusion", "blur")

#: The outer corners of the right and the left eye. Their distance, called inter-ocular, normalises errors.
EYE_CORNERS: Final = (60, 72)

#: The 44 (right, left) pairs. The other 10 points (chin, bridge of the nose, centres of the base of the nose and of the
#: lips) are their own mirror images.
FLIP_PAIRS: Final[tuple[tuple[int, int], ...]] = (
    *((i, 32 - i) for i in range(16)),  # contour
    *((33 + i, 46 - i) for i in range(5)),  # upper edges of the brows
    *((38 + i, 50 - i) for i in range(4)),  # lower edges
    *((55, 59), (56, 58)),  # nose base
    *((60 + i, 72 - i) for i in range(5)),  # upper lids with the corners
    *((65 + i, 75 - i) for i in range(3)),  # lower lids
    *((76 + i, 82 - i) for i in range(3)),  # upper outer lip
    *((87, 83), (86, 84)),  # lower outer lip
    *((88, 92), (89, 91), (95, 93)),  # inner lip
    (96, 97),  # pupils
)


#: (98,) int64: point i of a mirrored image is point FLIP[i] of the original. Its own inverse.
FLIP: Final = flip_permutation(NUM_LANDMARKS, FLIP_PAIRS)

#: The contours as runs of points (first, last, closed). The pupils, 96 and 97, belong to none.
CONTOURS: Final[tuple[tuple[int, int, bool], ...]] = (
    (0, 32, False),  # jaw
    (33, 41, True),  # brow on the left of the image
    (42, 50, True),
    (51, 54, False),  # bridge of the nose
    (55, 59, False),  # base of the nose
    (60, 67, True),  # eye on the left of the image
    (68, 75, True),
    (76, 87, True),  # outer lip
    (88, 95, True),  # inner lip
)
