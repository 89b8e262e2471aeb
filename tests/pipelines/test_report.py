"""The report shows the numbers that it is given, says what was not run, and is the same every time."""

import base64
import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipelines import layout
from pipelines.params import load_params
from pipelines.report.content import gather
from pipelines.report.curves import linear_ticks, log_ticks
from pipelines.report.html import to_html
from pipelines.report.markdown import to_markdown
from pipelines.report.numbers import NOT_RUN, short_text
from pipelines.report.parts import Bars, Curve, Part, Picture, Report, Section, Series
from pipelines.report.read import history_series, read_history, read_json_object
from pipelines.report.tables import mapping_table, summary_table
from tcformer.errors import UserError
from tcformer.tables import Headline, Table
from tcformer.tasks import TASKS

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PARTS = ("body", "foot", "face", "lefthand", "righthand", "wholebody", "hand")


def headline(value: float | None, baseline: float | None, **changes: str) -> Headline:
    names = {"task": "pose", "name": "body AP", "baseline_name": "mean pose", **changes}
    return Headline(value=value, baseline=baseline, **names)


def everything(title: str = "A title") -> Report:
    metrics = {part: {"AP": 0.1 + i / 100, "APM": None, "AR": 0.51 + i / 100} for i, part in enumerate(PARTS)}
    pose = TASKS["wholebody"].part("report")
    chance = headline(None, 0.1, task="classes", name="top-1", baseline_name="chance")
    steps = tuple(float(s) for s in range(1, 1001))
    loss = Series("training", x=steps, y=tuple(2.0 / s for s in steps))
    curves = (
        Curve("Loss", x_label="step", y_label="nats", series=(loss,), log_y=True),
        Curve("Rate", x_label="step", y_label="rate", series=(Series("rate", x=(1.0, 2.0), y=(0.0, 1e-3)),)),
        Curve("Absent", x_label="step", y_label="none", series=(Series("x", x=(), y=()),)),
    )
    text = "First paragraph.\n\nSecond <b>paragraph</b>."
    parameters = mapping_table("all", {"lr": 1e-3, "a": {"b": True, "c": None}})
    return Report(
        title,
        (
            Section("Summary", (summary_table([headline(0.2004, 0.0072), chance]),), text=text),
            Section("Pose", (*pose.tables(metrics), *pose.tables(None))),
            Section("Training", curves),
            Section("Pictures", (Picture("Tokens", PNG, caption="Caption & more", path="tokens.png"),)),
            Section("Parameters", (parameters,), folded=True),
        ),
    )


def report_of(*parts: Part, title: str = "t", text: str = "") -> Report:
    return Report(title, (Section(title, parts, text=text),))


class Tags(HTMLParser):
    """Checks that tags are closed in order and collects the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.names.add(tag)
        if tag not in ("meta", "img", "path", "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.names.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def page_text(html: str) -> tuple[set[str], str]:
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    return tags.names, " ".join(tags.text)


def test_numbers_and_missing_ones_are_in_both() -> None:
    markdown, html = to_markdown(everything()), to_html(everything())
    names, text = page_text(html)
    for output in (markdown, text):
        for expected in (
            "A title",
            "0.200",
            "0.007 (mean pose)",
            "27.8",
            "0.110",
            "0.560",
            "none",
            NOT_RUN,
            "0.001",
        ):
            assert expected in output
    assert "script" not in names and {"table", "img", "svg", "details"} <= names
    assert "http" not in html.replace("http-equiv", "")
    assert "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\"" in html
    assert base64.b64encode(PNG).decode() in html
    assert "![Tokens](<tokens.png>)" in markdown


def test_same_inputs_same_bytes() -> None:
    assert to_markdown(everything()) == to_markdown(everything())
    assert to_html(everything()) == to_html(everything())


def test_text_is_escaped() -> None:
    nasty = "<script>alert('|')</script> & `x` *y* {{ z }}"
    lines = (Series(nasty, x=(1.0, 2.0), y=(1.0, 2.0)), Series("b", x=(1.0,), y=(3.0,)))
    report = report_of(
        Table(nasty, (nasty, "b"), ((nasty, nasty),), note=nasty),
        Picture(nasty, PNG, caption=nasty),
        Curve(nasty, x_label=nasty, y_label=nasty, series=lines),
        title=nasty,
        text=nasty,
    )
    markdown, html = to_markdown(report), to_html(report)
    names, text = page_text(html)
    assert "script" not in names and text.count(nasty) == 17
    assert "<script" not in markdown
    row = next(line for line in markdown.splitlines() if line.startswith("| ---"))
    assert row == "| --- | ---: |"
    cells = [line for line in markdown.splitlines() if line.startswith("| &lt;script")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in cells[:2]] == [3, 3]


def test_curves_are_valid_svg_inside_their_frame() -> None:
    drawings = re.findall(r"<svg.*?</svg>", to_html(everything()), re.DOTALL)
    assert len(drawings) == 2
    for drawing in drawings:
        root = ET.fromstring(drawing)
        width, height = map(float, root.attrib["viewBox"].split()[2:])
        lines = root.findall("path[@class='line']")
        assert len(lines) == 1
        for line in lines:
            points = [tuple(map(float, p.split())) for p in line.attrib["d"][1:].split("L")]
            assert 1 < len(points) <= 240
            assert all(0 <= x <= width and 0 <= y <= height for x, y in points)


def test_a_logged_value_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "training.csv"
    path.write_text("step,loss,lr\n10,,0.1\n20,0.5,\n30,0.25,0.3\n")
    loss = history_series(read_history(path), "loss", "training")
    assert loss == Series("training", x=(20.0, 30.0), y=(0.5, 0.25))
    report = report_of(Curve("Loss", x_label="step", y_label="loss", series=(loss,)))
    assert "| training | 2 | 0.5 | 0.25 | 0.5 | 0.25 | 30 |" in to_markdown(report)
    assert "Last: 0.25 at 30." in to_html(report)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_errors(value: float) -> None:
    with pytest.raises(UserError, match="'AP'"):
        Table("t", ("part", "AP"), (("body", value),))
    with pytest.raises(UserError, match="loss"):
        Series("loss", x=(1.0,), y=(value,))
    with pytest.raises(UserError, match="top-1"):
        headline(value, 0.1, name="top-1")
    with pytest.raises(UserError, match="chance"):
        headline(0.5, value, baseline_name="chance")


def test_wrong_arguments_are_errors() -> None:
    empty = Series("s", x=(), y=())
    for wrong in (
        lambda: Table("t", ("a", "b"), (("only",),)),
        lambda: Table("t", ("a", "b"), (), align="lx"),
        lambda: Picture("p", b"GIF89a"),
        lambda: Series("s", x=(1.0,), y=()),
        lambda: Curve("c", x_label="x", y_label="y", series=(empty,) * 5),
        lambda: Report("r", ()),
    ):
        with pytest.raises(ValueError):
            wrong()


def test_files_of_the_stages(tmp_path: Path) -> None:
    assert read_json_object(tmp_path / "none.json") is None and read_history(tmp_path / "none.csv") is None
    (tmp_path / "m.json").write_text('{"AP": 0.5}')
    assert read_json_object(tmp_path / "m.json") == {"AP": 0.5}
    for text in ("{", "[1]"):
        (tmp_path / "m.json").write_text(text)
        with pytest.raises(UserError, match=r"m\.json"):
            read_json_object(tmp_path / "m.json")
    path = tmp_path / "h.csv"
    path.write_text("step,loss,val_loss\n1,0.5,\n2,0.25,0.75\n")
    history = read_history(path)
    assert history == {"step": (1, 2), "loss": (0.5, 0.25), "val_loss": (None, 0.75)}
    assert history_series(history, "val_loss", "validation") == Series("validation", x=(2.0,), y=(0.75,))
    assert history_series(history, "absent", "a").x == history_series(None, "loss", "b").x == ()
    for text, where in (("step,loss\n1\n", r"h\.csv:2: "), ("step,loss\n1,x\n", r"h\.csv:2: column 'loss'")):
        path.write_text(text)
        with pytest.raises(UserError, match=where):
            read_history(path)


def test_ticks_enclose_the_values_and_are_few() -> None:
    for low, high in ((0, 1), (0.003, 0.0031), (-5, 7), (0, 123456), (3, 3), (0, 0), (1e-9, 5e-9)):
        ticks = linear_ticks(low, high, most=5)
        assert ticks[0] <= low and ticks[-1] >= high and 2 <= len(ticks) <= 7
    for low, high in ((5e-4, 3e-3), (1e-3, 1e-3), (0.7, 7000), (1e-8, 1e8), (1, 10), (0.02, 0.021)):
        ticks = log_ticks(low, high)
        assert ticks[0] <= low and ticks[-1] >= high and 2 <= len(ticks) <= 8
    shown = [short_text(v) for v in (0, 12000, 1.5e6, 0.003, 2e-5, 0.5, -250, 0.0005)]
    assert shown == ["0", "12k", "1.5M", "0.003", "2e-5", "0.5", "-250", "0.0005"]


def test_no_ratio_without_a_baseline() -> None:
    rows = summary_table([headline(0.5, 0.0), headline(0.5, None)]).rows
    assert rows[0][3:] == ("0.000 (mean pose)", "baseline is 0")
    assert rows[1][3:] == ("not run (mean pose)", None)


@pytest.mark.parametrize(
    ("value", "baseline", "shown"),
    [(0.058, 0.19, "0.31"), (117.2, 149.7, "0.78"), (0.471, 1 / 12, "5.7"), (0.19, 0.1, "1.90"), (0.004, 1.0, "0.004")],
)
def test_ratios_show_what_an_error_lost(value: float, baseline: float, shown: str) -> None:
    assert summary_table([headline(value, baseline)]).rows[0][4] == shown


def test_parts_that_were_not_measured_have_no_row() -> None:
    (table,) = TASKS["wholebody"].part("report").tables({"lefthand": {"AP": 0.25}, "righthand": {"AP": None}})
    assert [row[0] for row in table.rows] == ["left hand", "right hand"]
    assert table.rows[1][1] == "none" and "no such person" in table.note


def test_headlines_of_tasks_stand_beside_their_baselines() -> None:
    metrics = {"generated": {"count": 4, "mpjpe": 90.0, "pa_mpjpe": 60.0}, "baseline": {"generated": {"mpjpe": 180.0}}}
    first, second = TASKS["mesh"].part("report").headlines(metrics)
    assert (first.value, first.baseline, second.value, second.baseline) == (90.0, 180.0, 60.0, None)
    assert first.name == "MPJPE in mm, generated (less is better)"
    (table,) = TASKS["mesh"].part("report").tables(metrics)
    assert table.rows == (("generated", 4, 90.0, 60.0),)
    (face,) = TASKS["face"].part("report").headlines({"full": {"NME": 0.05}, "baseline": {"full": {"NME": 0.2}}})
    assert (face.value, face.baseline) == (0.05, 0.2)


def test_a_report_of_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "ROOT", tmp_path)
    params = load_params(layout.PARAMS)
    recipe = layout.Layout(params.recipe)
    nothing = gather(recipe, params, versions={"python": "3"})
    assert [section.title for section in nothing.sections][:3] == [
        "Results",
        "What the network sees",
        "Tokens one by one",
    ]
    summary, *tables = nothing.sections[0].parts
    assert isinstance(summary, Table) and len(summary.rows) == 10
    assert [row[2] for row in summary.rows] == [None] * 10
    assert [type(part) for part in tables] == [Table, Bars] * 3
    assert not any(part.rows if isinstance(part, Table) else part.drawn for part in tables)

    files = {
        "evaluate/imagenet/metrics.json": '{"top1": 0.5, "baseline": {"top1": 0.25}}',
        "visualize/face.json": '{"stage4": {"cells_per_token_on_person": 63.62819, "cells_per_token_around": 64.92}}',
        "visualize/imagenet.json": "{}",
        "pretrain/training.csv": "step,loss\n1,2.5\n2,1.5\n",
        "pretrain/provenance.json": '{"training": "pretrain-0123", "data": "4567"}',
        "finetune/mesh/validation.csv": "step,val_loss\n8,0.75\n",
    }
    for name, content in files.items():
        path = recipe.run(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (recipe.run("visualize", "face")).mkdir()
    (recipe.run("visualize", "face") / "tokens.png").write_bytes(PNG)
    markdown = to_markdown(gather(recipe, params, versions={"python": "3"}))
    for line in (
        "# TCFormer, recipe sample",
        "| classification | top-1 | 0.500 | 0.250 (chance) | 2.0 |",
        "![Face landmarks: tokens and predictions](<../visualize/face/tokens.png>)",
        "| 4 | 63.6 | 64.9 |",
        "| epochs | 9 | 21 | 20 | 34 |",
        "| learning rate | 0.002 | 0.0045 | 0.005 | 0.0007 |",
        "| crop, pixels | 64 | 128 × 96 | 64 × 64 | 64 |",
        "| training | 2 | 2.5 | 1.5 | 2.5 | 1.5 | 2 |",
        "| validation | 1 | 0.75 | 0.75 | 0.75 | 0.75 | 8 |",
        "| pretrain training | pretrain-0123 |",
        "| python | 3 |",
    ):
        assert line in markdown.splitlines()
    assert "the predicted points over the annotated ones in white." in markdown
    cells, before = "Classification: grid cells", to_markdown(nothing)
    assert cells in before and cells not in markdown, "there is nothing to measure on pictures to classify"


def test_small_numbers_keep_their_digits() -> None:
    table = Table("t", ("a", "b", "c", "d"), (("x", 0.00012, 1234567, True),))
    assert "| x | 0.00012 | 1,234,567 | True |" in to_markdown(report_of(table))
