"""Every setting of the paper's recipe has a source, and the published figures are those that the paper prints."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipelines.paper.comparison import published
from pipelines.paper.experiments import EXPERIMENTS, load_experiments
from pipelines.paper.sources import differences, load_sources, settings_of, source_of
from stages import experiments as command

ROOT = Path(__file__).resolve().parents[2]
LISTED = load_sources()
TREE = YAML(typ="safe").load(EXPERIMENTS.read_text(encoding="utf-8"))
KEYS = re.compile(r"\[([^]]+)\]")


def every_source() -> dict[str, str]:
    """Where -> source, of all entries of sources.yaml."""
    blocks = {name: LISTED[name] for name in ("paper", "sample")} | LISTED["experiments"]
    return {f"{block}: {name}": source for block, entries in blocks.items() for name, (_, source) in entries.items()}


def test_every_setting_of_the_papers_recipe_is_listed_with_its_value() -> None:
    recipe = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))["paper"]
    assert differences(settings_of(recipe), LISTED["paper"]) == []


def test_every_setting_of_an_experiment_is_listed_with_its_value() -> None:
    base = TREE["base"]
    shared = {name: LISTED["paper"][name] for name in base["paper"] if name in LISTED["paper"]}
    assert differences(base["paper"], shared) == []
    assert differences(base["sample"], LISTED["sample"]) == []
    assert LISTED["experiments"].keys() == TREE["experiments"].keys()
    for name, experiment in TREE["experiments"].items():
        assert differences(experiment["settings"], LISTED["experiments"][name]) == [], name


def test_what_is_missing_superfluous_or_different_is_reported() -> None:
    recipe = {"training": {"epochs": 80, "milestones": []}, "tests": [{"name": "a"}, {"name": "b"}], "sizes": [1, 2]}
    settings = settings_of(recipe)
    expected = {
        "training.epochs": 80, "training.milestones": [], "tests.0.name": "a", "tests.1.name": "b", "sizes": [1, 2]
    }  # fmt: skip
    assert settings == expected
    listed = {name: [value, "[ours] a reason"] for name, value in settings.items()}
    assert differences(settings, listed) == []
    (missing,) = differences({**settings, "training.seed": 0}, listed)
    assert missing == "training.seed: missing in sources.yaml; add its value and source"
    (superfluous,) = differences(settings, {**listed, "tests.2.name": ["c", "[ours] a reason"]})
    assert superfluous == "tests.2.name: no such setting; remove it from sources.yaml"
    (different,) = differences({**settings, "training.epochs": 90}, listed)
    assert different.startswith("training.epochs: is 90, but sources.yaml has the source of 80")


def test_a_source_says_where() -> None:
    used = set()
    for where, source in every_source().items():
        keys = KEYS.findall(source)
        assert source.startswith("[") and keys, f"{where}: {source}"
        assert set(keys) <= set(LISTED["sources"]), f"{where}: {source}"
        used |= set(keys)
        parts = KEYS.split(source)[1:]
        for key, text in zip(parts[::2], parts[1::2]):
            if key == "paper":
                assert re.match(r" (section \d(\.\d)?|table A?\d|appendix [A-F])", text), f"{where}: {source}"
        assert len(KEYS.sub("", source).strip()) > 2, f"{where}: a place or a reason is missing"
    assert used == set(LISTED["sources"]), "sources.yaml explains a key that no entry uses"


def test_the_remarks_in_the_list_of_experiments_name_the_same_sources() -> None:
    """A comment such as `# [ours] the paper gives none` must not contradict sources.yaml."""
    found = []
    block, base = "", "paper"
    for line in EXPERIMENTS.read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"  ([\w-]+):", line):
            block = heading[1]
        if block in TREE["base"]:
            base = block
        match = re.match(r" {4,6}([\w.]+): .*?  # (.*\[.*)", line)
        if match and "." in match[1]:
            entries = LISTED["experiments"].get(block) or LISTED[base]
            source = entries[match[1]][1]
            assert set(KEYS.findall(match[2])) <= set(KEYS.findall(source)), f"{block}: {line.strip()}: {source}"
            found.append(match[1])
    assert len(found) > 20
    for task in ("face", "mesh"):
        assert f"finetune.{task}.task.drop_path" in found
        assert LISTED["paper"][f"finetune.{task}.task.drop_path"][1].startswith("[ours]")


def test_show_prints_the_sources(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    experiments = load_experiments()
    hrnet = experiments["wholebody-hrnet-w48-384"]
    sigma = "paper.finetune.wholebody.task.sigma"
    assert source_of(hrnet, sigma) == "[mmpose] hrnet_w48_coco_wholebody_384x288.py"
    assert source_of(experiments["wholebody-tcformer"], sigma) == "[authors] config"
    assert source_of(experiments["study-tcformer-seed1"], "sample.pretrain.training.seed") is None
    for experiment in experiments.values():
        seeds = {name for name in experiment.settings if name.endswith(".seed")}
        assert {name for name in experiment.settings if source_of(experiment, name) is None} == seeds
    monkeypatch.setattr(sys, "argv", ["stages.experiments", "show", "wholebody-hrnet-w48-384"])
    command.main()
    printed = capsys.readouterr().out
    assert "  recipe=paper\n" in printed
    assert f"  {sigma}=3.0  # [mmpose] hrnet_w48_coco_wholebody_384x288.py\n" in printed


@pytest.fixture(scope="module")
def paper(samples: Path) -> str:
    """The paper as text: paper.md beside the folder of real samples."""
    path = samples.parent / "paper.md"
    if not path.is_file():
        pytest.skip("needs the paper's text, paper.md beside the folder of the real samples")
    return path.read_text(encoding="utf-8")


def printed_rows(paper: str, table: str) -> Iterator[tuple[str, list[Any]]]:
    """The name and the figures of each row of a table: the cells after the last one with text in it."""
    text = paper.split(f"\nTable {table}. ")[1]
    body = text[text.index("\n\n") :].strip().split("\n\n")[0]
    for line in body.splitlines():
        name, *cells = [re.sub(r"<[^>]*>", "", cell).strip() for cell in line.split("\t")]
        figures: list[Any] = []
        for cell in reversed(cells):
            if not re.fullmatch(r"-|[\d.]+", cell):
                break
            figures.insert(0, cell if cell == "-" else float(cell))
        if any(isinstance(figure, float) for figure in figures):
            yield name, figures


def published_rows(table: str) -> list[tuple[str, list[Any]]]:
    """The same of published.yaml."""
    return [(row["network"], row["paper"]) for row in published()["tables"][f"table{table}"]["rows"] if "paper" in row]


def short(name: str) -> str:
    """What the names of a network in the paper and in published.yaml have in common."""
    return re.sub(r"[^a-z]", "", name.lower())[:3]


@pytest.mark.parametrize("table", ["1", "2", "3", "4", "A2", "A3"])
def test_published_figures_are_those_that_the_paper_prints(paper: str, table: str) -> None:
    printed, ours = list(printed_rows(paper, table)), published_rows(table)
    if table == "3":  # DVLN's row and so on name a backbone; "-" stands where there is none
        printed = [(name, figures[-7:]) for name, figures in printed]
    if table == "A2":  # published.yaml leaves out what table 1 shows
        shared, printed = printed[:6], printed[6:]
        assert shared == list(printed_rows(paper, "1"))[:6]
    assert [(short(name), figures) for name, figures in printed] == [(short(name), figures) for name, figures in ours]
    assert len(ours) == {"1": 13, "2": 6, "3": 8, "4": 9, "A2": 3, "A3": 3}[table]


def test_the_papers_sections_exist(paper: str) -> None:
    named = {part for source in every_source().values() for part in re.findall(r"section (\d(?:\.\d)?)", source)}
    headings = set(re.findall(r"^#+ (\d(?:\.\d)?)\. ", paper, re.MULTILINE))
    assert "4.2" in named and named <= headings
    appendices = {part for source in every_source().values() for part in re.findall(r"appendix ([A-F])", source)}
    assert appendices and appendices <= set(re.findall(r"^#+ ([A-F])\. ", paper, re.MULTILINE))


def test_published_figures_of_human36m_are_compared_with_protocol_2() -> None:
    columns = published()["tables"]["table2"]["columns"]
    assert columns["Human3.6M PA-MPJPE"] == ["h36m_protocol2", "pa_mpjpe"]
    assert columns["Human3.6M MPJPE"] == ["h36m_protocol2", "mpjpe"]
    tests = {entry[0] for name, entry in LISTED["paper"].items() if re.fullmatch(r"evaluate\.mesh\..*\.name", name)}
    assert {keys[0] for keys in columns.values()} < tests
