"""The figures of several seeds, and the comparison of a machine's run with the committed one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import stages.experiments
import stages.verify
from pipelines.dotted import assign, lookup
from pipelines.layout import Layout
from pipelines.params import load_params
from pipelines.reproduction import record as records
from pipelines.reproduction import results, seeds
from pipelines.reproduction.measures import MEASURES, read_measures
from pipelines.reproduction.record import Conditions, SeedRecord, Spread, read_record, with_seeds, write_record
from pipelines.reproduction.verify import Line, dvc_hash, verify
from tcformer.errors import UserError
from tcformer.tasks import FINETUNED, TASKS

ROOT = Path(__file__).resolve().parents[2]
CONDITIONS = Conditions("0123456789", "Some CPU", 2, "native")
METRICS: dict[str, Any] = {
    "imagenet": {"top1": 0.5},
    "wholebody": {"body": {"AP": 0.3}, "foot": {"AP": 0.2}, "face": {"AP": 0.01}, "hand": {"AP": 0.02}, "oks": 0.4},
    "face": {"full": {"NME": 0.06}, "baseline": {"full": {"NME": 0.2}}},
    "mesh": {
        "generated": {"mpjpe": 150.0, "pa_mpjpe": 120.0},
        "baseline": {"generated": {"mpjpe": 200.0, "pa_mpjpe": 160.0}},
    },
}
NAMES = [measure.name for measure in MEASURES]


def git(folder: Path, *arguments: str) -> str:
    person = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
    done = subprocess.run(["git", *person, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def write_metrics(root: Path, metrics: dict[str, Any] = METRICS) -> None:
    for task, content in metrics.items():
        path = Layout("sample", root).run("evaluate", task) / "metrics.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")


def record_of(*tops: float) -> SeedRecord:
    """A record with a seed for each value of the first figure; the other figures are 1."""
    record = SeedRecord(CONDITIONS, "", (), {})
    for seed, top in enumerate(tops):
        record = record.with_seed(seed, {**dict.fromkeys(NAMES, 1.0), NAMES[0]: top}, "2026-11-26")
    return record


def test_figures_are_read_from_the_evaluations(tmp_path: Path) -> None:
    assert read_measures(Layout("sample", tmp_path)) == {}
    write_metrics(tmp_path)
    found = read_measures(Layout("sample", tmp_path))
    assert list(found) == NAMES
    assert found["face landmarks, NME over the mean shape's"] == pytest.approx(0.3)
    assert found["mesh, MPJPE in mm"] == 150 and found["mesh, PA-MPJPE over the mean body's"] == 0.75


def test_a_spread_is_widened_by_two_standard_deviations() -> None:
    spread = Spread((1.0, 2.0, 3.0))
    assert (spread.mean, spread.deviation, spread.limits) == (2.0, 1.0, (-1.0, 5.0))
    assert Spread((2.0,)).limits == (2.0, 2.0)


def test_a_record_is_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "seeds.json"
    assert read_record(path) is None
    record = record_of(0.4, 0.6).with_seed(7, dict.fromkeys(NAMES, 2.0), "2026-11-27")
    write_record(record, path)
    assert read_record(path) == record and [file.name for file in tmp_path.iterdir()] == ["seeds.json"]
    assert record.seeds == (0, 1, 7) and record.figures[NAMES[0]] == (0.4, 0.6, 2.0)
    assert record.value(NAMES[0], 7) == 2.0 and record.value(NAMES[0], 2) is None
    assert record.with_seed(0, dict.fromkeys(NAMES, 3.0), "").figures[NAMES[1]] == (3.0, 1.0, 2.0)
    with pytest.raises(UserError, match="seed 3: no figure classification, top-1"):
        record.with_seed(3, {}, "")
    for damaged in ("{", "[]", '{"seeds": [0]}', path.read_text(encoding="utf-8").replace("7", '"x"')):
        path.write_text(damaged, encoding="utf-8")
        with pytest.raises(UserError, match=r"seeds\.json: cannot be read"):
            read_record(path)


def test_the_documents_have_a_place_for_the_table(tmp_path: Path) -> None:
    pages = [Path(shutil.copy(page, tmp_path / f"{number}.md")) for number, page in enumerate(records.DOCUMENTS)]
    records.document(record_of(0.4, 0.6), pages)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "| classification, top-1 | 0.500 ± 0.141 | 0.400, 0.600 |" in text
        assert "Some CPU, 2 workers, 2026-11-26, commit 0123456." in text
        assert with_seeds(text, record_of(0.4, 0.6)) == text
    (tmp_path / "2.md").write_text("no marks", encoding="utf-8")
    before = pages[0].read_text(encoding="utf-8")
    with pytest.raises(UserError, match="expected the marks"):
        records.document(record_of(0.1), [pages[0], tmp_path / "2.md"])
    assert pages[0].read_text(encoding="utf-8") == before


def test_the_tables_show_what_is_recorded() -> None:
    if recorded := read_record():
        for page in records.DOCUMENTS:
            text = page.read_text(encoding="utf-8")
            assert with_seeds(text, recorded) == text, "run python -m stages.experiments seeds document"


@pytest.mark.slow
def test_the_hash_of_a_folder_is_that_of_dvc(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for name in ("b.txt", "a/c.txt", "a.txt", "a-b/ü.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name, encoding="utf-8")
    for arguments in (("init", "-q", "--no-scm"), ("add", "-q", "data")):
        subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=tmp_path, check=True)
    added = YAML(typ="safe").load((tmp_path / "data.dvc").read_text(encoding="utf-8"))
    assert dvc_hash(folder) == added["outs"][0]["md5"]


def test_results_are_written_into_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, layout = Path(shutil.copy(results.PAGE, tmp_path)), Layout("sample", tmp_path)
    before = page.read_text(encoding="utf-8")
    with pytest.raises(UserError, match=r"evaluate/imagenet/metrics\.json does not exist: run `make repro` first"):
        results.document(layout, page)
    assert page.read_text(encoding="utf-8") == before
    write_metrics(tmp_path, {**METRICS, "imagenet": {"top1": 0.5, "baseline": {"top1": 0.25}}})
    results.document(layout, page)
    text = page.read_text(encoding="utf-8")
    lines = text.splitlines()
    assert "| classification | top-1 | 0.500 | 0.250 (chance) | 2.0 |" in lines
    assert "| whole-body pose | foot AP | 0.200 | not run (mean pose) | not run |" in lines
    begin, end = "<!-- results:", "<!-- end of results -->"
    assert [side.partition(end)[2] for side in (before, text)] == [before.partition(end)[2]] * 2
    assert text.partition(begin)[0] == before.partition(begin)[0]
    monkeypatch.setattr(results, "PAGE", page)
    monkeypatch.setattr(results, "Layout", lambda recipe: Layout(recipe, tmp_path / "nothing"))
    with pytest.raises(UserError, match="run `make repro` first"):
        stages.experiments.main(["results"])


# --- the comparison ---


def lock_of(root: Path) -> dict[str, Any]:
    """A dvc.lock that describes the outputs in a folder."""
    layout, entries = Layout("sample", root), {}
    for task in TASKS:
        training = "pretrain" if task == "imagenet" else f"finetune@{task}"
        metrics = layout.run("evaluate", task) / "metrics.json"
        for stage, out, params in (
            (f"prepare@{task}", layout.data(task), {f"sample.data.{task}": {"seed": 1}}),
            (training, layout.weights(task), {"instruction_sets": "native", "sample.network": {"backbone": "x"}}),
            (f"evaluate@{task}", metrics, {"instruction_sets": "native"}),
        ):
            outs = [{"path": out.relative_to(root).as_posix(), "md5": dvc_hash(out)}]
            entries[stage] = {"cmd": "x", "params": {"params.yaml": params}, "outs": outs}
    return {"schema": "2.0", "stages": entries}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A run of the sample recipe that is committed, and the same run in the workspace."""
    layout = Layout("sample", tmp_path)
    for task in TASKS:
        layout.data(task).mkdir(parents=True)
        (layout.data(task) / "image").write_text(task)
        layout.weights(task).parent.mkdir(parents=True)
        layout.weights(task).write_text(task)
    write_metrics(tmp_path)
    YAML().dump(lock_of(tmp_path), tmp_path / "dvc.lock")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "dvc.lock")
    git(tmp_path, "commit", "-qm", "A run")
    return tmp_path


def compare(repository: Path, record: SeedRecord | None = None, **changes: Any) -> dict[tuple[str, str], Line]:
    params = load_params(ROOT / "params.yaml").model_copy(update=changes)
    return {(line.kind, line.name): line for line in verify(params, record, repository)}


def test_the_same_run_is_the_same(repository: Path) -> None:
    lines = compare(repository)
    assert [line.failed for line in lines.values()] == [False] * (2 * len(TASKS) + len(MEASURES))
    assert {line.result for (kind, _), line in lines.items() if kind != "figure"} == {"same bytes"}
    assert lines["figure", NAMES[0]].result == "0.500: the same"


@pytest.mark.slow
def test_other_data_fail_and_other_weights_do_not(repository: Path) -> None:
    layout = Layout("sample", repository)
    (layout.data("face") / "another").write_text("")
    layout.weights("mesh").write_text("other")
    layout.weights("face").unlink()
    lines = compare(repository)
    assert {name for name, line in lines.items() if line.failed} == {("data", "face")}
    assert lines["weights", "mesh"].result == "differ: as expected if the CPU is of another kind"
    assert lines["weights", "face"].result == "not made here yet"
    lines = compare(repository, instruction_sets="avx2")
    assert lines["weights", "mesh"].result == "differ: instruction_sets is avx2 here and native in the committed run"


@pytest.mark.parametrize(
    ("top", "failed", "result"),
    [
        (0.52, False, "0.520: the same"),
        (0.52 * (1 + 1e-12), False, "0.520: the same"),
        (0.42, False, "0.420: within the spread of 3 seeds, 0.417 to 0.663"),
        (0.41, True, "0.410: OUTSIDE the spread of 3 seeds, 0.417 to 0.663"),
        (0.67, True, "0.670: OUTSIDE the spread of 3 seeds, 0.417 to 0.663"),
    ],
)
def test_other_figures_are_compared_with_the_spread(repository: Path, top: float, failed: bool, result: str) -> None:
    write_metrics(repository, {"imagenet": {"top1": top}})
    line = compare(repository, record_of(0.52, 0.5, 0.58))["figure", NAMES[0]]
    assert (line.result, line.failed) == (result, failed)
    if "same" not in result:
        line = compare(repository)["figure", NAMES[0]]
        assert line.result.endswith("differs; no spread over seeds is recorded") and not line.failed


def test_a_figure_that_is_not_measured_is_named(repository: Path) -> None:
    (Layout("sample", repository).run("evaluate", "imagenet") / "metrics.json").unlink()
    assert compare(repository)["figure", NAMES[0]].result == "not measured here yet"


def test_what_cannot_be_compared_is_one_sentence(repository: Path) -> None:
    lock = repository / "dvc.lock"
    content = YAML(typ="safe").load(lock.read_text(encoding="utf-8"))
    with pytest.raises(UserError, match=r"the committed dvc\.lock has no run of the recipe paper"):
        compare(repository, recipe="paper")
    content["stages"]["pretrain"]["params"]["params.yaml"]["instruction_sets"] = "avx2"
    YAML().dump(content, lock)
    compare(repository)
    content["stages"]["pretrain"]["params"]["params.yaml"]["sample.network"] = {"backbone": "y"}
    YAML().dump(content, lock)
    with pytest.raises(UserError, match=r"pretrain: the last run here had another sample\.network than the"):
        compare(repository)
    lock.write_text("stages: [", encoding="utf-8")
    with pytest.raises(UserError, match=r"dvc\.lock: cannot be read"):
        compare(repository)
    shutil.rmtree(repository / "data")
    shutil.rmtree(repository / "runs")
    with pytest.raises(UserError, match="nothing of the recipe sample has run here yet: run `make repro` first"):
        compare(repository)
    shutil.rmtree(repository / ".git")
    with pytest.raises(UserError, match=r"git has no committed dvc\.lock"):
        compare(repository)


def test_the_command_prints_lines_and_fails_with_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["verify"])
    lines = [Line("data", "face", "same bytes"), Line("figure", "AP", "0.5: OUTSIDE", True)]
    monkeypatch.setattr(stages.verify, "verify", lambda *arguments: lines)
    assert stages.verify.main() == 1
    printed = capsys.readouterr().out
    assert (
        "data    face  same bytes\nfigure  AP    0.5: OUTSIDE\n" in printed and "1 of 2 comparisons failed" in printed
    )
    lines.pop()
    assert stages.verify.main() == 0


# --- seeds ---


def test_a_seed_is_that_of_every_training() -> None:
    tree = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    settings = seeds.seed_settings(5)
    assert {name: lookup(tree, name, default="?") for name in settings} == {
        **seeds.seed_settings(0),
        "recipe": "sample",
    }
    for name, value in settings.items():
        assign(tree, name, value)
    assert [tree["sample"]["pretrain"]["training"]["seed"]] == [5]
    assert {tree["sample"]["finetune"][task]["training"]["seed"] for task in FINETUNED} == {5}
    assert tree["sample"]["data"]["face"]["generate"]["seed"] == 3


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the parameters alone, whose runs are replaced by files that hold the seed."""
    folder = tmp_path / "repository"
    folder.mkdir()
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "pipelines").mkdir()
    (folder / "pipelines/code.py").write_text("")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "Start")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    return folder


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds that were run."""
    done: list[int] = []

    def reproduce(seed: int, copy: Path) -> None:
        trained = load_params(copy / "params.yaml").sample.training_of("mesh").training.seed
        assert trained == seed and (copy / "pipelines/code.py").is_file()
        write_metrics(copy, {**METRICS, "imagenet": {"top1": seed / 10}})
        done.append(seed)

    monkeypatch.setattr(seeds, "_reproduce", reproduce)
    return done


@pytest.mark.slow
def test_seeds_run_in_copies_and_continue(clone: Path, runs: list[int], tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    record = seeds.run_seeds([1, 0], clone, path)
    assert runs == [0, 1] and read_record(path) == record
    assert record.figures[NAMES[0]] == (0.0, 0.1) and record.conditions.commit == git(clone, "rev-parse", "HEAD")
    assert git(clone, "status", "--porcelain", "--untracked-files=no") == ""
    assert (clone / ".dvc/tmp/seeds/seed-1/runs/sample/evaluate/face/metrics.json").is_file()
    assert seeds.run_seeds([0, 1, 2], clone, path).seeds == (0, 1, 2)
    assert runs == [0, 1, 2], "finished seeds are not run again"

    (clone / "pipelines/code.py").write_text("changed")
    with pytest.raises(UserError, match=r"pipelines/code\.py has changes that are not committed"):
        seeds.run_seeds([0], clone, path)
    git(clone, "commit", "-qam", "Change")
    assert seeds.run_seeds([1], clone, path).seeds == (1,), "figures of two commits are not mixed"
    assert (clone / ".dvc/tmp/seeds/seed-1/pipelines/code.py").read_text() == "changed"


@pytest.mark.slow
def test_a_failing_seed_keeps_the_finished_ones(
    clone: Path, runs: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, works = tmp_path / "record.json", seeds._reproduce

    def fails(seed: int, copy: Path) -> None:
        if seed == 1:
            raise UserError("seed 1: failed")
        works(seed, copy)

    monkeypatch.setattr(seeds, "_reproduce", fails)
    with pytest.raises(UserError, match="seed 1: failed"):
        seeds.run_seeds([0, 1, 2], clone, path)
    monkeypatch.setattr(seeds, "_reproduce", works)
    assert seeds.run_seeds([0, 1, 2], clone, path).seeds == (0, 1, 2)
    assert runs == [0, 1, 2]
