"""What encoding and decoding alone lose: a network that answers with the targets, evaluated by the tasks' protocols.

The figures are in docs/how-it-works.md. They are those of the sample recipe's test sets: 150 people at 128 x 96 pixels
and 200 faces at 64 x 64.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from pipelines.params import Params, load_params
from tcformer.data import collate
from tcformer.data.face.dataset import list_file
from tcformer.data.face.landmarks import FLIP as FACE_FLIP
from tcformer.data.wholebody.dataset import annotation_file
from tcformer.data.wholebody.keypoints import FLIP as PERSON_FLIP
from tcformer.heatmaps.names import CodecName, Decoding
from tcformer.tasks import TASKS
from tests.small import ROOT

PARTS = ("body", "foot", "face", "hand", "wholebody")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recipe() -> Params:
    return load_params(ROOT / "params.yaml")


@pytest.fixture(scope="module")
def people(recipe: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample recipe's validation set of people. An image does not depend on how many others there are."""
    root = tmp_path_factory.mktemp("people")
    options = replace(recipe.sample.data_of("wholebody").generate, train_images=1)
    TASKS["wholebody"].part("generate").generate(root, options, map=lambda *call: list(map(*call)))
    annotation_file(root, "train").unlink()  # it is only for the baseline
    return root


@pytest.fixture(scope="module")
def faces(recipe: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample recipe's test set of faces."""
    root = tmp_path_factory.mktemp("faces")
    options = replace(recipe.sample.data_of("face").generate, train_images=1)
    TASKS["face"].part("generate").generate(root, options, map=lambda *call: list(map(*call)))
    list_file(root, "train").unlink()
    return root


def evaluate(
    recipe: Params, name: str, root: Path, codec: CodecName, *, flip_test: bool, decoding: Decoding = "auto"
) -> dict[str, Any]:
    """The metrics of a network that answers with the targets of each image and of its mirror image."""
    spec, evaluation = recipe.sample.spec_of(name), recipe.sample.evaluation_options_of(name)
    spec = replace(spec, options=replace(spec.options, codec=codec))
    task: Any = spec.build(root, replace(evaluation, flip_test=flip_test, decoding=decoding))
    data, flip = task.test_set(), {"wholebody": PERSON_FLIP, "face": FACE_FLIP}[name].copy()
    predictions = []
    for start in range(0, len(data), 50):
        batch = collate([data.sample(i, None) for i in range(start, min(start + 50, len(data)))])
        points, weights = batch["points"], batch["weights"]
        mirrored = points.clone()
        mirrored[..., 0] = spec.options.input_size[1] - 1 - points[..., 0]
        answers = iter([(points, weights), (mirrored[:, flip], weights[:, flip])])

        def oracle(images: Tensor, answers: Any = answers) -> Tensor:
            maps: Tensor = task.codec.encode(*next(answers))[0]
            return maps

        predictions += task.predict(oracle, batch)
    metrics: dict[str, Any] = task.evaluate(predictions)
    return metrics


@pytest.mark.parametrize(
    ("codec", "flip_test", "expected"),
    [
        ("mmpose", False, [0.9, 0.992, 0.019, 0.571, 0.309]),
        ("mmpose", True, [0.918, 0.996, 0.073, 0.634, 0.374]),
        ("udp", False, [1.0] * 5),
        ("udp", True, [1.0] * 5),
        ("unbiased", False, [1.0] * 5),
        ("unbiased", True, [1.0] * 5),
    ],
)
def test_average_precision_of_the_targets(
    codec: CodecName, flip_test: bool, expected: list[float], recipe: Params, people: Path
) -> None:
    metrics = evaluate(recipe, "wholebody", people, codec, flip_test=flip_test)
    assert [round(metrics[part]["AP"], 3) for part in PARTS] == expected


@pytest.mark.parametrize(
    ("codec", "flip_test", "expected"),
    [
        ("mmpose", False, 0.0512),
        ("mmpose", True, 0.0456),
        ("udp", False, 0.0),
        ("udp", True, 0.0),
        ("unbiased", False, 0.0),
        ("unbiased", True, 0.0),
    ],
)
def test_normalised_error_of_the_targets(
    codec: CodecName, flip_test: bool, expected: float, recipe: Params, faces: Path
) -> None:
    metrics = evaluate(recipe, "face", faces, codec, flip_test=flip_test)
    assert metrics["full"]["NME"] == pytest.approx(expected, abs=5e-5)
