"""What a source file imports, read from its text: nothing is run."""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ["kernels", "tcformer", "pipelines", "stages"]  # from the bottom up
SOURCES = [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, wherever in the file, those for type checkers among them."""
    return {module for module, _ in _imports(ast.parse(path.read_text(encoding="utf-8")), path, for_types=True)}


def _imports(tree: ast.AST, path: Path, for_types: bool) -> Iterator[tuple[str, str]]:
    """(module, name taken from it or "") of each import."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.If) and not for_types and ast.unparse(node.test) == "TYPE_CHECKING":
            for other in node.orelse:
                yield from _imports(other, path, for_types)
        else:
            yield from _imports(node, path, for_types)


def file_of(module: str) -> Path | None:
    """The file of one of our modules; None for others' modules and for names that are no module."""
    place = ROOT.joinpath(*module.split("."))
    if module.split(".")[0] not in LAYERS:
        return None
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


@cache
def _lazy(package: str) -> dict[str, str]:
    """Public name -> module of a package that imports at the first use (`tcformer.lazy`)."""
    path = file_of(package)
    assert path is not None
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_MODULES":
            return {name: f"{package}.{module}" for name, module in ast.literal_eval(node.value).items()}
    return {}


@cache
def _direct(module: str) -> frozenset[str]:
    """Our modules that importing `module` and running all its code imports, in one step."""
    path = file_of(module)
    assert path is not None
    found = set()
    for name, taken in _imports(ast.parse(path.read_text(encoding="utf-8")), path, for_types=False):
        if file_of(name) is None:
            continue
        if not taken:
            found |= {name, *_lazy(name).values()}
        elif file_of(f"{name}.{taken}"):
            found |= {f"{name}.{taken}", *_lazy(f"{name}.{taken}").values()}
        else:
            found |= {name, *({_lazy(name)[taken]} if taken in _lazy(name) else ())}
    parents = {".".join(module.split(".")[:n]) for n in range(1, module.count(".") + 1)}
    return frozenset(found | parents)


def closure(modules: Iterable[str]) -> set[str]:
    """The files of all our modules that running the named ones can import, relative to the repository."""
    seen: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in seen:
            assert file_of(module) is not None, module
            seen.add(module)
            waiting += _direct(module)
    return {str(path.relative_to(ROOT)) for module in seen if (path := file_of(module))}
