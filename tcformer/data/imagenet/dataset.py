"""ImageNet's images and samples from them.

Images are in folders, <root>/{train,val}/<wnid>/<image>, or in a tar for each class, <root>/{train,val}/<wnid>.tar. The
samples are the same.
"""

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
from tcformer.data.images import ImageError, decode_image, is_image_name, normalise, read_image
from tcformer.errors import UserError, listed
from tcformer.parameters import parameters

if TYPE_CHECKING:
    from PIL.Image import Image

_EXTENSIONS: Final = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_NO_TAR: Final = -1  # instead of an offset, for an image that is a file of its own


@parameters
class ImageAugmentation:
    """Random changes of a training image, in the order in which they are drawn."""

    #: smallest and largest area of a crop, as a fraction of the image's
    crop_area: tuple[float, float]
    #: smallest and largest width over height of a crop
    crop_aspect: tuple[float, float]
    #: probability of mirroring
    flip_probability: float
    #: mean magnitude of RandAugment's operations in [0, 10]; 0 for no RandAugment
    rand_augment: float
    #: standard deviation of the magnitude
    rand_augment_std: float
    #: largest relative change of brightness, contrast and saturation; as in timm, not used with RandAugment
    color_jitter: float
    #: probability of overwriting a rectangle with noise
    random_erasing: float
    #: alpha of the Beta distribution of the mixup ratio; 0 for no mixup
    mixup: float
    #: alpha of the Beta distribution of the CutMix ratio; 0 for no CutMix
    cutmix: float
    #: probability of CutMix instead of mixup if both are on
    cutmix_probability: float
    #: fraction of the target that is spread evenly over all classes
    label_smoothing: float


def find_classes(root: Path, num_classes: int) -> list[str]:
    """List the names of the class folders or tars of train and val, sorted. The index of a class is its label.

    Raises:
        UserError: their number is not `num_classes`.
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
    """List the names of the class folders and class tars of a split."""
    try:
        with os.scandir(folder) as entries:
            return {
                entry.name.removesuffix(SUFFIX)
                for entry in entries
                if (entry.is_dir() or entry.name.endswith(SUFFIX)) and not entry.name.startswith((".", "__MACOSX"))
            }
    except FileNotFoundError:
        return set()


class ImageFolderDataset:
    """The images of a split as samples.

    A sample contains
        image: (3, size, size) float32, RGB normalised by the ImageNet mean and standard deviation
        label, index: int
        mix: int, only with augmentation: seed for mixing the pair whose first sample this is, see `collate`

    Args:
        root: data root.
        split: "train" or "val".
        classes: folder names in the order of the labels.
        size: side of the network's input in pixels.
        crop_fraction: side of the centre crop of an image that is not augmented, as a fraction of the short side of the
            resized image.
        augmentation: is applied if `sample` gets a generator; None for no augmentation.

    Raises:
        UserError: there is no image, or a class folder or tar without an image.
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
        # A numpy array of bytes, because a list of a million strings would be copied in every loader process.
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
        # A split may lack a class. But a class folder or tar without an image was not unpacked or copied completely.
        if broken := sorted(class_names(self.folder) & set(empty)):
            raise UserError(
                f"{self.folder}: {len(broken)} of {len(classes)} classes contain no image: {listed(broken)}; unpack "
                f"them again, or remove them"
            )
        self._names: NDArray[np.bytes_] = np.array([os.fsencode(member.name) for member in members])
        self._places: NDArray[np.int64] = np.array([member[1:] for member in members], np.int64)  # offset, size
        self.labels: NDArray[np.int64] = np.array(labels, np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> Path:
        """The file of sample `index`. For an image in a tar, the path of the tar followed by the name of the image."""
        tar = SUFFIX if self._places[index, 0] != _NO_TAR else ""
        return self.folder / f"{self.classes[self.labels[index]]}{tar}" / os.fsdecode(self._names[index])

    def read(self, index: int) -> NDArray[np.uint8]:
        """Read the image of sample `index` as (H, W, 3) RGB.

        Raises:
            ImageError: the image cannot be read or decoded.
        """
        path = self.path(index)
        offset, size = self._places[index].tolist()
        if offset == _NO_TAR:
            return read_image(path)
        try:
            data = read_member(path.parent, Member(path.name, offset, size))
        except OSError as error:
            raise ImageError(f"image {path}: cannot be read ({error}); put the tar back") from error
        return decode_image(data, path)

    def sample(self, index: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """Make sample `index`. It is augmented if there is a generator, from which all randomness comes."""
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

    @property
    def samples_per_group(self) -> int:
        """How many consecutive samples `collate` combines: 2 with mixup or CutMix, else 1."""
        options = self.augmentation
        return 2 if options is not None and (options.mixup > 0 or options.cutmix > 0) else 1

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Stack samples to a batch: image (B, 3, size, size), label (B,), index (B,).

        Augmented samples also get soft targets (B, classes), smoothed. With mixup or CutMix the samples 2i and 2i + 1
        are mixed. The randomness of a pair comes from its first sample, so it does not depend on how a global batch
        is divided.

        Raises:
            ValueError: the number of augmented samples is not a multiple of `samples_per_group`.
        """
        batch = collate(samples)
        options = self.augmentation
        if options is None or "mix" not in batch:
            return batch
        images, seeds = batch["image"], batch.pop("mix").tolist()
        targets = smooth_targets(batch["label"], len(self.classes), options.label_smoothing)
        group = self.samples_per_group
        if group > 1:
            if len(samples) % group:
                raise ValueError(
                    f"mixup and CutMix mix groups of {group} samples: expected a multiple of {group} samples in a "
                    f"batch, found {len(samples)}"
                )
            strength = (options.mixup, options.cutmix, options.cutmix_probability)
            for i in range(0, len(samples), group):
                pair, rng = slice(i, i + group), np.random.default_rng(seeds[i])
                images[pair], targets[pair] = mix_pair(images[pair], targets[pair], *strength, rng)
        return {**batch, "image": images, "targets": targets}


def class_images(folder: Path, name: str) -> list[Member]:
    """List the images of a class, sorted by name: those of the folder `name`, or else of the tar.

    Args:
        folder: of a split.
        name: of the class.

    Returns:
        The images; those that are files of their own have the offset -1.

    Raises:
        UserError: the tar is not a complete tar of plain files.
    """
    try:
        with os.scandir(folder / name) as entries:
            names = sorted(entry.name for entry in entries if is_image_name(entry.name, _EXTENSIONS))
        return [Member(image, _NO_TAR, 0) for image in names]
    except FileNotFoundError:
        archive = folder / f"{name}{SUFFIX}"
    members = read_index(archive) if archive.exists() else []
    return [member for member in members if is_image_name(member.name, _EXTENSIONS)]


def centre_crop(image: Image, size: int, crop_fraction: float) -> Image:
    """Resize (bicubic) so that `size` is `crop_fraction` of the short side, and crop the centre.

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
    """Resize (H, W, 3) to (size, size, 3), bicubic with antialiasing.

    PyTorch's function for bytes takes a quarter of Pillow's time. Its result differs from Pillow's in 2 % of the
    values, rarely by more than 1. Test images are resized by Pillow.
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
    """Draw a random crop as torchvision and timm do: ten trials, then the largest allowed central crop.

    Args:
        image_size: width, height in pixels.
        area: smallest and largest fraction of the image's area.
        aspect: smallest and largest width over height; its logarithm is uniformly distributed.
        rng: the only source of randomness.

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

    This is timm's random erasing in the mode "pixel": 2 % to 33 % of the area, aspect ratio in [0.3, 1 / 0.3], ten
    trials.
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
