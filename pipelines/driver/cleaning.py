"""List the trainings in the store of checkpoints, and delete those of other inputs than the present ones."""

from collections.abc import Iterator

from pipelines.adapters.storage import Store
from pipelines.driver.lease import only_one, only_one_in_storage
from pipelines.driver.plan import LOCAL, checkpoints_root, plan_of
from pipelines.driver.stored import StoredTraining, differences, stored_trainings
from pipelines.layout import Layout
from pipelines.params import Params
from pipelines.running.progress import say
from tcformer.errors import UserError
from tcformer.tasks import ALL_TASKS, PRETRAINING


def list_trainings(params: Params) -> None:
    """Print each training with its size, how far it is and whether its inputs are the present ones."""
    root = Store(checkpoints_root(params))
    count = 0
    for found, reason, is_old in _judged(root, params):
        count += 1
        state = "finished" if found.is_finished else f"step {found.step}" if found.step is not None else "no checkpoint"
        size = megabytes(root.size(found.name))
        say(f"{found.name}: {size}, {state}, {'old' if is_old else 'kept'}: {reason}")
    print(f"{count} trainings in {root.shown}")


def clean_trainings(params: Params) -> None:
    """Delete the trainings of other inputs than the present ones, and print what was deleted.

    A training that runs is kept.
    """
    root, locks = Store(checkpoints_root(params)), Layout(params.recipe).checkpoints
    freed = 0
    for found, reason, is_old in list(_judged(root, params)):
        if not is_old:
            say(f"{found.name}: kept: {reason}")
            continue
        size = root.size(found.name)
        try:
            with (
                only_one(locks / f"{found.name}.lock", "this training"),
                only_one_in_storage(params.cluster.storage, found.name),
            ):
                root.delete(found.name)
        except UserError as error:
            say(f"{found.name}: kept: {error}")
            continue
        for suffix in (".lock", ".owner"):
            (locks / f"{found.name}{suffix}").unlink(missing_ok=True)
        freed += size
        say(f"{found.name}: deleted, {megabytes(size)}: {reason}")
    print(f"{megabytes(freed)} freed in {root.shown}")


def _judged(root: Store, params: Params) -> Iterator[tuple[StoredTraining, str, bool]]:
    """Each stored training, a reason, and whether by that reason it is an old one."""
    plans, unknown = {}, {}
    for task in ALL_TASKS:
        stage = "pretrain" if task == PRETRAINING else f"finetune-{task}"
        try:
            plans[stage] = plan_of(task, params)
        except UserError as error:
            unknown[stage] = str(error)
    for found in stored_trainings(root):
        plan = plans.get(found.stage)
        if found.recipe not in (None, params.recipe):
            yield found, f"it belongs to the recipe {found.recipe}", False
        elif found.stage in unknown:
            yield found, f"the present inputs are unknown ({unknown[found.stage]})", False
        elif plan is None:
            yield found, "there is no such task", True
        elif found.name.removesuffix(LOCAL) == plan.key.removesuffix(LOCAL):
            yield found, "the present inputs", False
        else:
            changes = differences(found.inputs, plan.inputs) if found.inputs else ["written by an older version"]
            yield found, "; ".join(changes), True


def megabytes(size: int) -> str:
    """A number of bytes as text."""
    return f"{size / 1e6:.1f} MB"
