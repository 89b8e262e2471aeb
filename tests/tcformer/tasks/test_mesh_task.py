"""The mesh task on generated people: losses, truth, evaluation, the mean body."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tcformer.body.camera import project
from tcformer.body.rotations import to_6d, to_matrix
from tcformer.data import collate
from tcformer.data.mesh.dataset import MeshAugmentation
from tcformer.data.mesh.files import load_bodies
from tcformer.errors import UserError
from tcformer.metrics import mpjpe, pa_mpjpe
from tcformer.models.heads import MeshPrediction
from tcformer.synthetic import GenerateMesh, generate_mesh
from tcformer.tasks.mesh.options import MeshEvaluation, MeshGroup, MeshLoss, MeshOptions, MeshSource, MeshTest
from tcformer.tasks.mesh.task import MeshTask, mesh_losses
from tests.tcformer.networks import NETWORK

TRAIN = MeshSource(annotations="dataset_extras/generated_train.npz", images="generated")
TEST = MeshTest(name="generated", annotations="3DPW/sequenceFiles/test", images="3DPW/imageFiles", protocol="3dpw")
SPIN = MeshLoss(keypoints=5.0, openpose=0.0, joints=5.0, pose=1.0, shape=0.001, overall=60.0)
OPTIONS = MeshOptions(
    drop_path=0.0,
    input_size=64,
    mixture=(MeshGroup(weight=1.0, sources=(TRAIN,)),),
    validation=TEST,
    augmentation=MeshAugmentation(flip_probability=0.5, noise=0.4, rotation=30.0, scale=0.25, rotation_probability=0.4),
    loss=SPIN,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mesh")
    options = GenerateMesh(
        seed=1, train_images=8, test_images=6, image_size=(64, 64), figure_height=(0.7, 0.9), yaw_deg=30.0,
        back_view_fraction=0.0, camera_pitch_deg=5.0, pose_variety=1.0, shape_variety=1.0, occluder_fraction=0.0,
        clutter=0.2, photo_fraction=0.0, light_range=(1.0, 1.0), supersampling=1, jpeg_quality=90,
    )  # fmt: skip
    generate_mesh(path, options)
    return path


@pytest.fixture(scope="module")
def task(root: Path) -> MeshTask:
    return MeshTask(OPTIONS, NETWORK, root, evaluation=MeshEvaluation(tests=(TEST, replace(TEST, name="again"))))


class Fixed:
    """Answers every image with the same prediction, or each with its own."""

    def __init__(self, rotations: Tensor, shape: Tensor, camera: Tensor) -> None:
        self.prediction = MeshPrediction(rotations, shape, camera)

    def __call__(self, images: Tensor) -> MeshPrediction:
        return self.prediction


def whole(data: Any) -> dict[str, Tensor]:
    return collate([data.sample(i, None) for i in range(len(data))])


def truth(batch: dict[str, Tensor]) -> Fixed:
    count = len(batch["rotations"])
    return Fixed(batch["rotations"], batch["shape"], torch.tensor([[0.9, 0.0, 0.0]]).repeat(count, 1))


def test_true_bodies_have_no_error(task: MeshTask) -> None:
    batch = whole(task.test_set())
    assert batch["truth"].shape == (12, 14, 3)
    records = task.predict(truth(batch), batch)
    assert [record["index"] for record in records] == list(range(12))
    measures = json.loads(json.dumps(task.evaluate(records[::-1])))
    for name in ("generated", "again"):
        assert measures[name]["mpjpe"] < 0.01 and measures[name]["pa_mpjpe"] < 0.01
        assert measures[name]["count"] == measures["baseline"][name]["count"] == 6
        assert 150 < measures["baseline"][name]["mpjpe"] < 500
        assert 60 < measures["baseline"][name]["pa_mpjpe"] < measures["baseline"][name]["mpjpe"]


@pytest.mark.slow
def test_the_mean_body_is_the_baseline(task: MeshTask, root: Path) -> None:
    rotations, shape = task.mean_body
    bodies = load_bodies(root / TRAIN.annotations)
    np.testing.assert_allclose(shape, bodies.shape.mean(0), rtol=1e-6)
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), np.tile(np.eye(3), (24, 1, 1)), atol=1e-12)
    matrices = to_matrix(bodies.pose.reshape(-1, 24, 3))
    best = ((matrices - rotations) ** 2).sum((2, 3)).mean(0)
    for other in matrices:
        assert (best <= ((matrices - other) ** 2).sum((2, 3)).mean(0) + 1e-9).all()
    batch = whole(task.test_set())
    turns = torch.tensor(rotations, dtype=torch.float32)[None].repeat(12, 1, 1, 1)
    answer = Fixed(turns, torch.tensor(shape, dtype=torch.float32)[None].repeat(12, 1), torch.zeros(12, 3))
    measures = task.evaluate(task.predict(answer, batch))
    for name in ("mpjpe", "pa_mpjpe"):
        assert measures["generated"][name] == pytest.approx(measures["baseline"]["generated"][name], rel=1e-4)


def test_the_network_starts_from_the_mean_body(task: MeshTask) -> None:
    model = task.build_model().eval()
    prediction = model(whole(task.val_set())["image"])
    rotations, shape = task.mean_body
    assert np.abs(prediction.rotations.detach().numpy() - rotations).max() < 0.1
    assert np.abs(prediction.shape.detach().numpy() - shape).max() < 0.1
    mean = model.mesh_head.mean.numpy()  # type: ignore[union-attr, operator]
    np.testing.assert_allclose(mean[:144], to_6d(rotations).reshape(-1), rtol=1e-6)
    assert mean[154:].tolist() == pytest.approx([0.9, 0, 0])


def test_validation_agrees_with_the_metric(task: MeshTask) -> None:
    batch = whole(task.val_set())
    answer = truth(batch)
    turned = answer.prediction.rotations @ torch.tensor(to_matrix([0.0, 0.4, 0.0]), dtype=torch.float32)
    answer = Fixed(turned, batch["shape"], answer.prediction.camera)
    sums = task.validate(answer, batch)
    joints = task.pose(turned, batch["shape"]).h36m.numpy()
    order = [6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10]
    centred = joints[:, order] - joints[:, :1]
    assert float(sums["count"]) == 6
    assert float(sums["mpjpe_sum"]) / 6 == pytest.approx(mpjpe(centred, batch["truth"].numpy()), rel=1e-4)
    assert float(sums["pa_mpjpe_sum"]) / 6 == pytest.approx(pa_mpjpe(centred, batch["truth"].numpy()), rel=1e-4)
    assert float(sums["loss_sum"]) > 0


def test_truth_uses_the_persons_gender(root: Path, tmp_path: Path) -> None:
    """With a female model that is larger than the male one, women's joints move apart and men's stay."""
    import pickle
    import shutil

    other = tmp_path / "data"
    shutil.copytree(root, other)
    with np.load(other / "body/SMPL_FEMALE.npz") as file:
        content = dict(file)
    np.savez(other / "body/SMPL_FEMALE.npz", **{**content, "v_template": 1.2 * content["v_template"]})
    path = other / "3DPW/sequenceFiles/test/generated_000.pkl"
    sequence = pickle.loads(path.read_bytes())
    truths = {}
    for gender in "mf":
        path.write_bytes(pickle.dumps({**sequence, "genders": [gender]}, protocol=2))
        truths[gender] = MeshTask(OPTIONS, NETWORK, other).val_set().truth
    ratio = np.linalg.norm(truths["f"], axis=2) / np.linalg.norm(truths["m"], axis=2)
    assert 1.1 < ratio.mean() < 1.3


def test_human36m_protocol_takes_the_files_joints(task: MeshTask, root: Path) -> None:
    test = MeshTest(name="h36m", annotations=TRAIN.annotations, images=TRAIN.images, protocol="h36m")
    data = MeshTask(replace(OPTIONS, validation=test), NETWORK, root).val_set()
    s = load_bodies(root / TRAIN.annotations).joints
    np.testing.assert_allclose(data.truth[:, :12], s[:, :12, :3] - s[:, 14:15, :3], atol=1e-6)
    batch = whole(data)
    error = task.validate(truth(batch), batch)["mpjpe_sum"] / 8
    assert error.item() < 30  # the file's neck, hips and head are not quite those of the regressor
    with pytest.raises(UserError, match="needs 3D joints in every row"):
        MeshTask(replace(OPTIONS, validation=replace(TEST, protocol="h36m")), NETWORK, root).val_set()


def test_loss_terms(task: MeshTask) -> None:
    batch = whole(MeshTask(OPTIONS, NETWORK, task.root).train_set())
    answer = truth(batch)
    losses = task.loss(answer, batch)
    assert float(losses["pose_loss"]) == 0 and float(losses["shape_loss"]) == 0
    assert float(losses["joints_loss"]) < 1e-9
    assert float(losses["camera_loss"]) == pytest.approx(np.exp(-18), rel=1e-3)
    total = 5 * losses["keypoints_loss"] + losses["camera_loss"] + 5 * losses["joints_loss"]
    assert float(losses["loss"]) == pytest.approx(60 * float(total), rel=1e-5)
    assert not losses["pose_loss"].requires_grad
    # Another shape: only the shape's own loss and what depends on the joints moves.
    other = task.loss(Fixed(batch["rotations"], batch["shape"] + 1, answer.prediction.camera), batch)
    assert float(other["shape_loss"]) == pytest.approx(1, rel=1e-4) and float(other["pose_loss"]) == 0


def test_the_best_camera_puts_the_true_body_on_its_points(task: MeshTask) -> None:
    """Scale and shift by least squares; what remains is perspective, well under the size of the person."""
    batch = whole(task.train_set())
    spin = task.pose(batch["rotations"], batch["shape"]).spin
    camera = torch.tensor([[0.9, 0.0, 0.0]]).repeat(8, 1).requires_grad_()
    optimiser = torch.optim.Adam([camera], lr=0.02)
    wanted, labelled = batch["keypoints"][:, :, :2], batch["keypoints"][:, :, 2:] > 0
    for _ in range(200):
        optimiser.zero_grad()
        error = ((project(spin.detach(), camera) - wanted) * labelled).square().mean()
        error.backward()
        optimiser.step()
    assert error.item() < 0.001
    assert camera.detach()[:, 0].min() > 0.4 and camera.detach()[:, 0].max() < 2.5


def test_any_camera_has_a_finite_loss_and_gradient(task: MeshTask) -> None:
    batch = whole(task.train_set())
    scales = torch.tensor([0.9, 0.1, 0.0, -1e-9, -0.1, -1.0, -10.0, 50.0])
    camera = torch.stack([scales, torch.zeros(8), torch.zeros(8)], 1).requires_grad_()
    joints = task.pose(batch["rotations"], batch["shape"]).spin
    losses = mesh_losses(joints, MeshPrediction(batch["rotations"], batch["shape"], camera), batch, openpose_weight=0.0)
    expected = (-10 * scales[:2]).exp().square()  # SPIN's
    torch.testing.assert_close(losses["camera"].detach()[:2], expected)
    assert (losses["camera"].diff()[1:6] > -1e-6).all()  # the smaller, the worse
    sum(value.sum() for value in losses.values()).backward()
    assert torch.isfinite(camera.grad).all() and all(torch.isfinite(value).all() for value in losses.values())


def test_unknown_parts_do_not_count(task: MeshTask) -> None:
    batch = whole(task.train_set())
    wrong = Fixed(torch.eye(3).expand(8, 24, 3, 3), torch.ones(8, 10), torch.tensor([[0.9, 0.0, 0.0]]).repeat(8, 1))
    full = task.loss(wrong, batch)
    half = {**batch, "has_smpl": batch["has_smpl"].clone(), "joints": batch["joints"].clone()}
    half["has_smpl"][4:] = 0
    half["joints"][4:] = 0
    first = {name: value[:4] for name, value in batch.items()}
    wrong_first = Fixed(*(value[:4] for value in wrong.prediction))
    part, alone = task.loss(wrong, half), task.loss(wrong_first, first)
    for name in ("pose_loss", "shape_loss", "joints_loss"):  # all people of this training set are known
        assert float(part[name]) == pytest.approx(0.5 * float(alone[name]), rel=1e-5)
    assert float(part["keypoints_loss"]) == float(full["keypoints_loss"])
    nothing = {name: torch.zeros_like(value) if name != "image" else value for name, value in batch.items()}
    losses = task.loss(wrong, nothing)
    assert all(float(losses[name]) == 0 for name in ("pose_loss", "shape_loss", "joints_loss", "keypoints_loss"))
    assert torch.isfinite(losses["loss"])


def partly_known(root: Path) -> MeshTask:
    """A task of whose training people five of eight have a pose and shape, and three have joints in space."""
    found = MeshTask(OPTIONS, NETWORK, root)
    ((bodies,),) = found._training_bodies
    bodies.has_smpl[[0, 3, 6]] = False
    bodies.joints[[1, 2, 4, 5, 7], :, 3] = 0
    return found


def test_a_gradient_does_not_depend_on_how_the_batch_is_divided(root: Path) -> None:
    """A step's gradient is the mean over micro batches and workers, whatever their number."""
    task = partly_known(root)
    batch = whole(task.train_set())
    assert batch["has_smpl"].tolist().count(1.0) == 5
    gradients = {}
    for size in (8, 4, 2, 1):
        torch.manual_seed(0)
        rotations = batch["rotations"].roll(1, 0).clone().requires_grad_()
        shape, camera = (torch.randn(8, n, requires_grad=True) for n in (10, 3))
        parts = range(0, 8, size)
        for start in parts:
            rows = slice(start, start + size)
            answer = Fixed(rotations[rows], shape[rows], camera[rows])
            loss = task.loss(answer, {name: value[rows] for name, value in batch.items()})["loss"]
            (loss / len(parts)).backward()
        gradients[size] = torch.cat([value.grad.flatten() for value in (rotations, shape, camera)])
    for size in (4, 2, 1):
        torch.testing.assert_close(gradients[size], gradients[8], rtol=1e-5, atol=1e-6)


def test_a_batch_as_the_training_set_has_spins_mean_over_the_known(root: Path) -> None:
    task = partly_known(root)
    batch = whole(task.train_set())
    prediction = MeshPrediction(torch.eye(3).expand(8, 24, 3, 3), torch.ones(8, 10), torch.tensor([[0.9, 0, 0]] * 8))
    losses = task.loss(Fixed(*prediction), batch)
    spin = task.pose(prediction.rotations, prediction.shape).spin
    values = mesh_losses(spin, prediction, batch, openpose_weight=0.0)
    for name, known in (("pose", 5), ("shape", 5), ("joints", 3)):
        assert float(losses[f"{name}_loss"]) == pytest.approx(float(values[name].sum()) / known, rel=1e-6)


def test_openpose_points_have_their_own_weight(task: MeshTask) -> None:
    batch = whole(task.train_set())
    prediction, joints = truth(batch).prediction, task.pose(batch["rotations"], batch["shape"])
    moved = {**batch, "keypoints": batch["keypoints"].clone()}
    moved["keypoints"][:, :25, :2] += 1
    for weight, same in ((0.0, True), (1.0, False)):
        losses = [mesh_losses(joints.spin, prediction, b, openpose_weight=weight)["keypoints"] for b in (batch, moved)]
        assert torch.equal(*losses) is same


def test_gradients_reach_every_parameter(task: MeshTask) -> None:
    model = task.build_model()
    batch = collate([task.train_set().sample(i, np.random.default_rng(i)) for i in range(4)])
    task.loss(model, batch)["loss"].backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert without == []


def test_mixture_weights(root: Path) -> None:
    """Within a group by size, between groups as given."""
    groups = (MeshGroup(weight=3.0, sources=(TRAIN, TRAIN)), MeshGroup(weight=1.0, sources=(TRAIN,)))
    mixture = MeshTask(replace(OPTIONS, mixture=groups), NETWORK, root).train_set()
    np.testing.assert_allclose(mixture.cumulative, [0.375, 0.75, 1.0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_size": 16}, "input_size 16: expected at least 32 pixels"),
        ({"mixture": ()}, "mixture: expected at least one group"),
        ({"mixture": (MeshGroup(weight=0.0, sources=(TRAIN,)),)}, "mixture: expected at least one group"),
        ({"mixture": (MeshGroup(weight=1.0, sources=()),)}, "mixture: expected at least one group"),
    ],
)
def test_bad_options_are_named(changes: dict[str, Any], message: str, root: Path) -> None:
    with pytest.raises(UserError, match=message):
        MeshTask(replace(OPTIONS, **changes), NETWORK, root)


def test_a_task_without_evaluation_cannot_be_measured(root: Path) -> None:
    with pytest.raises(ValueError, match="without evaluation options"):
        MeshTask(OPTIONS, NETWORK, root).test_set()


def test_options_have_no_defaults_and_forbid_unknown_keys() -> None:
    for kind in (MeshOptions, MeshEvaluation, MeshGroup, MeshSource, MeshTest, MeshLoss, MeshAugmentation):
        assert kind.__pydantic_config__ == {"extra": "forbid", "strict": True}
        assert all(field.default is field.default_factory for field in fields(kind))
