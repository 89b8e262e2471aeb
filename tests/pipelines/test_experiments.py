"""Every named experiment fits params.yaml and DVC, and the paper's tables show what was published and measured."""

import copy
import dataclasses
import json
import re
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from dvc.exceptions import FileMissingError
from ruamel.yaml import YAML

import tcformer
from pipelines.dotted import lookup
from pipelines.paper import dvc_experiments
from pipelines.paper.checks import check_data_roots, params_of
from pipelines.paper.comparison import MeasuredRun, paper_table, published, study_table
from pipelines.paper.dvc_experiments import queue_command, runs_in
from pipelines.paper.experiments import (
    TABLES,
    Experiment,
    load_experiments,
    select,
    with_backbone,
    with_released_weights,
)
from pipelines.paper.figures import FIGURES
from pipelines.paper.origins import origin_of
from pipelines.paper.overview import DOCUMENT, with_overview
from pipelines.paper.side_by_side import side_by_side
from pipelines.params import Params, load_params, spec_to_json
from pipelines.report.content import paper_section
from pipelines.report.markdown import to_markdown
from pipelines.report.numbers import NOT_RUN
from pipelines.report.parts import Report, Section
from tcformer.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
PARAMS = ROOT / "params.yaml"
EXPERIMENTS = load_experiments()
TREE = YAML(typ="safe").load(PARAMS.read_text(encoding="utf-8"))


def tree_with(experiment: Experiment, **changes: Any) -> dict[str, Any]:
    """params.yaml as a tree with an experiment's settings, and then others (dots as two underscores)."""
    tree = copy.deepcopy(TREE)
    others = {name.replace("__", "."): value for name, value in changes.items()}
    for name, value in {"recipe": experiment.recipe, **experiment.settings, **others}.items():
        *sections, leaf = name.split(".")
        node = tree
        for key in sections:
            node = node[key]
        node[leaf] = value
    return tree


def params_with(experiment: Experiment) -> Params:
    """The parameters, checked as those of the file are."""
    return Params.model_validate_json(json.dumps(tree_with(experiment)))


def run(
    experiment: Experiment, metrics: dict[str, Any], commit_time: str = "2026-01-01", **changes: Any
) -> MeasuredRun:
    return MeasuredRun(
        name=experiment.name,
        commit_time=commit_time,
        params=tree_with(experiment, **changes),
        metrics={experiment.task: metrics},
    )


def cells(table: Any, network: str, figures: str) -> tuple[Any, ...]:
    """A network's figures of one origin, in the order of the table's measures."""
    return tuple(row[table.columns.index(figures)] for row in table.rows if row[0] == network)


def shown(section: Section) -> str:
    """A section in Markdown."""
    return to_markdown(Report("t", (section,)))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_settings_are_parameters(name: str) -> None:
    experiment = EXPERIMENTS[name]
    params = params_with(experiment)
    dumped = json.loads(params.model_dump_json())
    assert {key: lookup(dumped, key, default="?") for key in experiment.settings} == experiment.settings
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for stage in experiment.stages:
        kind, _, task = stage.partition("@")
        assert task in stages[kind]["foreach"]


def test_the_base_of_the_paper_is_what_params_yaml_says() -> None:
    params = json.loads(load_params(PARAMS).model_dump_json())
    whole_body = EXPERIMENTS["wholebody-tcformer"].settings
    assert {name: lookup(params, name) for name in whole_body} == whole_body
    for name in ("mesh-tcformer", "imagenet-tcformer"):
        settings = EXPERIMENTS[name].settings
        assert {key: lookup(params, key) for key in settings} == settings


def test_a_wrong_setting_is_reported_before_anything_is_queued() -> None:
    experiment = EXPERIMENTS["wholebody-tcformer"]
    for key, value, message in (
        ("paper.network.backbon", "tcformer", "unknown key paper.network.backbon: did you mean backbone?"),
        ("paper.network.backbone", "tcformr", "no backbone 'tcformr'; did you mean 'tcformer'?"),
        ("paper.finetune.wholebody.training.epochs", "many", 'epochs is "many": input should be a valid integer'),
        ("paper.finetune.hands.task.neck", "mta", "unknown key paper.finetune.hands"),
    ):
        wrong = dataclasses.replace(experiment, settings={**experiment.settings, key: value})
        with pytest.raises(UserError, match=re.escape(message)) as caught:
            params_of(wrong, PARAMS)
        assert str(caught.value).startswith("experiment wholebody-tcformer in experiments.yaml: ")
        assert "/tmp" not in str(caught.value)


@pytest.mark.slow
def test_dvc_writes_the_settings_that_were_checked(tmp_path: Path) -> None:
    hydra = pytest.importorskip("dvc.utils.hydra")
    weights = tmp_path / "the authors' (best)=1, v2.pth"
    weights.touch()
    chosen = [EXPERIMENTS["wholebody-sbl-res152-384"], EXPERIMENTS["study-without-mta-seed2"]]
    for experiment in [*chosen, with_released_weights(EXPERIMENTS["wholebody-tcformer-large-384"], weights)]:
        path = shutil.copy(PARAMS, tmp_path / "params.yaml")
        hydra.apply_overrides(path, experiment.overrides())
        written = json.loads(load_params(path).model_dump_json())
        settings = {"recipe": experiment.recipe, **experiment.settings}
        assert {name: lookup(written, name, default="?") for name in settings} == settings


@pytest.mark.parametrize("name", [name for name, experiment in EXPERIMENTS.items() if experiment.recipe == "paper"])
def test_networks_can_be_built(name: str) -> None:
    pytest.importorskip("timm")
    experiment = EXPERIMENTS[name]
    recipe = params_with(experiment).active
    network = {**recipe.network.model_options}
    network.pop("pretrained", None)  # no download
    section = recipe.pretrain if experiment.task == "imagenet" else getattr(recipe.finetune, experiment.task)
    chosen = {name: getattr(section.task, name) for name in ("neck", "keypoints") if hasattr(section.task, name)}
    with torch.device("meta"):
        tcformer.create_model(
            recipe.network.backbone, experiment.task, drop_path_rate=section.task.drop_path, **chosen, **network
        )


def test_tables_and_names_choose_experiments() -> None:
    def chosen(*names: str) -> list[str]:
        return [experiment.name for experiment in select(names, EXPERIMENTS)]

    assert len(chosen("table1")) == 7 and len(chosen("tableA2")) == 3
    assert chosen("tableA3") == ["wholebody-tcformer", "wholebody-without-ctm", "wholebody-ctm-topk"]
    assert chosen("figure8") == chosen("figureA9") == ["wholebody-hand", "wholebody-face"]
    assert chosen("study-without-mta") == [f"study-without-mta-seed{seed}" for seed in range(3)]
    assert chosen("study-without-mta-seed1", "study-without-mta-seed1") == ["study-without-mta-seed1"]
    assert len(chosen("study")) == 9 and chosen(*TABLES) == list(EXPERIMENTS)
    for wrong, message in (("tabel1", "did you mean table1"), ("study-tcfomer", "did you mean study-tcformer,")):
        with pytest.raises(UserError, match=message):
            chosen("table1", wrong)


def test_the_study_changes_seeds_and_one_thing() -> None:
    plain = EXPERIMENTS["study-tcformer-seed0"].settings
    for name, changes in (
        ("study-tcformer-seed2", {}),
        ("study-without-ctm-seed2", {"sample.network.token_reduction": "conv"}),
        ("study-without-mta-seed2", {"sample.finetune.wholebody.task.neck": "deconv"}),
    ):
        seeds = {"sample.pretrain.training.seed": 2, "sample.finetune.wholebody.training.seed": 2}
        assert EXPERIMENTS[name].settings == {**plain, **seeds, **changes}


def test_an_experiment_sets_parameters_of_its_own_task_only() -> None:
    for experiment in EXPERIMENTS.values():
        for name in experiment.settings:
            others = {"wholebody", "face", "mesh", "imagenet"} - {experiment.task}
            assert not others & set(name.split(".")), name
    command = queue_command(EXPERIMENTS["wholebody-hand"])
    assert command[:6] == ["dvc", "exp", "run", "--queue", "--name", "wholebody-hand"]
    assert command[-2:] == ["evaluate@wholebody", "visualize@wholebody"]


def test_data_roots_must_be_absolute_paths(tmp_path: Path) -> None:
    experiment, path = EXPERIMENTS["face-tcformer-light"], tmp_path / "params.yaml"

    def check(**roots: str) -> None:
        tree = copy.deepcopy(TREE)
        for task, root in roots.items():
            tree["paper"]["data"][task]["root"] = root
        YAML().dump(tree, path)
        params = params_of(experiment, path)
        assert {task: getattr(params.paper.data, task).root for task in roots} == roots
        check_data_roots(experiment, params)

    with pytest.raises(UserError, match=r"needs paper\.data\.imagenet\.root, which is null"):
        check()
    with pytest.raises(
        UserError, match=r"paper\.data\.face\.root is data/wflw; expected an absolute path.* give the whole path"
    ):
        check(imagenet="/data/imagenet", face="data/wflw")
    check(imagenet="/data/imagenet", face="~/wflw")
    study = EXPERIMENTS["study-tcformer-seed0"]
    check_data_roots(study, params_of(study, PARAMS))  # generated data need no root


def test_weights_to_evaluate_or_to_start_from(tmp_path: Path) -> None:
    weights, ours = tmp_path / "tcformer.pth", tmp_path / "model.safetensors"
    weights.touch()
    ours.touch()
    released = with_released_weights(EXPERIMENTS["wholebody-tcformer"], weights)
    assert released.name == "wholebody-tcformer-released"
    assert released.settings["paper.finetune.wholebody.initial"] == str(weights)
    assert released.settings["paper.finetune.wholebody.training.epochs"] == 0
    assert released.settings["paper.pretrain.training.epochs"] == 0
    classifier = with_released_weights(EXPERIMENTS["imagenet-tcformer"], weights).settings
    assert classifier["paper.pretrain.initial"] == str(weights) and classifier["paper.pretrain.training.epochs"] == 0
    started = with_backbone(EXPERIMENTS["wholebody-hand"], ours).settings
    assert started["paper.pretrain.initial"] == str(ours) and started["paper.pretrain.training.epochs"] == 0
    assert started["paper.finetune.wholebody.training.epochs"] == 210
    for wrong, message in (
        (lambda: with_released_weights(EXPERIMENTS["mesh-tcformer"], ours), "this project writes .safetensors files"),
        (
            lambda: with_released_weights(EXPERIMENTS["mesh-tcformer"], tmp_path / "x.pth"),
            "x.pth: the weights file does not exist",
        ),
        (lambda: with_backbone(EXPERIMENTS["imagenet-tcformer"], weights), "is a pretraining"),
    ):
        with pytest.raises(UserError, match=message):
            wrong()


def test_parameters_tell_how_a_figure_was_obtained() -> None:
    tcformer, topk = EXPERIMENTS["wholebody-tcformer"], EXPERIMENTS["wholebody-ctm-topk"]
    section, pretrain = "paper__finetune__wholebody__{}".format, "paper__pretrain__{}".format
    assert origin_of(tcformer, tree_with(tcformer)) == "trained"
    assert origin_of(tcformer, tree_with(tcformer, cluster__workers=8)) == "trained"
    assert origin_of(tcformer, tree_with(topk)) is None and origin_of(topk, tree_with(tcformer)) is None
    assert origin_of(tcformer, tree_with(tcformer, recipe="sample")) is None
    assert origin_of(tcformer, tree_with(tcformer, **{section("training__epochs"): 20})) is None
    ground_truth = {"paper__evaluate__wholebody__options__boxes": "ground_truth"}
    assert origin_of(tcformer, tree_with(tcformer, **ground_truth)) is None
    # A backbone that was trained elsewhere, then fine-tuned here.
    backbone = {pretrain("initial"): "/w/tcformer.pth", pretrain("training__epochs"): 0}
    assert origin_of(tcformer, tree_with(tcformer, **backbone)) == "trained"
    assert origin_of(tcformer, tree_with(tcformer, **{pretrain("training__epochs"): 0})) is None
    # Measured as it was released, whatever the training parameters say.
    released = {section("initial"): "/w/pose.pth", section("training__epochs"): 0, section("task__sigma"): 3.0}
    assert origin_of(tcformer, tree_with(tcformer, **released)) == "released"
    assert origin_of(tcformer, tree_with(topk, **released)) is None
    assert origin_of(tcformer, tree_with(tcformer, **{**released, section("task__input_size"): [384, 288]})) is None
    assert origin_of(tcformer, tree_with(tcformer, **{**released, section("initial"): "/w/ours.safetensors"})) is None
    classifier = EXPERIMENTS["imagenet-tcformer"]
    assert origin_of(classifier, tree_with(classifier, **backbone)) == "released"
    assert origin_of(classifier, tree_with(classifier)) == "trained"


def test_parameters_belong_to_one_experiment_only() -> None:
    for experiment in EXPERIMENTS.values():
        tree = tree_with(experiment)
        same = [e.name for e in EXPERIMENTS.values() if e.task == experiment.task and origin_of(e, tree)]
        assert same == [experiment.name]


def test_published_and_measured_stand_side_by_side() -> None:
    tcformer = EXPERIMENTS["wholebody-tcformer"]
    parts = {part: {"AP": 0.1, "AR": 0.2} for part in ("body", "foot", "face", "hand", "wholebody")}
    newer = {**parts, "hand": {"AP": 0.3, "AR": None}}
    released = {
        "paper__finetune__wholebody__initial": "/w/pose.pth",
        "paper__finetune__wholebody__training__epochs": 0,
    }
    runs = [
        run(tcformer, newer, commit_time="2026-02-01"),
        run(tcformer, parts, commit_time="2026-01-01"),
        run(tcformer, {**parts, "body": {"AP": 0.7, "AR": 0.8}}, **released),
        run(EXPERIMENTS["mesh-tcformer"], {"3dpw": {"pa_mpjpe": 50.0, "mpjpe": 80.0}}),
    ]
    table, name = paper_table("table1", runs), "TCFormer, 256 × 192"
    assert cells(table, name, "published")[0] == "0.691"
    assert cells(table, name, "released weights, published")[0] == "0.697"
    assert cells(table, name, "released weights, measured here")[:2] == (0.7, 0.8)
    assert cells(table, name, "trained here") == (0.1, 0.2, 0.1, 0.2, 0.1, 0.2, 0.3, "-", 0.1, 0.2)
    assert set(cells(table, "TCFormer without CTM, 256 × 192", "trained here")) == {None}
    assert set(cells(table, "SBL-Res50, 256 × 192", "released weights, measured here")) == {"-"}
    assert set(cells(table, "OpenPose, 480 × 480", "trained here")) == {"-"}, "no experiment of ours"
    mesh = cells(paper_table("table2", runs), "TCFormer", "trained here")
    assert mesh == (50.0, 80.0, "-", "-")  # this run had no Human3.6M
    workspace = run(tcformer, {**parts, "body": {"AP": 0.9, "AR": 0.9}}, commit_time="")
    assert cells(paper_table("table1", [*runs, workspace]), name, "trained here")[0] == 0.9


def test_units_are_those_of_the_tables() -> None:
    light = run(EXPERIMENTS["face-tcformer-light"], {"full": {"NME": 0.0435}, "pose": {"NME": 0.08}})
    table = paper_table("table3", [light])
    assert cells(table, "TCFormer-Light", "trained here")[:2] == pytest.approx((4.35, 8.0))
    classes = run(EXPERIMENTS["imagenet-tcformer"], {"top1": 0.8234})
    markdown = shown(paper_section({}, load_params(PARAMS)))
    nme = next(line for line in markdown.splitlines() if line.startswith("| TCFormer-Light | "))
    assert nme.endswith(f"| {NOT_RUN} |")
    assert cells(paper_table("table4", [classes]), "TCFormer", "trained here") == pytest.approx((82.34,))


def test_the_study_gives_mean_and_deviation_over_seeds() -> None:
    values = (0.30, 0.34, 0.35)
    runs = [
        run(
            EXPERIMENTS[f"study-tcformer-seed{seed}"],
            {"body": {"AP": value}, "wholebody": {"AP": value / 2}, "oks": 0.37},
        )
        for seed, value in enumerate(values)
    ]
    runs.append(run(EXPERIMENTS["study-without-ctm-seed1"], {"body": {"AP": 0.2}}))
    rows = {row[:2]: row[2:] for row in study_table(runs).rows}
    assert len(rows) == 9
    nano = "tcformer_nano on generated people"
    expected = (*values, 3, statistics.mean(values), statistics.stdev(values))
    assert rows[nano, "body AP"] == pytest.approx(expected)
    assert rows[nano, "mean OKS"] == pytest.approx((0.37, 0.37, 0.37, 3, 0.37, 0.0))
    assert rows["tcformer_nano without CTM on generated people", "body AP"] == (None, 0.2, None, 1, 0.2, None)
    assert set(rows["tcformer_nano without MTA on generated people", "mean OKS"]) == {None, 0}


def test_figures_of_generated_people_stay_out_of_the_papers_tables() -> None:
    params = load_params(PARAMS)
    measured = {"wholebody": {"body": {"AP": 0.341, "AR": 0.5}}, "mesh": None}
    sample = paper_section(measured, params)
    assert sample.folded and "not comparable" in sample.text
    assert "0.341" not in shown(sample)
    paper = paper_section(measured, params.model_copy(update={"recipe": "paper"}))
    assert not paper.folded and "0.341" in shown(paper)


def test_experiments_and_published_tables_name_each_other() -> None:
    tables = published()["tables"]
    assert {*tables, "study"} == set(TABLES)
    assert {*TABLES, *FIGURES} == {name for e in EXPERIMENTS.values() for name in e.tables}
    for name, table in tables.items():
        named = {row["experiment"] for row in table["rows"] if "experiment" in row}
        assert named == {e.name for e in EXPERIMENTS.values() if name in e.tables}
        assert {EXPERIMENTS[experiment].task for experiment in named} == {table["task"]}
        for row in table["rows"]:
            for source in {"paper", "released"} & set(row):
                assert len(row[source]) == len(table["columns"])


def test_published_figures_are_as_printed(samples: Path) -> None:
    paper = samples.parent / "paper.md"
    if not paper.is_file():
        pytest.skip("the paper's text is not beside the folder of real samples")
    printed = [
        re.findall(r"(?<=\t)(?:<b>)?(?:\d+(?:\.\d+)?|-)(?:</b>)?(?=\t|$)", line)
        for line in paper.read_text(encoding="utf-8").splitlines()
    ]
    lines = [[re.sub(r"</?b>", "", cell) for cell in cells] for cells in printed if cells]
    numbers = [[cell if cell == "-" else float(cell) for cell in line] for line in lines]
    count = 0
    for table in published()["tables"].values():
        for row in table["rows"]:
            if "paper" in row:
                length = len(row["paper"])
                assert any(line[-length:] == row["paper"] for line in numbers), row
                count += 1
    assert count == 13 + 6 + 8 + 9 + 3 + 3


def test_without_git_the_reason_is_reported(tmp_path: Path) -> None:
    for command in (dvc_experiments.measured_runs, dvc_experiments.states_of_experiments, dvc_experiments.start_queue):
        with pytest.raises(UserError, match="expected a git repository with a commit"):
            command(tmp_path)


def test_committed_figures_come_with_the_parameters_that_made_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made, now = EXPERIMENTS["wholebody-tcformer"], EXPERIMENTS["wholebody-ctm-topk"]
    paper = tree_with(made)["paper"]
    pose = paper["finetune"]["wholebody"]
    lock = {
        "pretrain": {"paper.network": paper["network"], "paper.pretrain": paper["pretrain"]},
        "finetune@wholebody": {"paper.network": paper["network"], "paper.finetune.wholebody": pose},
    }
    stages = {name: {"params": {"params.yaml": values}} for name, values in lock.items()}
    monkeypatch.setattr(dvc_experiments, "git", lambda *_: json.dumps({"stages": stages}))
    figures = {"body": {"AP": 0.5}}
    state = {
        "rev": "0123abc",
        "name": "main",
        "data": {
            "timestamp": "2026-01-01",
            "params": {"params.yaml": {"data": tree_with(now)}},
            "outs": {f"runs/paper/evaluate/{task}/metrics.json": {"hash": task} for task in ("wholebody", "face")},
        },
    }

    def read(path: str, *, repo: str, rev: str, encoding: str) -> str:
        assert (repo, rev) == (str(ROOT), "0123abc")
        if "face" in path:
            raise FileMissingError(path)
        return json.dumps(figures)

    monkeypatch.setattr("dvc.api.read", read)
    (found,) = runs_in(state, ROOT)
    assert found.metrics == {"wholebody": figures} and found.commit_time == "2026-01-01"
    assert origin_of(made, found.params) == "trained" and origin_of(now, found.params) is None
    assert "evaluate/face/metrics.json of main is left out" in capsys.readouterr().err
    assert list(runs_in({**state, "rev": "workspace"}, ROOT / "docs")) == []


def test_figures_in_the_workspace_count_if_its_weights_fit_its_parameters(tmp_path: Path) -> None:
    trained, now = EXPERIMENTS["wholebody-tcformer"], EXPERIMENTS["wholebody-without-mta"]
    options = json.loads(spec_to_json(params_with(trained).active.spec_of("wholebody")))
    path = tmp_path / "runs/paper/finetune/wholebody/provenance.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"options": options}))

    def found(experiment: Experiment) -> list[MeasuredRun]:
        tree = tree_with(experiment)
        YAML().dump(tree, tmp_path / "params.yaml")
        metrics = tmp_path / "runs/paper/evaluate/wholebody/metrics.json"
        metrics.parent.mkdir(parents=True, exist_ok=True)
        metrics.write_text('{"body": {"AP": 0.5}}')
        data = {"params": {"params.yaml": {"data": tree}}}
        return list(runs_in({"rev": "workspace", "data": data}, tmp_path))

    (run,) = found(trained)
    assert run.commit_time == "" and origin_of(trained, run.params) == "trained"
    assert found(now) == []


def test_the_page_is_current() -> None:
    page = DOCUMENT.read_text(encoding="utf-8")
    assert with_overview(page) == page, "run python -m stages.experiments document"
    with pytest.raises(UserError, match="no place for the table"):
        with_overview("nothing")
    links = re.findall(r"\]\((?!http)([^)#]+)\)", page)
    assert links and [link for link in links if not (DOCUMENT.parent / link).exists()] == []
    commands = re.findall(r"python -m stages\.experiments (?:queue|show|table) ((?:[a-z][\w-]* ?)+)", page)
    named = {word for command in commands for word in command.split()}
    assert named and select(named, EXPERIMENTS)


def state_of(name: str, lr: float, body_ap: float, seed: int = 0, workers: int = 2) -> dict[str, Any]:
    training = {"lr": lr, "training": {"seed": seed}}
    params = {"recipe": "sample", "sample": {"finetune": {"wholebody": training}}, "cluster": {"workers": workers}}
    return {
        "rev": "0123456789abcdef",
        "name": name,
        "data": {
            "params": {"params.yaml": {"data": params}},
            "metrics": {
                "metrics/sample/evaluate-wholebody.json": {"data": {"body_AP": body_ap}},
                "metrics/sample/evaluate-face.json": {"error": {"type": "FileNotFoundError"}},
            },
            "outs": {
                f"runs/sample/{file}": {"hash": name}
                for file in ("finetune/wholebody/validation.csv", "evaluate/wholebody/parts.csv")
            },
        },
    }


def test_experiments_side_by_side(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    states = [state_of("fast", 0.002, 0.31), state_of("slow", 0.001, 0.28), {"rev": "workspace", "data": {}}]
    curve, parts = "step,epoch,val_loss\n8,1,0.5\n16,2,0.25\n", "part,value\nbody,0.31\nfoot,0.12\n"
    monkeypatch.setattr("dvc.api.read", lambda path, **where: parts if path.endswith("parts.csv") else curve)
    report = side_by_side((), states, tmp_path)
    markdown = to_markdown(report)
    for line in (
        "| stage | measure | fast | slow |",
        "| evaluate-wholebody | body_AP | 0.31 | 0.28 |",
        "| section | parameter | fast | slow |",
        "| sample.finetune.wholebody | lr | 0.002 | 0.001 |",
        "| fast | 2 | 0.5 | 0.25 | 0.5 | 0.25 | 16 |",
        "| slow | 2 | 0.12 | foot | 0.31 | body |",
    ):
        assert line in markdown.splitlines()
    assert "seed" not in markdown
    assert "| stage | measure | slow |" in to_markdown(side_by_side(["slow"], states, tmp_path))
    with pytest.raises(UserError, match="expected one of fast, slow, workspace"):
        side_by_side(["quick"], states, tmp_path)


def test_seeds_become_a_mean_and_a_spread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    curve, parts = "step,epoch,val_loss\n8,1,0.5\n", "part,value\nbody,0.5\n"
    monkeypatch.setattr("dvc.api.read", lambda path, **where: parts if path.endswith("parts.csv") else curve)
    small = [state_of(f"small-seed{seed}", 0.002, 0.3 + 0.01 * seed, seed) for seed in (0, 1, 2)]
    other = state_of("other", 0.001, 0.2, seed=1)
    again = state_of("again", 0.001, 0.2, seed=1, workers=8)  # the same, elsewhere
    markdown = to_markdown(side_by_side((), [*small, other, again], tmp_path))
    assert "| stage | measure | small (3 seeds) |" in markdown
    assert "| evaluate-wholebody | body_AP | 0.31 ± 0.01 |" in markdown
    assert "| small-seed0 | small-seed1 | small-seed2 | other | again |" in markdown, "each alone as well"
    assert "seeds" not in to_markdown(side_by_side((), [small[0], other, again], tmp_path))
