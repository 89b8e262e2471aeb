"""A trained network as MLflow serves it: pictures in, points, scores or classes out.

MLflow imports this module when it loads a model that a training has logged. The model itself is a safetensors file: it
contains no code and no pickle.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tcformer.errors import UserError
from tcformer.inference import Result
from tcformer.predictor import Predictor

_LARGE = ("vertices", "probabilities")  # outputs that a response leaves out: meshes follow from pose and shape


class ServedNetwork:
    """What MLflow calls; see `Predictor`."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:  # noqa: ANN401
        """Predict pictures.

        Args:
            model_input: a data frame, or a list of records, with a row for each picture: "image", the bytes of a
                JPEG or PNG file (or their base64 code), and maybe "boxes", (P, 4) x, y, width, height in pixels.
            params: none are known.

        Returns:
            A record for each picture, with nested lists: "boxes" (P, 4), "points" (P, K, 2) in pixels and "scores"
            (P, K); of classifiers "classes", "titles" and "scores" (P, 5), the best first; of meshes also
            "rotations" (P, 24, 3, 3), "shape" (P, 10), "camera" (P, 3) and "joints" (P, 49, 3).

        Raises:
            UserError: a row has no picture that can be decoded, or its boxes are wrong.
        """
        rows = model_input.to_dict("records") if hasattr(model_input, "to_dict") else model_input
        return [self._predicted(number, row) for number, row in enumerate(rows)]

    def _predicted(self, number: int, row: Mapping[str, Any]) -> dict[str, Any]:
        given = row.get("boxes")
        # A data frame has NaN where there is nothing, and arrays of arrays.
        boxes = np.array([list(box) for box in given]) if isinstance(given, list | np.ndarray) else None
        with tempfile.NamedTemporaryFile() as file:
            file.write(_bytes_of(number, row.get("image")))
            file.flush()
            try:
                result = self._predictor(file.name, boxes)
            except UserError as error:
                raise UserError(f"row {number}: {str(error).replace(file.name, 'image')}") from None
        return self._columns(result)

    def _columns(self, result: Result) -> dict[str, Any]:
        columns: dict[str, Any] = {"boxes": result.boxes.xywh.tolist()}
        if "probabilities" in result.outputs:
            best = [record["classes"] for record in self._predictor.task.records(result)]
            for column, key in (("classes", "class"), ("titles", "title"), ("scores", "probability")):
                columns[column] = [[item[key] for item in items] for items in best]
            return columns
        others = {name: value.tolist() for name, value in result.outputs.items() if name not in _LARGE}
        return columns | {"points": result.points.tolist(), "scores": result.scores.tolist()} | others


def _bytes_of(number: int, image: object) -> bytes:
    """The bytes of a picture.

    Raises:
        UserError: they are neither bytes nor base64.
    """
    if isinstance(image, bytes):
        return image
    try:
        return base64.b64decode(image, validate=True)  # type: ignore[arg-type]  # other types raise TypeError
    except (ValueError, TypeError):
        raise UserError(
            f"row {number}: image is {type(image).__name__}: expected the bytes of a JPEG or PNG file, or their base64 "
            "code; send the content of a picture"
        ) from None


def _load_pyfunc(path: str) -> ServedNetwork:
    """Load the weights file of a logged model; MLflow calls this function by its name."""
    return ServedNetwork(Predictor.load(Path(path)))
