"""What DVC runs: one module a stage. Each reads its section of params.yaml, calls pipelines, writes its outputs."""

import importlib.util
import sys

# DVC starts stages with the `python` of the shell, which need not be the project's.
if importlib.util.find_spec("ruamel") is None or importlib.util.find_spec("ray") is None:
    sys.exit(
        f"error: {sys.executable} lacks the packages of the stages: run `source .venv/bin/activate` first, use "
        "`make repro`, or install tcformer with the extra 'pipeline', for example with `pip install '.[pipeline]'`"
    )
