"""A network as MLflow serves it: the same predictions as `Predictor`, in the columns of the signature."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tcformer
from pipelines.prediction.serving import _load_pyfunc
from tcformer.errors import UserError
from tcformer.tasks import ALL_TASKS
from tests.tcformer.inference.test_predictor import weights

SMALL = {"input_size": [64, 64]}


def network(folder: Path, task: str) -> Path:
    return weights(folder, task, SMALL, **({"num_classes": 7} if task == "imagenet" else {}))


@pytest.mark.parametrize("task", list(ALL_TASKS))
def test_the_columns_are_those_of_the_signature(samples: Path, tmp_path: Path, task: str) -> None:
    path, photo = network(tmp_path, task), samples / "persons/astronaut.png"
    [served] = _load_pyfunc(str(path)).predict([{"image": photo.read_bytes()}])
    predictor = ALL_TASKS[task].predictor
    assert predictor is not None and served.keys() == predictor.columns.keys()
    for name, (_, levels) in predictor.columns.items():
        assert np.array(served[name]).ndim == levels, name
    result = tcformer.Predictor.load(path)(photo)
    if task == "imagenet":
        best = np.argsort(-result.outputs["probabilities"][0])[:5]
        assert served["classes"] == [best.tolist()] and served["titles"][0][0] == f"class {best[0]}"
    else:
        np.testing.assert_allclose(served["points"], result.points)


def test_boxes_and_base64_in_a_data_frame(samples: Path, tmp_path: Path) -> None:
    path, photo = network(tmp_path, "face"), samples / "persons/astronaut.png"
    box = [200.0, 60.0, 120.0, 150.0]
    frame = pd.DataFrame(
        {
            "image": [photo.read_bytes(), base64.b64encode(photo.read_bytes()).decode()],
            "boxes": [np.array([np.array(box), np.array(box)], dtype=object), None],
        }
    )
    first, second = _load_pyfunc(str(path)).predict(frame)
    assert first["boxes"] == [box, box] and np.array(first["points"]).shape == (2, 98, 2)
    assert second["boxes"] == [[0, 0, 512, 512]]
    np.testing.assert_allclose(first["points"][0], tcformer.Predictor.load(path)(photo, [box]).points[0])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": b"text"}, "row 0: .*image"),
        ({"image": "no base64!"}, "row 0: image is str: expected the bytes of a JPEG"),
        ({}, "row 0: image is NoneType"),
    ],
)
def test_what_is_no_picture(tmp_path: Path, row: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        _load_pyfunc(str(network(tmp_path, "face"))).predict([row])
    assert "/tmp" not in str(error.value)
