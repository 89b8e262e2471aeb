"""The class of any picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tcformer.checks import read_json
from tcformer.data.imagenet.dataset import centre_crop
from tcformer.data.images import ReducedImage
from tcformer.draw import Example
from tcformer.draw.text import text_width, write_text
from tcformer.errors import UserError, require_finite
from tcformer.inference.base import (
    DIGITS,
    PIXEL_DIGITS,
    Columns,
    Crop,
    Prediction,
    Result,
    Settings,
    TaskPredictor,
    number_option,
    rounded,
)
from tcformer.models import Network
from tcformer.tasks.drawing import View
from tcformer.tasks.imagenet.drawing import wordnet_titles

_MOST_CLASSES: Final = 5  # in a result
_IMAGENET_CLASSES: Final = 1000


class ImagenetPredictor(TaskPredictor):
    """See `tcformer.inference.TaskPredictor`. The network sees a square in the middle of the box."""

    shows = "classes"
    columns: ClassVar[Columns] = {
        "boxes": ("double", 2),
        "classes": ("long", 2),
        "titles": ("string", 2),
        "scores": ("double", 2),
    }

    def __init__(self, model: Network, trained: Mapping[str, Any], settings: Settings) -> None:
        super().__init__(model, trained, settings)
        if self.input_size[0] != self.input_size[1]:
            height, width = self.input_size
            raise UserError(f"input size {height} x {width}: classes need square crops; give the same number twice")
        self._fraction = number_option(trained, "crop_fraction", 0.875)
        self.titles = _titles(settings.classes, model.config["options"]["num_classes"])

    def reduction(self, boxes: NDArray[np.float64]) -> float:
        """See `tcformer.inference.TaskPredictor.reduction`."""
        return float(boxes[:, 2:].min()) * self._fraction / self.input_size[0] if len(boxes) else 1.0

    def crop(self, picture: ReducedImage, box: NDArray[np.float64], padded: bool = True) -> Crop:
        """See `tcformer.inference.TaskPredictor.crop`. For a whole picture it is the crop of evaluations."""
        from PIL.Image import fromarray

        size = self.input_size[0]
        height, width = picture.pixels.shape[:2]
        low, high = (np.rint(v / picture.factor).astype(int) for v in (box[:2], box[:2] + box[2:]))
        left, top = (int(np.clip(v, 0, end - 1)) for v, end in zip(low, (width, height)))
        right, bottom = (int(np.clip(v, start + 1, end)) for v, start, end in zip(high, (left, top), (width, height)))
        part = picture.pixels[top:bottom, left:right]
        pixels = np.asarray(centre_crop(fromarray(np.ascontiguousarray(part)), size, self._fraction))
        side = min(part.shape[:2]) * self._fraction * picture.factor
        centre = 0.5 * picture.factor * np.array([left + right, top + bottom], np.float64)
        return Crop(pixels, centre, np.array([side, side], np.float64))

    def predict(self, model: Network, images: Tensor) -> Prediction:
        """See `tcformer.inference.TaskPredictor.predict`."""
        logits = model(images).float()
        require_finite(logits, "logits")
        probabilities = logits.softmax(1).cpu().numpy()
        return Prediction(np.zeros((len(images), 0, 2)), np.zeros((len(images), 0)), {"probabilities": probabilities})

    def _best(self, probabilities: NDArray[np.floating]) -> list[dict[str, Any]]:
        order = np.argsort(-probabilities, kind="stable")[:_MOST_CLASSES].tolist()
        return [
            {"class": index, "title": self.titles[index], "probability": round(float(probabilities[index]), DIGITS)}
            for index in order
        ]

    def records(self, result: Result) -> list[dict[str, Any]]:
        """A record for each box: the five most probable classes, the best first."""
        boxes = rounded(result.boxes.xywh, PIXEL_DIGITS)
        return [{"box": box, "classes": self._best(p)} for box, p in zip(boxes, result.outputs["probabilities"])]

    def draw(self, view: View, result: Result, threshold: float) -> NDArray[np.uint8]:
        """The picture, and below it the most probable classes; with several boxes, a frame and a number for each."""
        picture, several = view.pixels.copy(), len(result) > 1
        size = max(14, picture.shape[1] // 45)
        lines = []
        for row in range(len(result)):
            best = self._best(result.outputs["probabilities"][row])
            number = f"{row + 1}: " if several else ""
            if several:
                corners = view.place(
                    np.stack([result.boxes.xywh[row, :2], result.boxes.xywh[row].reshape(2, 2).sum(0)])
                )
                (left, top), (right, bottom) = np.rint(corners).astype(int).tolist()
                cv2.rectangle(picture, (left, top), (right, bottom), (64, 156, 255), max(2, size // 8))
                write_text(picture, str(row + 1), (left + size // 3, top + size), size=size, bold=True)
            lines += [f"{number}{item['title']} {item['probability']:.1%}" for item in best[: 1 if several else None]]
        width = max(picture.shape[1], *(text_width(line, size=size) + size for line in lines))
        strip = np.full((3 * size * len(lines) // 2 + size // 2, width, 3), 255, np.uint8)
        for number_of_line, line in enumerate(lines):
            at = (size // 2, 3 * size * (number_of_line + 1) // 2 - size // 4)
            write_text(strip, line, at, size=size, bold=several or number_of_line == 0)
        padded = np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0)), constant_values=255)
        return np.concatenate([padded, strip])

    def example(self, result: Result, row: int) -> Example:
        """See `tcformer.inference.TaskPredictor.example`."""
        [best] = self._best(result.outputs["probabilities"][row])[:1]
        label = f"predicted: {best['title']} ({best['probability']:.0%})"
        return Example(result.crops[row], result.tokens[row], label=label)


def _titles(file: Path | None, count: int) -> list[str]:
    """The names of the classes, from a file or, if there are 1000, those of ImageNet."""
    if file is None:
        if count == _IMAGENET_CLASSES:
            titles = wordnet_titles()
            return [titles[name] for name in sorted(titles)]
        return [f"class {index}" for index in range(count)]
    if file.suffix == ".json":  # Keras' imagenet_class_index.json and classes.json of generated datasets
        content = read_json(file, "give a file with the names of the classes")
        entries = list(content.values()) if isinstance(content, dict) else content
        titles_read = [
            entry[-1] if isinstance(entry, list) and entry else entry
            for entry in (entries if isinstance(entries, list) else [])
        ]
    else:
        try:
            titles_read = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: cannot be read as text ({error}); give one name a line, or JSON") from error
    if len(titles_read) != count or not all(isinstance(title, str) for title in titles_read):
        raise UserError(f"{file}: expected the names of {count} classes, found {len(titles_read)}; give another file")
    return [title.replace("_", " ") for title in titles_read]


PREDICTOR = ImagenetPredictor
