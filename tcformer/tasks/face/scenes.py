"""Predicted landmarks, drawn on the part of the picture around the face."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tcformer import draw as pictures
from tcformer.tasks.base import Model
from tcformer.tasks.drawing import Scene, SceneSet, View
from tcformer.tasks.face.task import FaceTask


def scene_set(task: FaceTask, name: str = "") -> SceneSet:
    """The faces of the test list, each with its surroundings: as much of the picture as the network sees.

    Args:
        task: built with evaluation options.
        name: not used; there is one set.
    """
    data = task.test_set()
    boxes = np.concatenate([data.centre - data.extent / 2, data.extent], 1).tolist()
    names = data.faces.names
    scenes = [Scene(data.folder / names[i], (i,), tuple(box)) for i, box in enumerate(boxes)]
    return SceneSet("test set", data, scenes, coloured_by_side=True)


def draw_scene(
    task: FaceTask, model: Model, scenes: SceneSet, scene: Scene, view: View, threshold: float
) -> NDArray[np.uint8]:
    """Predict the landmarks of a face and draw all of them. See `tcformer.tasks.wholebody.scenes.draw_scene`."""
    predictions = task.predict(model, scenes.batch(scene))
    points = view.place(np.array([prediction["points"] for prediction in predictions]))
    return pictures.landmarks(view.pixels, np.concatenate([points, np.ones((*points.shape[:2], 1))], 2), scale=1)
