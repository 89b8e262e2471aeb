import json
from pathlib import Path

import numpy as np

from tcformer.data.wholebody.keypoints import (
    FLIP,
    FLIP_PAIRS,
    LOWER_BODY,
    NAMES,
    NUM_KEYPOINTS,
    PART_FIELDS,
    PARTS,
    SIGMAS,
    SKELETON,
    UPPER_BODY,
)


def test_the_parts_follow_one_another() -> None:
    assert [i for part in PARTS.values() for i in range(part.start, part.stop)] == list(range(NUM_KEYPOINTS))
    assert list(PARTS) == list(PART_FIELDS)


def test_flipping_twice_is_the_identity() -> None:
    assert (FLIP[FLIP] == np.arange(NUM_KEYPOINTS)).all()
    assert len(FLIP_PAIRS) == 61
    alone = [0, 31, *range(50, 54), 56, 74, 80, 85, 89]
    assert (np.flatnonzero(np.arange(NUM_KEYPOINTS) == FLIP) == alone).all()


def test_flipping_exchanges_the_names() -> None:
    mirror = {"left": "right", "right": "left"}
    for i, name in enumerate(NAMES):
        side, _, rest = name.partition("_")
        if side in mirror:
            assert NAMES[FLIP[i]] == f"{mirror[side]}_{rest}"


def test_tables_are_the_published_ones(samples: Path) -> None:
    facts = json.loads((samples / "coco_wholebody/wholebody_facts.json").read_text())
    assert list(NAMES) == facts["names"]
    assert FLIP.tolist() == facts["flip_perm"]
    assert SIGMAS.tolist() == facts["sigmas"]
    assert [list(bone) for bone in SKELETON] == facts["skeleton"]
    assert (list(UPPER_BODY), list(LOWER_BODY)) == (facts["upper_body_ids"], facts["lower_body_ids"])
    assert {part: [rows.start, rows.stop] for part, rows in PARTS.items()} == facts["part_slices"]
    assert dict(PART_FIELDS) == facts["annotation_fields"]
