"""From a picture to keypoints, landmarks, meshes or classes, with weights of any origin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tcformer.data.images import ReducedImage, normalise
from tcformer.errors import UserError
from tcformer.files import user_path
from tcformer.inference.base import Crop, Prediction, Result, Settings, TaskPredictor, points_in_picture
from tcformer.inference.boxes import Boxes
from tcformer.inference.pictures import as_picture, read_picture
from tcformer.inference.recognise import LoadedWeights, load_any_weights
from tcformer.tasks.drawing import View, first_output, partitions_of
from tcformer.tasks.registry import ALL_TASKS

if TYPE_CHECKING:
    from tcformer.inference.onnx_runtime import OnnxNetwork
    from tcformer.models import Tokens

#: Pixels (H, W, 3) uint8 RGB, a file, or what `Predictor.read` returned for it.
Image: TypeAlias = NDArray[np.uint8] | Path | str | ReducedImage

_DRAWN_SIDE = 1600  # longest side of a drawn picture, pixels


class Predictor:
    """Predicts pictures with one network. `Predictor.load` makes it from a weights file.

        predictor = tcformer.Predictor.load("model.safetensors")
        result = predictor("photo.jpg", boxes=[[10, 20, 200, 400]])  # x, y, width, height; without boxes: the whole
        result.points, result.scores  # (1, 133, 2) x, y in pixels of the photo, (1, 133)
        result.tokens[0][3].token_of_cell  # the token of each grid cell at the last of the four stages

    Attributes:
        weights: the file, its network and what is known of its training.
        task: the part that depends on the task: input size, codec, records, drawing.
        batch: number of crops that are predicted at once.
        runtime: what runs the network: "torch", "onnx", or "" as long as it has not been measured which is faster.
        notes: what the user should know.
    """

    def __init__(
        self,
        weights: LoadedWeights,
        task: TaskPredictor,
        device: torch.device,
        batch: int = 16,
        onnx: OnnxNetwork | None = None,
    ) -> None:
        self.weights = weights
        self.task = task
        self.batch = batch
        self.runtime = "torch" if onnx is None else ""
        self.notes: list[str] = []
        self._device = device
        self._onnx = onnx
        self._model = weights.model.to(device)

    @classmethod
    def load(
        cls,
        weights: Path | str,
        *,
        device: str | torch.device | None = None,
        flip_test: bool = False,
        input_size: tuple[int, int] | None = None,
        body: Path | str | None = None,
        classes: Path | str | None = None,
        batch: int = 16,
        onnx: Path | str | None = None,
    ) -> Predictor:
        """Load weights that this project wrote, or a checkpoint of the authors or another trainer.

        Input size, box padding and codec are those of the training, which the file names. For other checkpoints they
        are those of the paper.

        Args:
            weights: the file.
            device: such as "cpu" or "cuda:0"; by default a GPU if there is one.
            flip_test: also predict the mirror image, and average the heat maps.
            input_size: (height, width) of the network's input instead of that of the training.
            body: folder of a body model in SMPL's format, for meshes; by default that of the generated people.
            classes: file with the names of the classes; by default those of ImageNet if there are 1000.
            batch: number of crops that are predicted at once.
            onnx: file of `tcformer export` for these weights, for a CPU. The first prediction measures whether ONNX
                Runtime or PyTorch is faster for its number of crops, and the faster one is used from then on. ONNX
                Runtime gives no tokens.

        Raises:
            UserError: the file does not exist or is damaged, its network is unknown, or an option does not fit it.
        """
        place = choose_device(device)
        loaded = load_any_weights(weights)
        settings = Settings(
            flip_test=flip_test,
            input_size=input_size,
            body=None if body is None else user_path(body),
            classes=None if classes is None else user_path(classes),
        )
        try:
            task = _task_predictor(loaded)(loaded.model, loaded.trained, settings)
        except UserError as error:
            raise UserError(f"{weights}: {error}") from error
        if onnx is None:
            return cls(loaded, task, place, batch)
        if place.type != "cpu":
            raise UserError(f"{onnx}: ONNX Runtime is used on CPUs alone; give the device cpu, or no ONNX file")
        if not task.shows:
            raise UserError(
                f"{onnx}: ONNX Runtime gives no tokens, and {weights} predicts nothing else; give no ONNX file"
            )
        from tcformer.inference.onnx_runtime import OnnxNetwork

        return cls(loaded, task, place, batch, OnnxNetwork(user_path(onnx), loaded.model, task.input_size))

    def __call__(self, image: Image, boxes: Boxes | ArrayLike | None = None) -> Result:
        """Predict one picture.

        Args:
            image: pixels (H, W, 3) uint8 RGB, or a file.
            boxes: (P, 4) x, y, width, height in pixels; None: one box that is the whole picture.

        Raises:
            UserError: the file cannot be read, or a box is wrong.
        """
        [result] = self.predict([image], [boxes])
        return result

    def predict(self, images: Sequence[Image], boxes: Sequence[Boxes | ArrayLike | None] | None = None) -> list[Result]:
        """Predict several pictures in batches of crops. Arguments for each picture as for one picture.

        Raises:
            UserError: a file cannot be read, or a box is wrong.
        """
        pictures, chosen, crops = [], [], []
        for index, (image, given) in enumerate(zip(images, boxes or [None] * len(images), strict=True)):
            name = str(image) if isinstance(image, str | Path) else f"picture {index}"
            known = given if isinstance(given, Boxes) or given is None else Boxes.of(given)
            picture = self._picture(image, known)
            in_picture = Boxes.whole(picture.size) if known is None else known
            in_picture.check_inside(picture.size, name)
            pictures.append(picture.size)
            chosen.append(in_picture)
            crops.append([self.task.crop(picture, box, padded=known is not None) for box in in_picture.xywh])
        return list(self._results(pictures, chosen, crops))

    def read(self, path: Path | str, boxes: Boxes | None = None, upright: bool = True) -> ReducedImage:
        """Read a picture as large as the network and a drawing need it.

        Args:
            path: the file.
            boxes: that will be predicted; None: the whole picture.
            upright: turn the picture as its EXIF tag says; the boxes must be those of the turned picture.

        Raises:
            ImageError: the file cannot be read or is not an image.
        """

        def ratio(size: tuple[int, int]) -> float:
            xywh = (Boxes.whole(size) if boxes is None else boxes).xywh
            return min(self.task.reduction(xywh) / 2, max(size) / _DRAWN_SIDE)

        return read_picture(user_path(path), ratio, upright)

    def draw(self, image: Image, result: Result, threshold: float = 0.3) -> NDArray[np.uint8]:
        """Draw a result on its picture, scaled down to at most 1600 pixels along its longer side.

        Args:
            image: the picture.
            result: for the picture.
            threshold: points whose score is not above it are not drawn.

        Returns:
            (H, W, 3) uint8 RGB.
        """
        picture = self._picture(image, None)
        view = View(picture.pixels, factor=1 / picture.factor)
        height, width = picture.pixels.shape[:2]
        if (scale := _DRAWN_SIDE / max(height, width)) < 1:
            view = view.resized(max(1, round(width * scale)), max(1, round(height * scale)))
        return self.task.draw(view, result, threshold) if len(result) else view.pixels.copy()

    def draw_tokens(self, result: Result) -> NDArray[np.uint8]:
        """Draw a sheet with a row for each crop: the crop, the tokens of each stage, their sizes, the prediction.

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            UserError: the result has no crop or no tokens.
        """
        from tcformer import draw as pictures

        if not len(result):
            raise UserError("the result has no crop whose tokens could be drawn; give a picture with a box")
        if not result.tokens[0]:
            raise UserError(
                "the result has no tokens: ONNX Runtime and the classifiers of timm give none; load weights of a "
                "TCFormer, without an ONNX file"
            )
        examples = [self.task.example(result, row) for row in range(len(result))]
        return pictures.token_sheet(examples, scale=self.task.sheet_scale)

    def _picture(self, image: Image, boxes: Boxes | None) -> ReducedImage:
        if isinstance(image, str | Path):
            return self.read(image, boxes)
        return image if isinstance(image, ReducedImage) else as_picture(image)

    @torch.inference_mode()
    def _run(self, images: Tensor) -> tuple[Prediction, list[Tokens | Tensor]]:
        """Predict a batch, and the outputs of the stages, which ONNX Runtime does not give."""
        if self._onnx is not None:
            if not self.runtime:
                self._choose_runtime(self._onnx, images)
            if self.runtime == "onnx":
                return self.task.predict(self._onnx, images), []
        with first_output(self._model.backbone) as stages:
            return self.task.predict(self._model, images), stages

    def _choose_runtime(self, onnx: OnnxNetwork, images: Tensor) -> None:
        """Use what is faster for a batch like this one."""
        from tcformer.inference.onnx_runtime import seconds_of_each

        seconds = dict(zip(("onnx", "torch"), seconds_of_each([onnx, self._model], images)))
        self.runtime = min(seconds, key=lambda name: seconds[name])
        times = [f"{1e3 * seconds[name] / len(images):.1f} ms" for name in ("onnx", "torch")]
        self.notes.append(
            f"ONNX Runtime takes {times[0]} and PyTorch {times[1]} for each of {len(images)} crops at once: "
            f"{'ONNX Runtime' if self.runtime == 'onnx' else 'PyTorch'} is used"
        )

    def _results(self, sizes: list[tuple[int, int]], boxes: list[Boxes], crops: list[list[Crop]]) -> Iterator[Result]:
        every = [crop for of_picture in crops for crop in of_picture]
        parts, tokens = [], []
        for start in range(0, len(every), self.batch):
            batch = every[start : start + self.batch]
            images = torch.from_numpy(np.stack([normalise(crop.pixels) for crop in batch])).to(self._device)
            found, stages = self._run(images)
            tokens += [partitions_of(stages, images, row) for row in range(len(batch))]
            parts.append((found, points_in_picture(found, batch, self.task.input_size)))
        if parts:
            points = np.concatenate([points for _, points in parts])
            scores = np.concatenate([found.scores for found, _ in parts])
            names = parts[0][0].outputs
            outputs = {name: np.concatenate([found.outputs[name] for found, _ in parts]) for name in names}
        else:
            points, scores, outputs = np.zeros((0, 0, 2)), np.zeros((0, 0)), {}
        start = 0
        for size, of_picture, cut in zip(sizes, boxes, crops):
            rows = slice(start, start + len(cut))
            start += len(cut)
            result = Result(
                size=size,
                boxes=of_picture,
                points=points[rows],
                scores=scores[rows],
                outputs={name: values[rows] for name, values in outputs.items()},
                tokens=tokens[rows],
                crops=np.array([crop.pixels for crop in cut], np.uint8).reshape(-1, *self.task.input_size, 3),
                centre=np.array([crop.centre for crop in cut], np.float64).reshape(-1, 2),
                extent=np.array([crop.extent for crop in cut], np.float64).reshape(-1, 2),
            )
            yield self.task.without_duplicates(result)


def choose_device(name: str | torch.device | None) -> torch.device:
    """The device of a name; None: a GPU if there is one, else the CPU.

    Raises:
        UserError: there is no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"device {name}: cannot be used ({reason}); expected cpu, or cuda on a machine with a GPU"
        ) from error
    return device


def _task_predictor(weights: LoadedWeights) -> type[TaskPredictor]:
    """The predictor of a task; that of tokens alone, if the network predicts nothing for any picture."""
    task = weights.task
    if weights.model.in_chans != 3:
        raise UserError(
            f"the network expects images of {weights.model.in_chans} channels, but pictures have 3; call the network "
            "itself: tcformer.load_model(...)(images)"
        )
    if weights.model.config["options"].get("num_classes") == 0:  # a classifier without its last layer
        return TaskPredictor
    return (ALL_TASKS[task].predictor if task in ALL_TASKS else None) or TaskPredictor
