"""Predicted keypoints of all people of a picture, drawn on the whole picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tcformer import draw as pictures
from tcformer.metrics.wholebody_results import keypoints_of
from tcformer.tasks.base import Model
from tcformer.tasks.drawing import Scene, SceneSet, View
from tcformer.tasks.wholebody.task import WholebodyTask

# COCO's detections contain boxes of any score, because AP counts recall; most of those below are of no person.
_LEAST_BOX_SCORE = 0.5


def scene_set(task: WholebodyTask, name: str = "") -> SceneSet:
    """The pictures of the test set with a person, in annotated boxes or in detections as the evaluation's options say.

    Args:
        task: built with evaluation options.
        name: not used; there is one set.
    """
    data = task.test_set()
    crops = data.crops
    samples: dict[int, list[int]] = {}
    for index in np.flatnonzero(crops.score >= _LEAST_BOX_SCORE).tolist():
        samples.setdefault(int(crops.image_id[index]), []).append(index)
    boxes = "annotated boxes" if task.evaluation.boxes == "ground_truth" else "detections"
    scenes = [Scene(data.folder / crops.images[i][0], tuple(found)) for i, found in samples.items()]
    return SceneSet(f"validation set, {boxes}", data, scenes, coloured_by_side=True)


def draw_scene(
    task: WholebodyTask, model: Model, scenes: SceneSet, scene: Scene, view: View, threshold: float
) -> NDArray[np.uint8]:
    """Predict all people of a picture and draw their keypoints; duplicates of a person are removed.

    Args:
        task: built with evaluation options.
        model: the trained network.
        scenes: the set with the scene.
        scene: the people.
        view: the picture, at the size in which it is drawn.
        threshold: keypoints whose score is not above it are not drawn.
    """
    results = task.suppress(task.predict(model, scenes.batch(scene)))
    points = view.place(np.stack([keypoints_of(result) for result in results]))
    return pictures.keypoints(view.pixels, points, scale=1, threshold=threshold)
