"""The data sets as their publishers give them: what each task needs, where it comes from, which archives hold it.

Published checksums are those that torchvision's ImageNet and public loaders of COCO hold; the other publishers give
none.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML

from tcformer.body.files import GENDERS
from tcformer.data.face.dataset import face_image_folder, list_file
from tcformer.data.mesh import mpi_inf_3dhp
from tcformer.data.wholebody.dataset import annotation_file, detection_file, image_folder
from tcformer.errors import UserError

DEVKIT = "ILSVRC2012_devkit_t12"
MPI_INF_3DHP = "mpi_inf_3dhp_train.npz"
_MOST_TOLD = 10
_HERE = Path()


@dataclass(frozen=True)
class Archive:
    """An archive as it is downloaded."""

    name: str
    #: below the root: the folder that it unpacks to
    gives: str
    #: files: as they are; classes: a tar of ImageNet's class tars; validation: images to sort into class tars
    how: Literal["files", "classes", "validation"] = "files"
    #: as published
    md5: str | None = None
    #: below the root: a folder that must be there before
    needs: str | None = None

    def holds(self, path: str) -> bool:
        """Whether a path below the root lies in what it unpacks to."""
        return path == self.gives or path.startswith(f"{self.gives}/")


@dataclass(frozen=True)
class Origin:
    """Where files come from."""

    title: str
    page: str
    licence: str
    #: below the root: what comes from here starts so
    prefixes: tuple[str, ...]
    archives: tuple[Archive, ...] = ()


_RESEARCH = "non-commercial research"

ORIGINS: dict[str, tuple[Origin, ...]] = {
    "imagenet": (
        Origin(
            "ImageNet-1K (ILSVRC2012)",
            "https://image-net.org/download-images",
            f"{_RESEARCH} and education, after accepting its terms",
            ("train", "val", DEVKIT),
            (
                Archive("ILSVRC2012_img_train.tar", "train", "classes", "1d675b47d978889d74fa0da5fadfb00e"),
                Archive("ILSVRC2012_img_val.tar", "val", "validation", "29b22e2961454d5413ddabcf34fc5622", DEVKIT),
                Archive("ILSVRC2012_devkit_t12.tar.gz", DEVKIT, md5="fa75699e90414af021442c21a62c3abf"),
            ),
        ),
    ),
    "wholebody": (
        Origin(
            "COCO 2017 images",
            "https://cocodataset.org/#download",
            "Flickr's terms; each image under its own Creative Commons licence",
            ("train2017", "val2017"),
            (
                Archive("train2017.zip", "train2017", md5="cced6f7f71b7629ddf16f17bbcfab6b2"),
                Archive("val2017.zip", "val2017", md5="442b8da7639aecaf257c1dceb8ba8c80"),
            ),
        ),
        Origin(
            "COCO-WholeBody V1.0 annotations",
            "https://github.com/jin-s13/COCO-WholeBody",
            _RESEARCH,
            ("annotations",),
        ),
        Origin(
            "SimpleBaseline's person detections",
            "https://github.com/microsoft/human-pose-estimation.pytorch",
            "none stated for the file",
            ("person_detection_results",),
        ),
    ),
    "face": (
        Origin(
            "WFLW images and face annotations",
            "https://wywu.github.io/projects/LAB/WFLW.html",
            "none stated; for research",
            ("WFLW_images", "WFLW_annotations"),
            (
                Archive("WFLW_images.tar.gz", "WFLW_images"),
                Archive("WFLW_annotations.tar.gz", "WFLW_annotations"),
            ),
        ),
    ),
    "mesh": (
        Origin(
            "SMPL body models (male and female; the neutral one with SMPLify or version 1.1.0)",
            "https://smpl.is.tue.mpg.de",
            f"{_RESEARCH}, after accepting its licence",
            ("body/SMPL",),
            (
                Archive("SMPL_python_v.1.1.0.zip", "body/SMPL_python_v.1.1.0"),
                Archive("SMPL_python_v.1.0.0.zip", "body/SMPL_python_v.1.0.0"),
                Archive("mpips_smplify_public_v2.zip", "body/mpips_smplify_public_v2"),
            ),
        ),
        Origin(
            "SPIN's joint regressors",
            "https://github.com/nkolot/SPIN",
            f"{_RESEARCH}, as of SMPL",
            ("body/J_regressor",),
            (Archive("data.tar.gz", "body/spin_data"),),
        ),
        Origin(
            "3DPW",
            "https://virtualhumans.mpi-inf.mpg.de/3DPW",
            f"{_RESEARCH}, after accepting its licence",
            ("3DPW",),
            (
                Archive("imageFiles.zip", "3DPW/imageFiles"),
                Archive("sequenceFiles.zip", "3DPW/sequenceFiles"),
            ),
        ),
        Origin(
            "Human3.6M's annotations in SPIN's form, which are made from the data set (see docs/data.md)",
            "http://vision.imar.ro/human3.6m",
            "academic use, after registration",
            ("dataset_extras/h36m",),
        ),
        Origin(
            "SPIN's dataset_extras (MPI-INF-3DHP's file can be made from the data set, see docs/data.md)",
            "https://github.com/nkolot/SPIN",
            f"{_RESEARCH}, as of the data sets that they describe",
            ("dataset_extras",),
            (Archive("dataset_extras.tar.gz", "dataset_extras"),),
        ),
        Origin(
            "EFT's pseudo-truth",
            "https://github.com/facebookresearch/eft",
            "CC BY-NC 4.0",
            ("eft_fit",),
        ),
        Origin(
            "COCO 2014 images",
            "https://cocodataset.org/#download",
            "Flickr's terms; each image under its own Creative Commons licence",
            ("coco/train2014",),
            (Archive("train2014.zip", "coco/train2014", md5="0da8cfa0e090c266b78f30e2d2874f1a"),),
        ),
        Origin(
            "MPII images",
            "http://human-pose.mpi-inf.mpg.de",
            "for research",
            ("mpii",),
            (Archive("mpii_human_pose_v1.tar.gz", "mpii/images"),),
        ),
        Origin(
            "LSP extended, high resolution",
            "https://sam.johnson.io/research/lspet.html",
            "for research",
            ("hr-lspet",),
            (Archive("hr-lspet.zip", "hr-lspet"),),
        ),
        Origin(
            "Human3.6M",
            "http://vision.imar.ro/human3.6m",
            "academic use, after registration",
            ("h36m",),
        ),
        Origin(
            "MPI-INF-3DHP",
            "https://vcai.mpi-inf.mpg.de/3dhp-dataset",
            _RESEARCH,
            ("mpi_inf_3dhp",),
        ),
    ),
}


@dataclass(frozen=True)
class Source:
    """Annotations, and the images they speak of, that the parameters of the mesh task name; below the data root."""

    annotations: str
    images: str
    #: file and line of the parameters
    named_at: str
    #: whether it is one of the training mixture's, which can do without it
    mixture: bool
    #: whether its truth is a male or female body
    gendered: bool


def mesh_sources(recipe: Any, params: Path) -> list[Source]:
    """What a recipe's mesh task names, with its lines in params.yaml.

    Args:
        recipe: `pipelines.params.Recipe`.
        params: the file that it was read from.
    """
    tree = YAML().load(params.read_text(encoding="utf-8"))
    tree = tree[tree["recipe"]]
    lines = tree["finetune"]["mesh"]["task"]["mixture"], tree["evaluate"]["mesh"]["options"]["tests"]
    task = recipe.finetune.mesh.task

    def source(named: Any, node: Any, mixture: bool) -> Source:
        gendered = not mixture and named.protocol == "3dpw"
        return Source(named.annotations, named.images, f"{params.name}:{node.lc.line + 1}", mixture, gendered)

    found = [
        source(named, node, True)
        for group, nodes in zip(task.mixture, lines[0])
        for named, node in zip(group.sources, nodes["sources"])
    ]
    found.append(source(task.validation, tree["finetune"]["mesh"]["task"]["validation"], False))
    found += [source(named, node, False) for named, node in zip(recipe.evaluate.mesh.options.tests, lines[1])]
    return found


@dataclass(frozen=True)
class Wanted:
    """A file or folder that a task cannot do without."""

    #: below the data root
    path: str
    source: Source | None = None


def wanted(task: str, sources: Sequence[Source]) -> list[Wanted]:
    """What a task needs below its root."""
    if task == "imagenet":
        return [Wanted("train"), Wanted("val")]
    if task == "wholebody":
        paths = [*(annotation_file(_HERE, s) for s in ("train", "val")), detection_file(_HERE)]
        paths += [image_folder(_HERE, s) for s in ("train", "val")]
        return [Wanted(path.as_posix()) for path in paths]
    if task == "face":
        paths = [*(list_file(_HERE, s) for s in ("train", "test")), face_image_folder(_HERE)]
        return [Wanted(path.as_posix()) for path in paths]
    genders = GENDERS if any(source.gendered for source in sources) else GENDERS[:1]
    body = [f"body/SMPL_{gender.upper()}.npz" for gender in genders]
    body += [f"body/J_regressor_{name}.npy" for name in ("h36m", "extra")]
    named: dict[str, Wanted] = {}
    for source in sources:
        for path in (source.annotations, source.images):
            if path not in named or not source.mixture:  # a test is not helped by a change of the mixture
                named[path] = Wanted(path, source)
    return [*map(Wanted, body), *named.values()]


State = Literal["there", "packed", "elsewhere", "to convert", "missing"]


@dataclass(frozen=True)
class Item:
    """What is known of something wanted."""

    wanted: Wanted
    state: State
    #: the archive that holds it, the file to link to or to convert from
    found: Path | None = None
    archive: Archive | None = None
    #: why it counts as missing though there is something of that name
    hint: str = ""


def survey(task: str, root: Path, sources: Sequence[Source]) -> list[Item]:
    """Where everything is that a task needs; looks at names only."""
    items = [_look(task, root, each) for each in wanted(task, sources)]
    needed = {item.archive.needs for item in items if item.archive and item.archive.needs}
    return items + [_look(task, root, Wanted(path)) for path in sorted(needed)]


def _look(task: str, root: Path, each: Wanted) -> Item:
    path = root / each.path
    if is_there(path):
        return Item(each, "there")
    loose = _elsewhere(root, each.path)
    if loose:
        return Item(each, "elsewhere", loose)
    model = _published_model(root, each.path)
    if model:
        return Item(each, "to convert", model)
    origin = origin_of(task, each.path)
    for archive in origin.archives if origin else ():
        packed = _find(root, archive)
        # Of what is in body/ it is only known that it is somewhere in its archives.
        if (
            packed
            and not is_there(root / archive.gives)
            and (archive.holds(each.path) or each.path.startswith("body/"))
        ):
            return Item(each, "packed", packed, archive)
    if each.source and each.path == each.source.annotations and Path(each.path).name == MPI_INF_3DHP:
        folder = root / each.source.images
        if mpi_inf_3dhp.is_complete(folder):
            return Item(each, "to convert", folder)
    return Item(each, "missing")


def is_there(path: Path) -> bool:
    """Whether a path is a file, or a folder that holds something."""
    if not path.is_dir():
        return path.exists()
    with os.scandir(path) as entries:
        return any(True for _ in entries)


def _find(root: Path, archive: Archive) -> Path | None:
    """An archive, in the root or in the folder that it unpacks into."""
    places = (root / archive.name, (root / archive.gives).parent / archive.name)
    return next((place for place in places if place.is_file()), None)


def _elsewhere(root: Path, path: str) -> Path | None:
    """A file that was left in the root itself or in what an archive of body models unpacked to."""
    name = Path(path).name
    if not Path(name).suffix:
        return None
    places = [root / name, *(sorted((root / "body").rglob(name)) if path.startswith("body/") else [])]
    return next((place for place in places if place.is_file()), None)


def _published_model(root: Path, path: str) -> Path | None:
    """The body model, as published, that a .npz is made from."""
    gender = re.fullmatch(r"body/SMPL_(NEUTRAL|MALE|FEMALE)\.npz", path)
    if not gender:
        return None
    named = root / path.replace(".npz", ".pkl")
    letter = {"NEUTRAL": "neutral", "MALE": "m", "FEMALE": "f"}[gender[1]]
    published = re.compile(rf"basicmodel_{letter}_lbs_10_207_0_v[\d.]+\.pkl", re.IGNORECASE)
    models = [*(root / "body").rglob("*.pkl"), *root.glob("*.pkl")]
    found = sorted((model for model in models if published.fullmatch(model.name)), key=lambda model: model.name.lower())
    return named if named.is_file() else found[-1] if found else None


def origin_of(task: str, path: str) -> Origin | None:
    """Where a path below the root comes from."""
    fitting = (origin for origin in ORIGINS[task] if path.startswith(origin.prefixes))
    return next(fitting, None)


def require(task: str, root: Path, items: Iterable[Item]) -> None:
    """Raise UserError if anything is missing: what, where it is to be had, under which licence, where to put it."""
    missing = [item for item in items if item.state == "missing"]
    if missing:
        raise UserError(missing_message(task, root, missing))


def missing_message(task: str, root: Path, missing: Sequence[Item]) -> str:
    """See `require`."""
    lines = [f"{root} lacks {len(missing)} of the files and folders that the task {task} needs:"]
    for item in missing[:_MOST_TOLD]:
        notes = [item.hint] if item.hint else []
        source = item.wanted.source
        if source:
            leave = ": remove that source to train without it" if source.mixture else ""
            notes.append(f"named at {source.named_at}{leave}")
        lines.append(f"  {item.wanted.path}" + (f" ({'; '.join(notes)})" if notes else ""))
    if len(missing) > _MOST_TOLD:
        lines.append(f"  and {len(missing) - _MOST_TOLD} more")
    origins = {origin_of(task, item.wanted.path): item.wanted.path for item in missing}
    for origin, path in origins.items():
        if origin is None:
            lines.append(f"{path} is known to your parameters alone: put it in {root}, or correct its name")
            continue
        names = ", ".join(archive.name for archive in origin.archives)
        what = f"put {names}, or what they unpack to, in {root}" if names else f"put them in {root} under these names"
        lines.append(f"{origin.title}: from {origin.page} (licence: {origin.licence}); {what}")
        for archive in origin.archives:
            packed = _find(root, archive)
            if packed and any(archive.holds(item.wanted.path) for item in missing):
                lines.append(f"{packed} is there: remove {root / archive.gives} to have it unpacked again")
    return "\n".join(lines)
