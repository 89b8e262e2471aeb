"""The trainings that a store of checkpoints contains, and what was trained with other parameters than now."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.adapters.storage import Store, below
from pipelines.dotted import leaves
from pipelines.driver.plan import LOCAL
from pipelines.training import checkpoint

_INPUTS = "inputs.json"  # beside the checkpoints
_NAME = re.compile(rf"(?P<stage>pretrain|finetune-\w+)-[0-9a-f]{{16}}({LOCAL})?")
#: Inputs of which only a hash is kept, and how a difference is described.
_HASHES = {"data": "other data", "initial": "other initial weights", "code": "other code"}


@dataclass(frozen=True)
class StoredTraining:
    """The folder of one training.

    Attributes:
        name: of the folder: stage and fingerprint.
        stage: as part of a file name: "finetune-face".
        step: of the newest checkpoint; None if there is none.
        is_finished: whether it contains the final weights.
        recipe: of the parameters; None for a training by an older version, as the next.
        inputs: see `TrainingPlan.inputs`.
    """

    name: str
    stage: str
    step: int | None
    is_finished: bool
    recipe: str | None
    inputs: dict[str, Any] | None


def write_inputs(store: Store, recipe: str, inputs: Mapping[str, Any]) -> None:
    """Keep beside the checkpoints in `store` what determines their training."""
    store.write(_INPUTS, json.dumps({"recipe": recipe, "inputs": inputs}, indent=1).encode())


def stored_trainings(root: Store) -> Iterator[StoredTraining]:
    """The trainings whose folders lie directly below `root`."""
    for name in root.folders():
        match = _NAME.fullmatch(name)
        if match:
            store = Store(below(root.root, name))
            steps = checkpoint.steps(store)
            about = _inputs(store.read(_INPUTS))
            yield StoredTraining(
                name,
                match["stage"],
                int(steps[-1].removeprefix("step-")) if steps else None,
                store.read(f"{checkpoint.FINAL}/{checkpoint.MANIFEST}") is not None,
                about.get("recipe"),
                about.get("inputs"),
            )


def _inputs(text: bytes | None) -> dict[str, Any]:
    """What `write_inputs` wrote; nothing if it was never written, or is damaged."""
    try:
        about = json.loads(text or b"{}")
    except (ValueError, RecursionError):
        return {}
    known = isinstance(about, dict) and isinstance(about.get("recipe"), str) and isinstance(about.get("inputs"), dict)
    return about if known else {}


def unfinished_with_other_inputs(root: Store, name: str, recipe: str, inputs: Mapping[str, Any]) -> str | None:
    """A sentence about an unfinished training of the same stage: where it is and how it differs; None if there is none.

    Of several, the one with the fewest differences is described.

    Args:
        root: the store of all trainings.
        name: of the training that is about to start.
        recipe: of its parameters.
        inputs: what determines its result.
    """
    candidates = [
        (differences(found.inputs, inputs), found)
        for found in stored_trainings(root)
        if (found.recipe, found.stage) == (recipe, inputs["stage"].replace("@", "-"))
        and (found.inputs and found.step is not None and not found.is_finished)
        and found.name.endswith(LOCAL) == name.endswith(LOCAL)
    ]
    if not candidates:
        return None
    changes, nearest = min(candidates, key=lambda candidate: len(candidate[0]))
    others = f", one of {len(candidates)}," if len(candidates) > 1 else ""
    return (
        f"this training starts from the beginning: an unfinished one{others} stopped after step {nearest.step} and has "
        f"other inputs: {'; '.join(changes)}. Its checkpoints are in {root.shown}/{nearest.name}; restore its inputs "
        "to resume it, or delete it with `python -m stages.checkpoints clean`"
    )


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What changed from old to new inputs: "training.optimizer.lr 0.002 -> 0.001"."""
    before, after = leaves(old), leaves(new)
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return [
        _HASHES.get(name) or f"{name} {json.dumps(before.get(name))} -> {json.dumps(after.get(name))}"
        for name in changed
    ]
