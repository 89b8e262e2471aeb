"""The README's commands and files exist as written."""

import json
import re
from decimal import Decimal
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"^make (\w+)", README, re.MULTILINE))
    assert named == {"repro", "test", "verify", "docs"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in named)


def test_links_lead_to_files() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_parameters_named_in_commands_exist() -> None:
    from ruamel.yaml import YAML

    tree = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for name in re.findall(r"-S ([\w.]+)=", README):
        node = tree
        for key in name.split("."):
            assert key in node, name
            node = node[key]


def test_the_table_of_results_is_that_of_the_committed_metrics() -> None:
    """Both files are rounded, so they may differ by half a unit of the last decimal of each."""
    table = README.partition("<!-- results:")[2].partition("<!-- end of results -->")[0]
    shown = {cells[1]: Decimal(cells[2]) for cells in re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([\d.]+) \|", table, re.M)}
    for task, names in {
        "imagenet": {"top1": "top-1"},
        "wholebody": {"body_AP": "body AP", "AP": "whole-body AP", "OKS": "mean OKS, 133 points"},
        "face": {"NME": "NME (less is better)"},
        "mesh": {
            "MPJPE": "MPJPE in mm, generated (less is better)",
            "PA_MPJPE": "PA-MPJPE in mm, generated (less is better)",
        },
    }.items():
        path = ROOT / f"metrics/sample/evaluate-{task}.json"
        measured = json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
        assert measured.keys() == names.keys()
        for key, name in names.items():
            halves = sum(Decimal(5).scaleb(number.as_tuple().exponent - 1) for number in (measured[key], shown[name]))
            assert abs(measured[key] - shown[name]) <= halves, f"{name}: run python -m stages.experiments results"
