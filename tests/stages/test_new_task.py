"""A new task: its own files, one name in the table, its sections in params.yaml and dvc.yaml, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import tcformer
from pipelines.paper.sources import settings_of
from tcformer.tasks import FINETUNED, TASKS
from tests.conftest import Workplace
from tests.imports import ROOT
from tests.places import forgotten_places

TOY = Path(__file__).resolve().parents[1] / "toy_task"
REGISTRY, LAST = "tcformer/tasks/registry.py", f'"{FINETUNED[-1]}")'

DATA = {"source": "generated", "root": None, "generate": {"seed": 5, "train_images": 64, "val_images": 16}}
EVALUATE = {"data_root": None, "batch": 8, "tokens": 8, "options": {"tolerance": 4.0}}
SECTIONS = ("data", "finetune", "evaluate", "visualize")


@pytest.mark.parametrize("task", TASKS)
def test_no_place_of_a_task_is_forgotten(task: str) -> None:
    assert forgotten_places(task, ROOT) == []


def add_parts(root: Path) -> None:
    shutil.copytree(TOY, root, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)


def add_to_the_table(root: Path) -> None:
    path = root / REGISTRY
    text = path.read_text(encoding="utf-8")
    assert text.count(LAST) == 1
    path.write_text(text.replace(LAST, f'{LAST[:-1]}, "toy")'), encoding="utf-8")


def add_to_params(root: Path) -> None:
    yaml, path = YAML(), root / "params.yaml"
    tree = yaml.load(path.read_text(encoding="utf-8"))
    for recipe in (tree["sample"], tree["paper"]):
        training = json.loads(json.dumps(recipe["finetune"]["face"]["training"]))
        changed = {**training, "epochs": 12, "global_batch": 8, "micro_batch": 8, "log_every": 4, "validate_every": 6}
        recipe["data"]["toy"] = DATA
        recipe["finetune"]["toy"] = {"initial": None, "task": {"sigma": 1.0}, "training": changed}
        recipe["evaluate"]["toy"] = EVALUATE
        recipe["visualize"]["toy"] = {"data_root": None, "samples": 2, "keypoint_threshold": 0.0, "scale": 3}
    with path.open("w", encoding="utf-8") as stream:
        yaml.dump(tree, stream)


def add_to_dvc(root: Path) -> None:
    yaml, path = YAML(), root / "dvc.yaml"
    tree = yaml.load(path.read_text(encoding="utf-8"))
    stages = tree["stages"]
    stages["prepare"]["foreach"]["toy"] = dict.fromkeys(stages["prepare"]["foreach"]["face"], "data.toy")
    stages["finetune"]["matrix"]["task"].append("toy")
    for stage in ("evaluate", "visualize"):
        stages[stage]["foreach"]["toy"] = "finetune/toy"
    evaluated = [f"evaluate/toy/{name}.json" for name in ("metrics", "keypoints", "tokens")]
    results = ("finetune/toy", *evaluated, "visualize/toy", "visualize/toy.json")
    stages["report"]["deps"] += [f"runs/${{recipe}}/{place}" for place in results]
    with path.open("w", encoding="utf-8") as stream:
        yaml.dump(tree, stream)


def add_to_plots(root: Path) -> None:
    yaml, path = YAML(), root / "dvc.yaml"
    tree = yaml.load(path.read_text(encoding="utf-8"))
    curves, bars = "runs/${recipe}/finetune/toy", "runs/${recipe}/evaluate/toy/parts.csv"
    losses = {f"{curves}/training.csv": "loss", f"{curves}/validation.csv": "val_loss"}
    tree["plots"].append({"Fine-tuning on discs": {"x": "step", "y": losses}})
    tree["plots"].append({"Discs": {"template": "bar_horizontal", "x": "value", "y": {bars: "part"}}})
    with path.open("w", encoding="utf-8") as stream:
        yaml.dump(tree, stream)


def add_to_sources(root: Path) -> None:
    recipe = YAML(typ="safe").load((root / "params.yaml").read_text(encoding="utf-8"))["paper"]
    settings = settings_of({section: {"toy": recipe[section].get("toy", {})} for section in SECTIONS})
    lines = [f"  {name}: {json.dumps([value, '[ours] an example'])}\n" for name, value in settings.items()]
    path = root / "pipelines/paper/sources.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("\npaper:\n", "\npaper:\n" + "".join(lines)), encoding="utf-8")


STEPS = (add_parts, add_to_the_table, add_to_params, add_to_dvc, add_to_plots, add_to_sources)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("left_out", "named"),
    [
        (add_parts, "tcformer/tasks/toy/task.py: TASK"),
        (add_to_the_table, "tcformer/tasks/registry.py: 'toy' in TASKS"),
        (add_to_params, "params.yaml: paper.finetune.toy"),
        (add_to_dvc, "dvc.yaml: toy in the stage finetune"),
        (add_to_plots, "dvc.yaml: runs/${recipe}/evaluate/toy/parts.csv in plots"),
        (add_to_sources, "pipelines/paper/sources.yaml: the settings finetune.toy of the recipe paper, with sources"),
    ],
)
def test_a_forgotten_place_is_named(left_out: object, named: str, workplace: Workplace) -> None:
    for step in STEPS:
        if step is not left_out:
            step(workplace.folder)
    assert named in forgotten_places("toy", workplace.folder)


def test_a_forgotten_part_is_named(workplace: Workplace) -> None:
    for step in STEPS:
        step(workplace.folder)
    assert forgotten_places("toy", workplace.folder) == []
    (workplace.folder / "tcformer/tasks/toy/drawing.py").unlink()
    assert forgotten_places("toy", workplace.folder) == ["tcformer/tasks/toy/drawing.py: draw"]
    (workplace.folder / "tcformer/metrics/toy.py").unlink()
    assert forgotten_places("toy", workplace.folder)[1:] == ["tcformer/metrics/toy.py, which dvc.yaml names"]


@pytest.mark.slow
@pytest.mark.pipeline
def test_a_toy_task_from_its_own_files_runs_through_every_stage(
    workplace: Workplace, shared_ray: dict[str, str]
) -> None:
    for step in STEPS:
        step(workplace.folder)
    tcformer.save_model(
        tcformer.create_model("tcformer_nano", "imagenet", num_classes=12),
        workplace.folder / "runs/sample/pretrain/model.safetensors",
    )
    workplace.run("git", "init", "-q")
    workplace.run("dvc", "init", "-q")
    for stage in ("prepare@toy", "finetune@toy", "evaluate@toy", "visualize@toy"):
        workplace.run("dvc", "repro", "--single-item", stage, **shared_ray)
    workplace.run("python", "-m", "stages.report")

    runs = workplace.folder / "runs/sample"
    metrics = json.loads((runs / "evaluate/toy/metrics.json").read_text())
    assert metrics["error"] < 0.5 * metrics["baseline"]["error"], metrics
    assert metrics["points"]["val"]["disc"]["EPE"] == pytest.approx(metrics["error"])
    assert metrics["tokens"]["stage4"]["density"] > 0
    assert (runs / "visualize/toy/tokens.png").read_bytes().startswith(b"\x89PNG")
    report = (runs / "report/report.md").read_text()
    assert "mean error in pixels" in report and f"{metrics['error']:.3f}" in report and "Discs: loss" in report
    assert "finetune@toy" in workplace.run("dvc", "stage", "list")
    graph = workplace.run("dvc", "status", "finetune@toy")
    assert "up to date" in graph
