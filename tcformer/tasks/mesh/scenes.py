"""Predicted bodies of all people of a picture, drawn over the whole picture."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from tcformer import draw as pictures
from tcformer.data.crops import SCALE_UNIT
from tcformer.data.mesh.dataset import MeshDataset
from tcformer.data.mesh.files import load_bodies
from tcformer.data.mesh.point_files import load_lsp
from tcformer.tasks.drawing import Scene, SceneSet, View
from tcformer.tasks.mesh.task import MeshModel, MeshTask

#: Name of the test set of LSP, which has no ground truth in space, so it is drawn but not evaluated.
LSP = "lsp"
_LSP_ANNOTATIONS, _LSP_IMAGES = "lsp/joints.mat", "lsp/images"


def scene_set(task: MeshTask, name: str = "") -> SceneSet:
    """The pictures of a test set.

    Args:
        task: built with evaluation options.
        name: "lsp", or "" for the first test set of the evaluation.

    Raises:
        UserError: the files of the set are missing or broken, or it contains nobody.
    """
    if name == LSP:
        title = "LSP, test set"
        bodies, folder = load_lsp(task.root / _LSP_ANNOTATIONS, test=True), task.root / _LSP_IMAGES
    else:
        test = task.evaluation.tests[0]
        title = f"{test.name}, test set"
        bodies, folder = load_bodies(task.root / test.annotations), task.root / test.images
    samples: dict[str, list[int]] = {}
    for index, image in enumerate(bodies.image):
        samples.setdefault(image, []).append(index)
    data = MeshDataset(bodies, folder, task.options.input_size)
    scenes = [Scene(folder / image, tuple(found)) for image, found in samples.items()]
    return SceneSet(title, data, scenes, coloured_by_side=False)


@torch.no_grad()
def draw_scene(
    task: MeshTask, model: MeshModel, scenes: SceneSet, scene: Scene, view: View, threshold: float
) -> NDArray[np.uint8]:
    """Predict the bodies of all people of a picture and draw them. See `tcformer.tasks.wholebody.scenes.draw_scene`."""
    assert isinstance(scenes.dataset, MeshDataset)
    bodies = scenes.dataset.bodies
    prediction = model(scenes.batch(scene)["image"])
    surface = task.surface(prediction.rotations.float(), prediction.shape.float())
    centres = view.place(bodies.centre[list(scene.samples)])
    people = [
        pictures.CroppedBody(
            vertices.numpy(), camera.numpy(), (float(x), float(y)), SCALE_UNIT * float(bodies.scale[row]) * view.factor
        )
        for vertices, camera, (x, y), row in zip(surface.vertices, prediction.camera, centres, scene.samples)
    ]
    return pictures.bodies(view.pixels, people, task.surface.faces)
