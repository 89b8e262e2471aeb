"""The points of a keypoint dataset: names, skeleton, left/right pairs, OKS sigmas, groups.

They are in the category of a COCO keypoint file, which has the names and usually the skeleton, and in a YAML file of
the user's, whose values replace those of the category:

    names: [left eye, right eye, nose]
    skeleton: [[left eye, nose], [right eye, nose]]  # lines to draw; names, or numbers from 1 as in COCO
    flip: [[left eye, right eye]]                    # pairs that exchange their places in a mirrored image
    sigmas: [0.025, 0.025, 0.026]                    # or {nose: 0.026}
    groups: {eyes: [left eye, right eye]}            # whose errors are reported together
    normalise: [left eye, right eye]                 # their distance is the unit of the NME
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tcformer.checks import is_count, is_number
from tcformer.data.mirror import flip_permutation
from tcformer.data.wholebody.keypoints import EYE_CORNERS, FLIP_PAIRS, NAMES, PARTS, SIGMAS
from tcformer.errors import UserError

Pair = tuple[int, int]

#: OKS sigma of a point whose sigma is not given and whose name is none of COCO-WholeBody's: about the mean of those of
#: COCO's 17 points.
DEFAULT_SIGMA: Final = 0.067

_KEYS: Final = ("names", "skeleton", "flip", "sigmas", "groups", "normalise")
_SIDES: Final = {"left": 0, "l": 0, "right": 1, "r": 1}
_SIGMA_OF: Final = dict(zip(NAMES, SIGMAS.tolist(), strict=True))
_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_MOST_POINTS: Final = 10_000


@dataclass(frozen=True)
class PointSet:
    """The points that a dataset annotates and a network predicts.

    Attributes:
        category: name of the category, such as "person"; "" if it has none.
        names: of the K points, each once.
        skeleton: pairs of points that are connected by a line.
        flip: (left, right) pairs that exchange their places in a mirrored image; None if they are not known.
        sigmas: K sigmas of the object keypoint similarity.
        groups: points by the name of their group; each point is in at most one.
        normalise: two points whose distance is the unit of the normalised error; None: there is no such measure.
    """

    category: str
    names: tuple[str, ...]
    skeleton: tuple[Pair, ...]
    flip: tuple[Pair, ...] | None
    sigmas: tuple[float, ...]
    groups: Mapping[str, tuple[int, ...]]
    normalise: Pair | None

    def __len__(self) -> int:
        return len(self.names)

    def mirrored(self) -> NDArray[np.int64]:
        """(K,): point i of a mirrored image is point `result[i]` of the original.

        Raises:
            UserError: the left/right pairs are not known.
        """
        if self.flip is None:
            raise UserError(
                f"the points ({', '.join(self.names[:3])}, ...): images cannot be mirrored, because their names have "
                "no left and right; expected pairs; list them as `flip` in the file that the parameter `points` names "
                "(`flip: []` if no point has a twin), or set flip_probability: 0 and flip_test: false"
            )
        return flip_permutation(len(self), self.flip)

    @cached_property
    def sides(self) -> tuple[int | None, ...]:
        """For each point 0 if it is on the left, 1 if it is on the right, None in the middle."""
        found = [side_of(name)[0] for name in self.names]
        for left, right in self.flip or ():
            if found[left] is None and found[right] is None:
                found[left], found[right] = 0, 1
        return tuple(found)

    @property
    def mask_lines(self) -> tuple[Pair, ...]:
        """The skeleton, if its lines run within the object; those of a face are its outlines."""
        return () if self.category == "face" else self.skeleton

    @cached_property
    def group_of(self) -> tuple[str, ...]:
        """For each point the name of its group; "other" for a point in none, "points" if there are no groups."""
        names = ["other" if self.groups else "points"] * len(self)
        for name, points in self.groups.items():
            for point in points:
                names[point] = name
        return tuple(names)

    def to_json(self) -> dict[str, Any]:
        """What a weights file keeps of the points. `points_from_json` is the inverse."""
        return {
            "category": self.category,
            "names": list(self.names),
            "skeleton": [list(pair) for pair in self.skeleton],
            "flip": None if self.flip is None else [list(pair) for pair in self.flip],
            "sigmas": list(self.sigmas),
            "groups": {name: list(points) for name, points in self.groups.items()},
            "normalise": None if self.normalise is None else list(self.normalise),
        }


def numbered_points(count: int) -> PointSet:
    """Points of which nothing is known but their number."""
    names = tuple(f"point {number}" for number in range(1, count + 1))
    return PointSet("", names, (), None, (DEFAULT_SIGMA,) * count, {}, None)


def points_from_json(content: object) -> PointSet:
    """The points that `PointSet.to_json` described; indices count from 0.

    Raises:
        UserError: the description is damaged.
    """
    where = "the points in the weights file"
    if not isinstance(content, Mapping) or not isinstance(content.get("category"), str):
        raise UserError(f"{where}: expected names, skeleton, flip and sigmas; copy the file again, or train again")
    described = {name: content.get(name) for name in _KEYS}
    for name in ("skeleton", "flip"):
        if (pairs := described[name]) is not None:
            described[name] = _counted_from_1(pairs, where)
    if described["normalise"] is not None:
        [described["normalise"]] = _counted_from_1([described["normalise"]], where)
    if isinstance(groups := described["groups"], Mapping):
        described["groups"] = {name: _counted_from_1([points], where)[0] for name, points in groups.items()}
    points = _described(described, content["category"], where)
    return replace(points, flip=None) if content.get("flip") is None else points


def _counted_from_1(lists: object, where: str) -> list[list[int]]:
    if not isinstance(lists, list) or not all(
        isinstance(one, list) and all(is_count(i, 0) for i in one) for one in lists
    ):
        raise UserError(f"{where}: expected lists of indices; copy the file again, or train again")
    return [[index + 1 for index in one] for one in lists]


def points_of_category(category: Mapping[str, Any], where: str, described: Mapping[str, Any] | None) -> PointSet:
    """The points of a category of a COCO file.

    Args:
        category: the record of the category.
        where: the file and the category, for messages.
        described: content of the user's YAML file (see `read_description`), which replaces values of the category.

    Raises:
        UserError: names are missing or occur twice, or something names a point that does not exist.
    """
    content: dict[str, Any] = {"names": category.get("keypoints"), "skeleton": category.get("skeleton")}
    content |= {name: category[name] for name in _KEYS[2:] if name in category}
    if "flip" not in content and "flip_pairs" in category:
        content["flip"] = category["flip_pairs"]
    if described and content["names"] and "names" in described and len(described["names"]) != len(content["names"]):
        raise UserError(
            f"{where} has {len(content['names'])} keypoints, but the description of the points names "
            f"{len(described['names'])}: expected the same number; correct `names` or remove it"
        )
    return _described(content | dict(described or {}), str(category.get("name") or ""), where)


def described_points(described: Mapping[str, Any], where: str) -> PointSet:
    """The points of a description alone, for annotations without a category. Raises UserError as above."""
    return _described(described, "", where)


def read_description(path: Path) -> dict[str, Any]:
    """Read a YAML file that describes points.

    Raises:
        UserError: the file does not exist, is not YAML, or has an unknown key.
    """
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: no such file; expected a description of the points; correct the parameter `points`"
        ) from error
    except (OSError, ValueError, YAMLError) as error:
        reason = " ".join(str(error).split())[:150]
        raise UserError(f"{path}: cannot be read as YAML ({reason}): expected keys and values; correct it") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected the keys {', '.join(_KEYS)}; write at least one of them")
    for key in content:
        if key not in _KEYS:
            near = get_close_matches(str(key), _KEYS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"expected {', '.join(_KEYS)}"
            raise UserError(f"{path}: unknown key {key}: {hint}; correct or remove it")
    if isinstance(names := content.get("names"), list):
        content["names"] = [str(name) for name in names]
    return content


def _described(content: Mapping[str, Any], category: str, where: str) -> PointSet:
    names = content.get("names")
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n.strip() for n in names):
        raise UserError(
            f"{where}: no names of the keypoints; expected a list of texts (`keypoints` of the category, or `names` in "
            "the file that the parameter `points` names); add it"
        )
    if len(names) > _MOST_POINTS:
        raise UserError(f"{where}: {len(names)} keypoints; expected at most {_MOST_POINTS}; remove some")
    names = [name.strip() for name in names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{where}: two keypoints are called {twice[0]!r}; expected different names; rename one")
    reader = _Reader(names, where)
    given = content.get("flip")
    flip = derived_pairs(names) or None if given is None else reader.pairs("flip", given)
    if flip is not None:
        both = [point for pair in flip for point in pair]
        if again := [names[point] for point in both if both.count(point) > 1]:
            raise UserError(f"{where}: flip: {again[0]!r} is in two places; expected each point once; remove a pair")
    normalise = content.get("normalise")
    groups = reader.groups(content.get("groups") or {})
    return PointSet(
        category=category,
        names=tuple(names),
        skeleton=reader.pairs("skeleton", content.get("skeleton") or []),
        flip=flip,
        sigmas=reader.sigmas(content.get("sigmas")),
        groups=groups,
        normalise=None if normalise is None else reader.pairs("normalise", [normalise])[0],
    )


@dataclass(frozen=True)
class _Reader:
    """Reads what refers to points, by their names or by their numbers from 1."""

    names: Sequence[str]
    where: str

    def point(self, field: str, given: object) -> int:
        if isinstance(given, str) and given.strip() in self.names:
            return self.names.index(given.strip())
        if is_count(given, 1) and given <= len(self.names):
            return given - 1
        near = get_close_matches(given, self.names, n=1, cutoff=0.5) if isinstance(given, str) else []
        hint = f"did you mean {near[0]!r}?" if near else "name one of the keypoints"
        raise UserError(
            f"{self.where}: {field} names the point {given!r:.60}, which does not exist: expected a name of one of the "
            f"{len(self.names)} keypoints, or its number from 1 to {len(self.names)}; {hint}"
        )

    def pairs(self, field: str, given: object) -> tuple[Pair, ...]:
        found: list[Pair] = []
        for pair in given if isinstance(given, list) else [given]:
            if not isinstance(pair, list) or len(pair) != 2:
                raise UserError(
                    f"{self.where}: {field} has {pair!r:.60}: expected pairs of points, [a, b]; write it as a pair"
                )
            a, b = (self.point(field, one) for one in pair)
            if a == b:
                raise UserError(
                    f"{self.where}: {field} pairs {self.names[a]!r} with itself: expected two points; correct the pair"
                )
            found.append((a, b))
        return tuple(found)

    def sigmas(self, given: object) -> tuple[float, ...]:
        known = [_SIGMA_OF.get("_".join(_words(name)), DEFAULT_SIGMA) for name in self.names]
        if given is None:
            return tuple(known)
        if isinstance(given, Mapping):
            for name, value in given.items():
                known[self.point("sigmas", name)] = value
            values: object = known
        else:
            values = given
        right = isinstance(values, list) and len(values) == len(self.names)
        if not right or not all(is_number(value) and value > 0 for value in values):  # type: ignore[attr-defined]
            raise UserError(
                f"{self.where}: sigmas: expected {len(self.names)} numbers above 0, one for each keypoint, or "
                f"{{name: number}}, found {given!r:.80}; correct them, or remove them: the default is {DEFAULT_SIGMA}"
            )
        return tuple(float(value) for value in values)  # type: ignore[attr-defined]

    def groups(self, given: object) -> dict[str, tuple[int, ...]]:
        if not isinstance(given, Mapping) or not all(isinstance(points, list) for points in given.values()):
            raise UserError(f"{self.where}: groups: expected {{name: [points]}}, found {given!r:.80}; correct them")
        found = {str(name): tuple(self.point(f"groups.{name}", p) for p in points) for name, points in given.items()}
        every = [point for points in found.values() for point in points]
        if again := [self.names[point] for point in every if every.count(point) > 1]:
            raise UserError(f"{self.where}: groups: {again[0]!r} is in two; expected one group a point; remove it once")
        return found


def _words(name: str) -> list[str]:
    """The words of a name, in lower case: "LeftEye", "left_eye" and "Left eye" have the same."""
    return [word.lower() for word in _WORDS.findall(name)]


def side_of(name: str) -> tuple[int | None, tuple[str, ...]]:
    """The side that a name says (0 left, 1 right, None neither), and its other words with the place of the side.

    Names with both sides, or with one of them twice, say nothing.
    """
    words = _words(name)
    sides = [_SIDES[word] for word in words if word in _SIDES]
    if len(sides) != 1:
        return None, tuple(words)
    return sides[0], tuple("*" if word in _SIDES else word for word in words)


def derived_pairs(names: Sequence[str]) -> tuple[Pair, ...]:
    """The (left, right) pairs of names that differ only in the side: "left eye" and "right eye", "ankle_l", "L hip"."""
    found: dict[tuple[str, ...], dict[int, int]] = {}
    for index, name in enumerate(names):
        side, rest = side_of(name)
        if side is not None:
            found.setdefault(rest, {})[side] = index
    return tuple((pair[0], pair[1]) for pair in found.values() if len(pair) == 2)


def without_twin(points: PointSet) -> list[str]:
    """Names that say a side and are in no pair: perhaps the other one is written differently."""
    paired = {point for pair in points.flip or () for point in pair}
    return [name for index, name in enumerate(points.names) if side_of(name)[0] is not None and index not in paired]


def _contour(first: int, last: int, closed: bool = False) -> list[Pair]:
    lines = [(i, i + 1) for i in range(first, last)]
    return [*lines, (last, first)] if closed else lines


_FACE: Final = PARTS["face"]

#: The 68 points of 300-W / iBUG, which .pts files number and do not name. Point 1 is at the image's left, on the
#: person's right. The sigmas are those of COCO-WholeBody's faces, which have the same points.
IBUG68: Final = PointSet(
    category="face",
    names=tuple(
        f"{part} {number}"
        for part, count in (("jaw", 17), ("brow", 10), ("nose", 9), ("eye", 12), ("mouth", 20))
        for number in range(1, count + 1)
    ),
    skeleton=(
        *_contour(0, 16),
        *_contour(17, 21),
        *_contour(22, 26),
        *_contour(27, 30),
        *_contour(31, 35),
        *_contour(36, 41, closed=True),
        *_contour(42, 47, closed=True),
        *_contour(48, 59, closed=True),
        *_contour(60, 67, closed=True),
    ),
    flip=tuple(
        # The lower lips run from the person's left to the right, all other contours the other way.
        (a - _FACE.start, b - _FACE.start) if a - _FACE.start in (55, 56, 65) else (b - _FACE.start, a - _FACE.start)
        for a, b in FLIP_PAIRS
        if _FACE.start <= a < _FACE.stop
    ),
    sigmas=tuple(SIGMAS[_FACE].tolist()),
    groups={
        "jaw": tuple(range(17)),
        "brows": tuple(range(17, 27)),
        "nose": tuple(range(27, 36)),
        "eyes": tuple(range(36, 48)),
        "mouth": tuple(range(48, 68)),
    },
    normalise=EYE_CORNERS,
)
