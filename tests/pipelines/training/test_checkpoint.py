"""Crash points of the checkpoint writer: whatever is cut off or flipped, the answer is a valid checkpoint or none."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.adapters.storage import Store
from pipelines.training import checkpoint
from tcformer.errors import UserError


def write(store: Store, step: int) -> None:
    files = {"weights": bytes(range(200)) + step.to_bytes(4, "big"), "state/optimiser": b"moments" * step}
    checkpoint.save(store, checkpoint.folder_name(step), files.items(), size=1000)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(str(tmp_path / "store"))
    for step in (1, 2):
        write(found, step)
    return found


def newest(store: Store, tmp_path: Path) -> tuple[int | None, list[str]]:
    said: list[str] = []
    found = checkpoint.newest(store, tmp_path / "cache", said.append)
    return (found.step if found else None), said


def test_the_newest_is_taken_and_readable(store: Store, tmp_path: Path) -> None:
    found = checkpoint.newest(store, tmp_path / "cache", lambda text: None)
    assert found is not None and found.step == 2
    assert (found.folder / "weights").read_bytes().endswith((2).to_bytes(4, "big"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_falls_back_to_the_one_before(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    tmp_path = tmp_path_factory.mktemp("damage")
    store = Store(str(tmp_path / "store"))
    for step in (1, 2):
        write(store, step)
    last = tmp_path / "store" / checkpoint.folder_name(2)
    files = sorted(path for path in last.rglob("*") if path.is_file())
    victim = data.draw(st.sampled_from(files))
    content = bytearray(victim.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    damage = data.draw(st.sampled_from(["flip", "truncate", "remove"]))
    if damage == "flip":
        content[at] ^= 1 << data.draw(st.integers(0, 7))
        victim.write_bytes(content)
    elif damage == "truncate":
        victim.write_bytes(content[:at])
    else:
        victim.unlink()
    step, said = newest(store, tmp_path)
    if step == 2:  # only white space or key order inside the manifest may change without a fault
        assert victim.name == checkpoint.MANIFEST
        json.loads(victim.read_bytes())
    else:
        assert step == 1
        assert said and checkpoint.folder_name(2) in said[0]


def test_a_checkpoint_without_manifest_is_none(store: Store, tmp_path: Path) -> None:
    for step in (1, 2):
        (tmp_path / "store" / checkpoint.folder_name(step) / checkpoint.MANIFEST).unlink()
    step, said = newest(store, tmp_path)
    assert step is None and len(said) == 2


def test_pruning_keeps_the_last_two(store: Store, tmp_path: Path) -> None:
    for step in (3, 4):
        write(store, step)
    checkpoint.tidy(store, checkpoint.folder_name(4))
    assert store.folders() == [checkpoint.folder_name(3), checkpoint.folder_name(4)]
    checkpoint.save(store, checkpoint.FINAL, [("weights", b"")], size=0)
    checkpoint.tidy(store, checkpoint.FINAL)
    assert store.folders() == [checkpoint.FINAL]


def test_the_last_complete_checkpoint_has_a_manifest(store: Store, tmp_path: Path) -> None:
    store.write("step-00000003/weights", b"half")
    assert checkpoint.last_complete(store) == "step-00000002"
    assert checkpoint.last_complete(Store(str(tmp_path / "empty"))) == "none"


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    store.write("pointer", b"old")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(UserError, match=r"no space for pointer: it needs 3 bytes, and the disk has \d+ bytes free"):
        store.write("pointer", b"new")
    assert store.read("pointer") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["pointer"]
