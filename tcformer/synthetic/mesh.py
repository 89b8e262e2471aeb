"""Writes a data set of generated people with body model parameters, in the formats of SPIN and 3DPW.

    body/                                        the SMPL-format body (see `tcformer.body.files`)
    dataset_extras/generated_train.npz           training set, the fields of SPIN's files
    generated/train/%06d.jpg                     its pictures
    3DPW/sequenceFiles/test/generated_%03d.pkl   test set, the fields of 3DPW's sequences
    3DPW/imageFiles/generated_%03d/image_%05d.jpg

Pixels are counted as OpenCV does: whole numbers are the centres of pixels.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tcformer.body.joints import NUM_OPENPOSE, OPENPOSE_18
from tcformer.body.rotations import to_axis_angle
from tcformer.rasterizer import bounds
from tcformer.synthetic.appearance import dress, sample_appearance
from tcformer.synthetic.body import SKIN_VERTICES, BodyModel, Shape, load_body
from tcformer.synthetic.files import Map, write_jpeg
from tcformer.synthetic.geometry import UP, Array, Camera, look_at, rotation
from tcformer.synthetic.options import GenerateMesh, check
from tcformer.synthetic.person import Person, sample_coefficients
from tcformer.synthetic.pose import PoseChoice, sample_pose
from tcformer.synthetic.scene import Scene, SceneChoice, draw_scene
from tcformer.synthetic.smpl_body import NUM_SHAPES, TO_SMPL, load_smpl_body, write_smpl_body

TRAIN_FILE: Final = "dataset_extras/generated_train.npz"
TRAIN_IMAGES: Final = "generated"

_FRAMES: Final = 25  # of a test sequence
_TRAIN, _TEST, _SEQUENCE = range(3)  # what a random number is for

_FOCAL = (1.4, 3.0)  # focal length over picture height
_BOX_MARGIN = 1.2  # as SPIN
_CONFIDENCE = 0.8  # of a 2D point that is in the picture, as OpenPose might give it


@dataclass(frozen=True)
class MeshPerson(Person):
    """A person whose skin is exactly a posed SMPL-format body."""

    betas: Array
    """(10,) shape coefficients."""
    pose: Array
    """(24, 3, 3) joint rotations in SMPL's axes; the first is replaced by `turn`."""
    turn: Array
    """(3, 3) from the body model's T-pose, in SMPL's axes, to the world: rotation of the root."""
    joints: Array
    """(24, 3) of the kinematic tree, world."""
    spin_joints: Array
    """(49, 3) of SPIN (`tcformer.body.joints`), world."""

    def moved(self, yaw_deg: float, to: Array) -> MeshPerson:
        """Turned about the vertical through the origin, then shifted."""
        person = super().moved(yaw_deg, to)
        assert isinstance(person, MeshPerson)
        turn = rotation(UP, yaw_deg)
        return replace(
            person,
            turn=turn @ self.turn,
            joints=np.einsum("nj,ij->ni", self.joints, turn) + to,
            spin_joints=np.einsum("nj,ij->ni", self.spin_joints, turn) + to,
        )


def sample_betas(variety: float, rng: np.random.Generator) -> Array:
    """Draw a body's shape (10,): variety times that of any body."""
    model = load_smpl_body()
    return variety * sample_coefficients(model.body, rng)[:NUM_SHAPES] / model.coefficient_std


def make_mesh_person(body: BodyModel, choice: PoseChoice, rng: np.random.Generator, betas: Array) -> MeshPerson:
    """Draw a person of a given shape (10,) who stands, sits or lies on the ground at the origin, facing -y."""
    model = load_smpl_body()
    rest = model.rest_joints(betas)
    bones, posture = sample_pose(body, rest, choice, rng)
    look = sample_appearance(rng)
    if posture in ("sit", "squat", "lie"):
        look = look._replace(skirt=False)  # the skirt's mesh does not fold
    pose = model.pose_from(bones)
    posed = model.posed(betas, pose)
    shape = Shape(body.shape(model.coefficients(betas), {}).vertices, rest)
    dressed = model.skin(model.to_t_pose(dress(body, look, shape.vertices), rest), posed.transforms)
    low, high = bounds(posed.vertices[:SKIN_VERTICES])
    ground, seat_height = float(low[2]), 0.0
    if posture == "sit":
        bottom = posed.vertices[:SKIN_VERTICES][body.leg_position[:SKIN_VERTICES] > 0.8]
        seat_height = float(bottom[:, 2].min()) - ground
    person = MeshPerson(
        look=look,
        posture=posture,
        skin=posed.vertices,
        dressed=dressed,
        keypoints=body.keypoints(shape, posed.vertices, posed.bone_transforms),
        cheeks=body.cheeks(posed.vertices),
        facing=posed.bone_transforms[body.bone["head"], :, :3] @ np.array([0.0, -1.0, 0.0]),
        seat_height=seat_height,
        betas=betas,
        pose=TO_SMPL @ pose @ TO_SMPL.T,
        turn=pose[0] @ TO_SMPL.T,
        joints=posed.joints,
        spin_joints=model.spin_joints(posed),
    )
    middle = (low + high) / 2
    return person.moved(0.0, np.array([-middle[0], -middle[1], -ground]))


def aim(people: Sequence[Person], choice: SceneChoice, rng: np.random.Generator, focal: float | None = None) -> Camera:
    """A camera with the optical axis in the middle of the picture, at the distance that makes the people as large
    as chosen. focal: its focal length, pixels; None: any."""
    height, width = choice.size
    focal = rng.uniform(*_FOCAL) * height if focal is None else focal
    skin = np.concatenate([person.skin[:SKIN_VERTICES:4] for person in people])
    target = bounds(skin).mean(0)
    fraction, place = rng.uniform(*choice.figure_height), rng.uniform(-0.4, 0.4, 2)
    pitch = rng.normal(0, choice.camera_pitch_deg)
    distance = focal * float(np.ptp(skin, axis=0)[[0, 2]].max()) / (fraction * height)
    for _ in range(4):  # nearer parts look larger, so the distance follows from the picture
        highest_look_up = -np.rad2deg(np.arctan2(max(target[2] - 0.1, 0.0), distance))
        camera = look_at(target, distance, float(max(pitch, highest_look_up)), choice.size)
        camera = replace(camera, focal=focal, centre=(width / 2, height / 2))
        seen = camera.project(skin)
        extent = seen.max(0) - seen.min(0)
        distance *= float(max(extent[1] / (fraction * height), extent[0] / (0.96 * width)))
    wanted = place * np.maximum([width - extent[0], height - extent[1]], 0)
    shift = wanted - ((seen.min(0) + seen.max(0)) / 2 - [width / 2, height / 2])
    return replace(camera, translation=camera.translation + np.array([*(shift * distance / focal), 0.0]))


def generate_mesh(root: Path, options: GenerateMesh, map: Map = map) -> None:
    """Write the data set into the folder `root`, which is made if it is missing.

    map(function, items): called with a picklable function and picklable items; a parallel map may be passed,
    and neither its number of processes nor the order in which it works changes a byte.
    """
    check(options)
    for folder in ("dataset_extras", f"{TRAIN_IMAGES}/train", "3DPW/sequenceFiles/test", "3DPW/imageFiles"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    write_smpl_body(root / "body")
    test = range(options.test_images)
    for sequence in {index // _FRAMES for index in test}:
        (root / f"3DPW/imageFiles/{_sequence_name(sequence)}").mkdir(exist_ok=True)
    items = [(_TRAIN, index) for index in range(options.train_images)] + [(_TEST, index) for index in test]
    results = sorted(map(partial(_make_image, str(root), options), items), key=lambda result: result[0])
    train = [fields for (split, _), fields in results if split == _TRAIN]
    if train:
        columns = {name: np.array([fields[name] for fields in train]) for name in train[0]}
        np.savez(root / TRAIN_FILE, **columns)  # type: ignore[arg-type]
    frames = [fields for (split, _), fields in results if split == _TEST]
    for first in range(0, len(frames), _FRAMES):
        name = _sequence_name(first // _FRAMES)
        content = _sequence(name, frames[first : first + _FRAMES])
        (root / f"3DPW/sequenceFiles/test/{name}.pkl").write_bytes(pickle.dumps(content, protocol=2))


def _sequence_name(sequence: int) -> str:
    return f"generated_{sequence:03d}"


def _make_image(root: str, options: GenerateMesh, item: tuple[int, int]) -> tuple[tuple[int, int], dict[str, Any]]:
    """Draw and write one picture; returns what the set's file says of it."""
    split, index = item
    cv2.setNumThreads(1)
    rng = np.random.default_rng([options.seed, split, index])
    choice = _choose(options, rng)
    if split == _TRAIN:
        betas = sample_betas(options.shape_variety, rng)
        scene = draw_scene(load_body(), choice, rng, partial(make_mesh_person, betas=betas), aim)
        name = f"train/{index:06d}.jpg"
        path, fields = Path(root, TRAIN_IMAGES, name), _training_fields(scene, name)
    else:
        sequence, frame = divmod(index, _FRAMES)
        traits = np.random.default_rng([options.seed, _SEQUENCE, sequence])
        betas, gender = sample_betas(options.shape_variety, traits), str(traits.choice(["m", "f"]))
        focal = traits.uniform(*_FOCAL) * options.image_size[0]
        scene = draw_scene(load_body(), choice, rng, partial(make_mesh_person, betas=betas), partial(aim, focal=focal))
        path = Path(root, "3DPW/imageFiles", _sequence_name(sequence), f"image_{frame:05d}.jpg")
        fields = {**_frame_fields(scene), "gender": gender}
    write_jpeg(path, scene.picture.image, options.jpeg_quality)
    return item, fields


def _choose(options: GenerateMesh, rng: np.random.Generator) -> SceneChoice:
    return SceneChoice(
        size=options.image_size,
        people=1,
        pose=PoseChoice(variety=options.pose_variety),
        yaw_deg=0.0,
        yaw_spread_deg=options.yaw_deg,
        back_view_fraction=options.back_view_fraction,
        framing="whole",
        figure_height=options.figure_height,
        camera_pitch_deg=options.camera_pitch_deg,
        occluder=bool(rng.uniform() < options.occluder_fraction),
        crowd=False,
        clutter=options.clutter,
        photo_fraction=options.photo_fraction,
        light_range=options.light_range,
        supersampling=options.supersampling,
    )


def _person(scene: Scene) -> MeshPerson:
    person = scene.people[0]
    assert isinstance(person, MeshPerson)
    return person


def _points(scene: Scene) -> Array:
    """SPIN's 49 joints (49, 3) in the picture: x, y in pixels, 1 where they are inside, else zeros."""
    height, width = scene.camera.size
    points = scene.camera.project(_person(scene).spin_joints) - 0.5
    inside = (points >= 0).all(1) & (points[:, 0] <= width - 1) & (points[:, 1] <= height - 1)
    return np.column_stack([points, np.ones(len(points))]) * inside[:, None]


def _training_fields(scene: Scene, name: str) -> dict[str, Any]:
    """One row of SPIN's file: the pose in the camera's axes, 3D joints relative to the pelvis."""
    person, camera = _person(scene), scene.camera
    pose = to_axis_angle(person.pose)
    pose[0] = to_axis_angle(camera.rotation @ person.turn)
    points = _points(scene)
    joints = camera.to_camera(person.spin_joints[NUM_OPENPOSE:])
    pelvis = joints[14]  # MPII's
    seen = points[list(OPENPOSE_18)]
    seen = seen[seen[:, 2] > 0, :2]
    low, high = seen.min(0), seen.max(0)
    return {
        "imgname": name,
        "center": (low + high) / 2,
        "scale": _BOX_MARGIN * float((high - low).max()) / 200,
        "pose": pose.reshape(-1),
        "shape": person.betas,
        "part": points[NUM_OPENPOSE:],
        "openpose": points[:NUM_OPENPOSE] * [1.0, 1.0, _CONFIDENCE],
        "S": np.column_stack([joints - pelvis, np.ones(len(joints))]),
        "has_smpl": np.uint8(1),
        "gender": "n",
    }


def _frame_fields(scene: Scene) -> dict[str, Any]:
    """What a frame adds to a sequence of 3DPW: pose and place in the world, the camera, the points seen."""
    person, camera = _person(scene), scene.camera
    pose = to_axis_angle(person.pose)
    pose[0] = to_axis_angle(person.turn)
    rest = load_smpl_body().shaped(person.betas)[1][0] @ TO_SMPL.T  # the pelvis in T-pose, SMPL's axes
    world_to_camera = np.eye(4)
    world_to_camera[:3, :3], world_to_camera[:3, 3] = camera.rotation, camera.translation
    return {
        "betas": person.betas,
        "pose": pose.reshape(-1),
        "trans": person.joints[0] - rest,
        "joints": person.joints.reshape(-1),
        "points": (_points(scene)[list(OPENPOSE_18)] * [1.0, 1.0, _CONFIDENCE]).T,
        "camera": world_to_camera,
        "intrinsics": np.array(
            [[camera.focal, 0, camera.centre[0] - 0.5], [0, camera.focal, camera.centre[1] - 0.5], [0, 0, 1]]
        ),
    }


def _sequence(name: str, frames: list[dict[str, Any]]) -> dict[str, Any]:
    """A sequence file's content: 3DPW's keys, one person. Values of a person are in lists, one entry a person."""
    count = len(frames)
    poses, trans = _column(frames, "pose"), _column(frames, "trans")
    betas = _column(frames, "betas")[0]
    body = load_smpl_body().arrays()
    clothed = body.v_template.astype(float) + np.einsum("vik,k->vi", body.shapedirs.astype(float), betas)
    return {
        "sequence": name,
        "betas": [betas],
        "poses": [poses],
        "trans": [trans],
        "poses_60Hz": [np.repeat(poses, 2, 0)],
        "trans_60Hz": [np.repeat(trans, 2, 0)],
        "betas_clothed": [betas.copy()],
        "v_template_clothed": [clothed],
        "genders": [frames[0]["gender"]],
        "texture_maps": [],
        "poses2d": [_column(frames, "points")],
        "jointPositions": [_column(frames, "joints")],
        "img_frame_ids": np.arange(0, 2 * count, 2),
        "cam_poses": _column(frames, "camera"),
        "campose_valid": [np.ones(count, np.int64)],
        "cam_intrinsics": _column(frames, "intrinsics")[0],
    }


def _column(frames: list[dict[str, Any]], name: str) -> NDArray[np.float64]:
    """A new array of the frames' values: a pickle's bytes show which objects of it are the same."""
    return np.array([frame[name] for frame in frames], np.float64)
