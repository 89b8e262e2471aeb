"""Where the pipeline's files lie in the repository."""

from dataclasses import dataclass, field
from pathlib import Path

from pipelines.provenance import ROOT
from tcformer.tasks import PRETRAINING

PARAMS = ROOT / "params.yaml"
WEIGHTS = "model.safetensors"


def home() -> Path:
    """The repository that a person works in: DVC runs queued experiments in a copy below its `.dvc/tmp`."""
    parts = ROOT.parts
    return Path(*parts[: parts.index(".dvc")]) if ".dvc" in parts else ROOT


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
        """Unfinished trainings, beside DVC's outputs: DVC neither deletes nor sees them."""
        return self.root / "runs" / self.recipe / "checkpoints"

    @property
    def journals(self) -> Path:
        """What MLflow has not taken yet."""
        return self.root / "runs" / self.recipe / "mlflow"
