"""The paper's figures with tiny networks: what is drawn, from which weights, and what is said if they are missing."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import tcformer
from pipelines.layout import Layout
from pipelines.paper import trained_networks
from pipelines.paper.dvc_experiments import CommittedState
from pipelines.paper.experiments import load_experiments
from pipelines.paper.figures import FIGURES
from pipelines.paper.make_figures import make_figures
from pipelines.paper.trained_networks import check_given, find_networks, of_recipe
from pipelines.params import Params, spec_to_json
from pipelines.running.commands import run_command
from tcformer.errors import UserError
from tcformer.tasks import PRETRAINING, TASKS
from tests import small

EXPERIMENTS = load_experiments()
LARGER: dict[str, Any] = {
    "data__wholebody__generate__image_size": [128, 128],  # smaller people have no labelled points
    "network__token_reduction": "ctm",  # the figures' networks
}
THREE = ("wholebody-tcformer", "mesh-tcformer", "face-tcformer-light")


@pytest.fixture
def nothing_in_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained_networks, "committed_states", lambda repository: iter(()))


def weights(folder: Path, params: Params, task: str, **changes: Any) -> Path:
    """Weights of a network that nobody has trained, as a training writes them; `changes` to network and options."""
    spec = params.sample.spec_of(task)
    network = {name: value for name, value in changes.items() if hasattr(spec.network, name)}
    options = {name: value for name, value in changes.items() if hasattr(spec.options, name)}
    spec = dataclasses.replace(
        spec,
        network=dataclasses.replace(spec.network, **network),
        options=dataclasses.replace(spec.options, **options),
    )
    path = folder / f"{task}-{'-'.join(map(str, changes.values()))}.safetensors"
    model = spec.build(Path(params.sample.drawing_of(task).data_root or "")).build_model()
    tcformer.save_model(model, path, {"options": spec_to_json(spec), "training": "x"})
    return path


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a generated dataset of each task."""
    folder = tmp_path_factory.mktemp("datasets")
    for task in TASKS:
        small.generate(task, small.parameters(folder, **LARGER), folder)
    return folder


def parameters(folder: Path, datasets: Path) -> Params:
    """params.yaml in a folder, with these datasets."""
    roots = {f"visualize__{task}__data_root": str(datasets / task) for task in TASKS}
    return small.parameters(folder, **LARGER, **roots)


def made(names: Sequence[str], params: Params, folder: Path, given: dict[str, Path], chosen: Sequence[int] = ()) -> Any:
    [path] = make_figures(names, params, given, chosen, folder)
    assert path == folder / "runs/sample/figures" / f"{names[0]}.png"
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture


def test_every_figure_names_experiments_that_can_draw_it() -> None:
    for name, figure in FIGURES.items():
        assert set(figure.experiments) <= EXPERIMENTS.keys() and figure.experiments, name
        tasks = {EXPERIMENTS[experiment].task for experiment in figure.experiments}
        if figure.kind == "networks":
            labels = [shown.label for shown in figure.networks]
            assert len(tasks) == 1 and all(labels) and len(set(labels)) == len(labels)
        elif figure.kind == "tasks":
            assert len(tasks) == len(figure.networks)
        elif figure.kind == "stage":
            [task] = tasks
            assert f"visualize@{task}" in EXPERIMENTS[figure.experiments[0]].stages
    assert {f"figure{name}" for name in (1, 6, 7, 8, *(f"A{number}" for number in range(1, 10)))} == FIGURES.keys()


@pytest.mark.slow
def test_tokens_of_three_networks_stand_beside_each_other(tmp_path: Path, nothing_in_dvc: None, datasets: Path) -> None:
    params = parameters(tmp_path, datasets)
    kinds = {"wholebody-without-ctm": "conv", "wholebody-tcformer": "ctm", "wholebody-ctm-topk": "ctm_topk"}
    given = {name: weights(tmp_path, params, "wholebody", token_reduction=kind) for name, kind in kinds.items()}
    picture = made(["figureA1"], params, tmp_path, given)
    side = 3 * 64
    assert picture.shape[1] > 7 * side, "the picture, and for each network its tokens and their sizes"
    assert picture.shape[0] > 2 * side, "two samples"
    one = made(["figureA1"], params, tmp_path, given, chosen=[1])
    assert side < one.shape[0] < picture.shape[0] and one.shape[1] == picture.shape[1]
    with pytest.raises(UserError, match="picture 2: expected a number from 0 to 1"):
        made(["figureA1"], params, tmp_path, given, chosen=[2])


def test_a_fixed_grid_needs_no_network(tmp_path: Path, nothing_in_dvc: None, datasets: Path) -> None:
    params = parameters(tmp_path, datasets)
    picture = made(["figure1"], params, tmp_path, {"wholebody-tcformer": weights(tmp_path, params, "wholebody")})
    assert picture.shape[0] > 4 * 192 and picture.shape[1] > 6 * 192


@pytest.mark.slow
@pytest.mark.parametrize("name", ["figure6", "figure7"])
def test_figures_of_all_tasks(name: str, tmp_path: Path, nothing_in_dvc: None, datasets: Path) -> None:
    params = parameters(tmp_path, datasets)
    given = {experiment: weights(tmp_path, params, EXPERIMENTS[experiment].task) for experiment in THREE}
    picture = made([name], params, tmp_path, given)
    rows = (picture < 250).all(2).any(1)
    blocks = np.flatnonzero(np.diff(rows.astype(int)) == 1)
    assert len(blocks) >= 3


def test_sets_that_are_missing_are_left_out_and_named(
    tmp_path: Path, nothing_in_dvc: None, datasets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = parameters(tmp_path, datasets)
    made(["figureA3"], params, tmp_path, {"mesh-tcformer": weights(tmp_path, params, "mesh")})
    printed = capsys.readouterr().out
    assert "left out: " in printed and "lsp/joints.mat: no such file" in printed
    assert "mesh: 0: " in printed, "the pictures are named, so that others can be chosen"


def test_weights_of_another_kind_are_refused(tmp_path: Path, datasets: Path) -> None:
    params = parameters(tmp_path, datasets)
    conv = weights(tmp_path, params, "wholebody", token_reduction="conv")
    hand = weights(tmp_path, params, "wholebody", keypoints="hand")
    for file, name, message in (
        (conv, "wholebody-tcformer", "token_reduction: conv; wholebody-tcformer needs ctm"),
        (hand, "wholebody-face", "keypoints: hand; wholebody-face needs face"),
        (conv, "mesh-tcformer", "of the task wholebody; mesh-tcformer needs one of mesh"),
        (tmp_path / "params.yaml", "mesh-tcformer", "params.yaml"),
    ):
        with pytest.raises(UserError, match=message):
            check_given(file, EXPERIMENTS[name])
    check_given(conv, EXPERIMENTS["wholebody-without-ctm"])
    with pytest.raises(UserError, match="figureA2 shows no such experiment; expected wholebody-tcformer"):
        list(make_figures(["figureA2"], params, {"wholebody-hand": hand}, (), tmp_path))


def test_networks_that_are_not_trained_are_named_with_the_commands_that_train_them(
    tmp_path: Path, nothing_in_dvc: None, datasets: Path
) -> None:
    params = parameters(tmp_path, datasets)
    with pytest.raises(UserError) as caught:
        list(make_figures(["figureA1"], params, {}, (), tmp_path))
    for text in (
        "3 networks are not trained: wholebody-without-ctm, wholebody-tcformer, wholebody-ctm-topk (recipe sample)",
        "dvc exp run --queue --name wholebody-ctm-topk-sample -S recipe=sample",
        " -S sample.network.token_reduction=ctm_topk",
        "--weights wholebody-without-ctm=FILE",
    ):
        assert text in str(caught.value)
    paper = params.model_copy(update={"recipe": "paper"})
    with pytest.raises(UserError, match="experiments queue wholebody-hand wholebody-face --start"):
        list(make_figures(["figureA9"], paper, {}, (), tmp_path))


@pytest.mark.slow
def test_the_workspace_comes_before_commits_and_late_commits_before_early_ones(
    tmp_path: Path, datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = parameters(tmp_path, datasets)
    tree = json.loads(params.model_dump_json())
    topk = json.loads(json.dumps(tree))
    topk["sample"]["network"]["token_reduction"] = "ctm_topk"
    outs = frozenset({"runs/sample/finetune/wholebody/model.safetensors", "runs/sample/visualize/wholebody"})

    def state(name: str, time: str, params: dict[str, Any], outs: frozenset[str] = outs) -> CommittedState:
        return CommittedState(name, name, time, outs, params, {})

    late = json.loads(json.dumps(topk))
    lock = {"finetune@wholebody": {"sample.network.token_reduction": "conv"}}
    states = [
        state("new", "2026-02-02", topk),
        state("old", "2026-01-01", topk),
        state("without weights", "2026-03-03", topk, frozenset()),
        dataclasses.replace(state("made with others", "2026-04-04", late), lock=lock),
        state("ctm", "2026-02-02", tree),
    ]
    monkeypatch.setattr(trained_networks, "committed_states", lambda repository: iter(states))
    names = ("wholebody-tcformer", "wholebody-ctm-topk", "wholebody-without-ctm", "wholebody-hand")
    wanted = [of_recipe(EXPERIMENTS[name], "sample") for name in names]

    def found() -> dict[str, str]:
        networks = find_networks(wanted, tmp_path)
        return {name.removesuffix("-sample"): network.found_in for name, network in networks.items()}

    expected = {
        "wholebody-tcformer": "ctm", "wholebody-ctm-topk": "new", "wholebody-without-ctm": "made with others"
    }  # fmt: skip
    assert found() == expected
    place = Layout("sample", tmp_path).weights("wholebody")
    place.parent.mkdir(parents=True)
    place.touch()
    assert found() == expected, "nothing says with which parameters this file was made"
    options = json.loads(spec_to_json(params.sample.spec_of("wholebody")))
    place.with_name("provenance.json").write_text(json.dumps({"options": options}))
    assert found() == {**expected, "wholebody-tcformer": "the workspace"}


def test_figures_that_a_stage_draws_are_copied(tmp_path: Path, nothing_in_dvc: None, datasets: Path) -> None:
    params = parameters(tmp_path, datasets)
    place = Layout("sample", tmp_path).weights(PRETRAINING)
    place.parent.mkdir(parents=True)
    place.touch()
    options = json.loads(spec_to_json(params.sample.spec_of(PRETRAINING)))
    place.with_name("provenance.json").write_text(json.dumps({"options": options}))
    with pytest.raises(UserError, match="run `dvc repro visualize@imagenet`"):
        list(make_figures(["figureA8"], params, {}, (), tmp_path))
    drawn = Layout("sample", tmp_path).run("visualize", PRETRAINING) / "tokens.png"
    drawn.parent.mkdir(parents=True)
    drawn.write_bytes(b"a picture")
    [path] = make_figures(["figureA8"], params, {}, (), tmp_path)
    assert path.read_bytes() == b"a picture"


@pytest.mark.slow
def test_the_same_figure_from_given_weights_is_drawn(tmp_path: Path, nothing_in_dvc: None, datasets: Path) -> None:
    params = parameters(tmp_path, datasets)
    picture = made(["figureA8"], params, tmp_path, {"imagenet-tcformer": weights(tmp_path, params, "imagenet")})
    assert picture.shape[1] > 6 * 4 * 64


def test_other_recipes_keep_the_settings_that_tell_networks_apart() -> None:
    topk = of_recipe(EXPERIMENTS["wholebody-ctm-topk"], "sample")
    assert topk.settings == {
        "sample.network.token_reduction": "ctm_topk",
        "sample.finetune.wholebody.task.keypoints": "all",
        "sample.finetune.wholebody.task.neck": "auto",
    }
    assert of_recipe(EXPERIMENTS["wholebody-hand"], "paper") is EXPERIMENTS["wholebody-hand"]


@pytest.mark.slow
@pytest.mark.pipeline
def test_networks_of_dvcs_experiments_are_found_and_fetched(tmp_path: Path) -> None:
    """With the real DVC, and a stage that writes text instead of training."""
    folder = tmp_path / "work place"
    folder.mkdir()
    shutil.copy(small.ROOT / "params.yaml", folder)
    outs = ["runs/${recipe}/finetune/wholebody/model.safetensors", "runs/${recipe}/visualize/wholebody"]
    make = f"mkdir -p runs/${{recipe}}/finetune/wholebody {outs[1]}"
    write = f"echo ${{sample.network.token_reduction}} | tee {outs[0]} {outs[1]}/tokens.png"
    stage = {"cmd": f"{make} && {write}", "params": ["${recipe}.network"], "outs": outs}
    (folder / "dvc.yaml").write_text(json.dumps({"stages": {"finetune": {"foreach": ["wholebody"], "do": stage}}}))
    (folder / ".gitignore").write_text("/runs/\n")
    topk = of_recipe(EXPERIMENTS["wholebody-ctm-topk"], "sample")
    dvc = [sys.executable, "-m", "dvc"]
    for command in (
        ["git", "init", "-q"],
        ["git", "config", "user.name", "a"],
        ["git", "config", "user.email", "a@b.c"],
        [*dvc, "init", "-q"],
        ["git", "add", "-A"],
        ["git", "commit", "-q", "-m", "start"],
        [*dvc, "exp", "run", "-q", "-n", "mine", "-S", "sample.network.token_reduction=ctm_topk"],
        ["git", "checkout", "-q", "params.yaml"],
        ["rm", "-r", "runs"],
    ):
        done = run_command(command, folder)
        assert done.returncode == 0, done.stderr
    found = find_networks([topk, of_recipe(EXPERIMENTS["wholebody-tcformer"], "sample")], folder)
    assert {name: network.found_in for name, network in found.items()} == {"wholebody-ctm-topk-sample": "mine"}
    network, copies = found[topk.name], tmp_path / "copies"
    copies.mkdir()
    assert network.weights(folder, copies).read_text() == "ctm_topk\n"
    drawn = network.drawn_tokens(folder, copies)
    assert drawn is not None and drawn.read_text() == "ctm_topk\n"
    assert not (folder / "runs").exists()
