"""The token inspector: what is recorded of merges, what the page contains, what a reader finds with the keyboard."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tcformer
from pipelines.report.html import to_html
from pipelines.report.markdown import to_markdown
from pipelines.report.parts import Inspector, Report, Section
from pipelines.visualization.token_inspection import inspected, local_density, recorded_merges
from tcformer.draw import Example, Partition


def picture(**options: Any) -> dict[str, Any]:
    """What the inspector shows of an image of noise, 32 x 48 pixels."""
    torch.manual_seed(0)
    backbone = tcformer.create_model("tcformer_nano", "imagenet", num_classes=2, **options).eval().backbone
    image = torch.rand(1, 3, 32, 48)
    with torch.inference_mode(), recorded_merges(backbone) as merges:
        stages = backbone(image)
    backbone(image)
    assert len(merges) in (0, 3), "no hook stays"
    partitions = [Partition(stage.token_of_cell[0].numpy(), (8, 12)) for stage in stages]
    pixels = (255 * image[0].permute(1, 2, 0)).byte().numpy()
    return inspected(Example(pixels, partitions, label="<noise> & </script>"), merges)


def decoded(text: str, dtype: str) -> np.ndarray[Any, Any]:
    return np.frombuffer(base64.b64decode(text), dtype)


def test_tokens_and_what_merged_them_are_recorded() -> None:
    found = picture(token_reduction="ctm")
    assert found["grid"] == [8, 12] and [stage["tokens"] for stage in found["stages"]] == [96, 24, 6, 2]
    below = np.arange(96)
    for stage in found["stages"]:
        cells = decoded(stage["cells"], "<u2")
        assert len(cells) == 96 and set(cells) == set(range(stage["tokens"]))
        assert all(len(set(cells[below == token])) == 1 for token in below), "a token is merged as a whole"
        below = cells
    for stage in found["stages"][:3]:
        density = decoded(stage["density"], "<f4")
        assert len(decoded(stage["importance"], "<f4")) == len(density) == stage["tokens"]
        assert (density > 0).all() and (density <= 1).all() and len(set(density)) > 1
    assert found["stages"][3]["importance"] is found["stages"][3]["density"] is None


def test_only_what_decided_a_merge_is_recorded() -> None:
    conv, topk = picture(token_reduction="conv"), picture(token_reduction="ctm_topk")
    assert all(stage["importance"] is None for stage in conv["stages"])
    assert topk["stages"][0]["importance"] and topk["stages"][0]["density"] is None
    assert picture(token_reduction="local_ctm")["stages"][0]["density"]


def test_density_is_that_of_the_paper() -> None:
    x = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0], [8.0, 8.0]])
    # The two smallest squared distances of the first: 0 and 4; their mean over two channels is 1.
    assert local_density(x, k=2)[0] == pytest.approx(np.exp(-1.0))
    assert local_density(x, k=2)[2] == pytest.approx(np.exp(-4.0))
    alone = local_density(x, torch.tensor([0, 0, 0, 1]), k=2)
    assert alone[3] == 1 and alone[2] == pytest.approx(np.exp(-4.0))


def page(pictures: dict[str, list[dict[str, Any]]]) -> Report:
    return Report("t", (Section("s", (Inspector("Token inspector", pictures),)),))


def test_the_page_runs_its_own_script_and_no_other() -> None:
    html = to_html(page({"Noise": [picture()]}))
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in html
    assert "http" not in html.replace("http-equiv", "") and "<noise>" not in html
    (data,) = re.findall(r'<script type="application/json" id="inspector-data">(.*?)</script>', html, re.DOTALL)
    assert json.loads(data)["pictures"] == [picture()]
    assert "HTML report" in to_markdown(page({"Noise": [picture()]}))


def test_without_pictures_there_is_no_script() -> None:
    html = to_html(page({}))
    assert "script" not in html and "not run" in html and "not run" in to_markdown(page({}))


KEYS = """
<script>addEventListener("load", () => setTimeout(() => {
  const press = (name, ...keys) => keys.forEach(key =>
    document.querySelector(`[data-part="${name}"]`).dispatchEvent(new KeyboardEvent("keydown", {key})));
  const say = name => {
    const line = document.createElement("p");
    line.textContent = `${name}: ${document.querySelector('[data-part="facts"]').textContent}`;
    document.body.append(line);
  };
  say("at first");
  press("photo", "1", ...Array(20).fill("ArrowLeft"), ...Array(20).fill("ArrowUp"), "ArrowRight");
  say("second cell");
  press("tree", "ArrowUp", "ArrowUp", "ArrowUp", "ArrowUp");
  say("the top");
}, 200))</script>
"""


def test_a_reader_finds_tokens_with_the_keyboard(tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs chromium")
    html = re.sub("<meta http-equiv[^>]*>", "", to_html(page({"Noise": [picture(token_reduction="ctm")]})))
    (tmp_path / "page.html").write_text(html.replace("</body>", f"{KEYS}</body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [chromium, *options, "--virtual-time-budget=3000", "--dump-dom", (tmp_path / "page.html").as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    first, second, top = re.findall(r"<p>((?:at first|second cell|the top): .*?)</p>", done.stdout)
    assert "of 2 of stage 4" in first and "not merged" in first
    assert "2 of 96 of stage 1" in second and "1 grid cell, 16 pixels" in second and "Density" in second
    assert "of 2 of stage 4" in top and "Merged from" in top
