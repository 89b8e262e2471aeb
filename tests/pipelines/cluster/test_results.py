"""The archive of a job's results: all of it arrives, nothing of the receiver's is lost, nothing unsafe is taken."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.cluster import results
from pipelines.cluster.package import Order, object_path
from pipelines.cluster.results import MANIFEST, describe, pack, snapshot, unpack
from pipelines.running import commands
from tcformer.errors import UserError

JOB = "tcformer-1126-120000-abcdef"


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_ _", "__")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def order(**changes: object) -> Order:
    given: dict[str, object] = {"files": {}, "held": [], "largest_output": 1000}
    return Order(identity=JOB, checkout="c", command=["x"], doctor=False, **{**given, **changes})  # type: ignore[arg-type]


def add_object(cache: Path, content: str, folder: bool = False) -> str:
    md5 = hashlib.md5(content.encode()).hexdigest() + (".dir" if folder else "")
    path = object_path(cache, md5)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return md5


@pytest.fixture
def dvc(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The calls of DVC, which is not started: its cache is the default one."""
    calls: list[tuple[str, ...]] = []

    def called(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        calls.append(arguments)
        return subprocess.CompletedProcess(arguments, 0, f"{root}/.dvc/cache\n", "")

    for module in (results, commands):
        monkeypatch.setattr(module, "dvc", called)
    return calls


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Where the job runs, where it was submitted, and the archive."""
    there, here = tmp_path / "there", tmp_path / "here"
    for root in (there, here):
        (root / ".dvc").mkdir(parents=True)
    return there, here, tmp_path / "results.tar"


def test_files_that_a_command_wrote_arrive(places: tuple[Path, Path, Path], dvc: list[tuple[str, ...]]) -> None:
    there, here, archive = places
    write(there, code="sent", metrics__a="old", runs__old="earlier", params="sent")
    before = snapshot(there)
    write(there, metrics__a="new", runs__sample__training="curve", runs__sample__checkpoints__step="large")
    write(there, **{"kernels/_ _pycache_ _/x": "x", ".git__HEAD": "x", ".dvc__tmp__x": "x", "mlflow.db": "x"})
    pack(order(), there, before, {}, None, archive)
    write(here, code="mine", metrics__a="new")
    unpacked = unpack(archive, JOB, here)
    assert sorted(unpacked.files) == ["metrics/a", "mlflow.db", "runs/sample/training"]
    assert (here / "runs/sample/training").read_text() == "curve"
    assert (here / "code").read_text() == "mine"
    assert not [call for call in dvc if call[0] == "checkout"], "without a stage it would restore all"
    assert not (here / "runs/submitted").exists() or not any((here / "runs/submitted").rglob("*"))


def test_what_has_changed_here_is_kept(places: tuple[Path, Path, Path], dvc: list[tuple[str, ...]]) -> None:
    there, here, archive = places
    write(there, known="a", unknown="a")
    known = {"known": [sha256("sent")], "unknown": [sha256("sent")]}
    pack(order(), there, {}, known, None, archive)
    write(here, known="sent", unknown="edited meanwhile")
    unpacked = unpack(archive, JOB, here)
    assert (unpacked.files, unpacked.kept) == (["known"], ["unknown"])
    assert (here / "known").read_text() == "a"
    assert (here / "unknown").read_text() == "edited meanwhile"
    assert (here / "runs/submitted" / JOB / "unknown").read_text() == "a"
    assert "kept, because they have changed here" in "\n".join(describe(unpacked))


def test_dvcs_outputs_arrive_as_objects_of_its_cache(
    places: tuple[Path, Path, Path], dvc: list[tuple[str, ...]]
) -> None:
    there, here, archive = places
    cache = there / ".dvc/cache"
    subprocess.run(["git", "init", "--quiet", there], check=True)
    write(there, **{".gitignore": "/data/\n/runs/\n"})
    entries = [{"md5": add_object(cache, text), "relpath": f"{text}.jpg"} for text in ("one", "two")]
    outs = {
        "prepare": [{"path": "data/face", "md5": add_object(cache, json.dumps(entries), folder=True), "size": 6}],
        "train": [
            {"path": "runs/model", "md5": add_object(cache, "weights"), "size": 7},
            {"path": "metrics/m.json", "md5": add_object(cache, "1"), "size": 1},  # kept by git
        ],
        "held": [{"path": "runs/held", "md5": add_object(cache, "held"), "size": 4}],
        "large": [{"path": "runs/large", "md5": add_object(cache, "large"), "size": 10**12}],
    }
    lock = json.dumps({"stages": {name: {"cmd": "x", "outs": found} for name, found in outs.items()}})
    write(there, **{"dvc.lock": lock, "data__face__one.jpg": "one", "runs__model": "weights", "metrics__m.json": "1"})
    sent = order(held=[outs["held"][0]["md5"]])
    packed = pack(sent, there, {}, {"dvc.lock": [sha256("sent")]}, cache, archive)
    assert sorted(packed.files) == [".gitignore", "dvc.lock", "metrics/m.json"], "no output travels twice"
    assert packed.left == {"runs/large": 10**12}
    write(here, **{"dvc.lock": "sent"})
    unpacked = unpack(archive, JOB, here)
    assert (here / "dvc.lock").read_text() == lock
    assert unpacked.objects == 4
    assert object_path(here / ".dvc/cache", add_object(cache, "weights")).read_text() == "weights"
    assert dvc[-1] == ("checkout", "--allow-missing", "--", "prepare", "train")
    assert "runs/large (1000.0 GB) stayed on the cluster" in describe(unpacked)[-1]
    assert unpack(archive, JOB, here).objects == 0, "fetching again changes nothing"


def test_a_dvc_lock_that_has_changed_here_is_not_checked_out(
    places: tuple[Path, Path, Path], dvc: list[tuple[str, ...]]
) -> None:
    there, here, archive = places
    subprocess.run(["git", "init", "--quiet", there], check=True)
    md5 = add_object(there / ".dvc/cache", "weights")
    write(there, **{"dvc.lock": json.dumps({"stages": {"a": {"outs": [{"path": "b", "md5": md5, "size": 7}]}}})})
    pack(order(), there, {}, {}, there / ".dvc/cache", archive)
    write(here, **{"dvc.lock": "mine"})
    unpacked = unpack(archive, JOB, here)
    assert dvc[-1][0] != "checkout" and (here / "dvc.lock").read_text() == "mine"
    assert "take over the job's dvc.lock" in "\n".join(describe(unpacked))


def malicious(name: str, content: str = "x", told: str | None = None, link: str = "") -> Callable[[Path], None]:
    """Writes an archive with one member that no job packs."""

    def make(path: Path) -> None:
        files = {told: sha256(content)} if told else {}
        manifest = json.dumps({"files": files, "known": {}, "left": {}})
        with tarfile.open(path, "w") as archive:
            for member, text in ((name, content), (MANIFEST, manifest)):
                about = tarfile.TarInfo(member)
                about.size = len(text)
                if link and member == name:
                    about.type, about.linkname, about.size = tarfile.SYMTYPE, link, 0
                archive.addfile(about, io.BytesIO(text.encode()))

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (malicious("../outside"), "outside"),
        (malicious("files/y", told="x"), "missing or has another hash"),
        (malicious("files/x", told="../x"), "no place for results"),
        (malicious("files/x", told="/x"), "no place for results"),
        (malicious("files/x", told="."), "no place for results"),
        (malicious("files/.git/hooks/post-checkout", told=".git/hooks/post-checkout"), "no place for results"),
        (malicious("files/.dvc/config", told=".dvc/config"), "no place for results"),
        (malicious("files/x", link="/etc/passwd", told="x"), "absolute path"),
        (malicious("objects/nonsense"), "no object of DVC"),
        (malicious(f"objects/{'0' * 32}"), "has the hash 9dd4e461268c8034f5c8564e155c67a6"),
        (lambda path: path.write_bytes(b"no archive"), "not as they were packed"),
    ],
)
def test_an_archive_that_no_job_packs_is_refused(
    make: Callable[[Path], None],
    message: str,
    places: tuple[Path, Path, Path],
    dvc: list[tuple[str, ...]],
) -> None:
    _, here, archive = places
    make(archive)
    with pytest.raises(UserError, match=message):
        unpack(archive, JOB, here)
    assert {path.name for path in here.rglob("*") if path.is_file()} == set()
    assert not (here.parent / "outside").exists()


def test_a_link_in_the_checkout_is_not_followed_out_of_it(
    places: tuple[Path, Path, Path], dvc: list[tuple[str, ...]]
) -> None:
    _, here, archive = places
    (here / "data").symlink_to(here.parent)
    malicious("files/data/x", told="data/x")(archive)
    with pytest.raises(UserError, match="leads out of"):
        unpack(archive, JOB, here)


def test_an_archive_that_was_cut_off_is_damaged(places: tuple[Path, Path, Path], dvc: list[tuple[str, ...]]) -> None:
    there, here, archive = places
    write(there, a="1" * 20000, b="2")
    pack(order(largest_output=10**6), there, {}, {}, None, archive)
    archive.write_bytes(archive.read_bytes()[:12000])
    with pytest.raises(UserError, match="fetch"):
        unpack(archive, JOB, here)
