"""What mkdocs adds to the pages in docs/: pages of files elsewhere, the reference of parameters, notebooks.

Links in Markdown files lead to files of the repository, so that they work there. On the site, a link to another page
stays, and a link to any other file leads to a page with its text.
"""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from pipelines.parameter_reference import parameter_page

ROOT = Path(__file__).resolve().parents[1]
#: File of the repository -> page of the site.
ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "kernels/README.md": "kernels.md",
}
_LINK = re.compile(r"(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".json": "json", ".md": "markdown"}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    pages = {page: (ROOT / path).read_text(encoding="utf-8") for path, page in ELSEWHERE.items()}
    pages["parameters.md"] = parameter_page(ROOT / "params.yaml")
    pages |= {f"notebooks/{path.stem}.md": notebook_page(path) for path in (ROOT / "docs/notebooks").glob("*.ipynb")}
    texts = pages | {file.src_uri: file.content_string for file in files.documentation_pages()}
    for page, text in texts.items():
        for link, _ in _LINK.findall(text):
            target = _target(page, link)
            if target and _page_of(target) == f"source/{target}.md":
                pages[f"source/{target}.md"] = source_page(target)
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages."""
    here = page.file.src_uri

    def changed(match: re.Match[str]) -> str:
        target = _target(here, match[1])
        if target is None:
            return match[0]
        return relpath(_page_of(target), str(PurePosixPath(here).parent)) + (match[2] or "")

    return markdown if here.startswith("source/") else _LINK.sub(changed, markdown)


def _target(page: str, link: str) -> str | None:
    """The file of the repository to which a link on a page leads; None for links elsewhere."""
    of_repository = {made: path for path, made in ELSEWHERE.items()}.get(page, f"docs/{page}")
    path = normpath(str(PurePosixPath(of_repository).parent / link))
    return path if "://" not in link and not path.startswith("..") and (ROOT / path).is_file() else None


def _page_of(target: str) -> str:
    """The page or file of the site that shows a file of the repository."""
    if target in ELSEWHERE:
        return ELSEWHERE[target]
    return target.removeprefix("docs/") if target.startswith("docs/") else f"source/{target}.md"


def source_page(path: str) -> str:
    """A file of the repository as a page."""
    text = (ROOT / path).read_text(encoding="utf-8")
    fence = "`" * (max(map(len, re.findall(r"`+", text)), default=2) + 2)
    language = _LANGUAGES.get(PurePosixPath(path).suffix, "text")
    return f"# {PurePosixPath(path).name}\n\n`{path}` in the repository.\n\n{fence}{language}\n{text}{fence}\n"


def notebook_page(path: Path) -> str:
    """The cells of a notebook, without outputs, as a page."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    blocks = []
    for cell in cells:
        text = "".join(cell["source"])
        blocks.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join(blocks) + "\n"
