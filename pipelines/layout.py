"""Where the pipeline's files lie in the repository."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from tcformer.tasks import PRETRAINING

ROOT = Path(__file__).resolve().parents[1]
PARAMS = ROOT / "params.yaml"
WEIGHTS = "model.safetensors"
LAST_WEIGHTS = "last.safetensors"  # of the last step, where WEIGHTS are those of the best validation


def home(root: Path | None = None) -> Path:
    """The repository that a person works in: DVC runs queued experiments in a copy below its `.dvc/tmp`.

    Args:
        root: of the repository or of such a copy; by default this code's.
    """
    root = root or ROOT
    return Path(*root.parts[: root.parts.index(".dvc")]) if ".dvc" in root.parts else root


def dvc_environment(root: Path | None = None) -> dict[str, str]:
    """Variables for the DVC that we start.

    DVC keeps the hashes of files below /var/tmp/dvc, where every user of a machine may write, and opens pickles there.
    For a `dvc` that a person types, the Makefile writes the same folder to DVC's local configuration.

    Args:
        root: of the repository; by default this code's.
    """
    own = home(root) / ".dvc" / "tmp" / "site_cache"
    return {"DVC_SITE_CACHE_DIR": os.environ.get("DVC_SITE_CACHE_DIR") or str(own)}


@dataclass(frozen=True)
class Layout:
    """Folders of one recipe.

    Attributes:
        recipe: its name.
        root: of the repository.
    """

    recipe: str
    root: Path = field(default_factory=lambda: ROOT)

    def data(self, task: str) -> Path:
        """What `prepare` makes for a task."""
        return self.root / "data" / self.recipe / task

    def run(self, stage: str, task: str = "") -> Path:
        """Outputs of a stage."""
        return self.root / "runs" / self.recipe / stage / task

    def headline(self, stage: str) -> Path:
        """The few numbers of a stage ("pretrain", "evaluate-face") that git keeps, to compare experiments."""
        return self.root / "metrics" / self.recipe / f"{stage}.json"

    def training(self, task: str) -> Path:
        """Outputs of the training of a task."""
        return self.run("pretrain") if task == PRETRAINING else self.run("finetune", task)

    def weights(self, task: str) -> Path:
        """The weights that the training of a task leaves."""
        return self.training(task) / WEIGHTS

    @property
    def checkpoints(self) -> Path:
        """Unfinished trainings: DVC neither deletes nor sees them, nor loses them with a copy of the repository."""
        return home(self.root) / "runs" / self.recipe / "checkpoints"

    @property
    def journals(self) -> Path:
        """What MLflow has not taken yet: it outlives the copy of the repository that DVC runs an experiment in."""
        return home(self.root) / "runs" / self.recipe / "mlflow"
