"""The points of one's own datasets: names, pairs, sigmas, groups, from the category or from YAML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tcformer.data.keypoints.points import (
    DEFAULT_SIGMA,
    IBUG68,
    derived_pairs,
    numbered_points,
    points_from_json,
    points_of_category,
    read_description,
    without_twin,
)
from tcformer.data.wholebody.keypoints import FLIP_PAIRS, NAMES, SIGMAS
from tcformer.errors import UserError
from tests import own_points


def described(description: dict[str, Any] | None = None, **changes: Any) -> Any:
    return points_of_category(own_points.category(**changes), "cats.json: category 'cat'", description)


def test_pairs_follow_from_names() -> None:
    assert derived_pairs(["nose", "left_eye", "right_eye"]) == ((1, 2),)
    assert derived_pairs(["R ankle", "L ankle", "neck"]) == ((1, 0),)
    assert derived_pairs(["earLeft", "earRight", "LeftEye", "RightEye"]) == ((0, 1), (2, 3))
    assert derived_pairs(["paw.front.l", "paw.front.r", "paw.back.l"]) == ((0, 1),)
    assert derived_pairs(["left hand right finger", "right hand left finger", "level", "rim"]) == ()
    assert derived_pairs(list(NAMES[:17])) == FLIP_PAIRS[:8]


def test_a_category_describes_its_points() -> None:
    points = described()
    assert (points.category, len(points), points.flip) == ("cat", 5, ((0, 1), (3, 4)))
    assert points.skeleton == ((0, 2), (1, 2), (3, 2), (4, 2)), "numbers count from 1 in a file, from 0 here"
    assert points.mirrored().tolist() == [1, 0, 2, 4, 3]
    assert points.sides == (0, 1, None, 0, 1) and set(points.group_of) == {"points"}
    assert points.sigmas[2] == DEFAULT_SIGMA and points.sigmas[0] == SIGMAS[NAMES.index("left_ear")]
    assert without_twin(points) == []


def test_a_description_replaces_what_the_category_says() -> None:
    names = ["a", "b", "nose tip", "left paw", "right paw"]
    points = described(
        {
            "names": names,
            "flip": [["a", "b"]],
            "sigmas": {"a": 0.1, 2: 0.2},
            "groups": {"head": ["a", "b", 3]},
            "normalise": ["a", "b"],
        }
    )
    assert points.names == tuple(names) and points.flip == ((0, 1),) and points.normalise == (0, 1)
    assert points.sigmas == (0.1, 0.2, *[DEFAULT_SIGMA] * 3)
    assert points.group_of == ("head", "head", "head", "other", "other")
    assert points.sides == (0, 1, None, 0, 1), "the first of a pair without side words is the left one"
    assert without_twin(points) == ["left paw", "right paw"]


def test_points_survive_the_weights_file() -> None:
    for points in (IBUG68, numbered_points(3), described(), described({"flip": [], "groups": {"ears": [1, 2]}})):
        assert points_from_json(json.loads(json.dumps(points.to_json()))) == points


@pytest.mark.parametrize("damage", [{"skeleton": [[0, 9]]}, {"flip": 3}, {"names": []}, {"category": None}])
def test_damaged_points_in_a_weights_file_are_refused(damage: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="the points in the weights file"):
        points_from_json({**described().to_json(), **damage})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flip": [["left ear", "rigth ear"]]}, "flip names the point 'rigth ear', which does not exist.*'right ear'"),
        ({"flip": [[1, 6]]}, "flip names the point 6, which does not exist: .* from 1 to 5"),
        ({"flip": [["left ear", "right ear"], ["left ear", "nose tip"]]}, "'left ear' is in two places"),
        ({"flip": ["left ear"]}, "flip has 'left ear': expected pairs"),
        ({"skeleton": [[0, 1]]}, "skeleton names the point 0, which does not exist"),
        ({"skeleton": [[1, 1]]}, "pairs 'left ear' with itself"),
        ({"sigmas": [0.1, 0.2]}, "sigmas: expected 5 numbers above 0"),
        ({"sigmas": {"nose": 0.1}}, "sigmas names the point 'nose'.*did you mean 'nose tip'"),
        ({"sigmas": {"nose tip": "big"}}, "sigmas: expected 5 numbers above 0"),
        ({"groups": {"a": ["left ear"], "b": [1]}}, "'left ear' is in two"),
        ({"groups": ["left ear"]}, "groups: expected {name: .points.}"),
        ({"normalise": ["left ear", "tail"]}, "normalise names the point 'tail'"),
        ({"names": ["a", "b"]}, "has 5 keypoints, but the description of the points names 2"),
        ({"names": ["a", "b", "c", "d", "a"]}, "two keypoints are called 'a'"),
    ],
)
def test_a_wrong_description_is_one_clear_sentence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        described(changes)
    assert str(caught.value).startswith("cats.json: category 'cat'") and "\n" not in str(caught.value)


def test_unknown_pairs_are_an_error_only_when_images_are_mirrored() -> None:
    points = described({"names": ["a", "b", "c", "d", "e"]})
    assert points.flip is None
    with pytest.raises(UserError, match=r"names have no left and right; .* `flip`"):
        points.mirrored()
    assert described({"names": ["a", "b", "c", "d", "e"], "flip": []}).mirrored().tolist() == [0, 1, 2, 3, 4]


def test_the_yaml_file_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "points.yaml"
    path.write_text("names: [1, 2]\nnormalise: ['1', '2']\n")
    assert read_description(path) == {"names": ["1", "2"], "normalise": ["1", "2"]}
    for text, message in (
        ("flips: []", "unknown key flips: did you mean flip"),
        ("[1", "cannot be read as YAML"),
        ("3", "expected the keys"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            read_description(path)
    with pytest.raises(UserError, match=r"no such file.*parameter `points`"):
        read_description(tmp_path / "nothing.yaml")


def test_the_68_points_of_300w_are_those_of_wholebody_faces() -> None:
    assert len(IBUG68) == len(set(IBUG68.names)) == 68 and len(IBUG68.flip or ()) == 29
    flip = IBUG68.mirrored()
    assert (flip[flip] == np.arange(68)).all() and flip[0] == 16 and flip[8] == 8 and flip[36] == 45
    assert IBUG68.sides[0] == 1 and IBUG68.sides[16] == 0, "point 1 is on the person's right"
    assert (IBUG68.sides[48], IBUG68.sides[54], IBUG68.sides[59], IBUG68.sides[55]) == (1, 0, 1, 0), "mouth"
    assert (IBUG68.sides[36], IBUG68.sides[45], IBUG68.sides[67], IBUG68.sides[65]) == (1, 0, 1, 0)
    assert IBUG68.sigmas == tuple(SIGMAS[23:91])
    assert sorted(point for group in IBUG68.groups.values() for point in group) == list(range(68))
