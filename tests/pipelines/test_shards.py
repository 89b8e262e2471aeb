"""Datasets in the storage: written once as shards, fetched into the cache of a machine, verified, bounded in size."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import multiprocessing
import os
import pickle
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest

from pipelines.adapters import ray, storage
from pipelines.adapters.storage import Store, below, environment_of
from pipelines.datasets import cache, shards
from pipelines.datasets.location import MANIFEST, DataLocation, fetch_dataset
from pipelines.datasets.mapping import bring_files, mapping_files
from pipelines.datasets.prepared import Prepared
from pipelines.params import Cluster, load_params
from tcformer.data.batch import evenly_spread
from tcformer.errors import UserError
from tcformer.files import temporary_folder
from tcformer.tasks import TASKS, TaskSpec
from tests.small import ROOT, generate, parameters
from tests.stages import test_paper_recipe

SIZE = 1000  # of a shard, in these tests


def tree(root: Path) -> dict[str, str]:
    """The hash of every file below a folder."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a folder for temporary files of its own, on which this process has fetched nothing."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setattr(cache, "_used", {})
    monkeypatch.setattr(shards, "SHARD_BYTES", SIZE)
    monkeypatch.setattr(cache.os, "sync", lambda: None)
    return place


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dataset of five files, of which one is larger than a shard."""
    folder = tmp_path / "dataset"
    for name, size in {"a/1.jpg": 400, "a/2.jpg": 500, "a/3.jpg": 200, "b/large.json": 3000, "b/ü.txt": 10}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(index % 251 for index in range(size)))
    return folder


def names_of(root: Path) -> list[str]:
    return list(tree(root))


@pytest.fixture(params=["folder", "address"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    place = tmp_path / "storage"
    return Store(str(place) if request.param == "folder" else f"file://{place}")


def stored(store: Store, root: Path, sha256: str = "0" * 64) -> str:
    shards.store_dataset(store, root, sha256, partial(names_of, root), "storing")
    return sha256


def fetched(store: Store, sha256: str, limit: int = 1 << 30) -> Path:
    return cache.cached_dataset(store.root, sha256, limit, lambda text: None)


def test_a_dataset_comes_back_as_it_was(store: Store, root: Path, machine: Path) -> None:
    sha256 = stored(store, root)
    found = shards.read_index(store, sha256)
    assert found is not None
    assert [[name for name, _ in shard.files] for shard in found] == [
        ["a/1.jpg", "a/2.jpg"],
        ["a/3.jpg"],
        ["b/large.json"],
        ["b/ü.txt"],
    ]
    folder = fetched(store, sha256)
    assert tree(folder) == tree(root) and folder.is_relative_to(machine)
    assert sorted(path.name for path in folder.parent.iterdir()) == [sha256, f"{sha256}.lock", "room.lock"]
    assert fetched(store, sha256) == folder


def test_a_dataset_is_written_once_and_the_same_bytes(
    store: Store, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = stored(store, root)
    shutil.copytree(root, tmp_path / "copy")  # with other times
    stored(store, tmp_path / "copy", "1" * 64)
    first, second = (shards.read_index(store, key) for key in (sha256, "1" * 64))
    assert first == second
    monkeypatch.setattr(Store, "produce", None)
    shards.store_dataset(store, root, sha256, lambda: pytest.fail("not needed"), "storing")


@pytest.mark.parametrize("damage", [None, b"{", b'{"name": "shard-00001.tar"}'])
def test_an_interrupted_write_goes_on_and_is_no_dataset_before(
    store: Store, root: Path, damage: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    failed: list[str] = []
    produce = Store.produce

    def fail_at_the_last(self: Store, key: str, write: Callable[[Any], None], size: int) -> None:
        if key.endswith("00003.tar") and not failed:
            failed.append(key)
            raise OSError(5, "Input/output error")
        written.append(key)
        produce(self, key, write, size)

    monkeypatch.setattr(shards, "THREADS", 1)
    monkeypatch.setattr(Store, "produce", fail_at_the_last)
    with pytest.raises(OSError, match="Input/output"):
        stored(store, root)
    assert shards.read_index(store, "0" * 64) is None
    with pytest.raises(UserError, match="the dataset is not in the storage"):
        fetched(store, "0" * 64)
    before = [key for key in written if key.endswith(".tar")]
    if damage is not None:
        store.write(f"data/{'0' * 64}/shard-00001.tar.json", damage)
    stored(store, root)
    again = [key for key in written if key.endswith(".tar")][len(before) :]
    missing = ["shard-00003.tar"] if damage is None else ["shard-00001.tar", "shard-00003.tar"]
    assert len(before) == 3 and [Path(key).name for key in again] == missing
    assert tree(fetched(store, "0" * 64)) == tree(root)


def test_a_file_that_changes_is_named(store: Store, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = shards._plan
    for content in (b"x" * 399, b"x" * 401):

        def plan_and_change(files: Any, content: bytes = content) -> Any:
            found = plan(files)
            (root / "a/1.jpg").write_bytes(content)
            return found

        (root / "a/1.jpg").write_bytes(b"x" * 400)
        monkeypatch.setattr(shards, "_plan", plan_and_change)
        with pytest.raises(UserError, match=r"a/1\.jpg: the file changed while it was stored"):
            stored(store, root)


def test_an_altered_shard_is_refused(store: Store, root: Path, tmp_path: Path) -> None:
    sha256 = stored(store, root)
    shard = tmp_path / "storage" / "data" / sha256 / "shard-00001.tar"
    content = bytearray(shard.read_bytes())
    content[600] ^= 1
    shard.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"shard-00001\.tar: its bytes are not those of the index"):
        fetched(store, sha256)
    shard.unlink()
    with pytest.raises(UserError, match=r"shard-00001\.tar: it is missing"):
        fetched(store, sha256)
    assert [path.name for path in temporary_folder("data").iterdir() if path.is_dir()] == []
    (shard.parent / "index.json").write_text('{"shards": [{"name": 1}]}')
    with pytest.raises(UserError, match="the index is damaged"):
        fetched(store, sha256)


def test_an_interrupted_fetch_goes_on_with_the_missing_shards(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256, fetch = stored(store, root), Store.fetch
    asked: list[str] = []
    away = ["shard-00002.tar", "shard-00003.tar"]

    def fail_from_the_third_on(self: Store, key: str, target: Path) -> Path:
        asked.append(Path(key).name)
        if asked[-1] in away:
            raise UserError("no server answers")
        return fetch(self, key, target)

    monkeypatch.setattr(cache, "THREADS", 1)
    monkeypatch.setattr(Store, "fetch", fail_from_the_third_on)
    with pytest.raises(UserError, match="no server answers"):
        fetched(store, sha256)
    part = temporary_folder("data") / f"{sha256}.part"
    assert names_of(part)[2:] == ["a/1.jpg", "a/2.jpg", "a/3.jpg"], "after two markers"
    (part / "b").mkdir(exist_ok=True)
    (part / "b/large.json").write_bytes(b"half of it")  # of a process that was killed
    (part / ".shard-00002.tar").touch()
    asked.clear()
    away.clear()
    usage = shutil.disk_usage("/")._replace(free=2 * 4096 + 3010 + 10240)  # for two files, and a shard in its archive
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: usage)
    said: list[str] = []
    folder = cache.cached_dataset(store.root, sha256, 5 * 4096 + 4110, said.append)
    assert asked == ["shard-00002.tar", "shard-00003.tar"] and tree(folder) == tree(root)
    assert said[0] == "fetching the dataset: 0.00 of 0.00 GB" and not part.exists()


def test_a_shard_cannot_write_elsewhere(store: Store, root: Path, tmp_path: Path) -> None:
    """Who can write to the storage can write a shard with a hash that fits."""
    sha256 = stored(store, root)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../../outside"), io.BytesIO())
    folder = tmp_path / "storage" / "data" / sha256
    (folder / "shard-00001.tar").write_bytes(stream.getvalue())
    index = json.loads((folder / "index.json").read_text())
    index["shards"][1]["sha256"] = hashlib.sha256(stream.getvalue()).hexdigest()
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="a path outside the target"):
        fetched(store, sha256)
    index["shards"][1]["name"] = "x/../../../../../outside.tar"
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"the index is damaged \('x/\.\./.*' is no name of a shard\)"):
        fetched(store, sha256)


def test_shards_of_the_same_new_folder_are_unpacked_at_the_same_time(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = stored(store, root)

    def made_by_another_thread(place: str, *rest: Any) -> None:
        raise FileExistsError(place)

    monkeypatch.setattr(tarfile.os, "makedirs", made_by_another_thread)
    assert tree(fetched(store, sha256)) == tree(root)


def test_two_processes_fetch_a_dataset_once(store: Store, root: Path, tmp_path: Path, machine: Path) -> None:
    sha256 = stored(store, root)
    part = temporary_folder("data") / f"{sha256}.part"
    part.mkdir()
    (part / "incomplete.jpg").touch()  # of a process that was killed
    log = tmp_path / "log"
    log.touch()
    context = multiprocessing.get_context("fork")
    together, results = context.Barrier(2), context.Queue()
    fetch = cache._fetch

    def fetch_slowly(*arguments: Any) -> None:
        with log.open("a") as stream:
            stream.write(f"{os.getpid()}\n")
        time.sleep(0.5)
        fetch(*arguments)

    def run() -> None:
        cache._fetch = fetch_slowly
        said: list[str] = []
        together.wait(60)
        results.put((cache.cached_dataset(store.root, sha256, 1 << 30, said.append), said))

    processes = [context.Process(target=run) for _ in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    folder = temporary_folder("data") / sha256
    assert [place for place, _ in found] == [folder, folder] and tree(folder) == tree(root) and not part.exists()
    assert len(log.read_text().split()) == 1, "the second process waited for the first"
    assert any("waiting for another process" in text for _, said in found for text in said)
    assert any("fetching the dataset" in text for _, said in found for text in said)


def test_the_cache_is_bounded_and_drops_the_oldest_that_is_not_in_use(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = 5 * 4096 + 4110  # bytes of the dataset, as they count
    keys = [letter * 64 for letter in "abcd"]
    for age, key in enumerate(keys):
        stored(store, root, key)
        if age < 3:
            os.utime(fetched(store, key, 3 * one), (age, age))
    kept = {path.name[0] for path in temporary_folder("data").iterdir() if path.is_dir()}
    assert kept == set("abc")
    with pytest.raises(
        UserError, match=rf"cluster\.cache_size is .* needs {one} bytes, and {3 * one} bytes are in use"
    ):
        fetched(store, keys[3], 3 * one)
    for key in "ac":  # as if the processes that use them had ended
        os.close(cache._used.pop(temporary_folder("data") / (key * 64)))
    fetched(store, keys[3], 3 * one)
    kept = {path.name[0] for path in temporary_folder("data").iterdir() if path.is_dir()}
    assert kept == set("bcd"), "the oldest one that nobody uses went"
    usage = shutil.disk_usage("/")._replace(free=one)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(cache, "_used", {})
    stored(store, root, "e" * 64)
    with pytest.raises(UserError, match=rf"{one} bytes are free on its disk: expected \d+ for the dataset"):
        fetched(store, "e" * 64)


def test_a_folder_of_another_user_is_not_trusted(store: Store, root: Path, machine: Path) -> None:
    sha256 = stored(store, root)
    (machine / f"tcformer-{os.getuid()}").mkdir(mode=0o755)
    (machine / f"tcformer-{os.getuid()}").chmod(0o755)
    with pytest.raises(UserError, match="can be used by other users"):
        fetched(store, sha256)


def cluster_of(storage: Path | None, **changes: Any) -> Cluster:
    fields = {"address": "10.0.0.1:6379", "cache_size": 1.0, "storage": storage and str(storage), **changes}
    return parameters(Path(tempfile.mkdtemp())).cluster.model_copy(update=fields)


@pytest.fixture
def faces(tmp_path: Path) -> tuple[Prepared, TaskSpec]:
    """Generated faces, as `prepare` leaves them."""
    params = parameters(tmp_path)
    folder = generate("face", params, tmp_path)
    (folder / MANIFEST).write_text(json.dumps({"root": None, "sha256": "f" * 64}))
    return Prepared.open(folder), params.sample.spec_of("face")


def test_machines_that_have_the_dataset_read_it_where_it_is(faces: tuple[Prepared, TaskSpec], tmp_path: Path) -> None:
    data, spec = faces
    place = data.location_for_workers(cluster_of(tmp_path / "storage"), spec, None)
    assert place.storage and place.cache_bytes == 10**9 and pickle.loads(pickle.dumps(place)) == place
    assert fetch_dataset(place) == data.root
    (data.root / MANIFEST).write_text(json.dumps({"root": None, "sha256": "e" * 64}))  # another dataset
    copy = fetch_dataset(place)
    assert copy == temporary_folder("data") / data.sha256 and (copy / "WFLW_images").is_dir()
    data.root.rename(tmp_path / "elsewhere")
    assert fetch_dataset(place) == copy


@pytest.mark.parametrize(
    ("given", "variables"), [(None, {}), ("storage", {"RAY_ADDRESS": ""}), ("storage", {ray.SHARED: "1"})]
)
def test_without_a_storage_or_other_machines_nothing_is_stored(
    faces: tuple[Prepared, TaskSpec],
    tmp_path: Path,
    given: str | None,
    variables: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, spec = faces
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    cluster = cluster_of(given and tmp_path / given, address="10.0.0.1:6379" if not variables else None)
    assert data.location_for_workers(cluster, spec, None) == DataLocation(str(data.root))
    assert not (tmp_path / "storage").exists()


def test_official_data_are_their_files_and_no_others(faces: tuple[Prepared, TaskSpec], tmp_path: Path) -> None:
    data, spec = faces
    (data.root / MANIFEST).unlink()
    (data.root / "WFLW_images.tar.gz").write_bytes(b"an archive")
    official = Prepared.of_layout(data.root, spec, None)
    assert official.official and official.root == data.root
    place = official.location_for_workers(cluster_of(tmp_path / "storage"), spec, None)
    assert fetch_dataset(place) == data.root, "the sizes of its files are those of the index"
    first = data.root / place.probes[0][0]
    content = first.read_bytes()
    first.write_bytes(content + b" ")
    copy = fetch_dataset(place)
    first.write_bytes(content)
    expected = tree(data.root)
    assert expected.pop("WFLW_images.tar.gz") and tree(copy) == expected
    inventory = TASKS["face"].part("official").OFFICIAL.take_inventory(copy, [])
    assert dataclasses.replace(inventory, root=data.root) == TASKS["face"].part("official").OFFICIAL.take_inventory(
        data.root, []
    )


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_generators_bring_their_files_from_other_machines(task: str, tmp_path: Path) -> None:
    params = parameters(tmp_path)
    here, there = generate(task, params, tmp_path), tmp_path / "there"

    def elsewhere(function: Callable[[Any], Any], items: Any) -> list[Any]:
        found = []
        for item in items:
            before = tree(there)
            found.append(pickle.loads(pickle.dumps(function))(item))
            assert tree(there) == before, "the other machine does not see the folder"
        return found

    options = params.sample.data_of(task).generate
    there.mkdir()
    TASKS[task].part("generate").generate(there, options, map=bring_files(elsewhere, there))
    assert tree(there) == tree(here) and len(tree(here)) > 4


def test_files_of_this_machine_are_not_given_to_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with mapping_files(cluster_of(tmp_path)) as each:  # no Ray answers at that address
        assert each(abs, [-1, 2, -3], title="trial") == [1, 2, 3]
    assert "trial: item 3/3" in capsys.readouterr().out


def test_the_way_to_an_s3_server_travels_to_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://host:9000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    expected = {"AWS_ENDPOINT_URL": "http://host:9000", "AWS_SECRET_ACCESS_KEY": "secret"}
    assert environment_of("s3://bucket/x") == expected
    assert environment_of(None) == environment_of("/folder") == environment_of("gs://bucket/x") == {}


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        ("/folder/", "/folder/key"),
        ("/folder?", "/folder?/key"),
        ("s3://bucket/x", "s3://bucket/x/key"),
        ("s3://bucket/x/?region=y&scheme=http", "s3://bucket/x/key?region=y&scheme=http"),
    ],
)
def test_folders_below_an_address_keep_its_options(root: str, expected: str) -> None:
    assert below(root, "key") == expected


class Away:
    """A file system whose server is away for some calls."""

    def __init__(self, error: str | Exception, calls: int) -> None:
        self.error, self.calls = error, calls

    def open_input_stream(self, path: str) -> io.BytesIO:
        self.calls -= 1
        if self.calls >= 0 and isinstance(self.error, Exception):
            raise self.error
        if self.calls >= 0:
            raise OSError(f"When reading '{path}': AWS Error {self.error} (Request ID: x; y)")
        return io.BytesIO(b"content")


S3 = "s3://user:pass@bucket/x?endpoint_override=http://127.0.0.1:1&region=us-east-1"


def remote_store(files: Away, monkeypatch: pytest.MonkeyPatch, address: str = S3) -> Store:
    store = Store(address)
    store._files = files
    monkeypatch.setattr(storage, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(storage, "FIRST_PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(storage, "_answered", set())
    return store


def test_a_store_that_is_away_for_a_while_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = remote_store(Away("NETWORK_CONNECTION during GetObject operation: curlCode: 7, x", 3), monkeypatch)
    assert store.read("key") == b"content"
    said = capsys.readouterr().err
    assert said.count("does not answer: trying again") == 1 and "pass" not in said
    store = remote_store(Away("NETWORK_CONNECTION during GetObject operation: curlCode: 7, x", 1), monkeypatch)
    store.patient = False
    with pytest.raises(UserError, match="no server answers"):
        store.read("key")
    assert store.read("key") == b"content"


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("NETWORK_CONNECTION during GetObject operation: curlCode: 7, Could not connect", "no server answers"),
        ("NO_SUCH_BUCKET during CreateMultipartUpload operation: The bucket does not exist", "there is no such bucket"),
        ("ACCESS_DENIED during PutObject operation: No response body", "the server refuses the credentials"),
        ("UNKNOWN (HTTP status 403) during HeadObject operation: No response body", "the server refuses"),
        ("UNKNOWN (HTTP status 301) during HeadBucket: the bucket is located in 'eu'", "is in another region"),
        ("UNKNOWN (HTTP status 418) during HeadObject operation: tea", "expected a folder, or an address"),
    ],
)
def test_a_failure_of_an_s3_server_becomes_one_sentence(
    error: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = remote_store(Away(error, 1000), monkeypatch)
    with pytest.raises(UserError, match=r"^cluster\.storage s3://\*\*\*@bucket/x") as caught:
        store.read("key")
    assert advice in str(caught.value) and "\n" not in str(caught.value) and "Request ID" not in str(caught.value)


def gcs(kind: type[Exception], code: str, reason: str, message: str, *number: int) -> Exception:
    """What a GcsFileSystem of pyarrow 25 raised when a server answered so, or none did."""
    first = f"google::cloud::Status({code}: {reason}, with a last message of {message}"
    return kind(*number, f"{first} error_info={{reason=, domain=, metadata={{gcloud-cpp.retry.function=ReadObject}}}})")


REFUSES, TIRED = "Permanent error", "Retry policy exhausted"


@pytest.mark.parametrize(
    ("error", "tries", "advice"),
    [
        (gcs(pyarrow.ArrowInvalid, "INVALID_ARGUMENT", REFUSES, '{"code":400}'), 1, "(INVALID_ARGUMENT: {"),
        (gcs(PermissionError, "UNAUTHENTICATED", REFUSES, '{"code":401}', 13), 1, "the server refuses the credentials"),
        (gcs(PermissionError, "PERMISSION_DENIED", REFUSES, '{"code":403}', 13), 1, "GOOGLE_APPLICATION_CREDENTIALS"),
        (gcs(OSError, "FAILED_PRECONDITION", REFUSES, '{"code":412}'), 1, "expected a folder, or an address"),
        (gcs(OSError, "UNAVAILABLE", TIRED, '{"code":503}'), 5, "the quotas of the project"),
        (
            gcs(OSError, "UNAVAILABLE", TIRED, "PerformWork() - CURL error [7]=Could not connect"),
            5,
            "no server answers",
        ),
    ],
)
def test_a_failure_of_google_cloud_storage_becomes_one_sentence(
    error: Exception, tries: int, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Away(error, 1000)
    store = remote_store(files, monkeypatch, "gs://anonymous@bucket/x?endpoint_override=127.0.0.1:1")
    with pytest.raises(UserError, match=r"^cluster\.storage gs://\*\*\*@bucket/x") as caught:
        store.read("key")
    text = str(caught.value)
    assert advice in text and "\n" not in text and "error_info" not in text and "google::" not in text
    assert (1000 - files.calls == 1) if tries == 1 else (1000 - files.calls >= tries), "what passes is tried again"


@pytest.mark.parametrize(
    ("address", "opened"),
    [
        ("gs://bucket/x", "gs://bucket/x?retry_limit_seconds=2"),
        ("gcs://bucket/x?scheme=http", "gcs://bucket/x?scheme=http&retry_limit_seconds=2"),
        ("gs://bucket/x?retry_limit_seconds=9", "gs://bucket/x?retry_limit_seconds=9"),
        ("s3://bucket/x", "s3://bucket/x"),
    ],
)
def test_the_client_of_google_cloud_storage_leaves_waiting_to_the_store(address: str, opened: str) -> None:
    assert storage._with_limit(address) == opened


def test_a_missing_bucket_of_google_cloud_storage_is_named_when_it_is_written_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missing = gcs(FileNotFoundError, "NOT_FOUND", REFUSES, '{"code":404}', 2)

    class Missing(Away):
        def create_dir(self, path: str) -> None:
            raise missing

        open_output_stream = delete_file = create_dir

    store = remote_store(Missing(missing, 1000), monkeypatch, "gs://anonymous@bucket/x")
    assert store.read("key") is None
    with pytest.raises(UserError, match="cannot be written to: there is no such bucket"):
        store.write("key", b"x")


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_official_data_from_the_storage_give_the_same_samples(
    task: str, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of the real datasets in the layouts of the paper's recipe."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 1 << 20)
    root = getattr(test_paper_recipe, task)(tmp_path / "real", samples)
    recipe = load_params(ROOT / "params.yaml").paper
    spec, evaluation = recipe.spec_of(task), recipe.evaluation_options_of(task)
    if task == "imagenet":
        spec = dataclasses.replace(spec, options=dataclasses.replace(spec.options, num_classes=120))
    place = Prepared.of_layout(root, spec, evaluation).location_for_workers(
        cluster_of(tmp_path / "storage"), spec, evaluation
    )
    copy = fetch_dataset(dataclasses.replace(place, root=str(tmp_path / "nowhere")))
    assert copy.name == Prepared.of_layout(copy, spec, evaluation).sha256 == place.sha256
    for split in ("train_set", "val_set", "test_set"):
        here, there = (getattr(spec.build(folder, evaluation), split)() for folder in (root, copy))
        assert len(here) == len(there) > 0
        for index in evenly_spread(len(here), 4):
            first, second = (data.sample(index, np.random.default_rng(index)) for data in (here, there))
            assert first.keys() == second.keys()
            assert all(np.array_equal(first[name], second[name]) for name in first), (split, index)
