"""What the predictors of all tasks have in common: settings, results, and the interface to `tcformer.Predictor`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tcformer.data.crops import centre_and_extent, to_image
from tcformer.data.images import ReducedImage
from tcformer.draw import Example, Partition
from tcformer.errors import UserError
from tcformer.heatmaps import CODECS, Codec, make_codec
from tcformer.inference.boxes import Boxes
from tcformer.inference.pictures import cut
from tcformer.tasks.drawing import View

if TYPE_CHECKING:
    from tcformer.models import Network

#: Decimals of numbers in the written results: of pixels, and of all other numbers.
PIXEL_DIGITS, DIGITS = 2, 5
_SHEET_PICTURE = 256  # about the height of a crop on a sheet, pixels
_TOKENS_ALONE = "the network predicts nothing that can be drawn or written; draw its tokens with Predictor.draw_tokens"


@dataclass(frozen=True)
class Settings:
    """How to predict. `Predictor.load` takes the same options.

    Attributes:
        flip_test: also predict the mirror image, and average. For heat maps only.
        input_size: (height, width) of the network's input; None: that of the training.
        body: folder of a body model in SMPL's format (see `tcformer.body.files`); None: the model of the project's
            generated people.
        classes: file with the names of the classes; None: those of ImageNet if there are 1000, else numbers.
    """

    flip_test: bool = False
    input_size: tuple[int, int] | None = None
    body: Path | None = None
    classes: Path | None = None


class Crop(NamedTuple):
    """The part of a picture that the network sees.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, the network's input.
        centre: (2,) x, y in pixels of the picture.
        extent: (2,) width, height in pixels of the picture.
    """

    pixels: NDArray[np.uint8]
    centre: NDArray[np.float64]
    extent: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Result:
    """What a network predicts for the people, faces or objects in one picture.

    Attributes:
        size: (height, width) of the picture.
        boxes: P boxes.
        points: (P, K, 2) float64 x, y in pixels of the picture: the 133 points of COCO-WholeBody (or the predicted
            part of them), WFLW's 98 landmarks, the projections of SPIN's 49 joints; K is 0 for other tasks.
        scores: (P, K) float64 confidence of each point; 1 for joints of a body.
        outputs: other outputs by name, each (P, ...): of meshes "rotations" (P, 24, 3, 3), "shape" (P, 10), "camera"
            (P, 3), "joints" (P, 49, 3) and "vertices" (P, V, 3) in metres; of classifiers "probabilities" (P, classes).
        tokens: for each of the P crops the regions of the tokens of each stage.
        crops: (P, H, W, 3) uint8 RGB, what the network saw.
        centre: (P, 2) x, y of the centres of the crops, pixels of the picture.
        extent: (P, 2) width, height of the crops, pixels of the picture.
    """

    size: tuple[int, int]
    boxes: Boxes
    points: NDArray[np.float64]
    scores: NDArray[np.float64]
    outputs: dict[str, NDArray[Any]]
    tokens: list[list[Partition]]
    crops: NDArray[np.uint8]
    centre: NDArray[np.float64]
    extent: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.boxes)

    def chosen(self, rows: Sequence[int]) -> Result:
        """The result for some of the boxes."""
        index = np.array(rows, np.int64)
        return replace(
            self,
            boxes=self.boxes.chosen(index),
            points=self.points[index],
            scores=self.scores[index],
            outputs={name: values[index] for name, values in self.outputs.items()},
            tokens=[self.tokens[row] for row in rows],
            crops=self.crops[index],
            centre=self.centre[index],
            extent=self.extent[index],
        )


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a network predicts for a batch of crops. See `Result`; points are in pixels of the network's input."""

    points: NDArray[np.float64]
    scores: NDArray[np.float64]
    outputs: dict[str, NDArray[Any]] = field(default_factory=dict)


#: Columns of the table that a served network returns, by name: type ("double", "long", "string"), and levels of nested
#: lists.
Columns = dict[str, tuple[str, int]]


class TaskPredictor:
    """The part of a `Predictor` that depends on the task; this base class shows tokens alone.

    A task's folder has a module `predict` with a subclass called `PREDICTOR`.

    Args:
        model: the network.
        trained: the options that it was trained with, as its weights file says; empty if this is not known.
        settings: how to predict.

    Attributes:
        input_size: (height, width) of the network's input.
        padding: factor by which a crop is larger than its box.
        shows: what is predicted, for a person; "" if only tokens can be shown.
        detects_people: whether its boxes are those of people.
        columns: what a served network returns for a picture (see `pipelines.prediction.serving`): boxes, points, scores
            and the `outputs` of the predictions.
        notes: what the user should know.
    """

    shows = ""
    detects_people = False
    columns: ClassVar[Columns] = {"boxes": ("double", 2), "points": ("double", 3), "scores": ("double", 2)}
    padding = 1.0
    default_size = (224, 224)

    def __init__(self, model: Network, trained: Mapping[str, Any], settings: Settings) -> None:
        self.settings = settings
        if settings.input_size is None:
            self.input_size = size_option(trained, self.default_size)
        else:
            self.input_size = _checked_size(settings.input_size, "input size", "give another size")
        self.notes: list[str] = []

    def crop(self, picture: ReducedImage, box: NDArray[np.float64], padded: bool = True) -> Crop:
        """Cut the crop around a box out of a picture.

        Args:
            picture: the picture.
            box: (4,) x, y, width, height in pixels.
            padded: whether the crop is larger than the box, as in the training; not for a box that is a whole picture.
        """
        centre, extent = centre_and_extent(box, self.input_size, self.padding if padded else 1.0)
        return Crop(cut(picture, centre, extent, self.input_size), centre, extent)

    def reduction(self, boxes: NDArray[np.float64]) -> float:
        """By how much the smallest crop of boxes (P, 4) is scaled down."""
        _, extent = centre_and_extent(boxes, self.input_size, self.padding)
        return float(extent[:, 0].min()) / self.input_size[1] if len(boxes) else 1.0

    def predict(self, model: Network, images: Tensor) -> Prediction:
        """Predict a batch of normalised images (B, 3, H, W)."""
        model.backbone(images)
        return Prediction(np.zeros((len(images), 0, 2)), np.zeros((len(images), 0)))

    def without_duplicates(self, result: Result) -> Result:
        """Remove predictions of the same person."""
        return result

    def records(self, result: Result) -> list[dict[str, Any]]:
        """The content of predictions.json for a picture: a record for each box, without the name of the picture.

        Raises:
            UserError: the network predicts nothing for any picture.
        """
        raise UserError(_TOKENS_ALONE)

    def draw(self, view: View, result: Result, threshold: float) -> NDArray[np.uint8]:
        """Draw a result on its picture.

        Args:
            view: the picture, at the size in which it is drawn.
            result: for the picture.
            threshold: points whose score is not above it are not drawn.

        Raises:
            UserError: the network predicts nothing for any picture.
        """
        raise UserError(_TOKENS_ALONE)

    @property
    def sheet_scale(self) -> int:
        """Pixels of a sheet for a pixel of a crop, along each axis."""
        return max(1, round(_SHEET_PICTURE / self.input_size[0]))

    def example(self, result: Result, row: int) -> Example:
        """A crop with its tokens and its prediction, for a sheet."""
        return Example(result.crops[row], result.tokens[row])


class HeatMapPredictor(TaskPredictor):
    """The base of predictors whose networks predict heat maps.

    Attributes:
        codec: of the training.
        flip: (K,) point i of a mirrored image is point `flip[i]` of the original.
    """

    default_sigma = 2.0
    padding = 1.25
    flip: NDArray[np.int64]

    def __init__(self, model: Network, trained: Mapping[str, Any], settings: Settings) -> None:
        super().__init__(model, trained, settings)
        self.padding = number_option(trained, "box_padding", self.padding)
        sigma = number_option(trained, "sigma", self.default_sigma)
        name = trained.get("codec", "mmpose")  # that of the authors, and of older versions
        if not (isinstance(name, str) and name in CODECS):
            raise UserError(
                f"codec {name!r:.40}: expected one of {', '.join(CODECS)}; use the version that wrote the file"
            )
        self.codec: Codec = make_codec(name, input_size=self.input_size, sigma=sigma)

    def predict(self, model: Network, images: Tensor) -> Prediction:
        """See `TaskPredictor.predict`."""
        maps = self.codec.flip_test(model, images, self.flip) if self.settings.flip_test else model(images)
        points, scores = self.codec.decode(maps)
        return Prediction(points.cpu().numpy().astype(np.float64), scores.cpu().numpy().astype(np.float64))

    def in_crop(self, result: Result, row: int) -> NDArray[np.float64]:
        """Points of a crop (K, 3): x, y in pixels of the crop, score."""
        points = (result.points[row] - result.centre[row]) / result.extent[row] + 0.5
        return np.concatenate([points * self.input_size[::-1], result.scores[row][:, None]], 1)


def points_in_picture(
    prediction: Prediction, crops: Sequence[Crop], input_size: tuple[int, int]
) -> NDArray[np.float64]:
    """The points of a batch in pixels of the pictures."""
    centre, extent = (np.stack([crop[i] for crop in crops]) for i in (1, 2))
    return to_image(prediction.points, centre, extent, input_size)


def rounded(values: NDArray[Any], digits: int) -> list[Any]:
    """An array as nested lists for JSON."""
    nested: list[Any] = np.round(np.asarray(values, np.float64), digits).tolist()
    return nested


def number_option(trained: Mapping[str, Any], name: str, default: float) -> float:
    """An option of the training that is a number above 0.

    Raises:
        UserError: it is something else.
    """
    value = trained.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e4:
        raise UserError(f"option {name} of the training: expected a number above 0, found {value!r:.40}; train again")
    return float(value)


def size_option(trained: Mapping[str, Any], default: tuple[int, int]) -> tuple[int, int]:
    """The option `input_size` of the training, one or two integers, as (height, width).

    Raises:
        UserError: it is something else.
    """
    hint = "give the size yourself, or train again"
    return _checked_size(trained.get("input_size", list(default)), "option input_size of the training", hint)


def _checked_size(value: object, name: str, hint: str) -> tuple[int, int]:
    """One or two integers as (height, width).

    Args:
        value: the integers.
        name: where they come from, for the message.
        hint: what to do if they are wrong, for the message.

    Raises:
        UserError: they are something else.
    """
    pair: Sequence[Any] = value if isinstance(value, list | tuple) else [value, value]
    if len(pair) != 2 or not all(isinstance(v, int) and not isinstance(v, bool) and 29 <= v <= 8192 for v in pair):
        raise UserError(f"{name}: expected height and width of 29 to 8192 pixels, found {value!r:.40}; {hint}")
    return pair[0], pair[1]
