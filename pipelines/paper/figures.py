"""The paper's figures that are pictures: what each shows, and how it is made.

Figures 2 to 5 explain the network and are not made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Shown:
    """A network in a figure.

    Attributes:
        experiment: whose network it is (see experiments.yaml); None: a fixed grid, which needs no network.
        label: what it is called in the figure, if there are several.
        sets: on which sets of pictures it predicts, see `scene_set` of its task; "": its first test set.
    """

    experiment: str | None
    label: str = ""
    sets: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class Figure:
    """A figure of the paper.

    Attributes:
        shows: what it shows.
        kind: "networks": tokens of several networks for the same samples; "tasks": tokens of networks of several
            tasks, a row for each; "scenes": predictions on whole pictures; "stage": the picture that the stage
            `visualize` draws of its network.
        networks: those that it shows.
        count: samples, or pictures of each set.
        stages: indices of the stages whose tokens are drawn, from 0.
        in_rows: whether the networks are below each other; by default they are groups of columns.
    """

    shows: str
    kind: Literal["networks", "tasks", "scenes", "stage"]
    networks: tuple[Shown, ...]
    count: int = 4
    stages: tuple[int, ...] = (3,)
    in_rows: bool = False

    @property
    def experiments(self) -> tuple[str, ...]:
        """Names of the experiments whose networks are drawn."""
        return tuple(shown.experiment for shown in self.networks if shown.experiment)


_POSE, _MESH, _FACE = Shown("wholebody-tcformer"), Shown("mesh-tcformer"), Shown("face-tcformer-light")
_HANDS_AND_FACE = (Shown("wholebody-hand", "hands alone"), Shown("wholebody-face", "face alone"))
_THREE_REDUCTIONS = (
    Shown("wholebody-without-ctm", "without CTM"),
    Shown("wholebody-tcformer", "CTM"),
    Shown("wholebody-ctm-topk", "CTM-topk"),
)

#: All figures by name.
FIGURES: dict[str, Figure] = {
    "figure1": Figure(
        "tokens of a fixed grid and of TCFormer, in all stages",
        "networks",
        (Shown(None, "fixed grid"), Shown("wholebody-tcformer", "TCFormer")),
        count=2,
        stages=(0, 1, 2, 3),
        in_rows=True,
    ),
    "figure6": Figure("people and bodies predicted in whole pictures, and faces", "scenes", (_POSE, _MESH, _FACE)),
    "figure7": Figure("tokens of the last stage for all three tasks", "tasks", (_POSE, _MESH, _FACE)),
    "figure8": Figure("tokens of networks for the hands or the face alone", "networks", _HANDS_AND_FACE),
    "figureA1": Figure("tokens without CTM, with CTM and with CTM-topk", "networks", _THREE_REDUCTIONS),
    "figureA2": Figure("keypoints of all people predicted in whole pictures", "scenes", (_POSE,), count=12),
    "figureA3": Figure(
        "bodies predicted in whole pictures of 3DPW and of LSP's test set",
        "scenes",
        (Shown("mesh-tcformer", sets=("", "lsp")),),
        count=8,
    ),
    "figureA4": Figure("predicted landmarks of faces", "scenes", (_FACE,), count=20),
    "figureA5": Figure("tokens of all stages for whole-body pose", "stage", (_POSE,)),
    "figureA6": Figure("tokens of all stages for body meshes", "stage", (_MESH,)),
    "figureA7": Figure("tokens of all stages for face landmarks", "stage", (_FACE,)),
    "figureA8": Figure("tokens of all stages for classification", "stage", (Shown("imagenet-tcformer"),)),
    "figureA9": Figure("as figure 8, for more people", "networks", _HANDS_AND_FACE, count=12),
}
