import json
from pathlib import Path

import numpy as np
import pytest

from tcformer.data.face.landmarks import CONTOURS, FLIP, FLIP_PAIRS, NUM_LANDMARKS


def test_flip_is_its_own_inverse_and_has_ten_fixed_points() -> None:
    assert (FLIP[FLIP] == np.arange(NUM_LANDMARKS)).all()
    assert np.flatnonzero(np.arange(NUM_LANDMARKS) == FLIP).tolist() == [16, 51, 52, 53, 54, 57, 79, 85, 90, 94]
    assert len(FLIP_PAIRS) == 44
    with pytest.raises(ValueError, match="read-only"):
        FLIP[0] = 0


def test_contours_mirror_one_another_and_leave_the_pupils_alone() -> None:
    runs = {frozenset(range(first, last + 1)) for first, last, _ in CONTOURS}
    assert {frozenset(FLIP[sorted(run)].tolist()) for run in runs} == runs
    assert sorted(point for run in runs for point in run) == list(range(96))


def test_pairs_are_those_of_three_published_codes(samples: Path) -> None:
    facts = json.loads((samples / "wflw/wflw_facts.json").read_text())
    assert FLIP.tolist() == facts["flip_perm"]
    assert sorted(sorted(pair) for pair in FLIP_PAIRS) == facts["flip_pairs"]
