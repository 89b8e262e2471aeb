"""Images that cannot be decoded are replaced alike whoever loads them, and counted; too many end the training. Points
that nobody sees, sets without samples or with fewer than workers or a batch: a result, or one sentence."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines import layout
from pipelines.datasets.prepared import Prepared
from pipelines.driver import run as driver
from pipelines.driver.plan import TrainingPlan
from pipelines.params import Params
from pipelines.training import loading
from pipelines.training.loading import BrokenImages, training_batches, validation_batches
from pipelines.training.sampling import BatchPlan, steps_in
from tcformer.data import BrokenImage
from tcformer.data.imagenet.dataset import ImageAugmentation, ImageFolderDataset
from tcformer.errors import UserError
from tcformer.tasks import TASKS
from tests.conftest import Workplace
from tests.small import generate, parameters

SEED = 3
PLAIN = ImageAugmentation(
    crop_area=(0.5, 1.0), crop_aspect=(0.8, 1.25), flip_probability=0.5, rand_augment=0.0, rand_augment_std=0.0,
    color_jitter=0.0, random_erasing=0.0, mixup=0.0, cutmix=0.0, cutmix_probability=0.0, label_smoothing=0.0,
)  # fmt: skip


def folder_of_images(root: Path, count: int, broken: dict[int, bytes | None]) -> ImageFolderDataset:
    """A class of `count` images, image i of the gray 10 i; `broken` ones hold other bytes, None for half a file."""
    (root / "train/a").mkdir(parents=True)
    for index in range(count):
        path = root / f"train/a/{index:03d}.jpg"
        Image.new("RGB", (20, 16), (10 * index,) * 3).save(path)
        if index in broken:
            data = broken[index]
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if data is None else data)
    return ImageFolderDataset(root, "train", ["a"], 8, 1.0, PLAIN)


def steps_of(
    data: Any, workers: int, micro: int, processes: int = 0, first: int = 0, found: BrokenImages | None = None
) -> list[list[tuple[int, float]]]:
    """(index, mean of the image) of every sample of each of five steps, in a fixed order."""
    plan = BatchPlan.divide(12, micro, workers)
    steps: list[list[tuple[int, float]]] = [[] for _ in range(first, 5)]
    for rank in range(workers):
        batches = training_batches(data, plan, rank, SEED, first, 5, processes, found)
        for step in steps:
            for _ in range(plan.accumulation):
                batch = next(batches)
                step += zip(batch["index"].tolist(), batch["image"].mean((1, 2, 3)).tolist())
    return [sorted(step) for step in steps]


@pytest.fixture
def data(tmp_path: Path) -> ImageFolderDataset:
    return folder_of_images(tmp_path, 17, {4: None, 9: b"", 13: b"no image"})


@pytest.mark.slow
def test_replacements_do_not_depend_on_who_loads_them(data: ImageFolderDataset) -> None:
    expected = steps_of(data, 1, 12)
    assert {index for step in expected for index, _ in step} <= set(range(17)) - {4, 9, 13}
    for workers, micro in ((1, 4), (2, 6), (3, 2), (12, 1)):
        assert steps_of(data, workers, micro) == expected
    assert steps_of(data, 1, 4, processes=2) == expected
    assert steps_of(data, 2, 6, first=3) == expected[3:]


def test_good_samples_stay_as_they_are(tmp_path: Path) -> None:
    whole = folder_of_images(tmp_path / "whole", 17, {})
    damaged = folder_of_images(tmp_path / "damaged", 17, {4: b""})
    for before, after in zip(steps_of(whole, 1, 12), steps_of(damaged, 1, 12), strict=True):
        kept = [sample for sample in before if sample[0] != 4]
        assert all(sample in after for sample in kept) and len(after) == 12


def test_replacements_differ_between_epochs(tmp_path: Path) -> None:
    data = folder_of_images(tmp_path, 24, {4: b""})
    plan = BatchPlan.divide(24, 24, 1)
    found = BrokenImages()
    counts = [np.bincount(batch["index"], minlength=24) for batch in training_batches(data, plan, 0, 3, 0, 8, 0, found)]
    assert all(count.sum() == 24 and count[4] == 0 for count in counts)
    assert len({int(count.argmax()) for count in counts}) > 3
    assert found.replaced == 8


@pytest.mark.slow
@pytest.mark.parametrize("processes", [0, 1])
def test_each_replacement_is_counted_and_each_file_kept_once(data: ImageFolderDataset, processes: int) -> None:
    found = BrokenImages()
    steps_of(data, 1 if processes else 3, 2, processes, found=found)
    # 60 positions are 3 whole epochs and 9 samples of the fourth.
    order = [int(i) for e in range(4) for i in np.random.default_rng((SEED, e)).permutation(17)][:60]
    assert found.replaced == sum(index in (4, 9, 13) for index in order) >= 9
    assert sorted(Path(path).name for path in found.reasons) == ["004.jpg", "009.jpg", "013.jpg"]
    assert all(f"image {path}: cannot be decoded" in reason for path, reason in found.reasons.items())


def test_news_are_reported_once() -> None:
    known = BrokenImages()
    assert known.add(BrokenImages({"b": "why b", "a": "why a"}, 3)) == ["why a", "why b"]
    assert known.add(BrokenImages({"b": "why b", "c": "why c"}, 2)) == ["why c"]
    assert known.replaced == 5 and set(known.reasons) == {"a", "b", "c"}


@pytest.mark.parametrize(("images", "allowed"), [(1, 1), (700, 1), (1999, 1), (2000, 2), (1_281_167, 1281)])
def test_at_most_a_thousandth_and_one_in_any_set(images: int, allowed: int) -> None:
    BrokenImages({f"{i:04d}.jpg": "" for i in range(allowed)}, 10**6).check(images)
    more = BrokenImages({f"{i:04d}.jpg": "" for i in range(allowed + 1)})
    message = (
        rf"{allowed + 1} of the training set's {images} images cannot be decoded.* at most {allowed} .*: 0000\.jpg"
    )
    with pytest.raises(UserError, match=message) as caught:
        more.check(images)
    assert ("0010.jpg" not in str(caught.value)) and str(caught.value).endswith(", ...") == (allowed > 9)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [0, 1])
def test_a_set_without_any_good_image_ends_at_once(tmp_path: Path, processes: int) -> None:
    data = folder_of_images(tmp_path, 30, dict.fromkeys(range(30), b""))
    with pytest.raises(UserError, match=r"^no image in place of sample .* of 10 tried: .*\.jpg: cannot be decoded"):
        steps_of(data, 1, 12, processes)


@pytest.mark.parametrize("processes", [0, 1])
def test_a_vanished_image_is_no_broken_one(tmp_path: Path, processes: int) -> None:
    """A disk that is away would otherwise change the training."""
    data = folder_of_images(tmp_path, 17, {})
    (tmp_path / "train/a/004.jpg").unlink()
    with pytest.raises(UserError, match=r"^image .*004\.jpg: cannot be read"):
        steps_of(data, 1, 12, processes)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [0, 1])
def test_validation_never_replaces(data: ImageFolderDataset, processes: int) -> None:
    with pytest.raises(BrokenImage, match=r"^image .*004\.jpg: cannot be decoded") as caught:
        list(validation_batches(data, 0, 1, 4, processes))
    assert Path(caught.value.path).name == "004.jpg"


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_every_task_replaces(task: str, recipe: Params, generated: Path, tmp_path: Path) -> None:
    """With each task's own datasets, options and files; the second image file is cut short."""
    root = tmp_path / task
    shutil.copytree(generated / task, root)
    data: Any = recipe.sample.spec_of(task).build(root).train_set()
    files = image_files(data)
    files[1].write_bytes(files[1].read_bytes()[:200])
    found = BrokenImages()
    plan = BatchPlan.divide(4, 4, 1)
    batches = list(training_batches(data, plan, 0, 1, 0, 8, 0, found))
    assert all(len(batch["image"]) == 4 and torch.isfinite(batch["image"]).all() for batch in batches)
    assert list(found.reasons) == [str(files[1])] and found.replaced > 0
    assert getattr(data, "num_images", len(data)) == len(set(files))


def image_files(data: Any) -> list[Path]:
    """The files of a training set, in the samples' order."""
    if hasattr(data, "path"):
        return [data.path(index) for index in range(len(data))]
    if hasattr(data, "sets"):
        return [data.sets[0].folder / name for name in data.sets[0].bodies.image]
    if hasattr(data, "faces"):
        return [data.folder / name for name in data.faces.names]
    return [data.folder / data.crops.images[int(image)][0] for image in np.unique(data.crops.image_id)]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Params:
    return parameters(tmp_path_factory.mktemp("params"))


@pytest.fixture(scope="module")
def generated(recipe: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("generated")
    for task in TASKS:
        generate(task, recipe, root)
    return root


class Crops:
    """Small samples; `in_process` is called before each, in the process that loads."""

    num_images = 8

    def __init__(self, in_process: Any) -> None:
        self.in_process = in_process

    def __len__(self) -> int:
        return 8

    def sample(self, index: int, rng: np.random.Generator | None) -> dict[str, Any]:
        self.in_process()
        return {"image": np.full((3, 4, 4), index, np.float32), "index": index, "scale": 1.5}


def fill_shared_memory() -> None:
    def share_memory_(tensor: torch.Tensor) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    torch.Tensor.share_memory_ = share_memory_  # type: ignore[assignment, method-assign]


@pytest.mark.slow
def test_batches_travel_through_pipes_where_shared_memory_is_full() -> None:
    """A lost batch would let the training wait for ever."""
    plan, notes = BatchPlan.divide(4, 2, 1), []
    lists = [
        list(training_batches(Crops(in_process), plan, 0, 1, 0, 4, 1, note=notes.append))  # type: ignore[arg-type]
        for in_process in (int, fill_shared_memory)
    ]
    assert len(notes) == 1 and "too small for batches: they travel through pipes" in notes[0]
    assert len(lists[0]) == 8
    for one, other in zip(*lists, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].dtype == other[name].dtype and torch.equal(one[name], other[name])
    shard = list(validation_batches(Crops(fill_shared_memory), 0, 1, 4, 1))  # type: ignore[arg-type]
    assert [batch["index"].tolist() for batch in shard] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def end_process() -> None:
    os._exit(1)


def sleep_long() -> None:
    time.sleep(60)


@pytest.mark.slow
@pytest.mark.parametrize(("in_process", "reason"), [(end_process, "exited unexpectedly"), (sleep_long, "timed out")])
def test_a_loader_process_that_sends_nothing_is_an_error_with_causes(
    in_process: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "LOADER_SECONDS", 12.0)
    with pytest.raises(
        UserError, match=rf"^no batch came from the 1 loader processes .*{reason}.*: expected"
    ) as caught:
        next(training_batches(Crops(in_process), BatchPlan.divide(4, 2, 1), 0, 1, 0, 4, 1))  # type: ignore[arg-type]
    assert "/dev/shm" in str(caught.value) or not loading.SHARED_MEMORY.is_dir()


def hide_all_points(data: Any) -> None:
    """Make a training set one of people of whom nothing is known."""
    for each in getattr(data, "sets", [data]):
        if hasattr(each, "faces"):  # WFLW has no flag: its points can only be out of the picture
            each.faces = replace(each.faces, points=each.faces.points + 1e4)
        elif hasattr(each, "crops"):
            each.crops.keypoints[:, :, 2] = 0
        else:
            each.bodies.keypoints[:, :, 2] = each.bodies.joints[:, :, 3] = each.bodies.has_smpl[:] = 0


@pytest.mark.slow
@pytest.mark.parametrize("task", ["wholebody", "face", "mesh"])
def test_a_batch_without_visible_points_has_a_loss_and_finite_gradients(
    task: str, recipe: Params, generated: Path
) -> None:
    problem: Any = recipe.sample.spec_of(task).build(generated / task)
    data = problem.train_set()
    hide_all_points(data)
    batch = next(training_batches(data, BatchPlan.divide(2, 2, 1), 0, 1, 0, 1, 0))
    model = problem.build_model()
    losses = problem.loss(model, batch)
    losses["loss"].backward()
    gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert len(gradients) and torch.isfinite(gradients).all()
    if task == "mesh":  # what keeps the camera's scale positive needs no point
        assert {name for name, value in losses.items() if value} == {"loss", "camera_loss"}
    else:
        assert losses["loss"] == 0 and not gradients.any()
        sums = problem.validate(model, batch)
        assert sums["count"] == 2 and all(torch.isfinite(value) for value in sums.values())


@pytest.mark.parametrize("task", TASKS)
def test_fewer_samples_than_workers_and_than_a_batch(task: str, recipe: Params, generated: Path) -> None:
    problem: Any = recipe.sample.spec_of(task).build(generated / task)
    data, workers = problem.train_set(), 64
    plan = BatchPlan.divide(2 * workers, 2, workers)
    assert len(data) < workers and steps_in(1, len(data), plan.global_batch) == 1
    model = problem.build_model()
    seen = []
    for rank in range(workers):
        batch = next(training_batches(data, plan, rank, 1, 0, 1, 0))
        seen += batch["index"].tolist()
    assert torch.isfinite(problem.loss(model, batch)["loss"])
    # Whole epochs and a part of one.
    assert set(np.bincount(seen, minlength=len(data))) <= {len(seen) // len(data), len(seen) // len(data) + 1}
    watched, sums = problem.val_set(), 0.0
    for rank in range(workers):
        for batch in validation_batches(watched, rank, workers, 4):
            sums += problem.validate(model.eval(), batch)["count"]
    assert sums == len(watched)


def empty(task: str, root: Path) -> None:
    """Take every sample out of a dataset, and leave its files."""
    if task == "imagenet":
        for path in root.rglob("*.JPEG"):
            path.unlink()
    for path in root.rglob("coco_wholebody_*.json"):
        path.write_text('{"images": [], "annotations": []}')
    for path in root.rglob("list_98pt_*.txt"):
        path.write_text("")
    for path in root.rglob("dataset_extras/*.npz"):
        with np.load(path) as content:
            np.savez(path, **{name: content[name][:0] for name in content.files})


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("imagenet", "train: no images found; expected <class>/<image>; run the prepare stage"),
        ("wholebody", "no person to crop in the train split; expected at least one"),
        ("face", r"attr_train\.txt: no face to crop; expected at least one line"),
        ("mesh", "nobody to crop in its annotations; expected at least one person"),
    ],
)
def test_an_empty_set_is_reported(task: str, message: str, recipe: Params, generated: Path, tmp_path: Path) -> None:
    root = tmp_path / task
    shutil.copytree(generated / task, root)
    empty(task, root)
    problem = recipe.sample.spec_of(task).build(root)
    with pytest.raises(UserError, match=message):
        problem.train_set()


class _NoRun:
    """In place of the MLflow run."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        pass

    def close(self, status: str) -> None:
        assert status == "FAILED"


@pytest.mark.parametrize(
    ("task", "pattern"),
    [
        ("wholebody", "train2017/*.jpg"),
        ("wholebody", "val2017/*.jpg"),
        ("face", "WFLW_images/0--Train/*.jpg"),
        ("mesh", "3DPW/**/*.jpg"),
    ],
)
def test_missing_images_are_reported_before_ray_starts(
    task: str, pattern: str, recipe: Params, generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "session", lambda cluster: pytest.fail("Ray was started"))
    monkeypatch.setattr(driver, "Run", _NoRun)
    monkeypatch.setattr(layout, "ROOT", tmp_path)
    root = tmp_path / "data"
    shutil.copytree(generated / task, root)
    images = sorted(root.glob(pattern))
    for path in images[1:]:
        path.unlink()
    spec, training = recipe.sample.spec_of(task), recipe.sample.training_of(task).training
    plan = TrainingPlan(spec, training, Prepared(root, "0", False), initial=None)
    with pytest.raises(UserError, match=r"images .*are missing: ") as caught:
        driver.run(plan, recipe, tmp_path / "out")
    message = str(caught.value)
    assert images[1].name in message and message.count(".jpg") == min(10, len(images) - 1)
    assert ", ..." in message or len(images) <= 11


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.pipeline
def test_a_training_goes_on_with_one_broken_image_and_ends_with_two(workplace: Workplace) -> None:
    """Through the stage, Ray and DeepSpeed; one worker is killed, and the count is that of an undisturbed training."""
    workplace.run("python", "-m", "stages.prepare", "imagenet")
    images = sorted((workplace.folder / "data/sample/imagenet/train").rglob("*.JPEG"))
    images[5].write_bytes(images[5].read_bytes()[:300])
    printed = workplace.run("python", "-m", "stages.pretrain", TCFORMER_FAULT="kill:1:5")
    assert "resumed after step 4" in printed
    assert printed.count("a broken image is replaced by another sample") == 1 and printed.count(images[5].name) == 1
    metrics = json.loads((workplace.folder / "runs/sample/pretrain/metrics.json").read_text())
    # Each of the two epochs meets it once.
    assert metrics["steps"] * 8 == 2 * len(images) and metrics["replaced_images"] == 2
    with sqlite3.connect(workplace.folder / "mlflow.db") as database:
        assert database.execute("select max(value) from metrics where key = 'replaced_images'").fetchone() == (2.0,)

    images[7].write_bytes(b"")
    printed = workplace.run("python", "-m", "stages.pretrain", "--fresh", status=2)
    assert f"error: 2 of the training set's {len(images)} images cannot be decoded" in printed
    assert all(str(path) in printed.replace(os.linesep, " ") for path in (images[5], images[7]))
    assert "Traceback" not in printed
