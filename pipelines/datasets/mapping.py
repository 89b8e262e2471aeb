"""Parallel maps for functions on the driver's files, where Ray's nodes may be machines that do not see these files."""

import multiprocessing
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.adapters.ray import needs_storage, parallel_map, session
from pipelines.params import Cluster
from pipelines.running.progress import Progress

Map = Callable[..., list[Any]]


@contextmanager
def mapping_files(cluster: Cluster) -> Iterator[Map]:
    """A parallel map for functions that read and write files of this machine.

    It uses Ray where Ray's nodes see the files, else processes of this machine.
    """
    if not needs_storage(cluster):
        with session(cluster):
            yield partial(parallel_map, wait_limit=cluster.wait_limit)
        return
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:

        def map_here(function: Callable[[Any], Any], items: Iterable[Any], *, title: str = "") -> list[Any]:
            inputs, results = list(items), []
            with Progress(title, len(inputs)) as progress:
                for result in pool.map(function, inputs):
                    results.append(result)
                    progress.update(1)
            return results

        yield map_here


def bring_files(each: Map, root: Path) -> Map:
    """A map as `each`, for functions that write files below `root`: on another machine too, from where they come back.

    Args:
        each: a parallel map; its processes need not see `root`.
        root: a folder of this machine.
    """

    def map_and_write(function: partial[Any], items: Iterable[Any]) -> list[Any]:
        if function.args[0] != str(root):
            raise TypeError(f"expected a partial function whose first argument is {root}, found {function}")
        folders = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_dir())
        results = []
        for result, files in each(_WithFiles(function.func, function.args[1:], tuple(folders)), items):
            for name, content in files.items():
                (root / name).write_bytes(content)
            results.append(result)
        return results

    return map_and_write


@dataclass(frozen=True)
class _WithFiles:
    """A function that writes files below its first argument; called with an item, it returns its result and the files.

    Attributes:
        function: takes a folder, `arguments` and an item.
        arguments: the same for all items.
        folders: that the function expects in the folder.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    folders: tuple[str, ...]

    def __call__(self, item: object) -> tuple[Any, dict[str, bytes]]:
        with tempfile.TemporaryDirectory(prefix="tcformer-") as place:
            root = Path(place)
            for folder in self.folders:
                (root / folder).mkdir(parents=True, exist_ok=True)
            result = self.function(place, *self.arguments, item)
            written = [path for path in root.rglob("*") if path.is_file()]
            return result, {path.relative_to(root).as_posix(): path.read_bytes() for path in written}
