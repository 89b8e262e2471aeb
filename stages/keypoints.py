"""The commands `tcformer keypoints ...`: from labelled pictures to the sections of params.yaml that train on them."""

from pathlib import Path

import click

from pipelines.running.progress import say
from stages.paths import FILE


@click.group(short_help="Prepare training on your own keypoints.")
def keypoints() -> None:
    """Prepare training on your own keypoints (docs/own-keypoints.md).

    \b
    tcformer keypoints split annotations.json -o labels/
    tcformer keypoints init --train labels/train.json --val labels/val.json --images pictures/
    """


@keypoints.command(short_help="Add the sections of your files to params.yaml.")
@click.option("--train", type=FILE, help="COCO keypoint file, or folder of .pts files, to train on.")
@click.option("--val", type=FILE, help="The same, to validate on.")
@click.option("--images", type=FILE, help="Folder that the image names are relative to.")
@click.option("--val-images", type=FILE, help="That of the validation images.  [default: as --images]")
@click.option("--category", help="Name of the category.  [default: the only one that has keypoints]")
@click.option("--points", type=FILE, help="YAML file that describes the points.")
@click.option("--recipe", type=click.Choice(["sample", "paper"]), default="sample", show_default=True)
@click.option("--generated", is_flag=True, help="No files: generated people with 14 points.")
def init(
    train: Path | None,
    val: Path | None,
    images: Path | None,
    val_images: Path | None,
    category: str | None,
    points: Path | None,
    recipe: str,
    generated: bool,
) -> None:
    """Check your files and add data, finetune, evaluate and visualize of keypoints to a recipe in params.yaml.

    Nothing else in params.yaml changes. Then edit the new sections: epochs, input_size, ...

    \b
    tcformer keypoints init --train train.json --val val.json --images pictures/
    tcformer keypoints init --train helen/trainset --val helen/testset --images helen/trainset \\
        --val-images helen/testset
    """
    from pipelines.layout import PARAMS
    from pipelines.own_keypoints import OwnFiles, add_sections

    files = None
    if not generated:
        if train is None or val is None or images is None:
            raise click.UsageError("expected --train, --val and --images, or --generated")
        files = OwnFiles(train, val, images, val_images or images, category, points)
    for note in add_sections(PARAMS, recipe, files):
        say(note)
    print(f"{PARAMS}: added data, finetune, evaluate and visualize of keypoints to the recipe {recipe}")
    print("next: python -m stages.prepare keypoints, then stages.finetune, stages.evaluate and stages.visualize")


@keypoints.command(short_help="Divide a COCO file into train.json and val.json.")
@click.argument("annotations", type=FILE)
@click.option("-o", "--out", type=FILE, required=True, help="Folder of train.json and val.json.")
@click.option("--val", default=0.2, show_default=True, help="Share of the images for validation.")
@click.option("--seed", default=0, show_default=True, help="Of the random choice.")
def split(annotations: Path, out: Path, val: float, seed: int) -> None:
    """Divide the images of a COCO keypoint file at random into train.json and val.json.

    \b
    tcformer keypoints split annotations.json --val 0.2 -o labels/
    """
    from pipelines.own_keypoints import split as divide

    say("\n".join(divide(annotations, val, out, seed)))


@keypoints.command("from-pts", short_help="Make a COCO file of .pts files.")
@click.argument("folders", type=FILE, nargs=-1, required=True)
@click.option("--images", type=FILE, help="Folder that image names are relative to.  [default: FOLDERS, if it is one]")
@click.option("--points", type=FILE, help="YAML file with the names of the points; 68 points need none.")
@click.option("-o", "--out", type=FILE, required=True, help="The COCO keypoint file.")
def from_pts(folders: tuple[Path, ...], images: Path | None, points: Path | None, out: Path) -> None:
    """Make a COCO keypoint file of the .pts files in folders, as those of 300-W.

    \b
    tcformer keypoints from-pts lfpw/trainset helen/trainset afw --images . -o train.json
    """
    from pipelines.own_keypoints import convert_pts

    if images is None and len(folders) > 1:
        raise click.UsageError("several folders: expected --images, the folder that contains them")
    say("\n".join(convert_pts([f.resolve() for f in folders], (images or folders[0]).resolve(), points, out)))
