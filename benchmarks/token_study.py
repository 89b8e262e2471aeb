"""Where do tokens help? Paired trainings of small whole-body networks that differ in how tokens are reduced.

    python -m benchmarks.token_study run ctm ctm_grid --seed 0 --steps 600
    python -m benchmarks.token_study run ctm --set place_weight=0.5 --seconds 300 --size 256 192
    python -m benchmarks.token_study table

`run` trains each variant from scratch and appends a row to results/token-study-<device>.jsonl; `table` writes the means
over the seeds into docs/study.md; `draw` draws the tokens of networks that `run --save` kept. With the same seed all
variants see the same samples in the same order, mirrored alike. `--steps` gives all variants the same number of steps,
`--seconds` the same time: CPU time of this process, which other programs affect little, or elapsed time on a GPU. The
learning rate follows a cosine over the steps or the time.

Optimiser, box padding, width of the targets and augmentation are those of the sample recipe in params.yaml; without
`--augment`, crops are only mirrored. The data are what `python -m stages.prepare wholebody` made.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from datetime import date
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import tcformer
from benchmarks.measure import RESULTS, device_name
from pipelines.evaluation.token_measures import follow_people, partitions_and_means
from pipelines.params import Optimizer, load_params
from pipelines.training.device import be_deterministic
from pipelines.training.optimizer import build_optimizer
from tcformer.data import collate
from tcformer.data.images import denormalise, normalise
from tcformer.data.wholebody.dataset import (
    Split,
    WholebodyDataset,
    annotated_crops,
    annotation_file,
    image_folder,
    load_people,
)
from tcformer.data.wholebody.keypoints import FLIP, SUBSETS, subset
from tcformer.documents import replace_between
from tcformer.draw import Example, comparison_sheet, write_png
from tcformer.heatmaps import Codec, heat_map_loss, make_codec
from tcformer.metrics.points import ALL
from tcformer.models import Network, load_initial
from tcformer.models.backbone import Backbone
from tcformer.tasks.drawing import partitions_of
from tcformer.tasks.wholebody.measures import person_region
from tcformer.tasks.wholebody.options import WholebodyOptions

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs/study.md"
BEGIN, END = "<!-- table: python -m benchmarks.token_study table -->", "<!-- end of table -->"
MODEL = "tcformer_nano"
#: A point is found if it is nearer than this to the true one, in square roots of the area of the person's box.
NEAR = (0.03, 0.06)
_LOSS_DECAY = 0.98
_MEASURED_TOKENS = 100


@dataclass(frozen=True)
class Variant:
    """What is trained.

    Attributes:
        about: for the table.
        options: of `create_model`.
        held: if above 0, the clusters of a step come from a copy of the network that is renewed every `held` steps, so
            that they do not change with each step. An experiment: the copy costs a forward pass.
    """

    about: str
    options: dict[str, Any] = field(default_factory=dict)
    held: int = 0


VARIANTS = {
    "conv": Variant("fixed grid, strided convolution", {"token_reduction": "conv"}),
    "ctm_grid": Variant("fixed grid, the whole CTM path", {"token_reduction": "ctm_grid"}),
    "ctm": Variant("clusters of features, as in the paper", {"token_reduction": "ctm"}),
    "ctm_topk": Variant("clusters around important tokens", {"token_reduction": "ctm_topk"}),
    "local_ctm": Variant("clusters within 4x4, 2x2, 1 parts", {"token_reduction": "local_ctm"}),
    "place": Variant("clusters of features and places", {"place_weight": 0.25}),
    "place_strong": Variant("clusters of features and places", {"place_weight": 1.0}),
    "token_place": Variant("clusters; merged tokens know their place", {"token_place": True}),
    "grid_token_place": Variant(
        "fixed grid; merged tokens know their place", {"token_reduction": "ctm_grid", "token_place": True}
    ),
    "after": Variant("grid, clusters in the last half", {"cluster_after": 0.5}),
    "after_late": Variant("grid, clusters in the last fifth", {"cluster_after": 0.8}),
    "after_place": Variant(
        "grid, clusters of features and places in the last half", {"cluster_after": 0.5, "place_weight": 0.25}
    ),
    "cr_mta": Variant("clusters, keys of the neck merged along them", {"neck": "cr_mta"}),
    "grid_cr_mta": Variant(
        "fixed grid, keys of the neck merged along its blocks", {"token_reduction": "ctm_grid", "neck": "cr_mta"}
    ),
    "held": Variant("clusters of a copy that is renewed every 50 steps", held=50),
}


@dataclass(frozen=True)
class Crops:
    """The crops of a split in memory.

    Attributes:
        dataset: from which they come.
        images: (N, H, W, 3) uint8.
        points: (N, 133, 2) float32 x, y in pixels.
        weights: (N, 133) float32.
        scale: (N,) float32 square root of the area of the person's box, in pixels of the crop.
    """

    dataset: WholebodyDataset
    images: NDArray[np.uint8]
    points: NDArray[np.float32]
    weights: NDArray[np.float32]
    scale: NDArray[np.float32]

    @classmethod
    def read(cls, root: Path, split: Split, size: tuple[int, int], options: WholebodyOptions, limit: int) -> Crops:
        """Crop the first `limit` persons of a split, without augmentation."""
        crops = annotated_crops(load_people(annotation_file(root, split)))
        dataset = WholebodyDataset(crops, image_folder(root, split), size, options.box_padding, options.augmentation)
        images, rows = [], []
        for index in range(min(len(dataset), limit)):
            sample = dataset.sample(index, None)
            images.append(denormalise(sample.pop("image")))
            rows.append(sample)
        columns = {name: np.stack([row[name] for row in rows]) for name in ("points", "weights", "extent")}
        scale = np.sqrt(crops.box[: len(rows), 2:].prod(1)) * size[1] / columns["extent"][:, 0]
        return cls(dataset, np.stack(images), columns["points"], columns["weights"], scale.astype(np.float32))

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, index: NDArray[np.int64], mirrored: NDArray[np.bool_]) -> dict[str, Tensor]:
        """Image, points and weights of crops, some of them mirrored."""
        samples = []
        for i, mirror in zip(index, mirrored, strict=True):
            image, points, weights = self.images[i], self.points[i], self.weights[i]
            if mirror:
                x = image.shape[1] - 1 - points[FLIP, 0]
                image, points, weights = image[:, ::-1], np.stack([x, points[FLIP, 1]], 1), weights[FLIP]
            samples.append({"image": normalise(image), "points": points, "weights": weights})
        return collate(samples)


def training_batches(crops: Crops, batch: int, seed: int, augmented: bool) -> Iterator[dict[str, Tensor]]:
    """Batches without end. They depend on nothing but the arguments, so all variants get the same."""
    rng = np.random.default_rng(seed)
    queue = np.empty(0, np.int64)
    while True:
        while len(queue) < batch:
            queue = np.concatenate([queue, rng.permutation(len(crops))])
        index, queue = queue[:batch], queue[batch:]
        if augmented:
            samples = [crops.dataset.sample(int(i), rng) for i in index]
            yield collate([{name: sample[name] for name in ("image", "points", "weights")} for sample in samples])
        else:
            yield crops.batch(index, rng.random(batch) < 0.5)


# Measures of a trained network. Each returns named numbers, which are kept with the run.


@torch.no_grad()
def points_found(model: Network, crops: Crops, codec: Codec, device: torch.device) -> dict[str, float]:
    """Shares of the points of each part that are found, as "<part>@<percent of the box>"; without unlabelled parts.

    The decoding is the codec's own (`auto`), not `evaluate.wholebody.options.decoding` of the recipe; no flip test.
    """
    errors = []
    for index in np.array_split(np.arange(len(crops)), math.ceil(len(crops) / 50)):
        images = crops.batch(index, np.zeros(len(index), bool))["image"]
        found = codec.decode(model(images.to(device)).float())[0].cpu().numpy()
        errors.append(np.linalg.norm(found - crops.points[index], axis=-1) / crops.scale[index, None])
    error = np.concatenate(errors)
    result = {}
    for part in SUBSETS:
        if part != "all":
            labelled = crops.weights[:, subset(part)] > 0
            own = error[:, subset(part)][labelled]
            if not len(own):
                continue
            result |= {f"{part}@{100 * near:g}": float((own < near).mean()) for near in NEAR}
    return result


def tokens_followed(model: Network, crops: Crops, codec: Codec, device: torch.device) -> dict[str, float]:
    """Of the tokens of the last two stages, on at most `_MEASURED_TOKENS` crops.

    density: share of the tokens on the person divided by the person's share of the area. purity: fraction of the cells
    that are on the side (person or not) of most cells of their token. twins: fraction of the pairs of left and right
    points that lie in one token.
    """
    index = np.arange(min(len(crops), _MEASURED_TOKENS))
    height, width = image_size = crops.images.shape[1:3]
    regions = [person_region(crops.points[i], crops.weights[i] > 0, image_size) for i in index]
    batches = [
        {"image": crops.batch(part, np.zeros(len(part), bool))["image"].to(device)}
        for part in np.array_split(index, math.ceil(len(index) / 50))
    ]
    partitions, _, grid = partitions_and_means(model, batches)
    result = {}
    for number in (3, 4):
        found = follow_people(partitions[number - 1], regions, (height, width), grid)
        twins = found["twins_in_one_token"].get(ALL)
        measured = {"density": found["density"], "purity": found["purity"], "twins": twins}
        result |= {f"{name}, stage {number}": value for name, value in measured.items() if value is not None}
    return result


MEASURES: tuple[Callable[[Network, Crops, Codec, torch.device], dict[str, float]], ...] = (
    points_found,
    tokens_followed,
)


# Training.


class HeldClusters:
    """Clusters of a copy of the backbone, which is renewed every `steps` steps.

    Args:
        backbone: whose CTMs get them.
        steps: between renewals.
    """

    def __init__(self, backbone: Backbone, steps: int) -> None:
        self._backbone, self._steps = backbone, steps
        self._copy = deepcopy(backbone).eval()

    @torch.no_grad()
    def set(self, images: Tensor, step: int) -> None:
        """Give the CTMs the clusters of these images."""
        if step % self._steps == 0:
            self._copy.load_state_dict(self._backbone.state_dict())
        for ctm, (fine, coarse) in zip(self._ctms(), pairwise(self._copy(images)), strict=True):
            assign = torch.zeros(fine.features.shape[:2], dtype=torch.int64, device=images.device)
            assign.scatter_(1, fine.token_of_cell, coarse.token_of_cell)  # all cells of a token write the same value
            ctm.__dict__["cluster"] = lambda *_, held=(assign, coarse.features.shape[1]): held

    def release(self) -> None:
        """Let the CTMs cluster again."""
        for ctm in self._ctms():
            ctm.__dict__.pop("cluster", None)

    def _ctms(self) -> list[torch.nn.Module]:
        return [getattr(self._backbone, f"ctm{stage}") for stage in (1, 2, 3)]


@dataclass(frozen=True)
class Setting:
    """What runs of the same table share.

    Attributes:
        steps: of each training; None if `seconds` are given.
        seconds: of each training, CPU time or on a GPU elapsed time; None if `steps` are given.
        size: height, width of the crops, pixels.
        batch: samples of a step.
        augmented: whether the crops have the augmentation of the sample recipe, not only mirroring.
        train: number of training persons.
        val: number of test persons.
        padding: of the boxes.
        codec: of the heat maps.
        sigma: of the targets, heat-map pixels.
        lr: highest learning rate.
        initial: name of the weights file that the trainings start from, or None.
    """

    steps: int | None
    seconds: float | None
    size: tuple[int, int]
    batch: int
    augmented: bool
    train: int
    val: int
    padding: float
    codec: str
    sigma: float
    lr: float
    initial: str | None


def rate(step: int, share: float, optimizer: Optimizer) -> float:
    """Learning rate: linear warm-up over the first steps, and a cosine over the share of the training that is done."""
    falling = optimizer.final_lr + (optimizer.lr - optimizer.final_lr) * 0.5 * (1 + math.cos(math.pi * share))
    return falling * min(1.0, (step + 1) / max(optimizer.warmup_steps, 1))


def train(
    model: Network,
    held: int,
    crops: Crops,
    codec: Codec,
    setting: Setting,
    optimizer: Optimizer,
    seed: int,
    device: torch.device,
) -> dict[str, float]:
    """Train the network; returns the number of steps, the time and the last losses' mean."""
    updates = build_optimizer(model, optimizer)
    holder = HeldClusters(model.backbone, held) if held else None
    batches = training_batches(crops, setting.batch, seed, setting.augmented)
    model.train()
    loss_mean, step, start = 0.0, 0, _clock(device)
    while True:
        spent = _clock(device) - start
        share = step / setting.steps if setting.steps else spent / setting.seconds
        if share >= 1:
            break
        model.set_progress(share)
        for group in updates.param_groups:
            group["lr"] = rate(step, share, optimizer)
        samples = {name: value.to(device) for name, value in next(batches).items()}
        if holder:
            holder.set(samples["image"], step)
        heat_maps = model(samples["image"]).float()
        targets, weights = codec.encode(samples["points"], samples["weights"])
        loss = heat_map_loss(heat_maps, targets, weights).mean()
        updates.zero_grad()
        loss.backward()
        if optimizer.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), optimizer.clip_norm)
        updates.step()
        loss_mean = loss.item() if step == 0 else _LOSS_DECAY * loss_mean + (1 - _LOSS_DECAY) * loss.item()
        step += 1
    if holder:
        holder.release()
    model.eval().set_progress(1.0)
    return {"trained_steps": step, "trained_seconds": round(spent, 2), "loss": loss_mean}


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def run(args: argparse.Namespace) -> None:
    """Train and measure variants one after the other, and append a row for each."""
    device, size = torch.device(args.device), (args.size[0], args.size[1])
    stage = load_params(ROOT / "params.yaml").sample.training_of("wholebody")
    options, optimizer = stage.task, stage.training.optimizer
    training = Crops.read(args.data, "train", size, options, args.train)
    test = Crops.read(args.data, "val", size, options, args.val)
    setting = Setting(
        steps=args.steps,
        seconds=args.seconds,
        size=size,
        batch=args.batch,
        augmented=args.augment,
        train=len(training),
        val=len(test),
        padding=options.box_padding,
        codec=options.codec,
        sigma=options.sigma,
        lr=optimizer.lr,
        initial=args.initial and args.initial.name,
    )
    codec = make_codec(options.codec, input_size=size, sigma=options.sigma)
    for name in args.variants:
        variant, changes = VARIANTS[name], dict(args.set)
        be_deterministic(args.seed, device)
        model = tcformer.create_model(args.model, "wholebody", **{**variant.options, **changes})
        if args.initial:
            load_initial(model, args.initial)
        trained = train(model.to(device), variant.held, training, codec, setting, optimizer, args.seed, device)
        measured = {key: value for measure in MEASURES for key, value in measure(model, test, codec, device).items()}
        row = {
            "variant": ", ".join([name, *(f"{option}={value}" for option, value in changes.items())]),
            "model": args.model,
            "seed": args.seed,
            **asdict(setting),
            **trained,
            **measured,
            "device": device_name(device),
            "date": date.today().isoformat(),
            "torch": torch.__version__,
        }
        args.results.mkdir(parents=True, exist_ok=True)
        with (args.results / f"token-study-{device_name(device)}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
        if args.save:
            tcformer.save_model(model, args.save / f"{name}-{args.seed}.safetensors")


# The table.

_SETTING = ("model", *Setting.__dataclass_fields__)
_ABOUT_TRAINING = ("trained_steps", "trained_seconds", "loss")
_NO_MEASURE = {"variant", "seed", "device", "date", "torch", *_SETTING, *_ABOUT_TRAINING}


def table(results: Path) -> str:
    """Tables in Markdown, one for each setting: a row for each variant, with mean ± standard deviation over seeds.

    Of several runs of the same setting, variant and seed, the last one counts.
    """
    runs: dict[str, dict[tuple[str, int], dict[str, Any]]] = {}
    for path in sorted(results.glob("token-study-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            setting = _about(row)
            runs.setdefault(setting, {})[row["variant"], row["seed"]] = row
    parts = [f"{setting}\n\n{_one_table(list(rows.values()))}" for setting, rows in runs.items()]
    return "\n\n".join(parts) or "Not run."


def _about(row: dict[str, Any]) -> str:
    """The setting of a run in words."""
    length = f"{row['steps']} steps" if row["steps"] else f"{row['seconds']:g} seconds"
    return (
        f"`{row['model']}`, {row['size'][0]} × {row['size'][1]}, {length} of {row['batch']} samples, learning rate "
        f"{row['lr']:g}, {'augmented' if row['augmented'] else 'mirrored'} crops of {row['train']} persons, padding "
        f"{row['padding']:g}, codec {row['codec']}, sigma {row['sigma']:g}, "
        f"start from {row['initial'] or 'random weights'}, {row['val']} test persons, {row['device']}:"
    )


def _one_table(rows: list[dict[str, Any]]) -> str:
    measures = list(dict.fromkeys(name for row in rows for name in row if name not in _NO_MEASURE))
    lines = [["variant", "", "seeds", "steps", "s a step", *measures, "loss"]]
    lines.append(["---", "---", *["---:"] * (len(lines[0]) - 2)])
    names = sorted({row["variant"] for row in rows}, key=lambda name: (_order(name), name))
    for name in names:
        own = [row for row in rows if row["variant"] == name]
        steps = [row["trained_steps"] for row in own]
        seconds = [row["trained_seconds"] / row["trained_steps"] for row in own]
        about = VARIANTS[name.split(",")[0]].about
        numbers = [_spread([row[m] for row in own if m in row]) for m in measures]
        loss = _spread([1000 * row["loss"] for row in own]) + " e-3"
        lines.append([name, about, str(len(own)), f"{mean(steps):.0f}", f"{mean(seconds):.3f}", *numbers, loss])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _order(name: str) -> int:
    return list(VARIANTS).index(name.split(",")[0])


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def write_table(args: argparse.Namespace) -> None:
    """Write the tables between the marks of a document."""
    text = replace_between(args.document.read_text(encoding="utf-8"), BEGIN, END, f"\n\n{table(args.results)}\n\n")
    args.document.write_text(text, encoding="utf-8")


@torch.no_grad()
def draw(args: argparse.Namespace) -> None:
    """Draw the tokens of saved networks for the same test persons, side by side."""
    size = (args.size[0], args.size[1])
    options = load_params(ROOT / "params.yaml").sample.training_of("wholebody").task
    crops = Crops.read(args.data, "val", size, options, max(args.persons) + 1)
    chosen = np.array(args.persons)
    images = crops.batch(chosen, np.zeros(len(chosen), bool))["image"]
    networks = {}
    for path in args.weights:
        stages = tcformer.load_model(path).eval().backbone(images)
        networks[path.stem] = [
            Example(crops.images[person], partitions_of(stages, images, row)) for row, person in enumerate(chosen)
        ]
    write_png(args.out, comparison_sheet(networks, stages=(1, 2, 3), in_rows=True, scale=2))


def _assignment(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text}: expected NAME=VALUE with an option of create_model")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value  # a text such as finest_map


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.token_study", description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run", help="train variants and append a row for each")
    running.set_defaults(command=run)
    running.add_argument("variants", nargs="+", choices=list(VARIANTS), metavar="VARIANT", help=", ".join(VARIANTS))
    running.add_argument("--set", nargs="+", type=_assignment, default=[], metavar="NAME=VALUE", help="other options")
    running.add_argument("--seed", type=int, default=0)
    length = running.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int, help="of each training")
    length.add_argument("--seconds", type=float, help="of each training: CPU time, or elapsed time on a GPU")
    running.add_argument("--model", default=MODEL)
    running.add_argument(
        "--size", type=int, nargs=2, default=(128, 96), metavar=("H", "W"), help="of the crops, pixels"
    )
    running.add_argument("--batch", type=int, default=32)
    running.add_argument("--augment", action="store_true", help="with the augmentation of the sample recipe")
    running.add_argument("--data", type=Path, default=ROOT / "data/sample/wholebody")
    running.add_argument("--train", type=int, default=10**9, help="at most so many training persons")
    running.add_argument("--val", type=int, default=10**9, help="at most so many test persons")
    running.add_argument("--initial", type=Path, help="weights to start from")
    running.add_argument("--save", type=Path, help="folder for the trained weights")
    running.add_argument("--device", default="cpu")
    drawing = commands.add_parser("draw", help="draw the tokens of saved networks side by side")
    drawing.set_defaults(command=draw)
    drawing.add_argument("weights", nargs="+", type=Path, help="files that `run --save` wrote")
    drawing.add_argument("--persons", type=int, nargs="+", default=[0, 1], help="indices of test persons")
    drawing.add_argument(
        "--size", type=int, nargs=2, default=(128, 96), metavar=("H", "W"), help="of the crops, pixels"
    )
    drawing.add_argument("--data", type=Path, default=ROOT / "data/sample/wholebody")
    drawing.add_argument("--out", type=Path, default=ROOT / "docs/images/study.png")
    writing = commands.add_parser("table", help="write the tables into docs/study.md")
    writing.set_defaults(command=write_table)
    writing.add_argument("--document", type=Path, default=DOCUMENT)
    args = parser.parse_args(arguments)
    args.command(args)


if __name__ == "__main__":
    main()
