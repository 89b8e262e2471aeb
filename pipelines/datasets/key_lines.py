"""Line numbers of parameters, for messages."""

from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq


def line_of(key: str, path: Path) -> int:
    """Line in a YAML file, from 1, at which a key stands.

    Args:
        key: names and, in lists, indices with dots between them, for instance `paper.finetune.mesh.task.mixture.0`.
        path: the file.

    Returns:
        The line of the key or, where the file lacks it, that of the nearest section above it.
    """
    node = YAML().load(path.read_text(encoding="utf-8"))
    line = 0
    for name in key.split("."):
        if isinstance(node, CommentedMap) and name in node:
            line, node = node.lc.key(name)[0], node[name]
        elif isinstance(node, CommentedSeq) and name.isdigit() and int(name) < len(node):
            line, node = node.lc.item(int(name))[0], node[int(name)]
        else:
            break
    return int(line) + 1


def place_of(key: str, path: Path) -> str:
    """`<file name>:<line>` of a key, see `line_of`."""
    return f"{path.name}:{line_of(key, path)}"
