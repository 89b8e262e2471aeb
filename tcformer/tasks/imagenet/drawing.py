"""An image, and above it its class and the predicted one."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tcformer.checks import read_json
from tcformer.data.imagenet.dataset import find_classes
from tcformer.data.images import denormalise
from tcformer.draw import Example, Partition
from tcformer.errors import UserError
from tcformer.tasks.drawing import Drawn
from tcformer.tasks.imagenet.task import ImagenetTask

#: Beside the splits of a generated dataset: index -> [class folder, title], as in Keras' imagenet_class_index.json.
_TITLES = "classes.json"
_WNID = re.compile(r"n\d{8}")


def draw(task: ImagenetTask, sample: dict[str, Any], output: Tensor, partitions: list[Partition], scale: int) -> Drawn:
    """See `tcformer.tasks.registry.TaskEntry.draw`; the mask is empty, because nobody has marked what is shown."""
    titles = class_titles(task.root, task.options.num_classes)
    probability, answer = output[0].float().softmax(0).max(0)
    verdict = "correct" if int(answer) == sample["label"] else f"true class: {titles[sample['label']]}"
    label = f"predicted: {titles[int(answer)]} ({float(probability):.0%}); {verdict}"
    image = denormalise(sample["image"])
    return Drawn(Example(image, partitions, label=label), np.zeros(image.shape[:2], bool))


@cache
def class_titles(root: Path, num_classes: int) -> tuple[str, ...]:
    """What the classes of a dataset are called, in the order of their labels.

    ImageNet's folders have the first word of their WordNet synset (from timm), generated ones that of their file.
    """
    classes, file = find_classes(root, num_classes), root / _TITLES
    if file.is_file():
        pairs = read_json(file, "run the prepare stage")
        if not isinstance(pairs, dict) or not all(_is_pair_of_texts(pair) for pair in pairs.values()):
            raise UserError(f'{file}: expected {{"0": ["<folder>", "<title>"], ...}}; run the prepare stage again')
        known = dict(pairs.values())
    elif any(_WNID.fullmatch(name) for name in classes):
        known = wordnet_titles()
    else:
        known = {}
    return tuple(known.get(name, name).replace("_", " ") for name in classes)


def _is_pair_of_texts(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(text, str) for text in value)


def wordnet_titles() -> dict[str, str]:
    """The first word of the WordNet synset of each of ImageNet's class folders, from timm."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return dict(zip(info.label_names(), (text.split(",")[0] for text in info.label_descriptions())))
