import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tcformer.data.imagenet.dataset import (
    ImageAugmentation,
    ImageFolderDataset,
    centre_crop,
    erase_rectangle,
    find_classes,
    random_crop_box,
)
from tcformer.data.imagenet.mixing import mix_pair, smooth_targets
from tcformer.data.imagenet.randaugment import OPERATIONS, color_jitter, rand_augment
from tcformer.errors import UserError

PAPER = ImageAugmentation(
    crop_area=(0.08, 1.0),
    crop_aspect=(3 / 4, 4 / 3),
    flip_probability=0.5,
    rand_augment=9.0,
    rand_augment_std=0.5,
    color_jitter=0.4,
    random_erasing=0.25,
    mixup=0.8,
    cutmix=1.0,
    cutmix_probability=0.5,
    label_smoothing=0.1,
)


def photo(width: int = 60, height: int = 45, seed: int = 0) -> Image.Image:
    grid = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, count in (("train", 3), ("val", 2)):
        for label, wnid in enumerate(("n02", "n01", "n10")):
            folder = tmp_path / split / wnid
            folder.mkdir(parents=True)
            for i in range(count):
                photo(seed=10 * label + i).save(folder / f"{wnid}_{i}.JPEG")
            (folder / "notes.txt").touch()
    return tmp_path


def dataset(root: Path, augmentation: ImageAugmentation | None = PAPER) -> ImageFolderDataset:
    return ImageFolderDataset(
        root, "train", find_classes(root, num_classes=3), size=32, crop_fraction=0.875, augmentation=augmentation
    )


def test_labels_are_the_ranks_of_the_folder_names(root: Path) -> None:
    data = dataset(root)
    assert data.classes == ["n01", "n02", "n10"]
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert data.path(4) == root / "train" / "n02" / "n02_1.JPEG"


def test_a_wrong_number_of_classes_is_reported(root: Path) -> None:
    with pytest.raises(UserError, match="3 class folders in train and val, expected num_classes = 5"):
        find_classes(root, num_classes=5)
    (root / "val" / "n99").mkdir()
    with pytest.raises(UserError, match="only in one of the two: n99"):
        find_classes(root, num_classes=3)
    with pytest.raises(UserError, match="0 class folders"):
        find_classes(root / "nowhere", num_classes=3)


def test_a_split_without_images_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no images found"):
        ImageFolderDataset(tmp_path, "train", ["n01"], size=32, crop_fraction=0.875)


def test_a_sample_depends_on_its_generator_alone(root: Path) -> None:
    data = dataset(root)
    for i in range(9):
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        first = data.sample(i, np.random.default_rng(i))
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        second = data.sample(i, np.random.default_rng(i))
        assert all(np.array_equal(first[key], second[key]) for key in first)
        assert first["image"].shape == (3, 32, 32) and first["image"].dtype == np.float32


def test_a_pair_is_mixed_the_same_in_any_batch(root: Path) -> None:
    data = dataset(root)
    samples = [data.sample(i, np.random.default_rng(i)) for i in range(8)]
    whole = data.collate(samples)
    parts = [data.collate(samples[i : i + 2]) for i in range(0, 8, 2)]
    assert set(whole) == {"image", "label", "index", "targets"}
    for key in whole:
        assert torch.equal(whole[key], torch.cat([part[key] for part in parts]))
    assert torch.allclose(whole["targets"].sum(1), torch.ones(8))
    with pytest.raises(ValueError, match="expected a multiple of 2 samples in a batch, found 3"):
        data.collate(samples[:3])


@pytest.mark.parametrize(
    ("augmentation", "group"),
    [
        (PAPER, 2),
        (replace(PAPER, mixup=0.0), 2),
        (replace(PAPER, cutmix=0.0), 2),
        (replace(PAPER, mixup=0.0, cutmix=0.0), 1),
        (None, 1),
    ],
)
def test_groups_are_pairs_where_samples_are_mixed(
    root: Path, augmentation: ImageAugmentation | None, group: int
) -> None:
    data = dataset(root, augmentation)
    assert data.samples_per_group == group
    samples = [data.sample(i, np.random.default_rng(i)) for i in range(group)]
    assert len(data.collate(samples)["image"]) == group


def test_without_mixing_any_number_of_samples_is_a_batch(root: Path) -> None:
    data = dataset(root, replace(PAPER, mixup=0.0, cutmix=0.0))
    samples = [data.sample(i, np.random.default_rng(i)) for i in range(3)]
    unmixed = data.collate(samples[:3])
    assert torch.equal(unmixed["image"][2], torch.from_numpy(samples[2]["image"]))
    assert torch.equal(unmixed["targets"], smooth_targets(unmixed["label"], num_classes=3, smoothing=0.1))


def test_plain_samples_are_only_stacked(root: Path) -> None:
    data = dataset(root, None)
    batch = data.collate([data.sample(i, None) for i in range(3)])
    assert set(batch) == {"image", "label", "index"} and batch["label"].dtype == torch.int64


def test_centre_crop_is_torchvisions() -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    for size, shape in ((32, (60, 45)), (32, (45, 61)), (24, (40, 40)), (56, (61, 47))):
        image = photo(*shape)
        expected = transforms.Compose(
            [
                transforms.Resize(int(size / 0.875), transforms.InterpolationMode.BICUBIC),
                transforms.CenterCrop(size),
            ]
        )(image)
        assert (np.asarray(centre_crop(image, size=size, crop_fraction=0.875)) == np.asarray(expected)).all()


def test_random_crops_keep_area_and_aspect() -> None:
    rng = np.random.default_rng(0)
    areas, aspects = [], []
    for _ in range(300):
        left, top, right, bottom = random_crop_box((200, 150), area=(0.08, 1.0), aspect=(0.75, 4 / 3), rng=rng)
        assert 0 <= left < right <= 200 and 0 <= top < bottom <= 150
        areas.append((right - left) * (bottom - top) / 30000)
        aspects.append((right - left) / (bottom - top))
    assert 0.07 < min(areas) < 0.15 and max(areas) > 0.8
    assert 0.7 < min(aspects) < 0.8 and 1.25 < max(aspects) < 1.4


@pytest.mark.parametrize("size", [(400, 10), (10, 400), (1, 1)])
def test_extreme_images_fall_back_to_the_middle(size: tuple[int, int]) -> None:
    left, top, right, bottom = random_crop_box(
        size, area=(0.9, 1.0), aspect=(0.75, 4 / 3), rng=np.random.default_rng(0)
    )
    assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]


def test_erasing_writes_one_rectangle_of_noise() -> None:
    image = np.zeros((3, 40, 50), np.float32)
    erase_rectangle(image, np.random.default_rng(0))
    rows, columns = np.nonzero(image.any(0))
    area = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    assert len(rows) == area and 0.02 <= area / 2000 <= 0.36
    assert 0.8 < image[image != 0].std() < 1.2


def test_operations_are_timms() -> None:
    timm = pytest.importorskip("timm.data.auto_augment")
    from PIL.Image import Resampling

    hparams = {"img_mean": (124, 116, 104), "interpolation": Resampling.BICUBIC}
    assert list(OPERATIONS) == timm.rand_augment_choices("", increasing=True)

    class Fixed:
        """A generator whose only number is 0.25 or 0.75, for both ways of reading a sign."""

        def __init__(self, value: float) -> None:
            self.value = value

        def random(self) -> float:
            return self.value

    image = photo()
    for name, operation in OPERATIONS.items():
        for level in (0.0, 0.37, 0.9, 0.99):
            ours = {np.asarray(operation(image, level, Fixed(v))).tobytes() for v in (0.25, 0.75)}  # type: ignore
            op = timm.AugmentOp(name, prob=1.0, magnitude=10 * level, hparams=hparams)
            random.seed(0)
            theirs = {np.asarray(op(image)).tobytes() for _ in range(12)}
            assert ours == theirs, (name, level)
    # Where newer versions of Pillow refuse timm's call, older ones gave black.
    assert not np.asarray(OPERATIONS["PosterizeIncreasing"](image, 1.0, Fixed(0.5))).any()  # type: ignore


def test_rand_augment_and_jitter_change_images() -> None:
    image = photo()
    rngs = [np.random.default_rng(i) for i in range(40)]
    changed = [np.asarray(rand_augment(image, magnitude=9, magnitude_std=0.5, rng=rng) != image) for rng in rngs]
    assert 20 < sum(bool(c.any()) for c in changed) < 40  # a quarter is left alone
    jittered = np.asarray(color_jitter(image, strength=0.4, rng=np.random.default_rng(0)))
    assert (jittered != np.asarray(image)).any()
    assert (np.asarray(color_jitter(image, strength=0.0, rng=np.random.default_rng(0))) == np.asarray(image)).all()


def test_smoothed_targets() -> None:
    targets = smooth_targets(torch.tensor([2, 0]), num_classes=4, smoothing=0.1)
    assert torch.allclose(targets, torch.tensor([[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]]))


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0), (0.0, 0.0)])
def test_targets_tell_what_share_of_the_pixels_is_whose(mixup: float, cutmix: float) -> None:
    images = torch.stack([torch.zeros(3, 40, 40), torch.ones(3, 40, 40)])
    targets = torch.eye(2)
    for seed in range(20):
        mixed, soft = mix_pair(
            images, targets, mixup=mixup, cutmix=cutmix, cutmix_probability=0.5, rng=np.random.default_rng(seed)
        )
        assert torch.allclose(mixed.mean((1, 2, 3)), soft[:, 1], atol=1e-5)
        assert torch.allclose(soft.sum(1), torch.ones(2))
        values = mixed.unique()
        if mixup == 0:
            assert set(values.tolist()) <= {0.0, 1.0}
    assert images[0].sum() == 0


def test_all_real_images_give_samples(samples: Path) -> None:
    classes = find_classes(samples / "imagenet", num_classes=120)
    train = ImageFolderDataset(samples / "imagenet", "train", classes, size=64, crop_fraction=0.875, augmentation=PAPER)
    val = ImageFolderDataset(samples / "imagenet", "val", classes, size=64, crop_fraction=0.875)
    assert len(train) == 96 and len(val) == 24
    for data in (train, val):
        for i in range(len(data)):
            image = data.sample(i, np.random.default_rng(i))["image"]
            assert image.shape == (3, 64, 64) and np.isfinite(image).all()
