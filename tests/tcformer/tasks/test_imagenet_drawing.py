"""What is drawn of classification: the predicted class, its probability, and the true class if that is another."""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import tcformer
from pipelines.params import load_params, spec_to_json
from pipelines.visualization import examples
from pipelines.visualization.examples import draw_examples
from tcformer.data import collate
from tcformer.draw import Example, Partition
from tcformer.models.heads import MeshPrediction
from tcformer.tasks import TASKS, ValidationMeasure
from tcformer.tasks.drawing import Drawn
from tcformer.tasks.imagenet.drawing import class_titles
from tests import small


def test_the_predicted_class_is_written_above_the_picture(tmp_path: Path) -> None:
    params = small.parameters(tmp_path)
    root = small.generate("imagenet", params, tmp_path)
    task = params.sample.spec_of("imagenet").build(root)
    titles = [title.replace("_", " ") for _, title in json.loads((root / "classes.json").read_text()).values()]
    sample = task.val_set().sample(3, None)
    logits = torch.full((1, 12), -50.0)
    logits[0, [3, 5]] = torch.tensor([np.log(0.8), np.log(0.2)]).float()
    partition = Partition.regular((16, 16), (16, 16))
    drawn = TASKS["imagenet"].draw(task, sample, logits, [partition], 2)
    assert drawn.example.label == f"predicted: {titles[3]} (80%); correct"
    assert drawn.example.image.shape == (64, 64, 3) and not drawn.mask.any()
    drawn = TASKS["imagenet"].draw(task, {**sample, "label": 5}, logits, [partition], 2)
    assert drawn.example.label == f"predicted: {titles[3]} (80%); true class: {titles[5]}"


@pytest.mark.slow
def test_a_sheet_of_tokens_without_measures(tmp_path: Path) -> None:
    params = small.parameters(tmp_path, visualize__imagenet__samples=2)
    root, spec = small.generate("imagenet", params, tmp_path), params.sample.spec_of("imagenet")
    weights = tmp_path / "model.safetensors"
    tcformer.save_model(spec.build(root).build_model(), weights, {"options": spec_to_json(spec), "training": "none"})
    drawing = params.sample.drawing_of("imagenet")
    assert draw_examples("imagenet", weights, root, drawing, tmp_path / "out") == {}
    picture = cv2.imread(str(tmp_path / "out/tokens.png"))
    assert picture is not None and picture.shape[0] > 2 * 4 * 64 and picture.shape[1] > 6 * 4 * 64
    extremes = cv2.imread(str(tmp_path / "out/extremes.png"))
    assert extremes is not None and extremes.shape[0] > 6 * 4 * 64, "three of the best and three of the worst"
    first, second = json.loads((tmp_path / "out/inspector.json").read_text())["pictures"]
    assert first["label"].startswith("predicted: ") and first["grid"] == [16, 16]
    assert [stage["tokens"] for stage in second["stages"]] == [256, 64, 16, 4]


def test_the_best_pictures_come_first() -> None:
    """Of equal measures the smaller loss is the better; where less of a measure is better, the order turns round."""
    scores = {0: (0.0, 3.0), 1: (1.0, 0.2), 2: (1.0, 0.1), 3: (0.0, 9.0), 4: (0.5, 1.0)}

    class Viewer:
        measure = ValidationMeasure("pck", higher_is_better=True)

        def __len__(self) -> int:
            return len(scores)

        def scores(self, indices: Sequence[int]) -> dict[int, tuple[float, float]]:
            return {index: scores[index] for index in indices}

        def draw(self, index: int) -> Drawn:
            return Drawn(Example(np.zeros((4, 4, 3), np.uint8), (), label=f"picture {index}"), np.zeros((4, 4), bool))

    def labels(viewer: Viewer) -> list[str]:
        return [example.label for example in examples._extremes(viewer)]  # type: ignore[arg-type]

    assert labels(Viewer()) == [
        *("best: pck 1; picture 2", "best: pck 1; picture 1"),
        *("worst: pck 0; picture 0", "worst: pck 0; picture 3"),
    ]
    Viewer.measure = ValidationMeasure("nme", higher_is_better=False)
    assert labels(Viewer())[0] == "best: nme 0; picture 0" and labels(Viewer())[-1] == "worst: nme 1; picture 1"


def test_scores_of_a_batch_are_those_of_single_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = small.parameters(tmp_path)
    root, spec = small.generate("imagenet", params, tmp_path), params.sample.spec_of("imagenet")
    task, weights = spec.build(root), tmp_path / "model.safetensors"
    tcformer.save_model(task.build_model(), weights, {"options": spec_to_json(spec), "training": "none"})
    monkeypatch.setattr(examples, "_SCORED_AT_ONCE", 2)
    viewer = examples._Viewer("imagenet", weights, root, 1)
    scores = viewer.scores([4, 0, 2])
    for index in (4, 0, 2):
        with torch.inference_mode():
            sums = task.validate(viewer.model, collate([task.val_set().sample(index, None)]))
        assert scores[index] == pytest.approx((float(sums["top1_sum"]), float(sums["loss_sum"])), rel=1e-5)
    meshes = MeshPrediction(torch.rand(3, 24, 3, 3), torch.rand(3, 10), torch.rand(3, 3))
    second = examples._row(meshes, 1, torch.zeros(1))
    assert isinstance(second, MeshPrediction) and second.camera.equal(meshes.camera[1:2])


def test_classes_of_imagenet_have_the_names_of_their_synsets(tmp_path: Path) -> None:
    for name in ("n02123045", "n01440764", "other"):
        (tmp_path / "val" / name).mkdir(parents=True)
    assert class_titles(tmp_path, 3) == ("tench", "tabby", "other")
    for name in ("dogs", "cats"):
        (tmp_path / "plain" / "val" / name).mkdir(parents=True)
    assert class_titles(tmp_path / "plain", 2) == ("cats", "dogs")


def test_both_recipes_draw_it() -> None:
    params = load_params(small.ROOT / "params.yaml")
    assert params.sample.drawing_of("imagenet").samples == 8 and params.paper.drawing_of("imagenet").samples == 16
