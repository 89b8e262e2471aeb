"""The official datasets of body mesh recovery: body models, 3DPW, Human3.6M, MPI-INF-3DHP, EFT's pseudo-truth."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tcformer.body.files import GENDERS, convert_smpl
from tcformer.data.mesh import mpi_inf_3dhp
from tcformer.data.mesh.files import load_bodies, load_spin
from tcformer.data.official import Archive, Inventory, OfficialDataset, Origin, Original, RequiredPath, Source

if TYPE_CHECKING:
    from tcformer.tasks.mesh.options import MeshEvaluation, MeshOptions, MeshTest

#: SPIN's annotations of MPI-INF-3DHP, which can be made from the dataset's own files.
MPI_INF_3DHP: Final = "mpi_inf_3dhp_train.npz"

_BODY: Final = "body"
_MODELS: Final[dict[str, str]] = {gender: f"{_BODY}/SMPL_{gender.upper()}.npz" for gender in GENDERS}
_REGRESSORS: Final = tuple(f"{_BODY}/J_regressor_{name}.npy" for name in ("h36m", "extra"))
#: What SMPL's publishers call the genders in file names.
_PUBLISHED_GENDERS: Final = {"neutral": "neutral", "male": "m", "female": "f"}


class MeshDatasets(OfficialDataset):
    """Body models, and the annotations and images that the parameters name."""

    def sources(self, options: MeshOptions, evaluation: MeshEvaluation) -> list[Source]:
        """The sources of the mixture, the validation set and the test sets."""
        mixture = [
            Source(source.annotations, source.images, f"options.mixture.{i}.sources.{k}", optional=True)
            for i, group in enumerate(options.mixture)
            for k, source in enumerate(group.sources)
        ]
        tests = {"options.validation": options.validation}
        tests |= {f"evaluation.tests.{i}": test for i, test in enumerate(evaluation.tests)}
        return mixture + [_test_source(test, key) for key, test in tests.items()]

    def required_paths(self, sources: Sequence[Source]) -> list[RequiredPath]:
        models = dict.fromkeys([_MODELS["neutral"], *(path for source in sources for path in source.requires)])
        body = [RequiredPath(path, search_in=_BODY) for path in (*models, *_REGRESSORS)]
        named: dict[str, RequiredPath] = {}
        for source in sources:
            for path in (source.annotations, source.images):
                if path not in named or not source.optional:  # removing a source does not help if a test needs the path
                    named[path] = RequiredPath(path, source)
        return [*body, *named.values()]

    def take_inventory(self, root: Path, sources: Sequence[Source]) -> Inventory:
        inventory = Inventory(root)
        body = [required.path for required in self.required_paths(sources) if required.search_in]
        for path in (
            *body,
            f"{_BODY}/vertex_ids.json",
        ):  # the last exists only for models with another mesh than SMPL's
            inventory.add_file(root / path)
        for source in sources:
            bodies = load_bodies(root / source.annotations)
            inventory.add_images(root / source.images, bodies.image, source)
            inventory.add_file(root / source.annotations)
            inventory.counts[f"{source.annotations} people"] = len(bodies)
            without = int((bodies.keypoints[:, :, 2] <= 0).all(1).sum())
            if source.optional and without:  # of the training mixture
                inventory.warnings.append(
                    f"{source.annotations}: {without} of {len(bodies)} people have no 2D keypoints: they are trained "
                    "without the loss of projected joints"
                )
        return inventory

    def find_original(self, root: Path, required: RequiredPath, in_archive: bool) -> Original | None:
        """The published pickle of a body model, or the folder of MPI-INF-3DHP if SPIN's file is not at hand."""
        for gender, path in _MODELS.items():
            if path == required.path:
                model = _published_model(root, gender)
                return Original(model, convert_smpl) if model else None
        source = required.source
        if in_archive or source is None or required.path != source.annotations or not _is_mpi_inf_3dhp(source):
            return None
        folder = root / source.images
        return Original(folder, mpi_inf_3dhp.convert) if mpi_inf_3dhp.is_complete(folder) else None

    def remaining_jobs(self, root: Path, sources: Sequence[Source]) -> list[Callable[[], None]]:
        """For each video of MPI-INF-3DHP, the extraction of the frames that annotations name and that do not exist."""
        return [
            partial(mpi_inf_3dhp.extract_frames, root / source.images, frames)
            for source in sources
            if _is_mpi_inf_3dhp(source)
            for frames in mpi_inf_3dhp.missing_frames(root / source.images, load_spin(root / source.annotations).image)
        ]


def _test_source(test: MeshTest, key: str) -> Source:
    gendered = test.protocol == "3dpw"  # the truth is the body of the person's gender
    requires = tuple(path for gender, path in _MODELS.items() if gender != "neutral") if gendered else ()
    return Source(test.annotations, test.images, key, optional=False, requires=requires)


def _is_mpi_inf_3dhp(source: Source) -> bool:
    return Path(source.annotations).name == MPI_INF_3DHP


def _published_model(root: Path, gender: str) -> Path | None:
    """A gender's body model as published, under our name or under its own; of several versions the newest."""
    renamed = (root / _MODELS[gender]).with_suffix(".pkl")
    if renamed.is_file():
        return renamed
    name = re.compile(rf"basicmodel_{_PUBLISHED_GENDERS[gender]}_lbs_10_207_0_v[\d.]+\.pkl", re.IGNORECASE)
    found = [path for path in _pickles(root) if name.fullmatch(path.name)]
    return max(found, key=lambda path: path.name.lower(), default=None)


def _pickles(root: Path) -> Iterator[Path]:
    yield from root.glob("*.pkl")
    yield from (root / _BODY).rglob("*.pkl")


_RESEARCH: Final = "non-commercial research"

OFFICIAL = MeshDatasets(
    origins=(
        Origin(
            title="SMPL body models (male and female; the neutral one with SMPLify or version 1.1.0)",
            page="https://smpl.is.tue.mpg.de",
            licence=f"{_RESEARCH}, after accepting its licence",
            prefixes=(f"{_BODY}/SMPL",),
            archives=tuple(
                Archive(name=f"{name}.zip", unpacks_to=f"{_BODY}/{name}")
                for name in ("SMPL_python_v.1.1.0", "SMPL_python_v.1.0.0", "mpips_smplify_public_v2")
            ),
        ),
        Origin(
            title="SPIN's joint regressors",
            page="https://github.com/nkolot/SPIN",
            licence=f"{_RESEARCH}, as of SMPL",
            prefixes=(f"{_BODY}/J_regressor",),
            archives=(Archive(name="data.tar.gz", unpacks_to=f"{_BODY}/spin_data"),),
        ),
        Origin(
            title="3DPW",
            page="https://virtualhumans.mpi-inf.mpg.de/3DPW",
            licence=f"{_RESEARCH}, after accepting its licence",
            prefixes=("3DPW",),
            archives=(
                Archive(name="imageFiles.zip", unpacks_to="3DPW/imageFiles"),
                Archive(name="sequenceFiles.zip", unpacks_to="3DPW/sequenceFiles"),
            ),
        ),
        Origin(
            title="Human3.6M's annotations in SPIN's form, which are made from the dataset (see docs/data.md)",
            page="http://vision.imar.ro/human3.6m",
            licence="academic use, after registration",
            prefixes=("dataset_extras/h36m",),
        ),
        Origin(
            title="SPIN's dataset_extras (MPI-INF-3DHP's file can be made from the dataset, see docs/data.md)",
            page="https://github.com/nkolot/SPIN",
            licence=f"{_RESEARCH}, as of the datasets that they describe",
            prefixes=("dataset_extras",),
            archives=(Archive(name="dataset_extras.tar.gz", unpacks_to="dataset_extras"),),
        ),
        Origin(
            title="EFT's pseudo-truth",
            page="https://github.com/facebookresearch/eft",
            licence="CC BY-NC 4.0",
            prefixes=("eft_fit",),
        ),
        Origin(
            title="COCO 2014 images",
            page="https://cocodataset.org/#download",
            licence="Flickr's terms; each image under its own Creative Commons licence",
            prefixes=("coco/train2014",),
            archives=(
                Archive(name="train2014.zip", unpacks_to="coco/train2014", md5="0da8cfa0e090c266b78f30e2d2874f1a"),
            ),
        ),
        Origin(
            title="MPII images",
            page="http://human-pose.mpi-inf.mpg.de",
            licence="for research",
            prefixes=("mpii",),
            archives=(Archive(name="mpii_human_pose_v1.tar.gz", unpacks_to="mpii/images"),),
        ),
        Origin(
            title="LSP, original size",
            page="https://sam.johnson.io/research/lsp.html",
            licence="for research",
            prefixes=("lsp/",),
            archives=(Archive(name="lsp_dataset_original.zip", unpacks_to="lsp"),),
        ),
        Origin(
            title="LSP extended, high resolution",
            page="https://sam.johnson.io/research/lspet.html",
            licence="for research",
            prefixes=("hr-lspet",),
            archives=(Archive(name="hr-lspet.zip", unpacks_to="hr-lspet"),),
        ),
        Origin(
            title="Human3.6M",
            page="http://vision.imar.ro/human3.6m",
            licence="academic use, after registration",
            prefixes=("h36m",),
        ),
        Origin(
            title="MPI-INF-3DHP",
            page="https://vcai.mpi-inf.mpg.de/3dhp-dataset",
            licence=_RESEARCH,
            prefixes=("mpi_inf_3dhp",),
        ),
    ),
)
