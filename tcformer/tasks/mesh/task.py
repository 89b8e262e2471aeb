"""Body mesh recovery: pose, shape and camera of a body in SMPL's format, evaluated on 3DPW and Human3.6M.

Losses, their weights and the camera are those of SPIN (github.com/nkolot/SPIN, train/trainer.py) and EFT. The data root
contains the files that the options name, and the folder `body` with the body models (`tcformer.body.files`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tcformer.body.camera import MEAN_CAMERA, project
from tcformer.body.files import GENDERS, Gender
from tcformer.body.joints import NUM_JOINTS, NUM_OPENPOSE, NUM_SHAPES, SPIN_NAMES
from tcformer.body.model import Body, BodyJoints, Joints, load_body, load_joints
from tcformer.body.rotations import nearest_rotation, to_6d, to_matrix
from tcformer.data.mesh.bodies import Bodies
from tcformer.data.mesh.dataset import MeshDataset, MeshMixture, MeshTests
from tcformer.data.mesh.files import load_bodies
from tcformer.errors import UserError, require_finite
from tcformer.metrics.mesh import (
    common_joints,
    human36m_truth,
    joint_distances,
    joint_errors,
    procrustes,
    threedpw_truth,
)
from tcformer.models import MeshPrediction, Network, NetworkOptions
from tcformer.tasks.base import Batch, ValidationMeasure
from tcformer.tasks.mesh.options import MeshEvaluation, MeshOptions, MeshTest

#: Folder of the body models below the data root.
BODY_FOLDER = "body"

# Among the last 24 of SPIN's joints.
_RIGHT_HIP, _LEFT_HIP = (SPIN_NAMES.index(f"{side} hip") - NUM_OPENPOSE for side in ("right", "left"))
_POSING_BATCH = 512  # bodies posed at once when ground truth is computed
_MOST_PEOPLE_OF_MEAN = 20_000

#: A network, or a wrapper of one, that maps images (B, 3, H, W) to body parameters.
MeshModel: TypeAlias = Callable[[Tensor], MeshPrediction]


def true_joints(
    bodies: Bodies, protocol: Literal["3dpw", "h36m"], body_folder: Path, source: Path
) -> NDArray[np.float64]:
    """The evaluated joints (N, 14, 3) of annotated people, metres from the pelvis.

    Args:
        bodies: the people.
        protocol: "h36m" takes the annotated joints, "3dpw" those of the body models in the annotated pose and shape.
        body_folder: folder of the male and the female body model, for "3dpw".
        source: the annotations' file, for messages.

    Raises:
        UserError: the annotations lack joints, or poses and shapes; or there is no such body model.
    """
    if protocol == "h36m":
        if not (bodies.joints[:, :, 3] > 0).any(1).all():
            raise UserError(
                f"{source}: field 'S': the protocol h36m needs 3D joints in every row; "
                f"use h36m_valid_protocol1.npz or h36m_valid_protocol2.npz"
            )
        return human36m_truth(bodies.joints)
    if not bodies.has_smpl.all():
        raise UserError(
            f"{source}: the protocol 3dpw needs pose and shape in every row; use 3DPW's sequences or 3dpw_test.npz"
        )
    rotations = to_matrix(bodies.pose.reshape(-1, NUM_JOINTS, 3))
    is_male = bodies.gender == GENDERS.index("male")

    def posed(gender: Gender, rows: NDArray[np.bool_]) -> NDArray[np.float64]:
        joints = np.zeros((len(bodies), 17, 3))
        if rows.any():
            joints[rows] = posed_joints(load_joints(body_folder, gender), rotations[rows], bodies.shape[rows])
        return joints

    return threedpw_truth(posed("male", is_male), posed("female", ~is_male), is_male)


@torch.no_grad()
def posed_joints(body: BodyJoints, rotations: NDArray[Any], shape: NDArray[Any]) -> NDArray[np.float64]:
    """Human3.6M's joints (N, 17, 3) of a body in poses (N, 24, 3, 3) and shapes (N, 10), metres."""
    parts = []
    for start in range(0, len(rotations), _POSING_BATCH):
        rows = slice(start, start + _POSING_BATCH)
        turns = torch.tensor(rotations[rows], dtype=torch.float32)
        parts.append(body(turns, torch.tensor(shape[rows], dtype=torch.float32)).h36m)
    return torch.cat(parts).numpy().astype(np.float64)


class MeshTask:
    """See `tcformer.tasks.base.Task`.

    Args:
        options: of the head, the samples and the losses.
        network: options of the backbone.
        data_root: folder with the files that the options name, and the body models.
        evaluation: only needed by `test_set`, `predict` and `evaluate`.
    """

    name = "mesh"
    validation_measure = ValidationMeasure("mpjpe", higher_is_better=False)

    def __init__(
        self,
        options: MeshOptions,
        network: NetworkOptions,
        data_root: Path,
        evaluation: MeshEvaluation | None = None,
    ) -> None:
        if options.input_size < 32:
            raise UserError(f"input_size {options.input_size}: expected at least 32 pixels; change it in params.yaml")
        if not options.mixture or any(group.weight <= 0 or not group.sources for group in options.mixture):
            raise UserError(
                "mixture: expected at least one group, each with a weight above 0 and at least one source; "
                "change it in params.yaml"
            )
        self.options = options
        self.network = network
        self.root = Path(data_root)
        self._evaluation = evaluation

    @property
    def evaluation(self) -> MeshEvaluation:
        """The options of the evaluation.

        Raises:
            ValueError: the task was built without them.
        """
        if self._evaluation is None:
            raise ValueError("this MeshTask was built without evaluation options")
        return self._evaluation

    def build_model(self) -> Network:
        """Build the network with a mesh head that starts from the mean pose and shape of the training set."""
        from tcformer import create_model

        model = create_model(
            self.network.backbone, task="mesh", drop_path_rate=self.options.drop_path, **self.network.model_options
        )
        rotations, shape = self.mean_body
        pose = torch.tensor(to_6d(rotations).reshape(-1), dtype=torch.float32)
        head: Any = model.mesh_head
        head.set_mean(pose, torch.tensor(shape, dtype=torch.float32), torch.tensor(MEAN_CAMERA))
        return model

    def train_set(self) -> MeshMixture:
        """The mixture of training sets, augmented."""
        sets, weights = [], []
        for group, group_bodies in zip(self.options.mixture, self._training_bodies, strict=True):
            total = sum(len(bodies) for bodies in group_bodies)
            for source, bodies in zip(group.sources, group_bodies, strict=True):
                size, augmentation = self.options.input_size, self.options.augmentation
                sets.append(MeshDataset(bodies, self.root / source.images, size, augmentation))
                weights.append(group.weight * len(bodies) / total)
        return MeshMixture(sets, weights)

    def val_set(self) -> MeshDataset:
        """The validation set of the options."""
        return self._test_dataset(self.options.validation)

    def test_set(self) -> MeshTests:
        """All test sets, concatenated."""
        return MeshTests([self._test_dataset(test) for test in self.evaluation.tests])

    @cached_property
    def _training_bodies(self) -> list[list[Bodies]]:
        return [[load_bodies(self.root / s.annotations) for s in group.sources] for group in self.options.mixture]

    def _test_dataset(self, test: MeshTest) -> MeshDataset:
        bodies = load_bodies(self.root / test.annotations)
        truth = true_joints(bodies, test.protocol, self.root / BODY_FOLDER, self.root / test.annotations)
        return MeshDataset(bodies, self.root / test.images, self.options.input_size, truth=truth.astype(np.float32))

    @cached_property
    def body(self) -> BodyJoints:
        """The joints of the neutral body model, which is posed by predictions."""
        return load_joints(self.root / BODY_FOLDER)

    @cached_property
    def surface(self) -> Body:
        """The neutral body model with all its vertices, for drawing."""
        return load_body(self.root / BODY_FOLDER)

    def pose(self, rotations: Tensor, shape: Tensor) -> Joints:
        """Joints of predicted bodies, in float32, on the device of the prediction."""
        return self.body.to(rotations.device)(rotations.float(), shape.float())

    @cached_property
    def mean_body(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean rotations (24, 3, 3) and shape (10,) of the people in the training set whose pose is known.

        The mean of rotations is the rotation nearest to the mean of their matrices. Of more than 20,000 people, an
        evenly spaced subset is used.
        """
        every = [bodies for group in self._training_bodies for bodies in group]
        pose = np.concatenate([bodies.pose[bodies.has_smpl] for bodies in every])
        shape = np.concatenate([bodies.shape[bodies.has_smpl] for bodies in every])
        if not len(pose):
            return np.tile(np.eye(3), (NUM_JOINTS, 1, 1)), np.zeros(NUM_SHAPES)
        step = -(-len(pose) // _MOST_PEOPLE_OF_MEAN)
        matrices = to_matrix(pose[::step].reshape(-1, NUM_JOINTS, 3)).mean(0)
        return nearest_rotation(matrices), shape[::step].mean(0, dtype=np.float64)

    @cached_property
    def _known_shares(self) -> dict[str, float]:
        """Expected share of the training samples whose pose and shape, or whose joints in space, are known."""
        shares = {"smpl": 0.0, "joints": 0.0}
        total = sum(group.weight for group in self.options.mixture)
        for group, members in zip(self.options.mixture, self._training_bodies, strict=True):
            part = group.weight / total / sum(len(bodies) for bodies in members)
            shares["smpl"] += part * sum(int(bodies.has_smpl.sum()) for bodies in members)
            shares["joints"] += part * sum(int((bodies.joints[:, :, 3] > 0).any(1).sum()) for bodies in members)
        return shares

    def loss(self, model: MeshModel, batch: Batch) -> dict[str, Tensor]:
        """The weighted sum of the losses, and each of them (see `mesh_losses`).

        SPIN averages the losses of pose, shape and joints over the people of a batch for whom they are known. Here the
        sum is divided by the number that a batch of its size has on average: the same in the mean over many batches,
        and a step's gradient does not depend on how its batch is divided among micro batches and workers.
        """
        prediction = model(batch["image"])
        joints = self.pose(prediction.rotations, prediction.shape)
        losses = mesh_losses(joints.spin, prediction, batch, self.options.loss.openpose)
        smpl, in_space = self._known_shares["smpl"], self._known_shares["joints"]
        shares = {"pose": smpl, "shape": smpl, "joints": in_space}
        means = {name: _mean_of_known(values, shares.get(name)) for name, values in losses.items()}
        return {"loss": self._weighted(means), **{f"{name}_loss": mean.detach() for name, mean in means.items()}}

    def _weighted(self, losses: dict[str, Tensor]) -> Tensor:
        weights = self.options.loss
        total = losses["camera"]
        for name in ("keypoints", "joints", "pose", "shape"):
            total = total + getattr(weights, name) * losses[name]
        return weights.overall * total

    @torch.no_grad()
    def validate(self, model: MeshModel, batch: Batch) -> dict[str, Tensor]:
        """Sums of the loss and of the errors in millimetres. Unknown joints, poses and shapes contribute 0."""
        prediction = model(batch["image"])
        joints = self.pose(prediction.rotations, prediction.shape)
        losses = mesh_losses(joints.spin, prediction, batch, self.options.loss.openpose)
        predicted, true = _evaluated(joints.h36m, batch["truth"])
        error, aligned = joint_errors(predicted, true), joint_errors(procrustes(predicted, true), true)
        return {
            "loss_sum": self._weighted(losses).sum(),
            "mpjpe_sum": losses["camera"].new_tensor(error.sum()),
            "pa_mpjpe_sum": losses["camera"].new_tensor(aligned.sum()),
            "count": losses["camera"].new_tensor(len(error)),
        }

    @torch.no_grad()
    def predict(self, model: MeshModel, batch: Batch) -> list[dict[str, Any]]:
        """A prediction for each person: its index, the number of its test set, and its errors in millimetres.

        "mpjpe" and "pa_mpjpe" are means over the 14 joints, "joints" and "pa_joints" contain the error of each joint.
        """
        prediction = model(batch["image"])
        for output in (prediction.rotations, prediction.shape, prediction.camera):
            require_finite(output, "body parameters")
        predicted, true = _evaluated(self.pose(prediction.rotations, prediction.shape).h36m, batch["truth"])
        aligned = procrustes(predicted, true)
        columns: dict[str, Tensor | NDArray[np.float64]] = {
            "index": batch["index"],
            "test": batch["test"],
            "mpjpe": joint_errors(predicted, true),
            "pa_mpjpe": joint_errors(aligned, true),
            "joints": joint_distances(predicted, true),
            "pa_joints": joint_distances(aligned, true),
        }
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def evaluate(self, predictions: list[dict[str, Any]]) -> dict[str, Any]:
        """Compute {test set: {"mpjpe", "pa_mpjpe", "count"}} in millimetres.

        "baseline" contains the same metrics of the mean body, which has in every image the mean pose of the training
        set, including its orientation, and the mean shape.
        """
        rotations, shape = self.mean_body
        mean = common_joints(posed_joints(self.body.cpu(), rotations[None], shape[None]))
        metrics: dict[str, Any] = {}
        baseline: dict[str, Any] = {}
        for number, (test, data) in enumerate(zip(self.evaluation.tests, self.test_set().sets, strict=True)):
            of_test = sorted((p for p in predictions if p["test"] == number), key=lambda p: p["index"])
            found = [[prediction["mpjpe"], prediction["pa_mpjpe"]] for prediction in of_test]
            metrics[test.name] = _summary(np.array(found).reshape(-1, 2))
            assert data.truth is not None
            truth = data.truth.astype(np.float64)
            same = np.repeat(mean, len(truth), 0)
            errors = np.stack([joint_errors(same, truth), joint_errors(procrustes(same, truth), truth)], 1)
            baseline[test.name] = _summary(errors)
        return {**metrics, "baseline": baseline}


def mesh_losses(spin: Tensor, prediction: MeshPrediction, batch: Batch, openpose_weight: float) -> dict[str, Tensor]:
    """Compute SPIN's losses of each person, without their weights.

    Args:
        spin: (B, 49, 3) joints of the predicted bodies.
        prediction: of the network.
        batch: samples of `tcformer.data.mesh.dataset.MeshDataset`.
        openpose_weight: weight of OpenPose's points relative to annotated ones.

    Returns:
        (B,) float32 for each of "keypoints", "joints", "pose", "shape" (mean squared errors, 0 if the ground truth is
        unknown) and "camera", which penalises negative scales.
    """
    rotations, shape, camera = prediction.rotations.float(), prediction.shape.float(), prediction.camera.float()
    confidence = batch["keypoints"][:, :, 2:]
    weight = torch.ones_like(confidence)
    weight[:, :NUM_OPENPOSE] = openpose_weight
    wrong = project(spin, camera) - batch["keypoints"][:, :, :2]
    difference = _from_mid_hip(spin[:, NUM_OPENPOSE:]) - _from_mid_hip(batch["joints"][:, :, :3])
    known = batch["has_smpl"]
    return {
        "keypoints": (weight * confidence * wrong.square()).mean((1, 2)),
        "joints": (batch["joints"][:, :, 3:] * difference.square()).mean((1, 2)),
        "pose": known * (rotations - batch["rotations"]).square().mean((1, 2, 3)),
        "shape": known * (shape - batch["shape"]).square().mean(1),
        "camera": _penalty_of_scale(camera[:, 0]),
    }


def _penalty_of_scale(scale: Tensor) -> Tensor:
    """SPIN's exp(-10 s)², continued below 0 by its tangent, because it would soon overflow float32 there."""
    return (-20 * scale.clamp(min=0)).exp() - 20 * scale.clamp(max=0)


def _from_mid_hip(joints: Tensor) -> Tensor:
    return joints - (joints[:, _RIGHT_HIP : _RIGHT_HIP + 1] + joints[:, _LEFT_HIP : _LEFT_HIP + 1]) / 2


def _mean_of_known(values: Tensor, share: float | None) -> Tensor:
    """Sum over the people (B,) per person for whom the ground truth is known on average; 0 if it is for nobody.

    Args:
        values: (B,), 0 where the ground truth is unknown.
        share: of the people for whom it is known; None if it is known for everybody.
    """
    if share is None:
        return values.mean()
    return values.sum() / (len(values) * share) if share else 0.0 * values.sum()


def _evaluated(h36m: Tensor, truth: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The evaluated joints (B, 14, 3) of predictions and of the ground truth, metres from the pelvis."""
    return common_joints(h36m.cpu().numpy()), truth.cpu().double().numpy()


def _summary(errors: NDArray[np.float64]) -> dict[str, Any]:
    if not len(errors):
        return {"mpjpe": None, "pa_mpjpe": None, "count": 0}
    return {"mpjpe": float(errors[:, 0].mean()), "pa_mpjpe": float(errors[:, 1].mean()), "count": len(errors)}


TASK = MeshTask
