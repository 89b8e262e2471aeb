"""Image classification on ImageNet's folder layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tcformer.data.imagenet.dataset import ImageAugmentation, ImageFolderDataset, find_classes
from tcformer.errors import require_finite
from tcformer.metrics.classification import accuracy, rank_of_label
from tcformer.models import Network, NetworkOptions
from tcformer.tasks.base import Batch, Model, ValidationMeasure
from tcformer.tasks.imagenet.options import ImagenetOptions


class ImagenetTask:
    """See `tcformer.tasks.base.Task`.

    Args:
        options: of the head and the samples.
        network: options of the backbone.
        data_root: folder with train/<class>/ and val/<class>/.
    """

    name = "imagenet"
    validation_measure = ValidationMeasure("top1", higher_is_better=True)

    def __init__(self, options: ImagenetOptions, network: NetworkOptions, data_root: Path) -> None:
        self.options = options
        self.network = network
        self.root = Path(data_root)

    def build_model(self) -> Network:
        """Build the network with a classification head."""
        from tcformer import create_model

        options = self.options
        return create_model(
            self.network.backbone,
            task="imagenet",
            num_classes=options.num_classes,
            drop_path_rate=options.drop_path,
            **self.network.model_options,
        )

    def train_set(self) -> ImageFolderDataset:
        """The training split, augmented."""
        return self._dataset("train", self.options.augmentation)

    def val_set(self) -> ImageFolderDataset:
        """The validation split."""
        return self._dataset("val")

    test_set = val_set

    def _dataset(
        self, split: Literal["train", "val"], augmentation: ImageAugmentation | None = None
    ) -> ImageFolderDataset:
        options = self.options
        classes = find_classes(self.root, options.num_classes)
        return ImageFolderDataset(self.root, split, classes, options.input_size, options.crop_fraction, augmentation)

    def loss(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        """Cross entropy with the soft targets of the batch, or with its labels if it was not augmented."""
        targets = batch["targets"] if "targets" in batch else batch["label"]
        return {"loss": F.cross_entropy(model(batch["image"]).float(), targets)}

    @torch.no_grad()
    def validate(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        """Sums of the cross entropy with the labels, and numbers of correct predictions."""
        logits, labels = model(batch["image"]).float(), batch["label"]
        rank = rank_of_label(logits, labels)
        return {
            "loss_sum": F.cross_entropy(logits, labels, reduction="sum"),
            "top1_sum": (rank < 1).sum(),
            "top5_sum": (rank < 5).sum(),
            "count": labels.new_tensor(len(labels)),
        }

    @torch.no_grad()
    def predict(self, model: Model, batch: Batch) -> list[dict[str, Any]]:
        """A prediction for each image: its index, its label, the predicted class ("answer") and the label's rank."""
        logits = model(batch["image"]).float()
        require_finite(logits, "logits")
        columns = (batch["index"], batch["label"], logits.argmax(1), rank_of_label(logits, batch["label"]))
        names = ("index", "label", "answer", "rank")
        return [dict(zip(names, row)) for row in zip(*(column.tolist() for column in columns))]

    def evaluate(self, predictions: list[dict[str, Any]]) -> dict[str, Any]:
        """Compute "top1" and "top5" in [0, 1], and "count". "baseline" contains the accuracies of guessing."""
        classes = self.options.num_classes
        chance = {"top1": 1 / classes, "top5": min(5, classes) / classes}
        return {**accuracy(predictions), "baseline": chance}


TASK = ImagenetTask
