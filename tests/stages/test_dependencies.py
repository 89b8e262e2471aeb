"""dvc.yaml tells the truth: a stage depends on every file that can change its result."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipelines.provenance import CODE, stage_code
from tcformer.tasks import ALL_TASKS, FINETUNED, OWN_TASKS, PRETRAINING
from tests.imports import ROOT, closure, file_of

#: What a stage imports and what yet cannot change its result, each with the reason. A folder stands for all its files.
CANNOT_CHANGE_A_RESULT = {
    "pipelines/adapters/elastic.py": "says how many workers there are, which is a free choice",
    "pipelines/adapters/mailbox.py": "carries events to the driver",
    "pipelines/adapters/mlflow.py": "records results",
    "pipelines/adapters/ray.py": "says where things run",
    "pipelines/adapters/ray_environment.py": "the same",
    "pipelines/adapters/ray_workers.py": "the same",
    "pipelines/adapters/rendezvous.py": "says where workers meet",
    "pipelines/adapters/storage.py": "carries bytes whose hashes are checked",
    "pipelines/adapters/watch.py": "ends a training that does not go on",
    "pipelines/datasets/archives.py": "unpacks bytes whose hashes are checked",
    "pipelines/datasets/cache.py": "fetches bytes whose hashes are checked",
    "pipelines/datasets/location.py": "says where the files are, whose hashes DVC compares",
    "pipelines/datasets/prepared.py": "the same",
    "pipelines/datasets/shards.py": "stores bytes with their hashes",
    "pipelines/dotted.py": "names values in records, messages and tables",
    "pipelines/driver": "launches, shows, records and collects trainings",
    "pipelines/layout.py": "names of folders",
    "pipelines/params.py": "reads values that DVC compares itself",
    "pipelines/provenance.py": "describes results",
    "pipelines/running": "signals, exit statuses and messages; asks git and DVC what there is; names folders of caches",
    "pipelines/trained.py": "reads options from the weights, which DVC compares, and records results",
    "pipelines/training/events.py": "messages to the driver",
    "stages": "arguments and paths; what they choose stands in the parameters",
    "tcformer/data/official.py": "names the files that prepare and the storage take",
    "tcformer/errors.py": "messages",
    "tcformer/extras.py": "messages",
    "tcformer/files.py": "writes bytes that others made",
    "tcformer/lazy.py": "imports",
    "tcformer/memory.py": "says where values lie",
    "tcformer/models/options.py": "checks names; what builds a network depends on all of tcformer/models",
    "tcformer/models/variants.py": "the same",
    "tcformer/parameters.py": "checks values that DVC compares itself",
    "tcformer/pickles.py": "refuses files, changes none",
    "tcformer/tasks/base.py": "protocols",
    "tcformer/tasks/registry.py": "names of modules",
}
#: The modules of a task's folder that a stage imports by name.
PARTS = {
    "prepare": ("generate", "official"),
    "pretrain": ("options", "task"),
    "finetune": ("options", "task"),
    "evaluate": ("options", "task", "measures"),
    "visualize": ("options", "task", "drawing"),
}
STAGES = [
    *(f"prepare@{task}" for task in ALL_TASKS),
    "pretrain",
    *(f"finetune@{task}" for task in (*FINETUNED, *OWN_TASKS)),
    *(f"evaluate@{task}" for task in ALL_TASKS),
    *(f"visualize@{task}" for task in ALL_TASKS),
    "report",
]


def imported_by(stage: str) -> set[str]:
    """Files of ours that a stage can import; `__init__.py` files name what packages offer and hold nothing else."""
    name, _, task = stage.partition("@")
    if name == "report":
        parts = [f"tcformer.tasks.{task}.report" for task in ALL_TASKS]
    else:
        parts = [f"tcformer.tasks.{task or PRETRAINING}.{part}" for part in PARTS[name]]
    return {path for path in closure([f"stages.{name}", *parts]) if not path.endswith("__init__.py")}


def covers(place: str, path: str) -> bool:
    return path == place or path.startswith(f"{place}/")


def uncovered(paths: set[str], dependencies: list[str]) -> list[str]:
    places = [*dependencies, *CANNOT_CHANGE_A_RESULT]
    return sorted(path for path in paths if not any(covers(place, path) for place in places))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_all_that_it_imports(stage: str) -> None:
    assert uncovered(imported_by(stage), stage_code(stage)) == [], f"add these to the deps of {stage} in dvc.yaml"


@pytest.mark.parametrize("stage", STAGES)
def test_it_fails_when_a_dependency_is_taken_out(stage: str) -> None:
    """Each dependency covers something that the stage imports and nothing else covers."""
    dependencies = stage_code(stage)
    paths = imported_by(stage)
    for left_out in dependencies:
        needed = uncovered(paths, without(dependencies, left_out)) or shared_by_the_tasks(stage, left_out)
        assert needed, f"nothing that {stage} imports is in {left_out}: take it out of dvc.yaml"


def shared_by_the_tasks(stage: str, place: str) -> bool:
    """Whether another task of the same stage needs a dependency: dvc.yaml has one list for all tasks of a stage."""
    others = [other for other in STAGES if other.partition("@")[0] == stage.partition("@")[0] and other != stage]
    return any(uncovered(imported_by(other), without(stage_code(other), place)) for other in others)


def without(dependencies: list[str], place: str) -> list[str]:
    return [other for other in dependencies if other != place]


def test_every_dependency_exists_and_every_reason_is_used() -> None:
    for stage in STAGES:
        assert all((ROOT / place).exists() for place in stage_code(stage)), stage
    every = set().union(*map(imported_by, STAGES))
    unused = [place for place in CANNOT_CHANGE_A_RESULT if not any(covers(place, path) for path in every)]
    assert unused == []


def test_what_names_the_files_of_bodies_reruns_their_preparation() -> None:
    """The mixture and the test sets are parameters of the training and the evaluation, and name files to prepare."""
    prepare = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["prepare"]
    named = {f"${{recipe}}.{place}": place for place in prepare["foreach"]["mesh"].values()}
    assert set(named.values()) == {
        "finetune.mesh.task.mixture",
        "finetune.mesh.task.validation",
        "evaluate.mesh.options",
    }
    assert {f"${{recipe}}.${{item.{key}}}" for key in prepare["foreach"]["mesh"]} < set(prepare["do"]["params"])


@pytest.mark.parametrize("task", ["wholebody", "face"])
def test_another_decoding_of_heat_maps_reruns_the_evaluation_alone(task: str) -> None:
    graph = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    decoding, rerun = f"${{recipe}}.evaluate.{task}.options.decoding", set()
    for name, entry in graph.items():
        places = [place.replace("${key}", task) for place in entry.get("do", entry).get("params", [])]
        named = entry.get("foreach", {}).get(task)
        places += [f"${{recipe}}.{place}" for place in named.values()] if isinstance(named, dict) else []
        if any(decoding.startswith(f"{place}.") for place in places):
            rerun.add(name)
    assert rerun == {"evaluate", "report"}


def test_every_stage_of_the_graph_is_compared() -> None:
    names = {stage.partition("@")[0] for stage in STAGES}
    assert names == set(YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"])


def test_packages_only_name_what_they_offer() -> None:
    """So their `__init__.py` files cannot change a result."""
    import ast

    for layer in CODE[1:]:
        for path in (ROOT / layer).rglob("__init__.py"):
            # The first refuses to run in another environment, the others name folders of caches.
            if path in [ROOT / name / "__init__.py" for name in ("stages", "pipelines", "tcformer")]:
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in tree.body:
                named = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in (
                    "__all__", "_MODULES", "__getattr__"
                )  # fmt: skip
                doc = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
                types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
                assert named or doc or types or isinstance(node, ast.Import | ast.ImportFrom), f"{path}:{node.lineno}"


def test_the_closure_follows_what_it_must() -> None:
    """Imports in functions, packages that import at the first use, the parents of a module; not those for types."""
    found = closure(["tcformer.tasks.wholebody.task"])
    assert {"tcformer/heatmaps/flip.py", "tcformer/models/factory.py", "tcformer/tasks/__init__.py"} <= found
    assert "tcformer/synthetic/wholebody.py" in closure(["tcformer.tasks.wholebody.generate"])
    assert "tcformer/draw/pictures.py" in closure(["pipelines.visualization.examples"])
    assert not any(path.startswith("tcformer/draw") for path in closure(["tcformer.tasks.registry"]))
    assert file_of("tcformer.heatmaps.flip") == Path(ROOT / "tcformer/heatmaps/flip.py")
    assert file_of("torch") is None
