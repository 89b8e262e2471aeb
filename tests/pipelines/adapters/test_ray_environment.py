"""What is settled before Ray starts: its folder, its token, whom it may join, and a slow start."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from pipelines.adapters import ray_environment
from pipelines.adapters.ray_environment import (
    LONGEST_FOLDER,
    folder_for_ray,
    give_token,
    not_joined,
    require_token,
    start_patiently,
)
from tcformer.errors import UserError


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)


def test_ray_works_in_a_private_folder_of_tmpdir(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="r") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        (Path(short) / "ray").symlink_to("/")  # Ray's own choice, which another user has made
        folder = folder_for_ray()
        assert folder == Path(short) / f"tcformer-{os.getuid()}" / "ray"
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["x" * 80, "é" * 20])
def test_a_long_tmpdir_is_not_rays(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / name))
    made: list[str | None] = []
    monkeypatch.setattr(
        ray_environment, "temporary_folder", lambda name, within: made.append(within) or Path(within, "t", name)
    )
    folder = folder_for_ray()
    assert made == ["/tmp"] and len(str(folder)) <= LONGEST_FOLDER
    assert f"need a shorter path than {tmp_path / name}" in capsys.readouterr().err


def test_a_token_is_made_only_where_ray_can_keep_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")  # restored after the test
    os.environ.pop("RAY_AUTH_TOKEN")
    monkeypatch.setenv("HOME", str(tmp_path))
    give_token()
    assert "RAY_AUTH_TOKEN" not in os.environ
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    for name, value in {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN_PATH": "/somewhere"}.items():
        with monkeypatch.context() as chosen:
            chosen.setenv(name, value)
            give_token()
            assert "RAY_AUTH_TOKEN" not in os.environ
    give_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


@pytest.mark.parametrize(
    "address", ["auto", "local", "127.0.0.1:6379", "ray://127.0.0.1:10001", "localhost:6379", "[::1]:6379"]
)
def test_a_ray_on_loopback_needs_no_token(address: str) -> None:
    require_token(address)


@pytest.mark.parametrize("address", ["10.0.0.7:6379", "ray://head.example:10001", "[fe80::1]:6379", "head"])
def test_a_ray_on_a_network_needs_a_token(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"RAY_AUTH_MODE is not token: expected .*RAY_AUTH_TOKEN_PATH"):
        require_token(address)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(UserError):
        require_token(address)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    require_token(address)


def test_another_version_of_ray_is_no_silent_ray() -> None:
    """The text is Ray's."""
    error = RuntimeError(
        "Version mismatch: The cluster was started with:\n    Ray: 2.55.0\n    Python: 3.12.1\n"
        "This process on node 1.2.3.4 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
    )
    message = str(not_joined("1.2.3.4:6379", error))
    assert "no Ray answers" not in message and "Ray: 2.55.0 Python: 3.12.1" in message and "Ray: 2.60.0" in message
    assert str(not_joined("h:1", ConnectionError("refused\nmore"))).startswith("no Ray answers at h:1 (refused):")


def test_a_slow_start_is_tried_again_once(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[str] = []

    def start() -> None:
        calls.append("start")
        if calls.count("start") < 2:
            raise Exception("The current node timed out during startup. This could happen because")

    start_patiently(start, lambda: calls.append("stop"))
    assert calls == ["start", "stop", "start"] and "trying once more" in capsys.readouterr().err


def test_two_slow_starts_are_one_sentence() -> None:
    def start() -> None:
        raise Exception("The current node timed out during startup.")

    with pytest.raises(UserError, match=r"^Ray did not start within its time limit, twice: expected"):
        start_patiently(start, lambda: None)


def test_another_failure_is_not_tried_again() -> None:
    calls: list[str] = []

    def start() -> None:
        calls.append("start")
        raise KeyError("something else")

    with pytest.raises(KeyError):
        start_patiently(start, lambda: None)
    assert calls == ["start"]
