"""Write a dataset of generated people with the parameters of a body model, in the formats of SPIN and 3DPW.

    body/                                           the SMPL-format body (see `tcformer.body.files`)
    dataset_extras/generated_train.npz              the training set, with the fields of SPIN's files
    generated/train/%06d.jpg                        its images
    3DPW/sequenceFiles/test/generated_%03d.pkl      the test set, with the fields of 3DPW's sequences
    3DPW/imageFiles/generated_%03d/image_%05d.jpg   its images

Image coordinates in the files are OpenCV's: whole numbers are the centres of pixels.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from tcformer.body.joints import NUM_OPENPOSE, OPENPOSE_18, SPIN_NAMES
from tcformer.body.rotations import to_axis_angle
from tcformer.data.mesh.bodies import MARGIN
from tcformer.synthetic.appearance import dress, sample_appearance
from tcformer.synthetic.exact import arctangent2, product
from tcformer.synthetic.files import Map, write_jpeg
from tcformer.synthetic.geometry import FORWARD, UP, Array, Camera, bounds, look_at, rotation
from tcformer.synthetic.options import GenerateMesh, check
from tcformer.synthetic.person import Person, sample_coefficients
from tcformer.synthetic.pose import PoseSpec, sample_pose
from tcformer.synthetic.scene import Scene, SceneSpec, draw_scene
from tcformer.synthetic.smpl_body import NUM_SHAPES, TEMPLATE_TO_SMPL, load_smpl_body, write_smpl_body
from tcformer.synthetic.template_body import SKIN_VERTICES, Shape, TemplateBody, load_template_body

_TRAIN_FILE: Final = "dataset_extras/generated_train.npz"
_TRAIN_IMAGES: Final = "generated"

_FRAMES: Final = 25  # of a test sequence

# The second number of each random seed: an image of the training set, one of the test set, or a whole sequence.
_TRAIN, _TEST, _SEQUENCE = range(3)

_FOCAL_OVER_HEIGHT = (1.4, 3.0)  # smallest and largest focal length over the image's height
_CONFIDENCE = 0.8  # of a 2D point inside the image, as OpenPose might find it

# Of all numbers in the files of both splits: finer than their meaning, coarser than what another libm would change.
_DECIMALS: Final = 6

#: What a file says about one image, by field name.
Fields = dict[str, object]


@dataclass(frozen=True)
class MeshPerson(Person):
    """A person whose skin is a posed SMPL-format body."""

    betas: Array
    """(10,) shape coefficients."""
    pose: Array
    """(24, 3, 3) joint rotations in SMPL's axes; `root_rotation` takes the place of the first."""
    root_rotation: Array
    """(3, 3) from SMPL's axes to the world."""
    joints: Array
    """(24, 3) of the kinematic tree, world."""
    spin_joints: Array
    """(49, 3) SPIN's joints (`tcformer.body.joints`), world."""

    def moved(self, yaw_deg: float, to: Array) -> MeshPerson:
        """The person rotated about the vertical axis through the origin, then shifted by `to` (3,), metres."""
        person = super().moved(yaw_deg, to)
        assert isinstance(person, MeshPerson)
        turn = rotation(UP, yaw_deg)
        return replace(
            person,
            root_rotation=product(turn, self.root_rotation),
            joints=np.einsum("nj,ij->ni", self.joints, turn) + to,
            spin_joints=np.einsum("nj,ij->ni", self.spin_joints, turn) + to,
        )


def sample_betas(variety: float, rng: np.random.Generator) -> Array:
    """Sample a body's shape coefficients (10,): those of a random body, times `variety`."""
    model = load_smpl_body()
    return variety * sample_coefficients(model.body, rng)[:NUM_SHAPES] / model.coefficient_std


def make_mesh_person(body: TemplateBody, spec: PoseSpec, rng: np.random.Generator, betas: Array) -> MeshPerson:
    """Sample a person with shape coefficients (10,) who stands, sits or lies on the ground at the origin, facing -y."""
    model = load_smpl_body()
    rest = model.rest_joints(betas)
    bones, posture = sample_pose(body, rest, spec, rng)
    appearance = sample_appearance(rng)
    if posture in ("sit", "squat", "lie"):
        appearance = appearance._replace(skirt=False)  # the skirt's mesh does not fold
    pose = model.pose_from(bones)
    posed = model.posed(betas, pose)
    shape = Shape(body.shape(model.coefficients(betas), {}).vertices, rest)
    dressed = model.skin(model.to_t_pose(dress(body, appearance, shape.vertices), rest), posed.transforms)
    low, high = bounds(posed.vertices[:SKIN_VERTICES])
    ground, seat_height = float(low[2]), 0.0
    if posture == "sit":
        bottom = posed.vertices[:SKIN_VERTICES][body.leg_position[:SKIN_VERTICES] > 0.8]
        seat_height = float(bottom[:, 2].min()) - ground
    person = MeshPerson(
        appearance=appearance,
        posture=posture,
        skin=posed.vertices,
        dressed=dressed,
        keypoints=body.keypoints(shape, posed.vertices, posed.bone_transforms),
        jaw_candidates=body.jaw_candidates68(posed.vertices),
        facing=product(posed.bone_transforms[body.bone["head"], :, :3], FORWARD),
        seat_height=seat_height,
        betas=betas,
        pose=np.array([product(TEMPLATE_TO_SMPL, turn, TEMPLATE_TO_SMPL.T) for turn in pose]),
        root_rotation=product(pose[0], TEMPLATE_TO_SMPL.T),
        joints=posed.joints,
        spin_joints=model.spin_joints(posed),
    )
    middle = (low + high) / 2
    return person.moved(0.0, np.array([-middle[0], -middle[1], -ground]))


def place_camera(
    people: Sequence[Person], spec: SceneSpec, rng: np.random.Generator, focal: float | None = None
) -> Camera:
    """Sample a camera whose principal point is the middle of the image.

    Its distance follows from the size of the people in the image.

    Args:
        people: the people in the scene.
        spec: what the scene shows.
        rng: the source of randomness.
        focal: focal length, pixels; None: random.
    """
    height, width = spec.size
    focal = rng.uniform(*_FOCAL_OVER_HEIGHT) * height if focal is None else focal
    skin = np.concatenate([person.skin[:SKIN_VERTICES:4] for person in people])
    target = bounds(skin).mean(0)
    fraction, place = rng.uniform(*spec.figure_height), rng.uniform(-0.4, 0.4, 2)
    pitch = rng.normal(0, spec.camera_pitch_deg)
    distance = focal * float(np.ptp(skin, axis=0)[[0, 2]].max()) / (fraction * height)
    for _ in range(4):  # by perspective, nearer parts are larger: so the distance is found by iteration
        highest_look_up = -math.degrees(arctangent2(max(target[2] - 0.1, 0.0), distance))
        camera = look_at(target, distance, float(max(pitch, highest_look_up)), spec.size)
        camera = replace(camera, focal=focal, centre=(width / 2, height / 2))
        seen = camera.project(skin)
        extent = seen.max(0) - seen.min(0)
        distance *= float(max(extent[1] / (fraction * height), extent[0] / (0.96 * width)))
    wanted = place * np.maximum([width - extent[0], height - extent[1]], 0)
    shift = wanted - ((seen.min(0) + seen.max(0)) / 2 - [width / 2, height / 2])
    return replace(camera, translation=camera.translation + np.array([*(shift * distance / focal), 0.0]))


def generate_mesh(root: Path, options: GenerateMesh, map: Map = map) -> None:
    """Write the dataset into a folder, which is created if it is missing.

    Args:
        root: the folder.
        options: number and kind of the images.
        map: applies a picklable function to picklable items, possibly in parallel and in any order.

    Raises:
        UserError: if a value of the options is outside its limits.
    """
    check(options)
    for folder in ("dataset_extras", f"{_TRAIN_IMAGES}/train", "3DPW/sequenceFiles/test", "3DPW/imageFiles"):
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
        np.savez(root / _TRAIN_FILE, **columns)  # type: ignore[arg-type]
    frames = [fields for (split, _), fields in results if split == _TEST]
    for first in range(0, len(frames), _FRAMES):
        name = _sequence_name(first // _FRAMES)
        content = _sequence(name, frames[first : first + _FRAMES])
        (root / f"3DPW/sequenceFiles/test/{name}.pkl").write_bytes(pickle.dumps(content, protocol=2))


def _sequence_name(sequence: int) -> str:
    return f"generated_{sequence:03d}"


def _make_image(root: str, options: GenerateMesh, item: tuple[int, int]) -> tuple[tuple[int, int], Fields]:
    """Render and write one image; returns the item and the image's fields in the file of its split."""
    split, index = item
    cv2.setNumThreads(1)
    rng = np.random.default_rng([options.seed, split, index])
    spec = _sample_spec(options, rng)
    if split == _TRAIN:
        betas = sample_betas(options.shape_variety, rng)
        scene = draw_scene(load_template_body(), spec, rng, partial(make_mesh_person, betas=betas), place_camera)
        name = f"train/{index:06d}.jpg"
        path, fields = Path(root, _TRAIN_IMAGES, name), _training_fields(scene, name)
    else:
        sequence, frame = divmod(index, _FRAMES)
        sequence_rng = np.random.default_rng([options.seed, _SEQUENCE, sequence])
        betas = sample_betas(options.shape_variety, sequence_rng)
        gender = str(sequence_rng.choice(["m", "f"]))
        placer = partial(place_camera, focal=sequence_rng.uniform(*_FOCAL_OVER_HEIGHT) * options.image_size[0])
        scene = draw_scene(load_template_body(), spec, rng, partial(make_mesh_person, betas=betas), placer)
        path = Path(root, "3DPW/imageFiles", _sequence_name(sequence), f"image_{frame:05d}.jpg")
        fields = {**_frame_fields(scene), "gender": gender}
    write_jpeg(path, scene.rendering.image, options.jpeg_quality)
    return item, {
        name: _rounded(value) if isinstance(value, (float, np.ndarray)) else value for name, value in fields.items()
    }


def _rounded(value: float | Array) -> Array:
    """Numbers with `_DECIMALS` decimals and without negative zeros."""
    return np.asarray(np.round(value, _DECIMALS) + 0.0, np.float64)


def _sample_spec(options: GenerateMesh, rng: np.random.Generator) -> SceneSpec:
    """What an image shows."""
    return SceneSpec(
        size=options.image_size,
        people=1,
        pose=PoseSpec(variety=options.pose_variety),
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
    """The one person of a scene."""
    person = scene.people[0]
    assert isinstance(person, MeshPerson)
    return person


def _spin_points(scene: Scene) -> Array:
    """SPIN's joints (49, 3) in the image: x and y in pixels and 1 for a joint inside the image, else zeros."""
    height, width = scene.camera.size
    points = scene.camera.project(_person(scene).spin_joints) - 0.5
    inside = (points >= 0).all(1) & (points[:, 0] <= width - 1) & (points[:, 1] <= height - 1)
    return np.column_stack([points, np.ones(len(points))]) * inside[:, None]


def _training_fields(scene: Scene, name: str) -> Fields:
    """One row of SPIN's file: the root's rotation in the camera's axes, 3D joints relative to the pelvis."""
    person, camera = _person(scene), scene.camera
    pose = to_axis_angle(person.pose)
    pose[0] = to_axis_angle(product(camera.rotation, person.root_rotation))
    points = _spin_points(scene)
    joints = camera.to_camera(person.spin_joints[NUM_OPENPOSE:])
    pelvis = joints[SPIN_NAMES.index("pelvis (MPII)") - NUM_OPENPOSE]
    seen = points[list(OPENPOSE_18)]
    seen = seen[seen[:, 2] > 0, :2]
    low, high = seen.min(0), seen.max(0)
    return {
        "imgname": name,
        "center": (low + high) / 2,
        "scale": MARGIN * float((high - low).max()) / 200,
        "pose": pose.reshape(-1),
        "shape": person.betas,
        "part": points[NUM_OPENPOSE:],
        "openpose": points[:NUM_OPENPOSE] * [1.0, 1.0, _CONFIDENCE],
        "S": np.column_stack([joints - pelvis, np.ones(len(joints))]),
        "has_smpl": np.uint8(1),
        "gender": "n",
    }


def _frame_fields(scene: Scene) -> Fields:
    """What a frame adds to a sequence of 3DPW: pose and position in the world, the camera, the 2D points."""
    person, camera = _person(scene), scene.camera
    pose = to_axis_angle(person.pose)
    pose[0] = to_axis_angle(person.root_rotation)
    rest = product(TEMPLATE_TO_SMPL, load_smpl_body().shaped(person.betas)[1][0])  # the pelvis in T-pose
    world_to_camera = np.eye(4)
    world_to_camera[:3, :3], world_to_camera[:3, 3] = camera.rotation, camera.translation
    return {
        "betas": person.betas,
        "pose": pose.reshape(-1),
        "trans": person.joints[0] - rest,
        "joints": person.joints.reshape(-1),
        "points": (_spin_points(scene)[list(OPENPOSE_18)] * [1.0, 1.0, _CONFIDENCE]).T,
        "camera": world_to_camera,
        "intrinsics": np.array(
            [[camera.focal, 0, camera.centre[0] - 0.5], [0, camera.focal, camera.centre[1] - 0.5], [0, 0, 1]]
        ),
    }


def _sequence(name: str, frames: list[Fields]) -> Fields:
    """The content of a sequence file of 3DPW with one person; lists have one entry per person."""
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
        "v_template_clothed": [_rounded(clothed)],
        "genders": [frames[0]["gender"]],
        "texture_maps": [],
        "poses2d": [_column(frames, "points")],
        "jointPositions": [_column(frames, "joints")],
        "img_frame_ids": np.arange(0, 2 * count, 2),
        "cam_poses": _column(frames, "camera"),
        "campose_valid": [np.ones(count, np.int64)],
        "cam_intrinsics": _column(frames, "intrinsics")[0],
    }


def _column(frames: list[Fields], name: str) -> Array:
    """A new array of the frames' values; new, because the bytes of a pickle depend on which objects are shared."""
    return np.array([frame[name] for frame in frames], np.float64)
