"""Random postures, arms, hands and facial expressions.

A pose maps names of bones to rotations (3, 3) about the bones' joints, in axes parallel to the rest position's: x to
the person's left, -y forward, z up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tcformer.synthetic.exact import arctangent2, cosine, dot, product, sine
from tcformer.synthetic.geometry import (
    FORWARD,
    LEFT,
    UP,
    Array,
    cross,
    rotation,
    rotation_between,
    rotation_towards,
    unit,
)
from tcformer.synthetic.template_body import TemplateBody

Posture = Literal["stand", "walk", "run", "sit", "squat", "lunge", "dance", "lie"]
Expression = Literal["neutral", "smile", "open", "surprise", "frown", "blink", "pucker", "mixed"]
Arm = Literal["down", "forward", "side", "up", "hip", "chest", "lap", "swing", "flat"]

POSTURES: tuple[Posture, ...] = get_args(Posture)
EXPRESSIONS: tuple[Expression, ...] = get_args(Expression)
_EXPRESSION_WEIGHTS = (0.35, 0.2, 0.1, 0.07, 0.08, 0.08, 0.05, 0.07)
_POSTURE_WEIGHTS = (0.32, 0.18, 0.10, 0.14, 0.07, 0.08, 0.07, 0.04)
_FREE_ARMS: tuple[Arm, ...] = ("down", "forward", "side", "up", "hip", "chest")
_FREE_ARM_WEIGHTS = (0.22, 0.18, 0.17, 0.17, 0.13, 0.13)

Pose = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class PoseSpec:
    """Constraints on a pose."""

    posture: Posture | None = None
    """None: sampled."""
    arms: Arm | None = None
    """None: sampled."""
    variety: float = 1.0
    """Fraction, 0 to 1, of sampled postures that are not just standing and of sampled arms that are not just down."""


def sample_pose(body: TemplateBody, joints: Array, spec: PoseSpec, rng: np.random.Generator) -> tuple[Pose, Posture]:
    """Sample a pose.

    Args:
        body: the template body.
        joints: (104, 3) of the body in rest position.
        spec: constraints.
        rng: the source of randomness.

    Returns:
        The pose and its posture.
    """
    posture: Posture
    if spec.posture is not None:
        posture = spec.posture
    elif rng.uniform() < spec.variety:
        posture = POSTURES[rng.choice(len(POSTURES), p=_POSTURE_WEIGHTS)]
    else:
        posture = "stand"
    pose: Pose = {}
    lean = _sample_legs(body, joints, posture, pose, rng)
    _sample_spine(lean, 0.4 + 0.6 * spec.variety, pose, rng)
    for side, sign in (("L", 1.0), ("R", -1.0)):
        arm: Arm
        if posture == "lie":  # along the ground
            arm = "flat"
        elif spec.arms is not None:
            arm = spec.arms
        elif posture == "run":
            arm = "swing"
        elif rng.uniform() < spec.variety:
            arm = _FREE_ARMS[rng.choice(len(_FREE_ARMS), p=_FREE_ARM_WEIGHTS)]
        else:
            arm = "lap" if posture == "sit" else "down"
        _sample_arm(body, joints, side, sign, arm, pose, rng)
        _sample_hand(body, joints, side, sign, pose, rng)
    return pose, posture


def _sample_legs(body: TemplateBody, joints: Array, posture: Posture, pose: Pose, rng: np.random.Generator) -> float:
    """Add root, legs and feet to the pose; returns by how many degrees the spine leans forward."""
    uniform, normal = rng.uniform, rng.normal
    hip = np.abs(normal(0, 5, 2))  # flexion, degrees
    spread = uniform(-2, 8, 2)
    knee = np.abs(normal(0, 5, 2))
    lean = normal(0, 4)
    pitch = 0.0  # of the whole body, forward
    leg = int(rng.integers(2))
    if posture == "walk":
        hip[leg], hip[1 - leg] = uniform(15, 35), -uniform(8, 22)
        knee[leg], knee[1 - leg] = uniform(5, 25), uniform(5, 45)
        lean = uniform(0, 8)
    elif posture == "run":
        hip[leg], hip[1 - leg] = uniform(40, 75), -uniform(8, 25)
        knee[leg], knee[1 - leg] = uniform(40, 100), uniform(20, 90)
        pitch, lean = uniform(3, 12), uniform(0, 8)
    elif posture == "sit":
        hip[:] = uniform(75, 92) + normal(0, 3, 2)
        knee[:] = hip + uniform(-12, 12, 2)
        spread = uniform(-3, 15, 2)
        lean = uniform(-5, 15)
    elif posture == "squat":
        pitch = uniform(10, 30)
        hip[:] = uniform(95, 125) + normal(0, 3, 2)
        knee[:] = uniform(105, 130) + normal(0, 3, 2)
        spread = uniform(8, 25, 2)
    elif posture == "lunge":
        hip[leg], knee[leg] = uniform(55, 85), uniform(65, 95)
        hip[1 - leg], knee[1 - leg] = -uniform(10, 28), uniform(5, 40)
    elif posture == "dance":
        spread[leg] = uniform(10, 45)
        hip[:], knee[:] = normal(8, 15, 2), uniform(0, 50, 2)
    elif posture == "lie":
        pitch = -90 + normal(0, 4) if rng.uniform() < 0.7 else 90 + normal(0, 3)
        hip[:] = 0.0
        spread = uniform(0, 12, 2)
        if rng.uniform() < 0.4:
            # A person who lies face down can only lift the foot.
            hip[leg], knee[leg] = uniform(20, 50) if pitch < 0 else 0.0, uniform(40, 90)
    roll = normal(0, 2) if posture != "lie" else normal(0, 12)
    pose["root"] = product(rotation(LEFT, pitch), rotation(UP, roll))
    backward = -FORWARD
    for i, (side, sign) in enumerate((("L", 1.0), ("R", -1.0))):
        at = {name: joints[body.bone[f"{name}.{side}"]] for name in ("upperleg01", "lowerleg01", "foot")}
        thigh = unit(at["lowerleg01"] - at["upperleg01"])
        shin = unit(at["foot"] - at["lowerleg01"])
        twist = sign * (normal(0, 7) + (8 if posture in ("sit", "squat") else 0))
        pose[f"upperleg01.{side}"] = product(
            rotation_towards(thigh, LEFT * sign, spread[i]),
            rotation_towards(thigh, FORWARD, hip[i]),
            rotation(thigh, twist),
        )
        knee[i] = max(knee[i], 0.0)
        pose[f"lowerleg01.{side}"] = rotation_towards(shin, backward, knee[i])
        # The ankle keeps the sole level, within its range.
        level = 0.0 if posture == "lie" else float(np.clip(hip[i] - knee[i] - pitch, -30, 30))
        pose[f"foot.{side}"] = product(rotation(LEFT, level + normal(0, 4)), rotation(UP, normal(0, 5)))
    return float(lean)


def _sample_spine(lean: float, amount: float, pose: Pose, rng: np.random.Generator) -> None:
    """Add spine, neck and head to the pose; `amount` scales all but `lean`, degrees forward."""
    twist, bend = rng.normal(0, 7 * amount), rng.normal(0, 4 * amount)
    for bone in ("spine04", "spine03", "spine02"):
        pose[bone] = product(rotation(LEFT, lean / 3), rotation(UP, twist / 3), rotation(FORWARD, bend / 3))
    turn = float(np.clip(rng.normal(0, 20 * amount), -60, 60))
    nod, tilt = rng.normal(0, 9 * amount), rng.normal(0, 6 * amount)
    for bone, share in (("neck01", 0.25), ("neck02", 0.25), ("head", 0.5)):
        pose[bone] = head_rotation(turn * share, nod * share, tilt * share)


def head_rotation(turn: float, nod: float, tilt: float) -> Array:
    """Rotation (3, 3) by degrees of the turn to the person's left, the nod down and the tilt to the right."""
    return product(rotation(UP, turn), rotation(LEFT, nod), rotation(FORWARD, tilt))


def _sample_arm(
    body: TemplateBody, joints: Array, side: str, sign: float, arm: Arm, pose: Pose, rng: np.random.Generator
) -> None:
    """Add the shoulder and arm of a side, "L" or "R", to the pose; sign: 1 for the left, -1 for the right."""
    uniform = rng.uniform

    def at(name: str) -> Array:
        return joints[body.bone[f"{name}.{side}"]]

    outward = LEFT * sign
    elbow = abs(rng.normal(0, 12)) + 5
    twist = uniform(-25, 25)
    forearm: Array | None = None  # its direction; None: the elbow is bent by `elbow` degrees
    if arm == "down":
        target = -UP + outward * uniform(0.12, 0.35) + FORWARD * rng.normal(0, 0.12)
    elif arm == "forward":
        target = FORWARD + UP * uniform(-0.7, 0.5) + outward * uniform(-0.2, 0.4)
        elbow = abs(rng.normal(0, 40))
    elif arm == "side":
        target = outward + UP * uniform(-0.25, 0.25) + FORWARD * uniform(-0.1, 0.3)
        elbow = abs(rng.normal(0, 20))
    elif arm == "up":
        target = UP + outward * uniform(0.1, 0.7) + FORWARD * uniform(-0.05, 0.3)
        elbow = abs(rng.normal(0, 28))
    elif arm == "hip":
        target = -UP + outward * uniform(0.75, 1.0) - FORWARD * uniform(0.1, 0.3)
        # The hand returns to the side of the hip.
        forearm = -UP + outward * uniform(-0.95, -0.75) + FORWARD * uniform(0.1, 0.3)
    elif arm == "chest":
        target = -UP + outward * uniform(0.1, 0.4) + FORWARD * uniform(0, 0.5)
        elbow = uniform(80, 130)
    elif arm == "lap":
        target = -UP + outward * uniform(0.08, 0.25) + FORWARD * uniform(0.15, 0.45)
        elbow = uniform(35, 65)
    elif arm == "flat":
        angle, bent = math.radians(uniform(15, 150)), math.radians(uniform(0, 40))
        target = -UP * cosine(angle) + outward * sine(angle)
        forearm = -UP * cosine(angle + bent) + outward * sine(angle + bent)
    else:
        target = -UP + outward * 0.2 + FORWARD * uniform(-0.8, 0.8)
        elbow = uniform(60, 110)
    target = unit(target)
    upper = unit(at("lowerarm01") - at("upperarm01"))
    raised = math.degrees(arctangent2(target[2], math.sqrt(dot(target[:2], target[:2]))))
    shoulder = rotation_towards(outward, UP, max(raised, 0.0) * 0.3)
    pose[f"clavicle.{side}"] = shoulder
    raise_arm = rotation_between(product(shoulder, upper), target)
    pose[f"upperarm01.{side}"] = product(shoulder.T, raise_arm, shoulder, rotation(upper, sign * twist))
    lower = unit(at("wrist") - at("lowerarm01"))
    bend_to = unit(FORWARD * 0.9 + UP * 0.35 - outward * 0.2)
    if forearm is not None:
        turned = product(shoulder, pose[f"upperarm01.{side}"])
        pose[f"lowerarm01.{side}"] = rotation_between(lower, product(turned.T, forearm))
    else:
        pose[f"lowerarm01.{side}"] = rotation_towards(lower, bend_to, min(elbow, 140.0))
    pose[f"lowerarm02.{side}"] = rotation(lower, sign * rng.normal(0, 20))


def _sample_hand(
    body: TemplateBody, joints: Array, side: str, sign: float, pose: Pose, rng: np.random.Generator
) -> None:
    """Add the wrist and fingers of a side to the pose; arguments as for `_sample_arm`."""

    def at(name: str) -> Array:
        return joints[body.bone[f"{name}.{side}"]]

    along = unit(at("finger3-1") - at("wrist"))
    palm = unit(cross(along, at("finger2-1") - at("finger5-1"))) * sign  # the direction that the palm faces
    pose[f"wrist.{side}"] = product(rotation_towards(along, palm, rng.normal(0, 14)), rotation(palm, rng.normal(0, 7)))
    shape = str(rng.choice(["relaxed", "open", "fist", "point", "two", "free"], p=[0.35, 0.2, 0.15, 0.1, 0.05, 0.15]))
    curl = {
        "relaxed": [15.0, 20.0, 25.0, 30.0],
        "open": [0.0, 0.0, 0.0, 0.0],
        "fist": [75.0, 75.0, 75.0, 75.0],
        "point": [0.0, 70.0, 75.0, 75.0],
        "two": [0.0, 0.0, 75.0, 75.0],
        "free": list(rng.uniform(0, 70, 4)),
    }[shape]
    for i in range(4):
        finger = i + 2
        for joint, share in ((1, 0.9), (2, 1.15), (3, 0.8)):
            first, second = (joint, joint + 1) if joint < 3 else (2, 3)
            bone = unit(at(f"finger{finger}-{second}") - at(f"finger{finger}-{first}"))
            turn = rotation_towards(bone, palm, max(curl[i] * share + rng.normal(0, 5), -8))
            if joint == 1:
                fan = (1.5 - i) * sign * (3 if shape == "open" else 0)
                turn = product(turn, rotation(palm, rng.normal(0, 3) + fan))
            pose[f"finger{finger}-{joint}.{side}"] = turn
    thumb = {"relaxed": 8.0, "open": -8.0, "free": rng.uniform(0, 30)}.get(shape, 30.0)
    inward = unit(unit(at("finger5-1") - at("finger2-1")) + palm * 0.4)
    for joint in (1, 2, 3):
        first, second = (joint, joint + 1) if joint < 3 else (2, 3)
        bone = unit(at(f"finger1-{second}") - at(f"finger1-{first}"))
        pose[f"finger1-{joint}.{side}"] = rotation_towards(bone, inward, thumb + rng.normal(0, 4))


def sample_expression(body: TemplateBody, rng: np.random.Generator, kind: Expression | None = None) -> dict[str, float]:
    """Sample a facial expression: the strength, 0 to 1, of facial units by name. Without `kind` it is sampled too."""
    uniform = rng.uniform
    units: dict[str, float] = {}

    def both(name: str, strength: float) -> None:
        units[f"{name}Left"] = strength
        units[f"{name}Right"] = float(np.clip(strength + rng.normal(0, 0.08), 0, 1))

    if kind is None:
        kind = EXPRESSIONS[rng.choice(len(EXPRESSIONS), p=_EXPRESSION_WEIGHTS)]
    if kind == "smile":
        both("mouthSmile", uniform(0.4, 1))
        both("cheekSquint", uniform(0, 0.6))
        units["jawOpen"] = uniform(0, 0.35)
    elif kind == "open":
        units["jawOpen"] = uniform(0.3, 1)
    elif kind == "surprise":
        units["jawOpen"], units["browInnerUp"] = uniform(0.3, 0.8), uniform(0.5, 1)
        both("browOuterUp", uniform(0.4, 1))
        both("eyeWide", uniform(0.4, 1))
    elif kind == "frown":
        both("browDown", uniform(0.4, 1))
        both("mouthFrown", uniform(0.3, 1))
        both("noseSneer", uniform(0, 0.6))
    elif kind == "blink":
        both("eyeBlink", uniform(0.5, 1))
    elif kind == "pucker":
        units["mouthPucker"] = uniform(0.4, 1)
    elif kind == "mixed":
        for index in rng.choice(len(body.expression_names), 3, replace=False):
            units[body.expression_names[index]] = uniform(0.2, 0.7)
    if kind != "blink":
        both("eyeBlink", min(abs(rng.normal(0, 0.08)), 1.0))
    return units
