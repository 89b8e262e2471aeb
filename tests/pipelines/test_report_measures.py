"""The report's sections on keypoints and tokens."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest

from pipelines.report.bars import lay_out_bars
from pipelines.report.html import to_html
from pipelines.report.markdown import to_markdown
from pipelines.report.measures import keypoints_section, part_bars, tokens_section
from pipelines.report.numbers import NOT_RUN
from pipelines.report.parts import BarGroup, Bars, Report, Section
from tcformer.errors import UserError
from tcformer.metrics.points import PointTable

NOT_MEASURED = "not measured"


def keypoints() -> dict[str, Any]:
    """Two parts; the last keypoint is annotated nowhere."""
    table = PointTable(
        names=("left_wrist", "right_wrist", "left_heel"),
        parts=("arm", "arm", "foot"),
        count=np.array([3, 1, 0]),
        measures={"NME": np.array([0.1, 0.5, np.nan]), "EPE": np.array([10.0, 50.0, np.nan])},
        meaning={"NME": "error over the box", "EPE": "error in pixels"},
    )
    return {"tables": {"val": table.to_json()}}


def tokens(**changes: Any) -> dict[str, Any]:
    stage = {
        "tokens": 64, "area_share": 0.25, "token_share": 0.5, "density": 2.0, "purity": 0.875, "person_purity": 0.75,
        "twins_in_one_token": {"all": 0.125, "body": 0.25, "foot": None}, "rand_index": 0.625,
        "blanked": {"loss": 0.0375, "pck": 0.5},
    }  # fmt: skip
    intact = {"loss": 0.0125, "pck": 0.75}
    stages = {f"stage{number}": {**stage, **changes} for number in range(1, 5)}
    return {"images": 64, "cells": 768, "learning_rate": 0.005, "intact": intact, "stages": stages}


def test_parts_stand_beside_those_of_the_baseline() -> None:
    pose = {"body": {"AP": 0.375}, "foot": {"AP": 0.25}, "hand": {"AP": None}}
    (chart,) = part_bars("wholebody", {"this network": pose, "baseline": {"body": {"AP": 0.125}}, "absent": None})
    assert chart.y_label == "AP of each part"
    assert chart.groups == (
        BarGroup("this network", (("body", 0.375), ("foot", 0.25))),
        BarGroup("baseline", (("body", 0.125),)),
    )
    assert part_bars("imagenet", {"this network": {"top1": 0.5}}) == ()


def test_names_of_groups_do_not_overlap() -> None:
    groups = (BarGroup("a name longer than its bar", (("x", 1.0),)), BarGroup("next", (("x", 2.0),)))
    first, second = lay_out_bars(Bars("t", "y", groups)).groups
    assert second.x - first.x > 6 * len(first.name)


def markdown_of(section: Section) -> list[str]:
    return to_markdown(Report("t", (section,))).splitlines()


def test_keypoints_have_a_table_by_part_and_a_chart() -> None:
    section = keypoints_section({"wholebody": keypoints(), "face": None, "imagenet": {"skipped": "none"}})
    lines = markdown_of(section)
    assert "### Whole-body pose, val: keypoints by part" in lines
    assert "| all | 4 | 0.200 | 20.000 |" in lines and "| arm | 4 | 0.200 | 20.000 |" in lines
    assert "| foot | 0 | none | none |" in lines
    assert "| arm | 2 | 0.1 | left wrist | 0.5 | right wrist |" in lines  # the chart
    assert "NME: error over the box; EPE: error in pixels." in lines
    assert lines[lines.index("### Face landmarks: keypoints") + 2] == NOT_RUN
    assert not any("Classification" in line for line in lines)


def test_bars_are_valid_svg_inside_their_frame() -> None:
    groups = tuple(
        BarGroup(name, tuple((f"keypoint {i}", 0.01 * (i + 1) if i != 3 else None) for i in range(count)))
        for name, count in (("body", 17), ("foot", 6), ("face", 68), ("left hand", 21), ("right hand", 21))
    )
    chart = lay_out_bars(Bars("Errors", "NME", groups))
    assert chart.width <= 1120 and len(chart.groups) == 5
    html = to_html(Report("t", (Section("s", (Bars("Errors", "NME", groups),)),)))
    root = ET.fromstring(html[html.index('<svg class="bars"') : html.index("</svg>") + 6])
    bars = root.findall("rect")
    assert len(bars) == 133 - 5 and len(root.findall("text[@class='bar']")) == 133
    ends = [float(bar.attrib["x"]) + float(bar.attrib["width"]) for bar in bars]
    starts = [float(bar.attrib["x"]) for bar in bars]
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False)) and ends[-1] <= chart.width
    assert all(float(bar.attrib["y"]) >= chart.top - 1 for bar in bars)
    heights = [float(bar.attrib["height"]) for bar in bars]
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.11)
    assert bars[0].find("title").text == "keypoint 0: 0.01"  # type: ignore[union-attr]


def test_few_bars_stay_narrow_and_zeros_have_no_height() -> None:
    chart = lay_out_bars(Bars("Errors", "mm", (BarGroup("legs", (("left", 0.0), ("right", 0.0))),)))
    assert chart.width < 120 and [bar.height for bar in chart.groups[0].bars] == [0, 0]
    assert Bars("Errors", "mm", (BarGroup("legs", (("left", None),)),)).drawn == ()


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_bars_of_impossible_height_are_errors(value: float) -> None:
    with pytest.raises(UserError, match="'knee'"):
        BarGroup("legs", (("knee", value),))


def test_tokens_have_a_table_by_stage() -> None:
    lines = markdown_of(tokens_section({"wholebody": tokens()}))
    header = next(line for line in lines if line.startswith("| stage |"))
    assert header == (
        "| stage | tokens | tokens on people | ratio | purity | purity on people | kept after a step | "
        "twins in one token | loss without, times | pck without |"
    )
    assert "| 4 | 64 | 0.500 | 2.000 | 0.875 | 0.750 | 0.625 | 0.125 | 3.000 | 0.500 |" in lines
    note = next(line for line in lines if line.startswith("64 images"))
    assert "25 % of the area is on people" in note and "learning rate 0.005" in note and "loss 0.0125, pck 0.75" in note
    assert "| body | 0.250 | 0.250 | 0.250 | 0.250 |" in lines
    assert "| foot | none | none | none | none |" in lines


def test_tokens_without_annotated_people_show_what_is_known() -> None:
    unknown = dict.fromkeys(("area_share", "token_share", "density", "purity", "person_purity"))
    lines = markdown_of(tokens_section({"imagenet": tokens(**unknown, twins_in_one_token={})}))
    assert "| stage | tokens | kept after a step | loss without, times | pck without |" in lines
    assert not any("people over" in line or "area" in line for line in lines)


def test_what_was_skipped_or_not_run() -> None:
    section = tokens_section({"wholebody": {"skipped": "the backbone has no tokens"}, "face": None})
    lines = markdown_of(section)
    assert "Reason: the backbone has no tokens." in lines and NOT_RUN in lines
    assert f"| all | {NOT_MEASURED} |" in lines
