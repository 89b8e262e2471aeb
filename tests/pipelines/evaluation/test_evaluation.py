"""The evaluation of small networks in this process: keypoints and tokens beside the task's metrics."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Iterable
from contextlib import nullcontext, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from dvc.compare import show_metrics
from ruamel.yaml import YAML

import tcformer
from pipelines.evaluation.evaluate import evaluate
from pipelines.evaluation.headlines import write_headline
from pipelines.evaluation.token_measures import TokenMeasurement, headline_measures
from pipelines.params import Params, spec_to_json
from pipelines.running.process import LOCAL
from tcformer.tasks import PRETRAINING, TASKS, Batch, Dataset
from tests.small import ROOT, generate, parameters

POINT_TASKS = {"wholebody": "val", "face": "full", "mesh": "generated"}
HEADLINES = {
    "imagenet": ["top1"],
    "wholebody": ["AP", "body_AP", "OKS"],
    "face": ["NME"],
    "mesh": ["MPJPE", "PA_MPJPE"],
}
FIRST_PARTS = {"imagenet": "top-1", "wholebody": "body", "face": "full", "mesh": "generated"}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    params = parameters(folder)
    return {task: generate(task, params, folder) for task in TASKS}


@pytest.fixture(autouse=True)
def local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOCAL, "1")


def save(task: str, params: Params, root: Path, path: Path) -> Path:
    """New weights of a task's network, as a training writes them."""
    import torch

    torch.manual_seed(0)
    spec = params.sample.spec_of(task)
    about = {"options": spec_to_json(spec), "training": "untrained"}
    tcformer.save_model(spec.build(root).build_model(), path, about)
    return path


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / f"{name}.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_an_evaluation_writes_keypoints_and_tokens(task: str, roots: dict[str, Path], tmp_path: Path) -> None:
    params, root = parameters(tmp_path), roots[task]
    weights = save(task, params, root, tmp_path / "weights.safetensors")
    metrics = evaluate(task, weights, root, params, tmp_path / "out")
    keypoints, tokens = read(tmp_path / "out", "keypoints"), read(tmp_path / "out", "tokens")
    assert read(tmp_path / "out", "metrics") == metrics

    if task == PRETRAINING:
        assert "predicts no keypoints" in keypoints["skipped"] and "points" not in metrics
    else:
        table = keypoints["tables"][POINT_TASKS[task]]
        assert metrics["points"][POINT_TASKS[task]] == table["parts"]
        assert len(table["keypoints"]) == {"wholebody": 133, "face": 98, "mesh": 14}[task]
        assert set(table["keypoints"][0]) == {"name", "part", "count", *table["measures"]}

    stages = tokens["stages"]
    counts = [stage["tokens"] for stage in stages.values()]
    assert counts == [256, 64, 16, 4] and tokens["cells"] == 256
    assert stages["stage1"]["rand_index"] == 1 and all(0 <= s["rand_index"] <= 1 for s in stages.values())
    if task == PRETRAINING:
        assert stages["stage4"]["density"] is None and tokens["images"] == 12
    else:
        assert stages["stage1"]["purity"] == 1 and stages["stage1"]["density"] == pytest.approx(1)
        assert all(0.5 <= s["purity"] <= 1 and 0 < s["token_share"] < 1 for s in stages.values())
        assert set(stages["stage1"]["twins_in_one_token"].values()) <= {0, None}  # None: every pair lies in a cell
        assert stages["stage4"]["twins_in_one_token"]["all"] > 0
    losses = [stage["blanked"]["loss"] == tokens["intact"]["loss"] for stage in stages.values()]
    reads_one_stage = task in (PRETRAINING, "mesh")
    assert losses == ([True, True, True, False] if reads_one_stage else [False] * 4)
    assert metrics["tokens"] == headline_measures(tokens) and list(metrics["tokens"]) == ["stage4"]

    headline = TASKS[task].headline(metrics)
    assert list(headline) == HEADLINES[task] and all(isinstance(value, float) for value in headline.values())
    part, *_ = csv.DictReader((tmp_path / "out" / "parts.csv").read_text().splitlines())
    assert part["part"] == FIRST_PARTS[task] and float(part["value"]) == pytest.approx(
        next(iter(TASKS[task].parts(metrics).values())), rel=1e-3
    )


def test_loader_processes_also_serve_the_evaluation(
    roots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class AskedFor(Exception):
        pass

    def asked(data: Dataset, shard: int, shards: int, batch: int, processes: int) -> Iterable[Batch]:
        raise AskedFor(processes)

    monkeypatch.setattr("pipelines.evaluation.evaluate.validation_batches", asked)
    params = parameters(tmp_path)
    params = params.model_copy(update={"cluster": params.cluster.model_copy(update={"loader_processes": 3})})
    weights = save("face", params, roots["face"], tmp_path / "weights.safetensors")
    with pytest.raises(AskedFor, match=r"^3$"):
        evaluate("face", weights, roots["face"], params, tmp_path / "out")


def test_headlines_are_short_and_fit_a_terminal(tmp_path: Path) -> None:
    """`dvc metrics show` has a row for each file and a column for each name, here with the longest values."""
    names = {name: 0.00123456789 for task in ("imagenet", "wholebody", "face") for name in HEADLINES[task]}
    names |= {"MPJPE": 163.33149, "PA_MPJPE": 119.788888, "validation": 163.33149}
    assert set(names) == {"validation"}.union(*HEADLINES.values())
    path = tmp_path / "metrics/sample/finetune-wholebody.json"
    write_headline(path, names)
    shown = {"": {"data": {"metrics/sample/finetune-wholebody.json": {"data": json.loads(path.read_text())}}}}
    printed = StringIO()
    with redirect_stdout(printed):
        show_metrics(shown)
    assert "0.0012 " in printed.getvalue() and "163.3 " in printed.getvalue()
    assert max(map(len, printed.getvalue().splitlines())) <= 120


def test_the_parts_alone_that_were_trained_are_headlines() -> None:
    metrics = {"hand": {"AP": 0.25}, "lefthand": {"AP": 0.5}, "oks": 0.5, "body": {"AP": None}}
    assert TASKS["wholebody"].headline(metrics) == {"hand_AP": 0.25, "OKS": 0.5}
    assert TASKS["wholebody"].parts(metrics) == {"hands": 0.25}


def test_git_keeps_the_metrics_that_dvc_compares() -> None:
    """So `dvc metrics` and `dvc exp show` need no data; what DVC caches is no metric."""
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    metrics = [metric for stage in stages.values() for metric in stage.get("do", stage).get("metrics", [])]
    assert len(metrics) == 3 and all(isinstance(metric, dict) for metric in metrics)
    for metric in metrics:
        [(path, options)] = metric.items()
        assert path.startswith("metrics/${recipe}/") and options == {"cache": False}
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert "/runs/" in ignored and not any("metrics" in line for line in ignored)


def test_files_are_the_same_each_time_and_tokens_change_nothing_else(roots: dict[str, Path], tmp_path: Path) -> None:
    params, root = parameters(tmp_path), roots["face"]
    weights = save("face", params, root, tmp_path / "weights.safetensors")
    metrics = evaluate("face", weights, root, params, tmp_path / "out")
    evaluate("face", weights, root, params, tmp_path / "again")
    for name in ("metrics", "keypoints", "tokens", "predictions"):
        assert (tmp_path / "again" / f"{name}.json").read_bytes() == (tmp_path / "out" / f"{name}.json").read_bytes()
    plain = evaluate("face", weights, root, parameters(tmp_path, evaluate__face__tokens=0), tmp_path / "off")
    assert read(tmp_path / "off", "tokens") == {"skipped": "evaluate.face.tokens is 0"}
    assert plain == {name: value for name, value in metrics.items() if name != "tokens"}


def test_means_over_keypoints_agree_with_the_benchmarks(roots: dict[str, Path], tmp_path: Path) -> None:
    params = parameters(tmp_path, evaluate__face__tokens=0, evaluate__mesh__tokens=0)
    for task, keys, mean in (("face", ("full", "NME"), "NME"), ("mesh", ("generated", "pa_mpjpe"), "pa_mpjpe")):
        weights = save(task, params, roots[task], tmp_path / f"{task}.safetensors")
        metrics = evaluate(task, weights, roots[task], params, tmp_path / task)
        found = metrics["points"][keys[0]]["all"][mean]
        assert found == pytest.approx(metrics[keys[0]][keys[1]], rel=1e-12)


def measured(params: Params, root: Path, folder: Path) -> dict[str, Any]:
    weights = save("face", params, root, folder / "face.safetensors").read_bytes()
    training = params.sample.training_of("face").training
    return TokenMeasurement(params.sample.spec_of("face"), root, weights, images=2, training=training).measure()


def test_a_fixed_grid_spends_its_tokens_evenly_and_never_changes(roots: dict[str, Path], tmp_path: Path) -> None:
    tokens = measured(parameters(tmp_path, network__token_reduction="conv"), roots["face"], tmp_path)
    for stage in tokens["stages"].values():
        assert stage["density"] == pytest.approx(1) and stage["rand_index"] == 1
    assert tokens["stages"]["stage4"]["tokens"] == 4 and tokens["stages"]["stage4"]["purity"] < 1


@pytest.mark.slow
def test_clusters_change_with_the_learning_rate(roots: dict[str, Path], tmp_path: Path) -> None:
    kept = {}
    for rate in (1e-12, 1e-2):
        params = parameters(tmp_path, finetune__face__training__optimizer__lr=rate)
        kept[rate] = measured(params, roots["face"], tmp_path)["stages"]["stage3"]["rand_index"]
    assert kept[1e-12] == 1 and kept[1e-2] < 0.9


@pytest.mark.slow
def test_a_backbone_without_tokens_is_skipped(roots: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("timm")
    params = parameters(tmp_path, network__backbone="timm/resnet10t")
    tokens = measured(params, roots["face"], tmp_path)
    assert tokens == {"skipped": "the backbone timm/resnet10t has no tokens"} and headline_measures(tokens) == {}


@pytest.mark.slow
def test_an_evaluation_on_other_machines_takes_its_data_from_the_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machines of a Ray that do not see the driver's files; here they are this process, and the files are renamed."""
    params = parameters(tmp_path)
    root = generate("face", params, tmp_path)
    weights = save("face", params, root, tmp_path / "weights.safetensors")
    expected = evaluate("face", weights, root, params, tmp_path / "here")
    cluster = params.cluster.model_copy(update={"storage": str(tmp_path / "storage"), "address": "10.0.0.1:6379"})
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr("pipelines.datasets.cache._used", {})
    monkeypatch.delenv(LOCAL)
    monkeypatch.setattr("pipelines.evaluation.evaluate.session", lambda cluster, environment: nullcontext())
    monkeypatch.setattr("pipelines.evaluation.evaluate.uses_gpus", lambda: False)

    said: list[str] = []

    def elsewhere(function: Any, items: Any, **options: Any) -> list[Any]:
        assert options["reports"]
        root.rename(tmp_path / "hidden")
        found = [function(item, said.append) for item in items]
        (tmp_path / "hidden").rename(root)
        return found

    monkeypatch.setattr("pipelines.evaluation.evaluate.parallel_map", elsewhere)
    found = evaluate("face", weights, root, params.model_copy(update={"cluster": cluster}), tmp_path / "there")
    assert "fetching the dataset: 0.00 of" in said[0]
    assert found == expected and len(list((tmp_path / "storage/data").iterdir())) == 1
    assert (tmp_path / "here/predictions.json").read_bytes() == (tmp_path / "there/predictions.json").read_bytes()
