"""Predictions on whole pictures: a network that answers with the truth draws the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.io import loadmat, savemat
from torch import Tensor

from pipelines.params import Params
from tcformer import draw
from tcformer.data.images import read_image
from tcformer.data.mesh.point_files import load_lsp
from tcformer.errors import UserError
from tcformer.heatmaps import make_codec
from tcformer.models.heads import MeshPrediction
from tcformer.tasks import TASKS
from tcformer.tasks.drawing import Scene, SceneSet, View
from tests import small


class Oracle:
    """Answers with the heat maps of given points, whether or not the images are mirrored."""

    def __init__(self, points: Tensor, weights: Tensor) -> None:
        self.points, self.weights = points, weights

    def __call__(self, images: Tensor) -> Tensor:
        size = (images.shape[2], images.shape[3])
        maps, _ = make_codec("unbiased", input_size=size, sigma=2.0).encode(self.points, self.weights)
        return maps * self.weights[:, :, None, None]


def points_drawn(name: str, monkeypatch: pytest.MonkeyPatch) -> list[NDArray[np.float64]]:
    """A list that receives the points that a function of `tcformer.draw` is called with."""
    points, original = [], getattr(draw, name)

    def recorded(image: NDArray[np.uint8], found: NDArray[np.float64], **options: Any) -> NDArray[np.uint8]:
        points.append(found)
        picture: NDArray[np.uint8] = original(image, found, **options)
        return picture

    monkeypatch.setattr(draw, name, recorded)
    return points


def changed(picture: NDArray[np.uint8], view: View) -> NDArray[np.bool_]:
    """Where something is drawn; elsewhere the drawing's interpolation changes pixels a little."""
    return np.abs(picture.astype(int) - view.pixels).max(2) > 40


def built(task: str, params: Params, root: Path) -> object:
    return params.sample.spec_of(task).build(root, params.sample.evaluation_options_of(task))


def test_keypoints_of_all_people_are_drawn_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    several: dict[str, Any] = {
        "data__wholebody__generate__people": [2, 2],
        "data__wholebody__generate__image_size": [160, 224],
        "evaluate__wholebody__options__flip_test": False,
        "finetune__wholebody__task__input_size": [128, 96],
    }
    params = small.parameters(tmp_path, **several)
    task = built("wholebody", params, small.generate("wholebody", params, tmp_path))
    part = TASKS["wholebody"].part("scenes")
    scenes: SceneSet = part.scene_set(task)
    scene = max(scenes.scenes, key=lambda scene: len(scene.samples))
    assert len(scene.samples) == 2 and scene.image.is_file()
    batch = scenes.batch(scene)
    view = View.of(scene).resized(336, 240)
    drawn = points_drawn("keypoints", monkeypatch)
    picture = part.draw_scene(task, Oracle(batch["points"], batch["weights"]), scenes, scene, view, 0.3)
    assert picture.shape == (240, 336, 3) and changed(picture, view).mean() > 0.01
    assert scenes.dataset.crops.keypoints is not None
    truth = view.place(scenes.dataset.crops.keypoints[list(scene.samples)])
    [found] = drawn
    assert found.shape == truth.shape == (2, 133, 3)
    cell = batch["extent"][:, :1].numpy() / 24 * view.factor  # of the heat maps, which limit the precision
    off = (np.linalg.norm(found[..., :2] - truth[..., :2], axis=2) / cell)[truth[..., 2] > 0]
    assert np.median(off) < 0.5 and np.quantile(off, 0.95) < 0.75


def test_detections_of_low_score_are_not_drawn(samples: Path, tmp_path: Path) -> None:
    params = small.parameters(tmp_path, evaluate__wholebody__options__boxes="detections")
    task = built("wholebody", params, samples / "coco_wholebody")
    scenes: SceneSet = TASKS["wholebody"].part("scenes").scene_set(task)
    drawn = [index for scene in scenes.scenes for index in scene.samples]
    assert 0 < len(drawn) < len(scenes.dataset)
    assert (scenes.dataset.crops.score[drawn] >= 0.5).all() and scenes.name == "validation set, detections"


def test_landmarks_are_drawn_on_the_part_around_the_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = small.parameters(tmp_path, evaluate__face__options__flip_test=False)
    task = built("face", params, small.generate("face", params, tmp_path))
    part = TASKS["face"].part("scenes")
    scenes: SceneSet = part.scene_set(task)
    assert [scene.samples for scene in scenes.scenes] == [(0,), (1,)]
    scene = scenes.scenes[1]
    batch = scenes.batch(scene)
    view = View.of(scene).resized(200, 200)
    drawn = points_drawn("landmarks", monkeypatch)
    picture = part.draw_scene(task, Oracle(batch["points"], batch["weights"]), scenes, scene, view, 0.0)
    assert changed(picture, view).mean() > 0.01
    truth, [[found]] = view.place(scenes.dataset.faces.points[1]), drawn
    cell = float(batch["extent"][0, 0]) / 16 * view.factor
    assert np.median(np.linalg.norm(found[:, :2] - truth, axis=1)) < 0.5 * cell and (found[:, 2] == 1).all()
    assert ((truth > 0) & (truth < 200)).all(), "the part shows the whole face"


@pytest.mark.slow
def test_bodies_are_drawn_where_the_people_are(tmp_path: Path) -> None:
    params = small.parameters(tmp_path)
    task = built("mesh", params, small.generate("mesh", params, tmp_path))
    part = TASKS["mesh"].part("scenes")
    scenes: SceneSet = part.scene_set(task)
    assert scenes.name == "generated, test set" and len(scenes.scenes) == 2
    scene = scenes.scenes[0]
    batch = scenes.batch(scene)
    # The camera that puts the true body on its points, by least squares.
    joints = task.pose(batch["rotations"], batch["shape"]).spin[0, :, :2].numpy()
    points = batch["keypoints"][0].numpy()
    known = points[:, 2] > 0
    a = np.concatenate([np.stack([joints[known, k], *np.eye(2)[k][:, None] * np.ones(known.sum())], 1) for k in (0, 1)])
    scale, x, y = np.linalg.lstsq(a, points[known, :2].T.ravel(), rcond=None)[0]
    camera = Tensor([[scale, x / scale, y / scale]])
    view = View.of(scene).resized(256, 256)
    answer = MeshPrediction(batch["rotations"], batch["shape"], camera)
    picture = part.draw_scene(task, lambda images: answer, scenes, scene, view, 0.0)
    body = changed(picture, view)
    placed = np.rint(view.place(scenes.dataset.bodies.keypoints[scene.samples[0]])).astype(int)[known]
    on_body = [bool(body[max(y - 6, 0) : y + 7, max(x - 6, 0) : x + 7].any()) for x, y, _ in placed]
    assert np.mean(on_body) > 0.9 and body.mean() < 0.5
    with pytest.raises(UserError, match=r"lsp/joints\.mat: no such file"):
        part.scene_set(task, "lsp")


def test_the_test_set_of_lsp_is_drawn_and_not_trained_on(samples: Path, tmp_path: Path) -> None:
    """LSP's own files are made of real pictures of LSP-Extended: the axes and the names are LSP's."""
    params = small.parameters(tmp_path)
    root = small.generate("mesh", params, tmp_path)
    joints = loadmat(samples / "lspet/joints.mat")["joints"]
    names = sorted(path for path in (samples / "lspet/images").iterdir() if path.suffix in (".jpg", ".png"))
    seen = np.flatnonzero((joints[:, 2] > 0).all(0))[:4]
    (root / "lsp/images").mkdir(parents=True)
    for number, column in zip((1, 1000, 1001, 2000), seen):
        cv2.imwrite(str(root / f"lsp/images/im{number:04d}.jpg"), read_image(names[column])[:, :, ::-1])
    savemat(root / "lsp/joints.mat", {"joints": joints[:, :, seen].transpose(1, 0, 2)})
    assert load_lsp(root / "lsp/joints.mat").image == ("im0001.jpg", "im1000.jpg")

    task = built("mesh", params, root)
    part = TASKS["mesh"].part("scenes")
    scenes: SceneSet = part.scene_set(task, "lsp")
    assert [scene.image.name for scene in scenes.scenes] == ["im1001.jpg", "im2000.jpg"]
    rotations, shape = (torch.tensor(mean[None], dtype=torch.float32) for mean in task.mean_body)
    x, y = (-task.pose(rotations, shape).spin[0, :, :2].mean(0)).tolist()
    answer = MeshPrediction(rotations, shape, Tensor([[0.9, x, y]]))  # in the middle of the crop
    for scene in scenes.scenes:
        view = View.of(scene)
        points = view.place(scenes.dataset.bodies.keypoints[scene.samples[0]])
        body = changed(part.draw_scene(task, lambda images: answer, scenes, scene, view, 0.0), view)
        rows, columns = np.nonzero(body)
        known = points[points[:, 2] > 0]
        centre = np.array([columns.mean(), rows.mean()])
        assert (known[:, :2].min(0) < centre).all() and (centre < known[:, :2].max(0)).all()


def test_a_view_places_points_where_its_pixels_are(tmp_path: Path) -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[22, 31] = 255
    cv2.imwrite(str(tmp_path / "a.png"), image)
    for box in (None, (20.5, 10.2, 24.0, 20.0), (-8.0, 10.0, 100.0, 100.0)):
        view = View.of(Scene(tmp_path / "a.png", (0,), box))
        large = view.resized(view.pixels.shape[1] * 5, view.pixels.shape[0] * 5)
        row, column = np.unravel_index(large.pixels[:, :, 0].argmax(), large.pixels.shape[:2])
        np.testing.assert_allclose(large.place(np.array([31.0, 22.0])), (column, row), atol=0.01)
