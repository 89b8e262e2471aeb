"""Predict the pictures and videos that a person names, and write what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipelines.prediction.box_files import BoxFile
from pipelines.prediction.inputs import find_inputs, is_video, opened_video
from pipelines.prediction.outputs import OutputFolder, VideoFile
from pipelines.running.progress import Progress, say
from tcformer.data.images import ImageError, ReducedImage
from tcformer.errors import UserError
from tcformer.inference import Boxes, Result
from tcformer.inference.pictures import as_picture, read_picture
from tcformer.memory import keep_freed_memory
from tcformer.predictor import Predictor, choose_device

_PIXELS_AT_ONCE = 1 << 26  # in memory, of the pictures of a batch: 200 MB
#: A file, its pixels or those of a frame, and its boxes if they are known.
_Picture: TypeAlias = tuple[Path, ReducedImage, Boxes | None]
Detector = Callable[[NDArray[np.uint8]], Boxes]


@dataclass(frozen=True)
class PredictOptions:
    """Options of the commands `predict` and `tokens`.

    Attributes:
        inputs: files, folders and patterns.
        weights: the weights file.
        out: folder of the results.
        boxes: file with boxes; None: each picture is one box, or the detector finds them.
        detector: what finds the boxes.
        box_score: boxes with a lower score are dropped.
        threshold: points whose score is not above it are not drawn.
        tokens: also draw the tokens.
        predictions: draw and write what is predicted; False: the tokens alone.
        pictures: draw at all.
        flip_test: also predict mirror images.
        input_size: (height, width) of the network's input, or None.
        body: folder of a body model, or None.
        classes: file with the names of classes, or None.
        batch: number of crops that are predicted at once.
        device: name of the device, or None.
        onnx: the same network as an ONNX file, or None.
    """

    inputs: tuple[str, ...]
    weights: Path
    out: Path
    boxes: Path | None = None
    detector: Literal["torchvision"] | None = None
    box_score: float = 0.5
    threshold: float = 0.3
    tokens: bool = False
    predictions: bool = True
    pictures: bool = True
    flip_test: bool = False
    input_size: tuple[int, int] | None = None
    body: Path | None = None
    classes: Path | None = None
    batch: int = 16
    device: str | None = None
    onnx: Path | None = None


def predict_files(options: PredictOptions) -> int:
    """Predict all inputs.

    Returns:
        The number of files that could not be read, each of which was named on the standard error.

    Raises:
        UserError: an option is wrong, or no file could be read.
    """
    if options.tokens and options.onnx is not None:
        raise UserError("--onnx: ONNX Runtime gives no tokens; leave out --tokens, or --onnx")
    files = find_inputs(options.inputs)
    boxes = None if options.boxes is None else BoxFile(options.boxes, options.box_score)
    if boxes:
        boxes.check_pictures(files)
    keep_freed_memory()
    predictor = Predictor.load(
        options.weights,
        device=options.device,
        flip_test=options.flip_test,
        input_size=options.input_size,
        body=options.body,
        classes=options.classes,
        batch=options.batch,
        onnx=options.onnx,
    )
    if options.predictions and not predictor.task.shows:
        raise UserError(
            f"{options.weights}: a network for {predictor.weights.task} predicts nothing that can be drawn; expected "
            "weights for whole-body pose, faces, own keypoints, meshes or classes; `tcformer tokens` draws its tokens"
        )
    notes = predictor.weights.notes + (predictor.task.notes if options.predictions else [])
    for note in notes:
        say(f"note: {note}", as_error=True)
    job = _Job(options, predictor, boxes, _detector(options, predictor), OutputFolder(options.out, files), files)
    return job.run()


def _detector(options: PredictOptions, predictor: Predictor) -> Detector | None:
    if options.detector is None:
        return None
    if not predictor.task.detects_people:
        raise UserError(
            f"--detector {options.detector}: it finds people, but these weights predict "
            f"{predictor.task.shows or 'nothing of people'}; give boxes with --boxes"
        )
    from tcformer.inference import PersonDetector

    return PersonDetector(choose_device(options.device), options.box_score)


class _Job:
    """The files of one call of the command, and what was found in them so far."""

    def __init__(
        self,
        options: PredictOptions,
        predictor: Predictor,
        boxes: BoxFile | None,
        detector: Detector | None,
        out: OutputFolder,
        files: list[Path],
    ) -> None:
        self._options = options
        self._predictor = predictor
        self._boxes = boxes
        self._detector = detector
        self._out = out
        self._files = files
        self._numbers = _numbers(files, boxes)
        self._records: list[dict[str, Any]] = []
        self._skipped = 0
        self._found = 0

    def run(self) -> int:
        pictures = [file for file in self._files if not is_video(file)]
        with Progress("predict", len(pictures), "picture") as progress:
            for group in _batches(self._read(pictures, progress), self._options.batch):
                for (file, image, _), result in zip(group, self._predict(group)):
                    self._keep(file, result)
                    if self._options.pictures:
                        self._draw(file.stem, image, result)
                    progress.update(1)
        for file in self._files:
            if is_video(file):
                self._video(file)
        if self._skipped == len(self._files):
            raise UserError("none of the files could be read; see above; give pictures or videos")
        if self._options.predictions:
            self._out.write_records(self._records)
        self._report()
        return self._skipped

    def _predict(self, group: list[_Picture]) -> list[Result]:
        """Predict pictures, and print what the predictor found out, once."""
        results = self._predictor.predict([image for _, image, _ in group], [boxes for *_, boxes in group])
        while self._predictor.notes:
            say(f"note: {self._predictor.notes.pop(0)}", as_error=True)
        return results

    def _report(self) -> None:
        read = len(self._files) - self._skipped
        of_files = f"{read} {'file' if read == 1 else 'files'}" + (
            f", {self._skipped} skipped" if self._skipped else ""
        )
        found = f"{self._predictor.task.shows}: {self._found}" if self._options.predictions else "tokens"
        print(f"{found} in {of_files}; see {self._out.folder}")

    def _read(self, files: list[Path], progress: Progress) -> Iterator[_Picture]:
        """The pictures that can be read, with their boxes."""
        for file in files:
            try:
                boxes = None if self._boxes is None else self._boxes.of(file)
                if self._detector is not None:
                    # Boxes are of the turned picture, at full size, so the crops are cut from it.
                    image = read_picture(file)
                    boxes = self._detector(image.pixels)
                else:
                    image = self._predictor.read(file, boxes, upright=self._boxes is None)
                if boxes is not None:
                    boxes.check_inside(image.size, str(file))
            except ImageError as error:
                if len(self._files) == 1:
                    raise
                self._skip(str(error))
                progress.update(1)
                continue
            yield file, image, boxes

    def _skip(self, reason: str) -> None:
        self._skipped += 1
        say(f"skipped: {reason}", as_error=True)

    def _keep(self, file: Path, result: Result, frame: int | None = None) -> None:
        self._found += len(result)
        if not self._options.predictions or not len(result):
            return
        place: dict[str, Any] = {"file_name": file.name, "image_id": self._numbers[file]}
        if frame is not None:
            place["frame"] = frame
        self._records += [{**place, **record} for record in self._predictor.task.records(result)]

    def _draw(self, stem: str, image: ReducedImage, result: Result) -> None:
        if self._options.predictions:
            self._out.write_picture(stem, self._predictor.draw(image, result, self._options.threshold))
        if self._options.tokens and len(result):
            self._out.write_picture(f"{stem}-tokens", self._predictor.draw_tokens(result), ".png")

    def _video(self, file: Path) -> None:
        try:
            with opened_video(file) as video, Progress(f"predict {file.name}", video.length, "frame") as progress:
                drawn = VideoFile(self._out.free(file.stem, ".mp4"), video.fps)
                tokens = VideoFile(self._out.free(f"{file.stem}-tokens", ".mp4"), video.fps)
                count = 0
                try:
                    frames = ((file, as_picture(frame), self._boxes_of_frame(file, frame)) for frame in video.frames())
                    for group in _batches(frames, self._options.batch):
                        for (_, image, _), result in zip(group, self._predict(group)):
                            self._keep(file, result, count)
                            self._draw_frame(image, result, drawn, tokens)
                            count += 1
                            progress.update(1)
                finally:
                    drawn.close()
                    tokens.close()
                if not count:
                    raise UserError(
                        f"video {file}: has no frame that can be decoded; convert it, for instance with ffmpeg"
                    )
        except UserError as error:
            if len(self._files) == 1:
                raise
            self._skip(str(error))

    def _boxes_of_frame(self, file: Path, frame: NDArray[np.uint8]) -> Boxes | None:
        if self._detector is not None:
            return self._detector(frame)
        return None if self._boxes is None else self._boxes.of(file)

    def _draw_frame(self, image: ReducedImage, result: Result, drawn: VideoFile, tokens: VideoFile) -> None:
        if not self._options.pictures:
            return
        if self._options.predictions:
            drawn.write(self._predictor.draw(image, result, self._options.threshold))
        if self._options.tokens and len(result):
            tokens.write(self._predictor.draw_tokens(result.chosen([0])))  # of the first person


def _batches(pictures: Iterable[_Picture], size: int) -> Iterator[list[_Picture]]:
    """Pictures or frames in lists of `size`, or fewer if they are large."""
    group: list[_Picture] = []
    for picture in pictures:
        group.append(picture)
        if len(group) == size or sum(image.pixels.size // 3 for _, image, _ in group) >= _PIXELS_AT_ONCE:
            yield group
            group = []
    if group:
        yield group


def _numbers(files: list[Path], boxes: BoxFile | None) -> dict[Path, int]:
    """The image_id of each file: that of the annotations, else the number that is its name, else its place from 1."""
    if boxes is not None and boxes.image_ids:
        known = {file: boxes.image_id(file) for file in files}
        if all(number is not None for number in known.values()):
            return {file: number for file, number in known.items() if number is not None}
    stems = [file.stem.rpartition("_")[2] for file in files]
    if all(stem.isascii() and stem.isdigit() and len(stem) < 19 for stem in stems) and len(set(stems)) == len(stems):
        return {file: int(stem) for file, stem in zip(files, stems)}
    return {file: number for number, file in enumerate(files, 1)}
