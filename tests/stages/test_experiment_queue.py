"""Named experiments through the real DVC, in a repository of their own: queued and read, not run."""

import json
from pathlib import Path

import pytest

from pipelines.dotted import lookup
from pipelines.paper.experiments import load_experiments
from tcformer.metrics import evaluate_wholebody
from tests.conftest import Workplace

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.pipeline]
COMMAND = ("python", "-m", "stages.experiments")
CHOSEN = ("study-tcformer-seed0", "study-without-mta-seed2")


@pytest.fixture
def repository(workplace: Workplace) -> Workplace:
    """The workplace as a git and DVC repository with one commit, and parameters changed since."""
    workplace.run("git", "init", "-q")
    workplace.run("dvc", "init", "-q")
    workplace.run("git", "add", "-A")
    workplace.run("git", "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "-m", "start")
    workplace.set(cluster__workers=7)
    return workplace


def queued_params(repository: Workplace) -> dict[str, dict]:
    commits = json.loads(repository.run("dvc", "exp", "show", "--json", PYTHONWARNINGS="ignore"))
    entries = [entry for commit in commits for entry in commit["experiments"] or ()]
    assert {entry["executor"]["state"] for entry in entries} <= {"queued"}
    return {entry["name"]: entry["revs"][0]["data"]["params"]["params.yaml"]["data"] for entry in entries}


def test_experiments_are_queued_with_the_workspaces_parameters(repository: Workplace) -> None:
    printed = repository.run(*COMMAND, "queue", *CHOSEN)
    assert all(f"{name}: queued" in printed for name in CHOSEN)
    found, experiments = queued_params(repository), load_experiments()
    assert set(found) == set(CHOSEN)
    for name, params in found.items():
        settings = {"recipe": "sample", **experiments[name].settings}
        assert {key: lookup(params, key, default="?") for key in settings} == settings
        assert params["cluster"]["workers"] == 7, "changes that are not committed go along"
    assert "study-tcformer-seed0: exists already (queued)" in repository.run(*COMMAND, "queue", CHOSEN[0])
    printed = repository.run(*COMMAND, "queue", "study-without-ctm", "table1", status=2)
    assert "needs paper.data.imagenet.root, which is null" in printed and "Traceback" not in printed
    assert repository.run("dvc", "queue", "status").count("Queued") == 2


def test_tables_take_what_the_metrics_files_say(repository: Workplace, samples: Path) -> None:
    real = samples / "coco_wholebody"
    measured = evaluate_wholebody(real / "annotations/coco_wholebody_val_v1.0.json", real / "results/example_pred.json")
    settings = load_experiments()["study-without-ctm-seed1"].settings
    repository.set(**{name.replace(".", "__"): value for name, value in settings.items()})
    provenance = {"options": json.loads(repository.options("wholebody"))}
    for place, content in (("evaluate/wholebody/metrics", measured), ("finetune/wholebody/provenance", provenance)):
        path = repository.folder / "runs" / "sample" / f"{place}.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content))
    printed = repository.run(*COMMAND, "table", "study", "table1")
    row = next(line for line in printed.splitlines() if "without CTM on generated people | whole-body AP" in line)
    value = f"{measured['wholebody']['AP']:.3f}"
    assert [cell.strip() for cell in row.split("|")[3:9]] == ["not run", value, "not run", "1", value, "not run"]
    trained = [line.split("|")[-2] for line in printed.splitlines() if line.startswith("| TCFormer without CTM, ")]
    assert trained and not any(value in cell for cell in trained), "generated people are not in the paper's tables"
    # Parameters that were changed after the training did not make these figures.
    repository.set(sample__network__token_reduction="ctm")
    assert value not in repository.run(*COMMAND, "table", "study")
