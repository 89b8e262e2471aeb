"""params.yaml: every mistake is told by line and name before anything starts, and nothing in it is unread."""

import ast
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "experiment: tcformer",
            "experiment: 2026-11-25",
            "tracking.experiment is 2026-11-25, which YAML reads as a date",
        ),
        (
            "storage: null",
            "storage: 2026-11-25 10:00:00",
            "cluster.storage is 2026-11-25 10:00:00, which YAML reads as a",
        ),
        ("storage: null", "storage: !!binary aGVsbG8=", "cluster.storage is"),
        ("storage: null", "storage: !!set {a, b}", "cluster.storage is"),
        ("storage: null", "storage: !thing {a: b}", "input should be a valid string"),
        ("  workers: 2", "  workers: 2\n  2026-11-25: 1", "in cluster: expected a name; remove it"),
        ("  workers: 2", "  workers: 2\n  3: 1", "the key 3 in cluster: expected a name; remove it"),
        ("recipe: sample", "<<: {note: 1}\nrecipe: sample", "unknown key note"),
        ("  workers: 2", "  <<: {note: 1}\n  workers: 2", "unknown key cluster.note"),
        ("lr: 2e-3", "lr: .inf", "optimizer.lr is inf: expected a finite number"),
        ("lr: 2e-3", "lr: .nan", "optimizer.lr is nan: expected a finite number"),
        ("recipe: sample", "recipe: &a [*a]\nx: *a", "unknown key x"),
    ],
)
def test_what_yaml_knows_and_parameters_do_not(tmp_path: Path, old: str, new: str, expected: str) -> None:
    said = message(tmp_path, old, new)
    assert said.startswith("line ") and expected in said


def test_aliases_of_aliases_do_not_fill_the_memory(tmp_path: Path) -> None:
    bomb = "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
    said = message(tmp_path, "recipe: sample", f"{bomb}recipe: sample")
    assert "stands for too many values" in said


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (TEXT.encode("utf-16"), "is in UTF-16: expected UTF-8; save it in this encoding"),
        (
            TEXT.replace("recipe: sample  #", "recipe: sample  # f\xfcr:", 1).encode("latin-1", "replace"),
            "the byte 0xfc",
        ),
        (TEXT.encode() + b"\0", "cannot be read as YAML"),
        (b"a: " + b"[" * 1000, "cannot be read as YAML"),
        (b"a: 2026-13-45", "cannot be read as YAML"),
        (b"[1]", "expected the sections"),
        (b"", "expected the sections"),
    ],
)
def test_other_encodings_and_no_yaml(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_params(tmp_path / "params.yaml")
    assert expected in str(caught.value)
    with pytest.raises(UserError, match=r"cannot be read .*expected a file"):
        load_params(tmp_path)


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert load_params(tmp_path / "params.yaml") == load_params(ROOT / "params.yaml")


def test_the_home_folder_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = str(tmp_path / "x")
    path = tmp_path / "params.yaml"
    text = TEXT
    for name in ("initial", "data_root", "storage"):  # `find_downloads` expands the root of a dataset
        text = re.sub(rf"(?m)^(\s*{name}): null", r"\1: ~/x", text)
    path.write_text(text, encoding="utf-8")
    params = load_params(path)
    assert params.cluster.storage == expected
    assert params.active.training_of("face").initial == expected
    assert params.active.evaluation_of("face").data_root == params.active.drawing_of("face").data_root == expected


@pytest.mark.slow
@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    st.integers(0, len(TEXT.splitlines()) - 1),
    st.one_of(
        st.text(max_size=8), st.sampled_from(["- a", "? x", "&a", "*a", "!!int x", "<<: 1", "{", "|", "key: [", "\t"])
    ),
    st.booleans(),
)
def test_any_line_is_read_or_reported(
    tmp_path_factory: pytest.TempPathFactory, place: int, text: str, replaces: bool
) -> None:
    lines = TEXT.splitlines()
    lines[place] = lines[place].partition(":")[0] + f": {text}" if replaces else lines[place] + f"\n{text}"
    path = tmp_path_factory.getbasetemp() / "params.yaml"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    with contextlib.suppress(UserError):
        load_params(path)


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
