"""The name of a training's run in MLflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.driver.run_name import run_name
from tests.small import commit, parameters


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository, in a folder of which params.yaml is committed."""
    root = tmp_path_factory.mktemp("repository")
    project = root / "project"
    project.mkdir()
    parameters(project)
    commit(root)
    return project


@pytest.mark.parametrize(
    ("task", "changes", "expected"),
    [
        ("face", {"network__backbone": "timm/hrnet_w32"}, "face timm/hrnet_w32 finest_map seed 0"),
        (
            "wholebody",
            {"finetune__wholebody__training__optimizer__lr": 6e-3, "finetune__face__training__epochs": 9},
            "wholebody tcformer_nano local_ctm mta seed 0 lr=0.006",
        ),
        (
            "mesh",
            {
                "finetune__mesh__task__mixture": [
                    {"weight": 2.0, "sources": [{"annotations": "dataset_extras/a.npz", "images": "a"}]}
                ],
                "finetune__mesh__training__ema_decay": None,
                "finetune__mesh__training__optimizer__milestones": [1.5],
                "finetune__mesh__training__optimizer__clip_norm": 2,
                "network__place_weight": 0.5,
            },
            "mesh tcformer_nano local_ctm seed 0 mixture=changed ema_decay=null clip_norm=2 +2",
        ),
    ],
)
def test_a_name_has_what_determines_the_training(
    repository: Path, tmp_path: Path, task: str, changes: dict[str, object], expected: str
) -> None:
    assert run_name(task, parameters(tmp_path, **changes), root=repository) == expected


def test_parameters_that_the_commit_does_not_have_are_no_changes(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("sample: {finetune: {face: {training: {epochs: 4}}}}")
    commit(tmp_path)
    params = parameters(tmp_path, finetune__face__training__epochs=9)
    assert run_name("face", params, "warm-lynx", tmp_path) == (
        "face tcformer_nano local_ctm mta seed 0 epochs=9 (warm-lynx)"
    )
    folder = tmp_path / "other"  # of a repository without params.yaml in it
    folder.mkdir()
    assert run_name("face", params, root=folder) == "face tcformer_nano local_ctm mta seed 0"
