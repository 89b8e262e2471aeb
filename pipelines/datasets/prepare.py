"""What the stage `prepare` does: generate a dataset, or complete the official one, and describe its content."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.adapters.ray import needs_storage, parallel_map, session
from pipelines.adapters.storage import Store
from pipelines.datasets.downloads import complete
from pipelines.datasets.key_lines import place_of
from pipelines.datasets.location import MANIFEST
from pipelines.datasets.mapping import Map, bring_files
from pipelines.datasets.prepared import Prepared
from pipelines.datasets.survey import find_downloads
from pipelines.layout import PARAMS
from pipelines.params import Params
from tcformer.errors import UserError
from tcformer.files import atomic_write, sha256_of_file, sha256_of_json
from tcformer.tasks import ALL_TASKS

_IMAGES_PER_RAY_TASK = 16


def prepare(task: str, params: Params, out: Path) -> None:
    """Generate a task's dataset below `out`, or complete the official one where it is; write the manifest to `out`.

    For a Ray of other machines the dataset is then written to `cluster.storage`.

    Raises:
        UserError: official files are missing, damaged or unsafe, or the parameters do not name their folder; the
            storage cannot be written to.
    """
    data = params.active.data_of(task)
    if needs_storage(params.cluster):
        Store(str(params.cluster.storage)).require_usable()  # before the work, not after it
    content: dict[str, str]
    details: dict[str, Any] = {}
    root = None
    if data.source == "official":
        downloads = find_downloads(task, params)
        inventory = complete(downloads, params.cluster)
        root, content = downloads.root, inventory.identities
        details = {"counts": inventory.counts, "identities": inventory.identities}
        _make_empty(out)
    else:
        _generate(task, params, out)
        files = sorted(path for path in out.rglob("*") if path.is_file() and path.name != MANIFEST)
        content = {path.relative_to(out).as_posix(): sha256_of_file(path) for path in files}
    manifest = {
        "task": task,
        "source": data.source,
        "root": None if root is None else str(root),
        "sha256": sha256_of_json(content),
        "files": len(content),
        **details,
    }
    with atomic_write(out / MANIFEST) as part:
        part.write_text(json.dumps(manifest, indent=1))
    print(f"prepare@{task}: {manifest['files']} files, sha256 {str(manifest['sha256'])[:16]}", flush=True)
    spec, evaluation = params.active.spec_of(task), params.active.evaluation_options_of(task)
    Prepared.open(out).location_for_workers(params.cluster, spec, evaluation)


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _generate(task: str, params: Params, out: Path) -> None:
    options = params.active.data_of(task).generate
    if options is None:
        key = f"{params.recipe}.data.{task}"
        raise UserError(
            f"{place_of(f'{key}.generate', PARAMS)}: {key}.generate is null: expected the options of generated images, "
            f"because {key}.source is generated; add them, or set source: official"
        )
    _make_empty(out)  # images of an earlier, larger dataset must not remain in this one
    with session(params.cluster):
        limit, title = params.cluster.wait_limit, f"prepare@{task}"
        each: Map = partial(parallel_map, wait_limit=limit, chunk=_IMAGES_PER_RAY_TASK, title=title)
        if needs_storage(params.cluster):
            each = bring_files(each, out)
        ALL_TASKS[task].part("generate").generate(out, options, map=each)
