"""The command `tcformer`: predict pictures and videos, show tokens, handle weights, score results.

tcformer predict photo.jpg --weights model.safetensors -o out/
"""

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import click

from pipelines.running.process import stage_main
from pipelines.running.progress import say
from stages.cluster_commands import COMMANDS as CLUSTER_COMMANDS
from stages.keypoints import keypoints
from stages.paths import FILE

# Each command imports what it needs when it runs, so that `--help` appears at once.

_Run: TypeAlias = Callable[..., Any]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """TCFormer: vision transformers that spend their tokens on people.

    `tcformer COMMAND --help` explains a command, with examples.
    """


def _prediction_options(command: _Run) -> _Run:
    """The options that `predict` and `tokens` share."""
    options = (
        click.argument("inputs", nargs=-1, required=True, metavar="INPUT..."),
        click.option("-w", "--weights", type=FILE, required=True, help="Weights of this project or a checkpoint."),
        click.option("-o", "--out", type=FILE, required=True, help="Folder of the results."),
        click.option(
            "--boxes",
            type=FILE,
            help="File with the boxes of people or faces, in pixels: COCO's detections or annotations, WFLW's list, "
            '[[x, y, width, height], ...] for all pictures, or {"photo.jpg": [[...], ...], ...}.  [default: each '
            "picture is one box]",
        ),
        click.option(
            "--detector",
            type=click.Choice(["torchvision"]),
            help="Find the people by torchvision's Faster R-CNN. Its weights are downloaded once.",
        ),
        click.option("--box-score", default=0.5, show_default=True, help="Least score of a box."),
        click.option(
            "--size", "input_size", type=int, nargs=2, metavar="H W", help="Input size instead of that of the training."
        ),
        click.option("--body", type=FILE, help="Folder of a body model in SMPL's format, for meshes."),
        click.option("--batch", type=click.IntRange(1), default=16, show_default=True, help="Crops predicted at once."),
        click.option("--device", help="Such as cpu or cuda:0.  [default: a GPU if there is one]"),
    )
    for option in reversed(options):
        command = option(command)
    return command


@cli.command(short_help="Predict keypoints, face landmarks, meshes or classes.")
@_prediction_options
@click.option("--tokens", is_flag=True, help="Also draw the tokens of each crop.")
@click.option("--flip-test", is_flag=True, help="Also predict mirror images and average; twice the time.")
@click.option("--threshold", default=0.3, show_default=True, help="Points with a lower score are not drawn.")
@click.option(
    "--onnx",
    type=FILE,
    help="The same network, written by `tcformer export`. ONNX Runtime runs it if that is faster than PyTorch on this "
    "CPU, which is measured.",
)
@click.option("--classes", type=FILE, help="Names of the classes: one a line, or JSON as Keras' class index.")
@click.option("--pictures/--no-pictures", default=True, help="Whether to draw.  [default: pictures]")
def predict(**options: Any) -> int:  # noqa: ANN401 - Click passes values of all types
    """Predict keypoints, face landmarks, meshes or classes, as the weights are.

    INPUT is a picture, a video, a folder or a quoted pattern. The folder OUT gets predictions.json, and for each input
    a picture or video with what was found. Several people in a picture need boxes or the detector.

    \b
    tcformer predict photo.jpg --weights model.safetensors -o out/
    tcformer predict photos/ '*.png' -w tcformer.pth --detector torchvision -o out/
    tcformer predict val2017/ -w model.safetensors --boxes person_keypoints_val2017.json --flip-test -o out/
    tcformer predict video.mp4 -w model.safetensors --tokens --device cuda -o out/
    """
    from pipelines.prediction.predict import PredictOptions, predict_files

    return 1 if predict_files(PredictOptions(**options)) else 0


@cli.command(short_help="Draw the tokens of pictures.")
@_prediction_options
def tokens(**options: Any) -> int:  # noqa: ANN401 - as above
    """Draw the tokens of pictures: of each stage the region of each token, and the sizes of the last ones.

    \b
    tcformer tokens photo.jpg --weights model.safetensors -o out/
    """
    from pipelines.prediction.predict import PredictOptions, predict_files

    return 1 if predict_files(PredictOptions(**options, tokens=True, predictions=False)) else 0


@cli.command(short_help="Show what a weights file is.")
@click.argument("weights", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(weights: Path, as_json: bool) -> None:
    """Show what a weights file is: task, network, parameters, options of the training, provenance.

    \b
    tcformer info model.safetensors
    tcformer info tcformer-authors.pth --json
    """
    from pipelines.prediction.weights import as_text, describe

    about = describe(weights)
    say(json.dumps(about, indent=1) if as_json else as_text(about))


@cli.command(short_help="Convert a checkpoint to safetensors.")
@click.argument("checkpoint", type=FILE)
@click.argument("out", type=FILE)
def convert(checkpoint: Path, out: Path) -> None:
    """Convert a checkpoint of the authors, of mmpose or of another trainer to a safetensors file.

    Nothing in the checkpoint is executed. `tcformer.load_model` rebuilds the network from the file OUT.

    \b
    tcformer convert tcformer-authors.pth tcformer.safetensors
    """
    from pipelines.prediction.weights import convert

    weights = convert(checkpoint, out)
    for note in weights.notes:
        say(f"note: {note}", as_error=True)
    say(f"{out}: {weights.model.config['variant']} for {weights.task}")


@cli.command(short_help="Export a network as ONNX.")
@click.argument("weights", type=FILE)
@click.argument("out", type=FILE)
@click.option("--size", type=int, nargs=2, metavar="H W", help="Of the images, in pixels.  [default: of the training]")
@click.option("--opset", type=int, default=20, show_default=True, help="Version of the ONNX operators.")
def export(weights: Path, out: Path, size: tuple[int, int] | None, opset: int) -> None:
    """Export a network as ONNX, compared with PyTorch before it is written.

    \b
    tcformer export model.safetensors model.onnx
    tcformer export tcformer-authors.pth tcformer.onnx --size 256 192
    """
    from pipelines.prediction.weights import export

    difference, (height, width) = export(weights, out, size, opset)
    print(
        f"{out}: images of {height} x {width}; onnxruntime and PyTorch differ by {difference:.1e} of the largest value"
    )


@cli.command(short_help="Score results of any program.")
@click.argument("protocol", type=click.Choice(["wholebody", "face", "mesh", "keypoints", "classes"]))
@click.argument("results", type=FILE)
@click.option(
    "--annotations",
    type=FILE,
    required=True,
    help="Of COCO-WholeBody; WFLW's list; SPIN's .npz of Human3.6M or 3DPW; a COCO keypoint file, or a folder of .pts "
    "files; class folders, or a list of images and classes.",
)
@click.option("--category", help="keypoints: name of the category.  [default: the only one that has keypoints]")
@click.option("--points", type=FILE, help="keypoints: YAML file that describes the points.")
@click.option("--body", type=FILE, help="mesh: folder of the body models, for 3DPW and for poses.")
@click.option("--json", "as_json", is_flag=True, help="Print all measures as JSON, also those of each point.")
def score(
    protocol: str,
    results: Path,
    annotations: Path,
    category: str | None,
    points: Path | None,
    body: Path | None,
    as_json: bool,
) -> None:
    """Measure results of any program against the annotations of each task's test set, or your own keypoints.

    Results of wholebody are in COCO-WholeBody's result format, those of keypoints in COCO's. Results of faces are
    records with "index" and "points", or a text file with the 196 numbers of one face a line; those of meshes records
    with "index" and "joints", 17 joints of Human3.6M or the 14 evaluated ones in metres, or SMPL's "pose" and "shape";
    those of classes records with "image" and "classes", the best first.

    \b
    tcformer score wholebody results.json --annotations coco_wholebody_val_v1.0.json
    tcformer score face predictions.json --annotations list_98pt_rect_attr_test.txt
    tcformer score mesh joints.json --annotations h36m_valid_protocol2.npz
    tcformer score mesh bodies.json --annotations 3dpw_test.npz --body body/
    tcformer score classes classes.json --annotations imagenet/val
    tcformer score keypoints results.json --annotations labels/val.json --category cat
    """
    from pipelines.prediction.score import score_face, score_keypoints, score_mesh, score_wholebody
    from pipelines.prediction.score_classes import score_classes
    from pipelines.report.markdown import table_to_markdown

    if protocol != "keypoints" and (category is not None or points is not None):
        raise click.UsageError(f"--category and --points are for keypoints, not for {protocol}")
    if protocol != "mesh" and body is not None:
        raise click.UsageError(f"--body is for mesh, not for {protocol}")
    if protocol == "keypoints":
        measures, tables = score_keypoints(results, annotations, category, points)
    elif protocol == "mesh":
        measures, tables = score_mesh(results, annotations, body)
    else:
        measure = {"wholebody": score_wholebody, "face": score_face, "classes": score_classes}[protocol]
        measures, tables = measure(results, annotations)
    if as_json:
        print(json.dumps(measures, indent=1))
        return
    for table in tables:
        note = f"\n{table.note}\n" if table.note else ""
        say(f"{table.title}\n\n{table_to_markdown(table)}\n{note}")


@cli.command(short_help="Predict memory, time and failures of a recipe on a cluster.")
@click.option("--recipe", type=click.Choice(["sample", "paper"]), help="Whose trainings.  [default: of params.yaml]")
@click.option("--gpus", type=click.IntRange(1), help="Of all machines.  [default: the joined Ray's, or this machine's]")
@click.option("--nodes", type=click.IntRange(1), default=1, show_default=True, help="Machines, with --gpus.")
@click.option("--memory", type=click.FloatRange(0, min_open=True), help="Of a GPU, GiB.")
@click.option(
    "--images-per-second",
    multiple=True,
    metavar="[TASK=]X",
    help="Speed of one GPU in training, of the pretraining without TASK. Other tasks follow by their multiplications.",
)
@click.option("--measure", is_flag=True, help="Measure the speed by a short run of the networks on this machine.")
@click.option("--samples", multiple=True, metavar="TASK=N", help="Training samples, where no dataset is prepared.")
@click.option(
    "--mtbf",
    type=click.FloatRange(0),
    default=50_000.0,
    show_default=True,
    help="Hours of a GPU to a failure; 0: none.",
)
@click.option("--restart", type=click.FloatRange(0), default=120.0, show_default=True, help="Seconds after a failure.")
@click.option(
    "--store-speed", type=click.FloatRange(0, min_open=True), default=200.0, show_default=True, help="MB/s, to write."
)
@click.option(
    "--network", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, help="GB/s between workers."
)
@click.option(
    "--overhead",
    type=click.FloatRange(0),
    default=0.1,
    show_default=True,
    help="Seconds of any micro batch.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(**options: Any) -> None:  # noqa: ANN401 - as above
    """Predict what each training of a recipe needs on a cluster, before anything runs.

    Steps, memory, hours, bytes from the store, checkpoints, and the share of time that remains with failures. Each
    row says whether its numbers are counted, given, measured or predicted.

    \b
    tcformer plan --measure
    tcformer plan --recipe paper --gpus 8 --memory 80 --images-per-second 900
    tcformer plan --recipe paper --gpus 64 --nodes 8 --images-per-second imagenet=900 --images-per-second mesh=700
    """
    from pipelines.planning.command import PlanOptions
    from pipelines.planning.command import plan as planned

    print(planned(PlanOptions(**options)), end="")


@cli.command(
    short_help="The paper's experiments by name.",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def experiments(arguments: tuple[str, ...]) -> None:
    """The paper's experiments by name; the same as python -m stages.experiments.

    \b
    tcformer experiments list
    """
    from stages.experiments import main

    main(arguments)


@cli.command(short_help="Experiments side by side, and means over seeds.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("-o", "--output", type=FILE, help="Write .html, or else Markdown, instead of printing.")
def compare(names: tuple[str, ...], output: Path | None) -> None:
    """Put experiments side by side: results, differing parameters, curves; mean and spread where seeds alone differ.

    NAME is a DVC experiment, a commit, or workspace; without one, everything that DVC has measured. The same as
    python -m stages.experiments compare.

    \b
    tcformer compare
    tcformer compare wholebody-tcformer wholebody-without-ctm -o compare.html
    """
    from stages.experiments import main

    main(["compare", *names, *(["--output", str(output)] if output else [])])


for command in (keypoints, *CLUSTER_COMMANDS):
    cli.add_command(command)


def run() -> int:
    """Run a command and return the exit status."""
    output = sys.stdout
    try:
        return cli.main(prog_name="tcformer", standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SystemExit:
        if sys.stdout is not output:  # click replaced it, because nobody reads it any more, as after `| head`
            return 128 + signal.SIGPIPE
        raise


def main() -> None:
    """The console script."""
    stage_main(run)


if __name__ == "__main__":
    main()
