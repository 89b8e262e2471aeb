"""Step times, useful numbers of workers, and the command on both recipes."""

from __future__ import annotations

import json
import shutil
from math import inf
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.layout import PARAMS, Layout
from pipelines.own_keypoints import OwnFiles, add_sections
from pipelines.params import load_params
from pipelines.planning import command, estimate
from pipelines.planning.command import PlanOptions, plan
from pipelines.planning.datasets import dataset_size
from pipelines.planning.failures import Reliability
from pipelines.planning.speed import StepTime, divided, efficiency, measure, most_useful_workers
from pipelines.training.sampling import BatchPlan, steps_in
from stages.cli import cli
from tcformer.errors import UserError
from tests import own_points
from tests.small import generate, parameters

PAPER = load_params(PARAMS).model_copy(update={"recipe": "paper"})
PRETRAINING = PAPER.active.training_of("imagenet").training  # batches of 1024, micro batches of 128


@pytest.fixture
def no_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Activations have a test of their own, and take seconds."""
    monkeypatch.setattr(estimate, "activation_bytes", lambda model, images, size, bf16: 2**20 * images)


def test_the_time_of_a_step() -> None:
    times = StepTime(fixed=0.1, image=0.001)
    batch = BatchPlan.divide(64, 8, 4)
    assert (batch.accumulation, batch.micro_batch) == (2, 8)
    assert times.step(batch, gradients=0, network=1e9) == pytest.approx(2 * (0.1 + 0.008))
    assert times.step(batch, gradients=1e9, network=1e9) == pytest.approx(0.216 + 2 * 3 / 4)
    given = StepTime.of_speed(images_per_second=40, images=8, fixed=0.1)
    assert given.fixed + 8 * given.image == pytest.approx(8 / 40)
    assert StepTime.of_speed(images_per_second=800, images=8, fixed=0.1) == StepTime(0.01, 0.0)


def test_the_batch_among_as_many_workers_as_can_share_it() -> None:
    assert divided(PRETRAINING, workers=8, group=2).workers == 8
    assert divided(PRETRAINING, workers=12, group=2).workers == 8
    face = PAPER.active.training_of("face").training
    assert divided(face, workers=64, group=1) == BatchPlan.divide(16, 16, 16)


def test_the_most_useful_workers() -> None:
    """Alone a worker does 1024 images in 8 micro batches; among more than 8 they are smaller, but cost as much more."""
    assert most_useful_workers(None, PRETRAINING, 2, 0, 1e9) == 8
    no_overhead = StepTime(fixed=0.0, image=0.001)
    assert most_useful_workers(no_overhead, PRETRAINING, 2, 0, 1e9) == 512, "a micro batch holds a pair of mixup"
    equal = StepTime(fixed=0.032, image=0.001)  # 32 images take as long as their launching
    assert efficiency(equal, PRETRAINING, 8, 2, 0, 1e9) == pytest.approx(1)
    assert efficiency(equal, PRETRAINING, 32, 2, 0, 1e9) == pytest.approx((0.032 + 0.128) / (4 * (0.032 + 0.032)))
    assert most_useful_workers(equal, PRETRAINING, 2, 0, 1e9) == 32
    slow_network = most_useful_workers(no_overhead, PRETRAINING, 2, 1e8, 1e8)
    assert slow_network == 1, "an exchange takes two seconds"


def test_a_measured_step_has_a_plausible_time(tmp_path: Path) -> None:
    params = parameters(tmp_path, finetune__face__task__input_size=[32, 32])
    times = measure(params.active.spec_of("face"), params.active.training_of("face").training)
    assert times.fixed >= 0 and times.image >= 0
    assert 1e-4 < times.fixed + 16 * times.image < 60


def test_sizes_of_datasets(tmp_path: Path) -> None:
    params, layout = parameters(tmp_path), Layout("sample", tmp_path)
    size = dataset_size("imagenet", params, layout, {})
    assert (size.samples, size.samples_from, size.stored) == (12, "parameters", None)
    assert dataset_size("imagenet", params, layout, {"imagenet": 7}).samples == 7
    root = generate("face", params, layout.data("face").parent)
    (root / "manifest.json").write_text(json.dumps({"root": None, "sha256": "0"}))
    prepared = dataset_size("face", params, layout, {})
    assert (prepared.samples, prepared.samples_from, prepared.stored_from) == (8, "prepared", "prepared")
    assert prepared.stored == sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    published = dataset_size("imagenet", PAPER, Layout("paper", tmp_path), {})
    assert (published.samples, published.samples_from) == (1_281_167, "published")
    recorded = dataset_size("imagenet", load_params(PARAMS), Layout("sample"), {})
    assert recorded.stored and recorded.stored > 1e6


@pytest.mark.slow
@pytest.mark.usefixtures("no_activations")
def test_the_paper_on_eight_gpus() -> None:
    options = {"recipe": "paper", "gpus": 8, "memory": 80.0, "images_per_second": ("1000", "face=500")}
    found = json.loads(plan(PlanOptions(**options, as_json=True)))
    stages = {stage["stage"]: stage for stage in found["stages"]}
    first = stages["pretrain"]
    assert first["steps"] == steps_in(300, 1_281_167, 1024) == 375_341
    assert first["batch"] == {"global_batch": 1024, "micro_batch": 128, "accumulation": 1, "workers": 8}
    assert first["images_per_second"] == pytest.approx(8000, rel=0.2), "less what the exchange of gradients takes"
    seconds = first["steps"] * 1024 / first["images_per_second"]
    assert first["hours"] == pytest.approx(seconds / 3600, rel=0.01) and first["hours"] > seconds / 3600
    assert first["gpu_hours"] == pytest.approx(8 * first["hours"])
    assert first["activations"] == 128 * 2**20
    assert [stages[name]["times_from"] for name in ("pretrain", "finetune@face", "finetune@mesh")] == [
        "given", "given", "predicted",
    ]  # fmt: skip
    assert stages["finetune@mesh"]["times"]["image"] == pytest.approx(first["times"]["image"], rel=0.05), "same network"
    assert first["read_bytes"] > 1e11

    nothing_fails = json.loads(plan(PlanOptions(**options, mtbf=0, as_json=True)))["stages"][0]
    checkpoints = first["checkpoint_seconds"] * first["steps"] / 1251
    assert nothing_fails["hours"] == pytest.approx((seconds + checkpoints) / 3600, rel=1e-3)
    assert nothing_fails["young_steps"] is None


@pytest.mark.slow
@pytest.mark.usefixtures("no_activations")
def test_the_text_says_what_each_number_is() -> None:
    text = plan(PlanOptions(recipe="paper", gpus=64, nodes=8, memory=0.2, images_per_second=("900",)))
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in table[:20]}) == 1, "the columns are aligned"
    for name in ("micro batch x workers", "optimiser", "images a second", "by Young's formula", "dataset x 8 machines"):
        assert name in text
    assert all(cell in text for cell in ("(ZeRO 0)", "| 512 ", "given, predicted", "published", "16 x 64 x 1"))
    assert "finetune@face: a batch of 16 cannot be divided among 64 workers; this column is for 16" in text
    assert "pretrain: the memory is too small" in text


@pytest.mark.usefixtures("no_activations")
def test_the_sample_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    result = CliRunner().invoke(cli, ["plan", "--recipe", "sample"])
    assert result.exit_code == 0, result.output
    assert "16 x 2 x 1" in result.output and "no speed given" in result.output
    assert "goodput" not in result.output, "without a speed no training is simulated"


@pytest.mark.usefixtures("no_activations")
def test_own_keypoints_are_planned_if_the_recipe_has_them(tmp_path: Path) -> None:
    file, train = Path(shutil.copy(PARAMS, tmp_path)), own_points.write(tmp_path / "cats")
    add_sections(file, "sample", OwnFiles(train, train, train.parent / "images", train.parent / "images"))
    params = load_params(file)
    cluster = estimate.PlannedCluster(workers=2, nodes=1, gpus=False, memory=None, described="two workers")
    assumptions = estimate.Assumptions(Reliability(mtbf=inf, restart=0.0), store=1e6, network=1e6, fixed=0.0)
    last = estimate.estimate(params, cluster, assumptions, samples={"keypoints": 40})[-1]
    training = params.active.training_of("keypoints").training
    assert (last.stage, last.steps) == ("finetune@keypoints", steps_in(training.epochs, 40, training.global_batch))


@pytest.mark.usefixtures("no_activations")
def test_the_joined_ray_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    import contextlib

    from pipelines.adapters import ray

    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(ray, "session", lambda cluster: contextlib.nullcontext())
    monkeypatch.setattr(ray, "joined_resources", lambda: (2, 16))
    assert "recipe paper on 16 GPUs in 2 machines of the joined Ray" in plan(PlanOptions(recipe="paper"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images_per_second": ("fast",)}, r"--images-per-second fast: expected NUMBER \(of imagenet\) or TASK=NUMBER"),
        ({"images_per_second": ("hands=3",)}, "tasks are imagenet, wholebody, face, mesh"),
        ({"images_per_second": ("0",)}, "a number above 0"),
        ({"samples": ("800",)}, "--samples 800: expected TASK=NUMBER"),
        ({"images_per_second": ("9",), "measure": True}, "expected one of them"),
        ({"gpus": 2, "nodes": 4}, "--nodes 4: expected at most --gpus 2"),
    ],
)
def test_mistakes_end_in_one_sentence(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan(PlanOptions(**options))


def test_the_defaults_of_the_command_are_those_of_its_options() -> None:
    found = {}

    def noted(options: PlanOptions) -> str:
        found["options"] = options
        return ""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "plan", noted)
        assert CliRunner().invoke(cli, ["plan"]).exit_code == 0
    assert found["options"] == PlanOptions()
