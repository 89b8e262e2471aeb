"""Classification images in ImageNet's folder layout, <root>/{train,val}/<wnid>/<image>, or with a tar a class,
<root>/{train,val}/<wnid>.tar: the samples are the same."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tcformer.data.batch import collate
from tcformer.data.imagenet.class_archives import SUFFIX, Member, read_index, read_member
from tcformer.data.imagenet.mixing import mix_pair, smooth_targets
from tcformer.data.imagenet.randaugment import color_jitter, rand_augment
from tcformer.data.images import ImageError, decode_image, normalise, read_image
from tcformer.errors import UserError, listed
from tcformer.parameters import parameters

if TYPE_CHECKING:
    from PIL.Image import Image

_EXTENSIONS: Final = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_A_FILE: Final = -1  # in place of the offset in a tar


@parameters
class ImageAugmentation:
    """Random changes to a training image, in the order in which they are drawn."""

    #: smallest and largest share of the image's area that a crop takes
    crop_area: tuple[float, float]
    #: smallest and largest width over height of a crop
    crop_aspect: tuple[float, float]
    #: probability of mirroring
    flip_probability: float
    #: mean severity of RandAugment's operations in [0, 10]; 0 for none
    rand_augment: float
    #: standard deviation of the severity
    rand_augment_std: float
    #: largest relative change of brightness, contrast and saturation; as in timm not beside RandAugment
    color_jitter: float
    #: probability of overwriting a rectangle with noise
    random_erasing: float
    #: alpha of the Beta distribution of the mixup ratio; 0 for no mixup
    mixup: float
    #: alpha of the Beta distribution of the CutMix ratio; 0 for no CutMix
    cutmix: float
    #: probability of CutMix instead of mixup if both are on
    cutmix_probability: float
    #: share of the target spread evenly over all classes
    label_smoothing: float


def find_classes(root: Path, num_classes: int) -> list[str]:
    """The sorted names of the class folders or tars of train and val; a class's index is its rank.

    Raises:
        UserError: there are not `num_classes` of them.
    """
    found = {split: class_names(root / split) for split in ("train", "val")}
    classes = sorted(found["train"] | found["val"])
    if len(classes) != num_classes:
        where = f"{root}: {len(classes)} class folders in train and val, expected num_classes = {num_classes}"
        odd = sorted(found["train"] ^ found["val"]) if all(found.values()) else []
        hint = f" (only in one of the two: {listed(odd)})" if odd else ""
        raise UserError(f"{where}{hint}; run the prepare stage, or set the data root or num_classes right")
    return classes


def class_names(folder: Path) -> set[str]:
    """The names of the class folders and class tars of a split."""
    try:
        with os.scandir(folder) as entries:
            return {
                entry.name.removesuffix(SUFFIX) for entry in entries if entry.is_dir() or entry.name.endswith(SUFFIX)
            }
    except FileNotFoundError:
        return set()


class ImageFolderDataset:
    """The images of a split as samples.

    A sample holds
        image: (3, size, size) float32, RGB normalised by the ImageNet mean and standard deviation
        label, index: int
        mix: int, with augmentation only: the seed of what `collate` does to the pair that this sample begins

    Args:
        root: data root.
        split: "train" or "val".
        classes: folder names in the order of the labels.
        size: side of the network's input in pixels.
        crop_fraction: share of the resized image's short side that the plain sample's centre crop takes.
        augmentation: used where `sample` is given a generator; without it such a sample is the plain one.
    """

    def __init__(
        self,
        root: Path,
        split: Literal["train", "val"],
        classes: Sequence[str],
        size: int,
        crop_fraction: float,
        augmentation: ImageAugmentation | None = None,
    ) -> None:
        self.folder = root / split
        self.classes = list(classes)
        self.size = size
        self.crop_fraction = crop_fraction
        self.augmentation = augmentation
        # A numpy array of bytes, since a list of a million strings is copied in every loader process.
        members: list[Member] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            found = class_images(self.folder, name)
            members += found
            labels += [label] * len(found)
        if not members:
            raise UserError(
                f"{self.folder}: no images found; expected <class>/<image>; run the prepare stage or set the data root"
            )
        labelled = set(labels)
        empty = [name for label, name in enumerate(classes) if label not in labelled]
        # A split may lack a class; a folder or tar of one without an image was not unpacked or copied whole.
        if broken := sorted(class_names(self.folder) & set(empty)):
            raise UserError(
                f"{self.folder}: {len(broken)} of {len(classes)} classes hold no image: {listed(broken)}; unpack them "
                f"again, or take them away"
            )
        self._names: NDArray[np.bytes_] = np.array([os.fsencode(member.name) for member in members])
        self._places: NDArray[np.int64] = np.array([member[1:] for member in members], np.int64)  # offset, size
        self.labels: NDArray[np.int64] = np.array(labels, np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> Path:
        """The file of sample `index`; in a class's tar, that of the tar with the image's name below it."""
        tar = SUFFIX if self._places[index, 0] != _A_FILE else ""
        return self.folder / f"{self.classes[self.labels[index]]}{tar}" / os.fsdecode(self._names[index])

    def read(self, index: int) -> NDArray[np.uint8]:
        """The image of sample `index`, (H, W, 3) RGB. Raises ImageError."""
        path = self.path(index)
        offset, size = self._places[index].tolist()
        if offset == _A_FILE:
            return read_image(path)
        try:
            data = read_member(path.parent, Member(path.name, offset, size))
        except OSError as error:
            raise ImageError(f"image {path}: cannot be read ({error}); put the tar back") from error
        return decode_image(data, path)

    def sample(self, index: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """The image `index`; augmented if a generator is given, from which alone all randomness comes."""
        from PIL.Image import fromarray

        pixels = self.read(index)
        sample: dict[str, Any] = {"label": int(self.labels[index]), "index": index}
        if rng is None or self.augmentation is None:
            sample["image"] = normalise(np.asarray(centre_crop(fromarray(pixels), self.size, self.crop_fraction)))
        else:
            sample["image"] = self._augmented(pixels, self.augmentation, rng)
            sample["mix"] = int(rng.integers(2**63))
        return sample

    def _augmented(
        self, pixels: NDArray[np.uint8], options: ImageAugmentation, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        from PIL.Image import Transpose, fromarray

        height, width = pixels.shape[:2]
        left, top, right, bottom = random_crop_box((width, height), options.crop_area, options.crop_aspect, rng)
        image = fromarray(resize(pixels[top:bottom, left:right], self.size))
        if rng.random() < options.flip_probability:
            image = image.transpose(Transpose.FLIP_LEFT_RIGHT)
        if options.rand_augment > 0:
            image = rand_augment(image, options.rand_augment, options.rand_augment_std, rng)
        elif options.color_jitter > 0:
            image = color_jitter(image, options.color_jitter, rng)
        out = normalise(np.asarray(image))
        if rng.random() < options.random_erasing:
            erase_rectangle(out, rng)
        return out

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Stack samples to a batch: image (B, 3, size, size), label (B,), index (B,).

        Augmented samples further get soft targets (B, classes), smoothed; with mixup or CutMix the samples 2i
        and 2i + 1 are mixed. A pair's randomness comes from its first sample, not from how a global batch is
        divided.

        Raises:
            ValueError: an odd number of samples to mix.
        """
        batch = collate(samples)
        options = self.augmentation
        if options is None or "mix" not in batch:
            return batch
        images, seeds = batch["image"], batch.pop("mix").tolist()
        targets = smooth_targets(batch["label"], len(self.classes), options.label_smoothing)
        if options.mixup > 0 or options.cutmix > 0:
            if len(samples) % 2:
                raise ValueError(f"expected an even number of samples to mix in pairs, got {len(samples)}")
            strength = (options.mixup, options.cutmix, options.cutmix_probability)
            for i in range(0, len(samples), 2):
                pair, rng = slice(i, i + 2), np.random.default_rng(seeds[i])
                images[pair], targets[pair] = mix_pair(images[pair], targets[pair], *strength, rng)
        return {**batch, "image": images, "targets": targets}


def class_images(folder: Path, name: str) -> list[Member]:
    """The images of a class of a split, sorted by name: of the folder `name`, else of the tar; offset -1 for files.

    Raises:
        UserError: the tar is no whole tar of plain files.
    """
    try:
        with os.scandir(folder / name) as entries:
            names = sorted(entry.name for entry in entries if entry.name.lower().endswith(_EXTENSIONS))
        return [Member(image, _A_FILE, 0) for image in names]
    except FileNotFoundError:
        archive = folder / f"{name}{SUFFIX}"
    members = read_index(archive) if archive.exists() else []
    return [member for member in members if member.name.lower().endswith(_EXTENSIONS)]


def centre_crop(image: Image, size: int, crop_fraction: float) -> Image:
    """Resize so that `size` is `crop_fraction` of the short side (bicubic), and cut out the middle.

    The rounding is torchvision's.
    """
    from PIL.Image import Resampling

    short = int(size / crop_fraction)
    width, height = image.size
    if width < height:
        width, height = short, int(short * height / width)
    else:
        width, height = int(short * width / height), short
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.resize((width, height), Resampling.BICUBIC).crop((left, top, left + size, top + size))


def resize(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(H, W, 3) to (size, size, 3), bicubic with antialiasing.

    PyTorch's for bytes, which takes a quarter of Pillow's time and differs from it in 2 % of the values, seldom by more
    than one; test images are resized by Pillow itself.
    """
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    resized = F.interpolate(planes, (size, size), mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def random_crop_box(
    image_size: tuple[int, int],
    area: tuple[float, float],
    aspect: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[int, int, int, int]:
    """A random crop as torchvision and timm draw it: ten trials, then a central one as large as allowed.

    Args:
        image_size: width, height in pixels.
        area: smallest and largest share of the image's area.
        aspect: smallest and largest width over height; its logarithm is uniform.

    Returns:
        left, top, right, bottom in pixels.
    """
    width, height = image_size
    for _ in range(10):
        target = rng.uniform(*area) * width * height
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, round(height * aspect[1])), min(height, round(width / aspect[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def erase_rectangle(image: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Overwrite a rectangle of a normalised (3, H, W) image with standard normal noise, in place.

    As timm's random erasing of mode "pixel": 2 % to 33 % of the area, aspect in [0.3, 1 / 0.3], ten trials.
    """
    height, width = image.shape[1:]
    for _ in range(10):
        area = rng.uniform(0.02, 1 / 3) * height * width
        aspect = math.exp(rng.uniform(math.log(0.3), -math.log(0.3)))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if w < width and h < height:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            noise = rng.standard_normal((3, h, w), np.float32)
            image[:, top : top + h, left : left + w] = noise
            return
