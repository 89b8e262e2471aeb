"""The report shows the numbers it is given, says what was not run, and is the same every time."""

import base64
import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from pipelines.report import (
    NOT_RUN,
    Curve,
    Metric,
    Picture,
    Section,
    Series,
    Table,
    _log_ticks,
    _short,
    _ticks,
    build_report,
    history_series,
    mapping_table,
    read_history,
    read_metrics,
    summary_table,
    wholebody_table,
)
from tcformer.errors import UserError

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PARTS = ("body", "foot", "face", "lefthand", "righthand", "wholebody", "hand")


def everything():
    metrics = {part: {"AP": 0.1 + i / 100, "APM": None, "AR": 0.51 + i / 100} for i, part in enumerate(PARTS)}
    steps = tuple(float(s) for s in range(1, 1001))
    loss = tuple(2.0 / s for s in steps)
    return [
        Section(
            "Summary",
            (
                summary_table(
                    [
                        Metric("pose", "body AP", 0.2004, "mean pose", 0.0072),
                        Metric("classes", "top-1", None, "chance", 0.1),
                    ]
                ),
            ),
            "First paragraph.\n\nSecond <b>paragraph</b>.",
        ),
        Section("Pose", (wholebody_table(metrics), wholebody_table(None, "Detected boxes"))),
        Section(
            "Training",
            (
                Curve("Loss", "step", "nats", (Series("training", steps, loss),), log_y=True),
                Curve("Rate", "step", "rate", (Series("rate", (1.0, 2.0), (0.0, 1e-3)),)),
                Curve("Absent", "step", "none", (Series("x", (), ()),)),
            ),
        ),
        Section("Pictures", (Picture("Tokens", PNG, "Caption & more", "tokens.png"),)),
        Section("Parameters", (mapping_table("all", {"lr": 1e-3, "a": {"b": True, "c": None}}),), folded=True),
    ]


class Tags(HTMLParser):
    """Checks that tags are closed in order and collects the text."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.names = [], [], set()

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        if tag not in ("meta", "img", "path", "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.names.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def page_text(html):
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    return tags.names, " ".join(tags.text)


def test_numbers_and_missing_ones_are_in_both():
    markdown, html = build_report(everything(), "A title")
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
    assert base64.b64encode(PNG).decode() in html
    assert "![Tokens](<tokens.png>)" in markdown


def test_same_inputs_same_bytes():
    assert build_report(everything()) == build_report(everything())


def test_text_is_escaped():
    nasty = "<script>alert('|')</script> & `x` *y*"
    sections = [
        Section(
            nasty,
            (
                Table(nasty, (nasty, "b"), ((nasty, nasty),), note=nasty),
                Picture(nasty, PNG, nasty),
                Curve(nasty, nasty, nasty, (Series(nasty, (1.0, 2.0), (1.0, 2.0)), Series("b", (1.0,), (3.0,)))),
            ),
            nasty,
        )
    ]
    markdown, html = build_report(sections, nasty)
    assert "script" not in page_text(html)[0]
    assert "<script" not in markdown
    row = next(line for line in markdown.splitlines() if line.startswith("| ---"))
    assert row == "| --- | ---: |"
    cells = [line for line in markdown.splitlines() if line.startswith("| &lt;script")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in cells[:2]] == [3, 3]


def test_curves_are_valid_svg_inside_their_frame():
    html = build_report(everything())[1]
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) == 2
    for drawing in drawings:
        root = ET.fromstring(drawing)
        width, height = map(float, root.attrib["viewBox"].split()[2:])
        for line in root.findall("path[@class='line']"):
            points = [tuple(map(float, p.split())) for p in line.attrib["d"][1:].split("L")]
            assert 1 < len(points) <= 240
            assert all(0 <= x <= width and 0 <= y <= height for x, y in points)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(value):
    with pytest.raises(UserError, match="'AP'"):
        Table("t", ("part", "AP"), (("body", value),))
    with pytest.raises(UserError, match="loss"):
        Series("loss", (1.0,), (value,))
    with pytest.raises(UserError, match="top-1"):
        Metric("classes", "top-1", value, "chance", 0.1)
    with pytest.raises(UserError, match="chance"):
        Metric("classes", "top-1", 0.5, "chance", value)


def test_wrong_arguments_are_refused():
    for wrong in (
        lambda: Table("t", ("a", "b"), (("only",),)),
        lambda: Table("t", ("a", "b"), (), align="lx"),
        lambda: Picture("p", b"GIF89a"),
        lambda: Series("s", (1.0,), ()),
        lambda: Curve("c", "x", "y", (Series("s", (), ()),) * 5),
        lambda: build_report([]),
    ):
        with pytest.raises(ValueError):
            wrong()


def test_files_of_the_stages(tmp_path):
    assert read_metrics(tmp_path / "none.json") is None and read_history(tmp_path / "none.csv") is None
    (tmp_path / "m.json").write_text('{"AP": 0.5}')
    assert read_metrics(tmp_path / "m.json") == {"AP": 0.5}
    for text in ("{", "[1]"):
        (tmp_path / "m.json").write_text(text)
        with pytest.raises(UserError, match=r"m\.json"):
            read_metrics(tmp_path / "m.json")
    path = tmp_path / "h.csv"
    path.write_text("step,loss,val_loss\n1,0.5,\n2,0.25,0.75\n")
    history = read_history(path)
    assert history == {"step": (1, 2), "loss": (0.5, 0.25), "val_loss": (None, 0.75)}
    assert history_series(history, "val_loss", "validation") == Series("validation", (2.0,), (0.75,))
    assert history_series(history, "absent", "a").x == history_series(None, "loss", "b").x == ()
    for text, where in (("step,loss\n1\n", "line 2"), ("step,loss\n1,x\n", "'loss'")):
        path.write_text(text)
        with pytest.raises(UserError, match=where):
            read_history(path)


def test_ticks_enclose_the_values_and_are_few():
    for low, high in ((0, 1), (0.003, 0.0031), (-5, 7), (0, 123456), (3, 3), (0, 0), (1e-9, 5e-9)):
        ticks = _ticks(low, high, 5)
        assert ticks[0] <= low and ticks[-1] >= high and 2 <= len(ticks) <= 7
    for low, high in ((5e-4, 3e-3), (1e-3, 1e-3), (0.7, 7000), (1e-8, 1e8), (1, 10), (0.02, 0.021)):
        ticks = _log_ticks(low, high)
        assert ticks[0] <= low and ticks[-1] >= high and 2 <= len(ticks) <= 8
    shown = [_short(v) for v in (0, 12000, 1.5e6, 0.003, 2e-5, 0.5, -250, 0.0005)]
    assert shown == ["0", "12k", "1.5M", "0.003", "2e-5", "0.5", "-250", "0.0005"]


def test_no_ratio_without_a_baseline():
    rows = summary_table([Metric("a", "AP", 0.5, "mean pose", 0.0), Metric("a", "AP", 0.5, "mean pose", None)]).rows
    assert rows[0][3:] == ("0.000 (mean pose)", "baseline is 0")
    assert rows[1][3:] == ("not run (mean pose)", None)


@pytest.mark.parametrize(
    ("value", "baseline", "shown"),
    [(0.058, 0.19, "0.31"), (117.2, 149.7, "0.78"), (0.471, 1 / 12, "5.7"), (0.19, 0.1, "1.90"), (0.004, 1.0, "0.004")],
)
def test_ratios_show_what_an_error_lost(value, baseline, shown):
    assert summary_table([Metric("face", "NME", value, "mean shape", baseline)]).rows[0][4] == shown


def test_parts_that_were_not_measured_have_no_row():
    table = wholebody_table({"lefthand": {"AP": 0.25}, "righthand": {"AP": None}})
    assert [row[0] for row in table.rows] == ["left hand", "right hand"]
    assert table.rows[1][1] == "none" and "no such person" in table.note


def test_small_numbers_keep_their_digits():
    table = Table("t", ("a", "b", "c", "d"), (("x", 0.00012, 1234567, True),))
    assert "| x | 0.00012 | 1,234,567 | True |" in build_report([Section("s", (table,))])[0]
