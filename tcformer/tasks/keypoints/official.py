"""The files of the user's own keypoints, which the parameters name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tcformer.data.keypoints.annotations import load_annotated
from tcformer.data.keypoints.points import DEFAULT_SIGMA, PointSet, without_twin
from tcformer.data.keypoints.pts import pts_files
from tcformer.data.official import Inventory, OfficialDataset, RequiredPath, Source

if TYPE_CHECKING:
    from tcformer.tasks.keypoints.options import KeypointsEvaluation, KeypointsOptions


@dataclass(frozen=True)
class KeypointSource(Source):
    """A source of which one category is used.

    Attributes:
        category: its name; None: the only one that has keypoints.
    """

    category: str | None = None


class OwnKeypoints(OfficialDataset):
    """Annotation files, image folders and the description of the points below the data root."""

    def sources(self, options: KeypointsOptions, evaluation: KeypointsEvaluation) -> list[Source]:
        """The training, validation and test files. Each requires the description of the points."""
        named = {"options.train": options.train, "options.val": options.val}
        if evaluation.test is not None:
            named["evaluation.test"] = evaluation.test
        described = () if options.points is None else (options.points,)
        return [
            KeypointSource(files.annotations, files.images, key, False, described, options.category)
            for key, files in named.items()
        ]

    def required_paths(self, sources: Sequence[Source]) -> list[RequiredPath]:
        named = {path: source for source in sources for path in (source.annotations, source.images, *source.requires)}
        return [RequiredPath(path, source) for path, source in named.items()]

    def take_inventory(self, root: Path, sources: Sequence[Source]) -> Inventory:
        inventory = Inventory(root)
        points: PointSet | None = None
        for source in sources:
            path, images = root / source.annotations, root / source.images
            described = root / source.requires[0] if source.requires else None
            category = source.category if isinstance(source, KeypointSource) else None
            annotated = load_annotated(path, images, category, described)
            people, points = annotated.people, points or annotated.points
            used = {int(image) for image in annotated.crops().image_id}
            inventory.add_images(images, (people.images[image][0] for image in used), source)
            for file in pts_files(path) if path.is_dir() else [path]:
                inventory.add_file(file)
            if described is not None:
                inventory.add_file(described)
            inventory.counts[f"{source.annotations}: labelled objects"] = len(annotated.crops())
            inventory.counts[f"{source.annotations}: keypoints"] = len(annotated.points)
        if points is not None:
            inventory.warnings += _remarks(points)
        return inventory


def _remarks(points: PointSet) -> list[str]:
    """What the user should know of the points before the training."""
    remarks = []
    if points.flip is None:
        remarks.append(
            "the names of the points have no left and right: training and evaluation cannot mirror images until `flip` "
            "lists the pairs"
        )
    elif alone := without_twin(points):
        remarks.append(
            f"{', '.join(map(repr, alone))}: no point of the other side: the point stays itself in mirror images"
        )
    default = [name for name, sigma in zip(points.names, points.sigmas) if sigma == DEFAULT_SIGMA]
    if default:
        remarks.append(
            f"no sigma is given for {len(default)} points ({default[0]!r}, ...): OKS uses {DEFAULT_SIGMA}; compare AP "
            "only with figures of the same sigmas"
        )
    if not points.skeleton:
        remarks.append("no skeleton is given: pictures show dots without lines")
    return remarks


OFFICIAL = OwnKeypoints(origins=())
