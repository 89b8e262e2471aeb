"""params.yaml: every mistake is told by line and name before anything starts, and nothing in it is unread."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.params import Params, fields, load_params
from tcformer.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")


def message(tmp_path: Path, old: str, new: str) -> str:
    """What loading says after the first ``old`` of the file became ``new``, without the folder's name."""
    assert old in TEXT
    path = tmp_path / "params.yaml"
    path.write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_params(path)
    return str(caught.value).replace(f"{path}:", "line ")


def line_of(text: str) -> int:
    return TEXT[: TEXT.index(text)].count("\n") + 1


def test_the_committed_file_loads() -> None:
    params = load_params(ROOT / "params.yaml")
    assert params.recipe == "sample"
    assert params.active is params.sample


def test_an_unknown_key_is_reported_with_the_nearest_right_one(tmp_path: Path) -> None:
    said = message(tmp_path, "        warmup_steps:", "        warmup_step:")
    at = line_of("        warmup_steps:")
    assert f"line {at}: unknown key sample.pretrain.training.optimizer.warmup_step: did you mean warmup_steps?" in said


def test_an_unknown_key_of_the_task_options(tmp_path: Path) -> None:
    said = message(tmp_path, "      drop_path:", "      dropout_path:")
    assert "unknown key sample.pretrain.task.dropout_path: did you mean drop_path?" in said
    assert "sample.pretrain.task.drop_path is missing" in said


def test_a_duplicate_key(tmp_path: Path) -> None:
    said = message(tmp_path, "  workers: 2", "  workers: 2\n  workers: 4")
    assert said.startswith(f"line {line_of('  workers: 2') + 1}: found duplicate key")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("lr: 2e-3", "lr: banana", 'optimizer.lr is "banana": input should be a valid number'),
        ("lr: 2e-3", "lr: '1e-3'", 'optimizer.lr is "1e-3": input should be a valid number'),
        ("lr: 2e-3", "lr: -1", "optimizer.lr is -1: input should be greater than 0"),
        ("epochs: 9", "epochs: 9.5", "training.epochs is 9.5: input should be a valid integer"),
        ("schedule: cosine", "schedule: cosin", "input should be 'cosine', 'step' or 'constant'"),
        ("codec: unbiased", "codec: dark", "task.codec is \"dark\": input should be 'mmpose', 'udp' or 'unbiased'"),
        ("recipe: sample", "recipe: samples", "input should be 'sample' or 'paper'"),
        ("  workers: 2", "  workers: 0", "cluster.workers is 0: input should be greater than or equal to 1"),
    ],
)
def test_a_wrong_value(tmp_path: Path, old: str, new: str, expected: str) -> None:
    said = message(tmp_path, old, new)
    assert expected in said
    assert said.startswith("line ")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist: run from the repository's root"):
        load_params(tmp_path / "params.yaml")


def test_exponents_are_numbers() -> None:
    assert load_params(ROOT / "params.yaml").paper.finetune.wholebody.training.optimizer.lr == 5e-4


def leaves(section: Any) -> Iterator[str]:
    for name, kind in fields(section).items():
        if fields(kind):
            yield from leaves(kind)
        else:
            yield name


def test_every_leaf_is_read() -> None:
    """A field that no code takes from an object is a knob that turns nothing."""
    read = {
        node.attr
        for layer in ("kernels", "tcformer", "pipelines", "stages")
        for path in (ROOT / layer).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
    }
    # `recipe`'s sections are chosen by name; the stages read theirs the same way.
    assert sorted(set(leaves(Params)) - read) == []
