"""The task for one's own keypoints: from the files to measures, drawings and predictions."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
import torch

import tcformer
from tcformer.data import collate
from tcformer.data.keypoints.annotations import load_annotated
from tcformer.draw import Partition
from tcformer.draw.canvas import LEFT, RIGHT
from tcformer.draw.skeleton import skeleton_painter
from tcformer.errors import UserError
from tcformer.metrics.keypoints import evaluate_keypoints
from tcformer.metrics.points import PointTable
from tcformer.models import load_initial, save_model
from tcformer.tasks import ALL_TASKS, OWN_TASKS, PARTS, TASKS
from tcformer.tasks.keypoints.options import KeypointFiles, KeypointsEvaluation, KeypointsOptions
from tcformer.tasks.keypoints.task import KeypointsTask
from tests import own_points
from tests.small import parameters
from tests.tcformer.networks import NETWORK
from tests.tcformer.tasks.options import options_are_strict

EVALUATION = KeypointsEvaluation(test=None, flip_test=True, decoding="auto", keypoint_threshold=0.2)


def options(**changes: Any) -> KeypointsOptions:
    return pydantic.TypeAdapter(KeypointsOptions).validate_json(json.dumps(own_points.options_tree(**changes)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("train.json", "val.json"):
        own_points.write(tmp_path, name)
    return tmp_path


def task_of(root: Path, evaluation: KeypointsEvaluation = EVALUATION, **changes: Any) -> KeypointsTask:
    return KeypointsTask(options(**changes), NETWORK, root, evaluation)


def results(task: KeypointsTask, shift: tuple[float, float] = (0.0, 0.0)) -> list[dict[str, Any]]:
    """The annotated points, moved, as predictions."""
    people = task.annotated(task.test_files).people
    points = people.keypoints.copy()
    points[..., :2] += shift
    return [
        {"image_id": int(i), "category_id": 3, "annotation_id": int(n), "keypoints": p.ravel().tolist(), "score": 1.0}
        for i, n, p in zip(people.image_id, people.annotation_id, points)
    ]


def test_own_tasks_have_all_parts_and_are_not_in_the_graph() -> None:
    assert list(OWN_TASKS) == ["keypoints"] and not set(OWN_TASKS) & set(TASKS) and set(ALL_TASKS) > set(TASKS)
    for entry in OWN_TASKS.values():
        assert entry.part("task").TASK.name == entry.name
        for part, names in PARTS.items():
            assert [name for name in names if not hasattr(entry.part(part), name)] == [], part


def test_options_are_strict() -> None:
    tree = own_points.options_tree()
    options_are_strict(options(category="cat", points="points.yaml"))
    with pytest.raises(pydantic.ValidationError):
        options(augmentation={**tree["augmentation"], "half_body_probability": 0.3})
    with pytest.raises(pydantic.ValidationError, match="did you mean 'mta'"):
        options(neck="mtaa")


def test_the_network_knows_its_points(root: Path) -> None:
    task = task_of(root)
    model = task.build_model()
    assert model.config["options"]["points"] == task.points.to_json()
    save_model(model, root / "model.safetensors")
    assert tcformer.load_model(root / "model.safetensors").config == model.config
    batch = collate([task.val_set().sample(index, None) for index in range(2)])
    assert model(batch["image"]).shape == (2, 5, 16, 16)
    with pytest.raises(UserError, match=r"expected names of 4 points .num_keypoints., found 5"):
        tcformer.create_model("tcformer_nano", "keypoints", num_keypoints=4, points=task.points.to_json())
    with pytest.raises(UserError, match=r"expected names of 5 points .num_keypoints., found 0"):
        tcformer.create_model("tcformer_nano", "keypoints", num_keypoints=5, points={"names": 5})
    with pytest.raises(UserError, match="expected a description of the points"):
        tcformer.create_model("tcformer_nano", "keypoints", points=[1])


def test_a_mirrored_sample_has_its_pairs_exchanged(root: Path) -> None:
    task = task_of(root)
    data, plain = task.train_set(), task.val_set().sample(0, None)

    class Mirrors:
        def random(self) -> float:
            return 0.49

        def standard_normal(self) -> float:
            return 0.0

        def uniform(self, low: float, high: float, size: int) -> np.ndarray:
            return np.zeros(size)

    mirrored = data.sample(0, Mirrors())  # type: ignore[arg-type]
    expected = plain["points"][[1, 0, 2, 4, 3]] * [-1, 1] + [64, 0]
    np.testing.assert_allclose(mirrored["points"], expected, atol=1e-3)


def test_perfect_predictions_are_perfect_and_errors_have_their_size(root: Path) -> None:
    (root / "points.yaml").write_text("normalise: [left ear, right ear]\ngroups: {ears: [left ear, right ear]}\n")
    task = task_of(root, points="points.yaml")
    metrics = task.evaluate(results(task))
    assert metrics["all"]["AP"] == pytest.approx(1) and metrics["oks"] == 1 and metrics["nme"] == 0
    assert 0 < metrics["baseline"]["oks"] < 1 and metrics["baseline"]["nme"] > 0
    people = task.annotated(task.options.val).people
    ears = np.linalg.norm(people.keypoints[:, 0, :2] - people.keypoints[:, 1, :2], axis=1)
    moved = task.evaluate(results(task, (3, 4)))
    assert moved["nme"] == pytest.approx(np.mean(5 / ears))
    k = np.array(task.points.sigmas)
    exact = np.exp(-25 / (2 * people.area[:, None] * (2 * k) ** 2))
    labelled = people.keypoints[..., 2] > 0
    assert moved["oks"] == pytest.approx(((exact * labelled).sum(1) / labelled.sum(1)).mean())
    table = OWN_TASKS["keypoints"].keypoints(task, results(task, (3, 4)))
    assert isinstance(table, dict)
    found: PointTable = table["test"]
    assert list(found.by_part()) == ["all", "ears", "other"] and found.count.tolist() == [4, 4, 3, 4, 4]
    np.testing.assert_allclose(found.measures["EPE"], 5)
    metrics["points"] = {"test": found.by_part()}
    assert OWN_TASKS["keypoints"].headline(metrics) == {"AP": pytest.approx(1), "OKS": 1, "NME": 0}
    assert list(OWN_TASKS["keypoints"].parts(metrics)) == ["all", "ears", "other"]


def test_an_object_without_prediction_counts_as_zero(root: Path) -> None:
    task = task_of(root)
    annotated = task.annotated(task.options.val)
    assert evaluate_keypoints(annotated, results(task)[1:])["oks"] == pytest.approx(0.75)
    assert evaluate_keypoints(annotated, [])["oks"] == 0


def test_predictions_of_other_points_are_refused(root: Path) -> None:
    task = task_of(root)
    wrong = [{**result, "keypoints": result["keypoints"][:12]} for result in results(task)]
    with pytest.raises(UserError, match="annotation 0: 4 points; expected the 5 of the dataset"):
        task.evaluate(wrong)


def test_a_network_is_trained_validated_and_evaluated(root: Path) -> None:
    task = task_of(root)
    model = task.build_model().eval()
    batch = collate([task.val_set().sample(index, None) for index in range(4)])
    assert torch.isfinite(task.loss(model, batch)["loss"])
    sums = task.validate(model, batch)
    assert sums["count"] == 4 and f"{task.validation_measure.name}_sum" in sums
    predictions = task.predict(model, batch)
    assert [p["annotation_id"] for p in predictions] == [0, 1, 2, 3] and len(predictions[0]["keypoints"]) == 15
    json.dumps(task.evaluate(predictions))
    region = OWN_TASKS["keypoints"].region(task, task.val_set().sample(0, None))
    assert (
        region is not None
        and region.mask is not None
        and region.mask.any()
        and region.twins["points"].tolist() == [[0, 1], [3, 4]]
    )


def test_an_oracle_is_decoded_to_the_annotated_points(root: Path) -> None:
    """Boxes, crops, codec, flip test and results fit together."""
    task = task_of(root, input_size=[128, 128])
    data = task.test_set()
    batch = collate([data.sample(index, None) for index in range(len(data))])
    maps, _ = task.codec.encode(batch["points"], batch["weights"])
    flip = torch.tensor(task.points.mirrored())
    answers = iter([maps, maps[:, flip].flip(-1)])
    predictions = task.predict(lambda images: next(answers), batch)
    metrics = task.evaluate(predictions)
    assert metrics["oks"] > 0.98, metrics


def test_another_test_set_and_other_points_in_it(root: Path) -> None:
    own_points.write(root, "test.json", own_points.content(images=2))
    test = KeypointFiles(annotations="test.json", images="images")
    assert len(task_of(root, dataclasses.replace(EVALUATION, test=test)).test_set()) == 2
    tree = own_points.content(keypoints=[*own_points.NAMES[:4], "tail"])
    own_points.write(root, "test.json", tree)
    with pytest.raises(UserError, match=r"test.json: 5 keypoints .*: expected those of val.json"):
        task_of(root, dataclasses.replace(EVALUATION, test=test)).test_set()


def test_points_without_sides_are_an_error_where_images_are_mirrored(root: Path) -> None:
    (root / "points.yaml").write_text("names: [a, b, c, d, e]\n")
    task = task_of(root, points="points.yaml")
    with pytest.raises(UserError, match="images cannot be mirrored"):
        task.train_set()
    plain = {**own_points.options_tree()["augmentation"], "flip_probability": 0.0}
    assert len(task_of(root, points="points.yaml", augmentation=plain).train_set()) == 4
    assert len(task.val_set()) == 4


def test_nothing_labelled_and_missing_images(root: Path) -> None:
    tree = own_points.content()
    for annotation in tree["annotations"][1:]:
        annotation["keypoints"] = [0] * 15
    own_points.write(root, "val.json", tree)
    with pytest.raises(UserError, match=r"val.json: no labelled cat; expected at least one annotation"):
        task_of(root).val_set()
    (root / "images/2 a.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of 4 annotated images are missing: 2 a.jpg"):
        task_of(root).train_set()


def test_a_sample_is_drawn_in_the_colours_of_its_sides(root: Path) -> None:
    task = task_of(root)
    sample = task.val_set().sample(0, None)
    maps, _ = task.codec.encode(*(torch.tensor(sample[name])[None] for name in ("points", "weights")))
    grid = Partition.regular((4, 4), (16, 16))
    drawn = ALL_TASKS["keypoints"].draw(task, sample, maps, [grid] * 4, 3)
    assert drawn.example.painter is not None and drawn.example.points is not None
    picture = tcformer.draw.token_sheet([drawn.example], scale=3)
    for colour in (LEFT, RIGHT):
        assert (np.abs(picture.astype(int) - colour).max(-1) < 12).any()
    painter = skeleton_painter(((0, 1),), (0, 0))
    points = np.array([[5.0, 5, 1], [30, 20, 1]])
    black = np.zeros((40, 40, 3), np.uint8)
    line = painter(black, points, scale=2)
    assert np.abs(line[26, 36].astype(int) - LEFT).max() < 30, "on the line between the points"
    assert not painter(black, points * [1, 1, 0.1], scale=2).any(), "below the threshold"


def test_a_predictor_draws_and_names_the_points(root: Path) -> None:
    task = task_of(root)
    metadata = {"options": json.dumps(own_points.options_tree())}
    save_model(task.build_model(), root / "model.safetensors", metadata)
    predictor = tcformer.Predictor.load(root / "model.safetensors", flip_test=True)
    result = predictor(root / "images/0 a.jpg", boxes=[[4, 4, 50, 50]])
    assert result.points.shape == (1, 5, 2) and predictor.task.input_size == (64, 64)
    [record] = predictor.task.records(result)
    assert record["names"] == list(own_points.NAMES) and len(record["keypoints"]) == 15
    assert record["category"] == "cat" and not predictor.task.detects_people
    assert predictor.draw(root / "images/0 a.jpg", result).shape == (64, 64, 3)
    assert predictor.draw_tokens(result).ndim == 3
    save_model(tcformer.create_model("tcformer_nano", "keypoints", num_keypoints=7), root / "numbered.safetensors")
    numbered = tcformer.Predictor.load(root / "numbered.safetensors", input_size=(64, 64))
    [record] = numbered.task.records(numbered(root / "images/0 a.jpg"))
    assert record["names"][6] == "point 7"


def test_a_network_of_other_points_gives_its_backbone_and_neck(root: Path) -> None:
    task, said = task_of(root), list[str]()
    target = task.build_model()
    head = {name: tensor.clone() for name, tensor in target.keypoint_head.state_dict().items()}  # type: ignore[union-attr]
    other = tcformer.create_model("tcformer_nano", "wholebody")
    save_model(other, root / "other.safetensors")
    assert load_initial(target, root / "other.safetensors", say=said.append) == "backbone and neck"
    assert said == ["the initial weights predict 133 other points: the head is new, backbone and neck are kept"]
    for name, tensor in target.state_dict().items():
        if name.startswith("keypoint_head."):
            assert torch.equal(tensor, head[name.removeprefix("keypoint_head.")])
        else:
            assert torch.equal(tensor, other.state_dict()[name]), name


def test_equally_many_other_points_get_a_new_head_as_well(root: Path) -> None:
    task, said = task_of(root), list[str]()
    save_model(task.build_model(), root / "same.safetensors")
    assert load_initial(task.build_model(), root / "same.safetensors", say=said.append) == "network" and not said
    renamed = task.points.to_json() | {"names": ["a", "b", "c", "d", "e"]}
    other = tcformer.create_model("tcformer_nano", "keypoints", num_keypoints=5, points=renamed)
    save_model(other, root / "other.safetensors")
    assert load_initial(task.build_model(), root / "other.safetensors", say=said.append) == "backbone and neck"


def test_generated_people_have_14_named_points(tmp_path: Path) -> None:
    params = parameters(tmp_path, data__wholebody__generate__train_images=2)
    out = tmp_path / "own"
    options = params.sample.data_of("wholebody").generate
    ALL_TASKS["keypoints"].part("generate").generate(
        out, options, map=lambda function, items: [function(i) for i in items]
    )
    assert sorted(path.name for path in out.iterdir()) == ["train", "train.json", "val", "val.json"]
    found = load_annotated(out / "train.json", out / "train")
    assert len(found.points) == 14 and found.points.names[0] == "right ankle" and len(found.points.flip or ()) == 6
    assert len(found.crops()) == 2
    shoulders = found.people.keypoints[0, [8, 9]]
    if (shoulders[:, 2] > 0).all():
        np.testing.assert_allclose(found.people.keypoints[0, 12, :2], shoulders[:, :2].mean(0))
