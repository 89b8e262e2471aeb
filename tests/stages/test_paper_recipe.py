"""The paper's recipe, all of it, on pieces of the real datasets in their official layouts.

Nothing is changed but data roots, how long is trained, how many samples make up a batch or are drawn and, as there are
pictures of 120 classes, their number. Of the mesh task's data no real piece is at hand: bodies, 3DPW, Human3.6M and
MPI-INF-3DHP are generated in their formats, and EFT's poses of real people are made up. Stages work in their own
processes; the same stages on Ray's workers are tested with the sample recipe.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML
from scipy.io import loadmat, savemat

from pipelines.running.process import LOCAL
from tcformer.body.rotations import to_matrix
from tcformer.data.mesh.files import load_bodies
from tcformer.synthetic import GenerateMesh, generate_mesh
from tests.conftest import Workplace

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.pipeline, pytest.mark.early]


def link(place: Path, target: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target, target_is_directory=target.is_dir())


def imagenet(root: Path, samples: Path) -> Path:
    """Real images of 120 classes, some in one split alone."""
    link(root, samples / "imagenet")
    return root


def wholebody(root: Path, samples: Path) -> Path:
    """The real validation images, for training as well."""
    real = samples / "coco_wholebody"
    for split in ("train", "val"):
        annotations = root / "annotations" / f"coco_wholebody_{split}_v1.0.json"
        link(annotations, real / "annotations" / "coco_wholebody_val_v1.0.json")
        link(root / f"{split}2017", real / "val2017")
    [detections] = (real / "person_detection_results").iterdir()
    found = sorted(json.loads(detections.read_text()), key=lambda person: -person["score"])
    (root / "person_detection_results").mkdir()
    (root / "person_detection_results" / detections.name).write_text(json.dumps(found[:30]))
    return root


def face(root: Path, samples: Path) -> Path:
    """The four real faces, for training as well."""
    lists = "WFLW_annotations/list_98pt_rect_attr_train_test"
    for split in ("train", "test"):
        place = root / lists / f"list_98pt_rect_attr_{split}.txt"
        link(place, samples / "wflw" / lists / "list_98pt_rect_attr_test.txt")
    link(root / "WFLW_images", samples / "wflw" / "WFLW_images")
    return root


def mesh(root: Path, samples: Path) -> Path:
    """Generated people under the names of Human3.6M, MPI-INF-3DHP and 3DPW, and real ones with made-up poses."""
    options = YAML(typ="safe").load((Path(__file__).parents[2] / "params.yaml").read_text())["sample"]["data"]["mesh"]
    small = {**options["generate"], "train_images": 4, "test_images": 4}
    ranges = {name: tuple(value) for name, value in small.items() if isinstance(value, list)}
    generate_mesh(root, GenerateMesh(**{**small, **ranges}))
    for name in ("h36m_train", "h36m_valid_protocol1", "h36m_valid_protocol2", "mpi_inf_3dhp_train"):
        shutil.copy(root / "dataset_extras" / "generated_train.npz", root / "dataset_extras" / f"{name}.npz")
    for name in ("h36m", "mpi_inf_3dhp"):
        link(root / name, root / "generated")
    for split in ("train", "validation"):
        link(root / "3DPW" / "sequenceFiles" / split, root / "3DPW" / "sequenceFiles" / "test")
    # LSP's file has the form of LSP-Extended's, of which there are samples.
    for image in sorted((samples / "lspet" / "images").iterdir())[:8]:
        link(root / "lsp" / "images" / image.name, image)
    savemat(root / "lsp" / "joints.mat", {"joints": loadmat(samples / "lspet" / "joints.mat")["joints"][..., :8]})
    poses = load_bodies(root / "dataset_extras" / "generated_train.npz").pose
    for fits, points, images, place in (
        ("COCO2014-All-ver01", "coco/annotations/person_keypoints_train2017.json", "coco/train2017", "coco/train2014"),
        ("MPII_ver01", "mpii/annot/valid.json", "mpii/images", "mpii/images"),
        ("LSPet_train_ver10", "lspet/joints.mat", "lspet/images", "hr-lspet"),
    ):
        link(root / place, samples / images)
        people = load_bodies(samples / points)
        records = [
            {
                "imageName": people.image[row],
                "bbox_center": people.centre[row].tolist(),
                "bbox_scale": float(people.scale[row]),
                "parm_pose": to_matrix(poses[row % len(poses)].reshape(24, 3).astype(np.float64)).tolist(),
                "parm_shape": [0.0] * 10,
                "gt_keypoint_2d": people.keypoints[row].tolist(),
            }
            for row in range(min(4, len(people)))
        ]
        path = root / "eft_fit" / f"{fits}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"ver": 1, "data": records}))
    return root


@pytest.mark.timeout(1500)
def test_on_pieces_of_the_real_data(workplace: Workplace, samples: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"recipe": "paper"}
    for task, make in {"imagenet": imagenet, "wholebody": wholebody, "face": face, "mesh": mesh}.items():
        changes[f"paper__data__{task}__root"] = str(make(tmp_path / "real" / task, samples))
        training = "pretrain" if task == "imagenet" else f"finetune__{task}"
        changes[f"paper__{training}__training__epochs"] = 1
        changes[f"paper__{training}__training__global_batch"] = 8 if task != "imagenet" else 48
        changes[f"paper__{training}__training__micro_batch"] = 4
        changes[f"paper__evaluate__{task}__tokens"] = 4
        changes[f"paper__visualize__{task}__samples"] = 2
    changes["paper__pretrain__task__num_classes"] = 120
    workplace.set(**changes)
    workplace.run("git", "init", "-q")
    workplace.run("dvc", "init", "-q")
    workplace.run("dvc", "repro", **{LOCAL: "1"})

    runs = workplace.folder / "runs" / "paper"
    found = {
        task: json.loads((runs / "evaluate" / task / "metrics.json").read_text())
        for task in ("imagenet", "wholebody", "face", "mesh")
    }
    assert found["imagenet"]["count"] == 24
    assert found["wholebody"]["wholebody"]["AP"] >= 0
    assert found["face"]["full"]["count"] == 4
    counts = {name: found["mesh"][name]["count"] for name in ("3dpw", "h36m_protocol1", "h36m_protocol2")}
    assert counts == {"3dpw": 4, "h36m_protocol1": 4, "h36m_protocol2": 4}
    for task in ("wholebody", "face", "mesh"):
        assert len((runs / "finetune" / task / "training.csv").read_text().splitlines()) > 1, "a row for a step"
    report = (runs / "report" / "report.md").read_text()
    assert all(title in report for title in ("Table 1: ", "| whole-body pose |", "| face landmarks |", "| body mesh |"))
