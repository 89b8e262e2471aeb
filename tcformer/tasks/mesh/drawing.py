"""A person's predicted body over the crop."""

from __future__ import annotations

from typing import Any

from tcformer import draw as pictures
from tcformer.data.images import denormalise
from tcformer.draw import Example, Partition
from tcformer.models import MeshPrediction
from tcformer.tasks.drawing import Drawn
from tcformer.tasks.mesh.task import MeshTask


def draw(
    task: MeshTask, sample: dict[str, Any], output: MeshPrediction, partitions: list[Partition], scale: int
) -> Drawn:
    """See `tcformer.tasks.registry.TaskEntry.draw`; the mask is the body's silhouette."""
    body = task.surface
    vertices = body(output.rotations, output.shape).vertices[0].numpy()
    camera, faces = output.camera[0].numpy(), body.faces
    image = denormalise(sample["image"])
    picture = pictures.body(image, vertices, faces, camera, scale=scale)
    mask = pictures.body_mask(vertices, faces, camera, image.shape[:2])
    return Drawn(Example(image, partitions, drawn=picture, label=f"frame {sample['index']}"), mask)
