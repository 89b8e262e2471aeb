"""Checks before anything is queued: a wrong setting must not be noticed hours later."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from ruamel.yaml import YAML

from pipelines.dotted import assign
from pipelines.paper.experiments import EXPERIMENTS, Experiment
from pipelines.params import Params, load_params
from tcformer.errors import UserError
from tcformer.tasks import PRETRAINING


def params_of(experiment: Experiment, path: Path) -> Params:
    """The parameters of an experiment: params.yaml at `path`, which must be valid, with the experiment's settings.

    Raises:
        UserError: a setting is wrong; see `load_params`.
    """
    tree = YAML().load(path.read_text(encoding="utf-8"))
    for name, value in {"recipe": experiment.recipe, **experiment.settings}.items():
        assign(tree, name, value)
    with tempfile.TemporaryDirectory() as folder:
        changed = Path(folder) / path.name
        with changed.open("w", encoding="utf-8") as stream:
            YAML().dump(tree, stream)
        try:
            return load_params(changed)
        except UserError as error:
            where = f"experiment {experiment.name} in {EXPERIMENTS.name}"
            raise UserError(re.sub(rf"{re.escape(str(changed))}(:\d+)?", where, str(error))) from None


def check_data_roots(experiment: Experiment, params: Params) -> None:
    """Check that the parameters give absolute paths to the official datasets that an experiment needs.

    Raises:
        UserError: a path is missing or relative.
    """
    for task in dict.fromkeys((PRETRAINING, experiment.task)):
        data = params.active.data_of(task)
        if data.source != "official":
            continue
        name = f"{experiment.recipe}.data.{task}.root"
        if data.root is None:
            raise UserError(
                f"params.yaml: {experiment.name} needs {name}, which is null; expected the folder of the dataset; set "
                "it once for all experiments"
            )
        if not Path(data.root).expanduser().is_absolute():
            raise UserError(
                f"params.yaml: {name} is {data.root}; expected an absolute path, because DVC runs queued experiments "
                "in another folder; give the whole path"
            )
