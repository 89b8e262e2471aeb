"""Body models in SMPL's format: files, posing, joints.

Posing needs the package smplx, whose licence allows non-commercial research only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tcformer.lazy import lazy_exports

if TYPE_CHECKING:
    from tcformer.body.files import Regressors, SmplArrays, convert_smpl, load_smpl, save_smpl
    from tcformer.body.model import Body, BodyJoints, load_body, load_joints
    from tcformer.body.unpickle import load_pickle

_MODULES = {
    "Body": "model",
    "BodyJoints": "model",
    "Regressors": "files",
    "SmplArrays": "files",
    "convert_smpl": "files",
    "load_body": "model",
    "load_joints": "model",
    "load_pickle": "unpickle",
    "load_smpl": "files",
    "save_smpl": "files",
}

__all__ = [
    "Body",
    "BodyJoints",
    "Regressors",
    "SmplArrays",
    "convert_smpl",
    "load_body",
    "load_joints",
    "load_pickle",
    "load_smpl",
    "save_smpl",
]

__getattr__ = lazy_exports(__name__, _MODULES)
