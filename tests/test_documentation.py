"""The documentation: its code runs, its commands exist, its links lead to files and headings, and its site builds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import click
import pytest
from PIL import Image
from ruamel.yaml import YAML

from pipelines.parameter_reference import all_parameters, parameter_page
from tests.browser import browser, needs_chromium
from tests.imports import SOURCES

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")] if path.name != "CHANGELOG.md")
NOTEBOOKS = sorted(ROOT.glob("docs/notebooks/*.ipynb"))
#: Pages whose Python blocks run as written, one after the other, in a folder with `photo.jpg`.
RUN = ("README.md", "docs/quick-start.md", "docs/kernels-elsewhere.md")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, language: str) -> list[str]:
    """Code blocks of a page; "" for those without a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [block for name, block in found if name == language]


def commands(path: Path) -> list[str]:
    """The commands in a page's blocks: without comments and variables before them, continued lines joined."""
    lines = "\n".join(blocks(path, "") + blocks(path, "bash")).replace("\\\n", " ").splitlines()
    return [re.sub(r"^(\w+=\S+ )+", "", re.sub(r"\s+#.*", "", line)).strip() for line in lines]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    Image.effect_noise((64, 48), 80).convert("RGB").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", RUN)
def test_python_blocks_run_as_written(page: str, workplace: Path) -> None:
    code = blocks(ROOT / page, "python")
    names: dict[str, object] = {}
    assert code
    for block in code:
        exec(compile(block, page, "exec"), names)
    assert page != "docs/quick-start.md" or (workplace / "tokens.png").stat().st_size > 10_000


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_python_blocks_are_python(path: Path) -> None:
    for block in blocks(path, "python"):
        compile(block, name_of(path), "exec")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_notebooks_run(path: Path, workplace: Path) -> None:
    names: dict[str, object] = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), path.name, "exec"), names)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_notebooks_are_kept_without_outputs(path: Path) -> None:
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert cells and not any(cell["outputs"] or cell["execution_count"] for cell in cells)


def heading_names(path: Path) -> set[str]:
    """The anchors that a repository host and mkdocs give a page's headings."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "]", title)).strip().lower().replace(" ", "-")
        for title in titles
    }


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(path: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link, anchor in re.findall(r"\]\((?!https?:)([^)\s#]*)(?:#([^)\s]+))?\)", text):
        target = (path.parent / link).resolve() if link else path
        assert target.exists(), f"{name_of(path)}: {link}"
        assert not anchor or anchor in heading_names(target), f"{name_of(path)}: {link}#{anchor}"


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_parameters_in_commands_exist(path: Path) -> None:
    tree = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for command in commands(path):
        for name in re.findall(r"-S ([\w.]+)=", command):
            node = tree
            for key in name.split("."):
                assert key in node, f"{name_of(path)}: {name}"
                node = node[key]


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_commands_of_tcformer_have_the_options_that_pages_give_them(path: Path) -> None:
    from stages.cli import cli

    for command in commands(path):
        if not re.match(r"tcformer \w", command):
            continue
        node: click.Command = cli
        words = command.split()[1:]
        while isinstance(node, click.Group) and words and words[0] in node.commands:
            node = node.commands[words.pop(0)]
        assert node is not cli, f"{name_of(path)}: {command}"
        known = {option for parameter in node.params for option in (*parameter.opts, *parameter.secondary_opts)}
        given = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert node.context_settings.get("ignore_unknown_options") or given <= known, f"{name_of(path)}: {command}"


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_modules_and_targets_in_commands_exist(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in commands(path):
        for module in re.findall(r"python -m ((?:stages|benchmarks|pipelines|tcformer)\.[\w.]+)", command):
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), f"{name_of(path)}: {command}"
        for target in re.findall(r"^make ([\w./-]+)", command):
            assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), f"{name_of(path)}: {command}"


def test_the_table_of_environment_variables_names_those_that_the_code_reads() -> None:
    sources = [*SOURCES, *(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    read = set()
    for path in sources:
        read |= set(re.findall(r"""["'{](TCFORMER_[A-Z_]+)""", path.read_text(encoding="utf-8")))
    table = re.findall(r"^\| (`[A-Z].*?) \|", (ROOT / "docs/development.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {name for row in table for name in re.findall(r"`(TCFORMER_\w+)`", row)} == read


def test_paths_in_the_guide_for_contributors_exist() -> None:
    text = re.sub(r"^```.*?^```$", "", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    paths = re.findall(r"`([\w.<>-]+/[\w./<>-]*)`", text)
    assert len(paths) > 50
    assert [path for path in paths if not any(ROOT.glob(re.sub("<[^>]+>", "*", path)))] == []


def test_the_map_for_contributors_names_all_that_is_in_pipelines() -> None:
    [drawn] = [block for block in blocks(ROOT / "CONTRIBUTING.md", "") if block.startswith("stages/")]
    places = {path.name for path in (ROOT / "pipelines").glob("[!_]*.py")}
    places |= {f"{path.parent.name}/" for path in (ROOT / "pipelines").glob("*/__init__.py")}
    part = re.split(r"^(?=\w+/)", drawn, flags=re.MULTILINE)[2]
    assert part.startswith("pipelines/ ")
    assert places == set(re.findall(r"\b\w+(?:\.py|/)", part)) - {"pipelines/"}


def test_every_parameter_is_in_the_reference_with_its_meaning() -> None:
    tree = YAML().load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    found = all_parameters(tree)
    assert [f"{parameter.section}.{parameter.name}" for parameter in found if not parameter.meaning] == []
    named = {f"{parameter.section}.{parameter.name}".lstrip(".") for parameter in found}
    named |= {parameter.section for parameter in found}  # a section can be null

    def leaves(node: object, name: str) -> list[str]:
        if not isinstance(node, dict) or not node:
            return [name]
        return [leaf for key, below in node.items() for leaf in leaves(below, f"{name}.{key}".lstrip("."))]

    shared = {key: value for key, value in tree.items() if key not in ("sample", "paper")}
    for part in (shared, tree["sample"], tree["paper"]):
        assert [name for name in leaves(part, "") if name not in named] == []


def test_the_reference_shows_types_limits_and_the_values_of_both_recipes() -> None:
    page = parameter_page(ROOT / "params.yaml")
    assert (
        "| `workers` | whole number or section | `2` | training processes; one GPU each where there are GPUs |" in page
    )
    section = page.partition("## `pretrain.training.optimizer`")[2].partition("\n## ")[0]
    (rate,) = re.findall(r"\| `layer_decay` \| ([^|]+) \| ([^|]+) \|", section)
    assert rate == ("number or null, above 0, at most 1", "both `null`")
    assert "`cosine`, `step`, `constant`" in section


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning fails the build."""
    pytest.importorskip("material", reason="needs the packages of the extra `docs`")
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return out


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_needs_no_other_host(site: Path) -> None:
    pages = list(site.glob("**/*.html"))
    assert len(pages) > 30
    loaded = r'<(?:script|img|link|iframe)\b[^>]*?(?:src|href)="((?:https?:)?//[^"]+)"'
    assert {page.name: found for page in pages if (found := re.findall(loaded, page.read_text("utf-8")))} == {}
    assert "training processes; one GPU each" in (site / "parameters.html").read_text()
    assert "Cluster tokens by density peaks" in (site / "api/kernels.html").read_text()


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files and logs nothing."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.slow
@needs_chromium
def test_the_site_is_readable_in_a_browser_and_on_a_phone(site: Path, tmp_path: Path) -> None:
    pages = ("index", "quick-start", "results", "parameters", "models", "api/kernels", "api/tcformer", "model-cards")
    handler = partial(QuietHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, browser(tmp_path / "profile") as page:
        Thread(target=server.serve_forever, daemon=True).start()
        for width in (1280, 400):
            for name in pages:
                page.open(f"http://127.0.0.1:{server.server_port}/{name}.html", width=width)
                assert page.faults() == [], f"{name} at {width} pixels"
                assert page.evaluate("document.querySelectorAll('.md-content h1').length") >= 1
        page.evaluate("document.querySelector('.md-search__input').focus()")
        page.press(*"density")
        assert "match" in page.wait_for(
            "/match/.exec(document.querySelector('.md-search-result__meta').innerText)?.[0]"
        )
        server.shutdown()
