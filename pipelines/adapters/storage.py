"""The storage adapter: files that driver and workers share, in a folder or behind an s3:// or gs:// address."""

import contextlib
import errno
import io
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar

from pipelines.running.redaction import redacted
from tcformer.errors import UserError
from tcformer.files import atomic_write

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")  # begins an address; one of a single slash is a mistake
_SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs", "file")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a full disk, a quota, a limit of the process
_EXPECTED = "expected a folder, or an address s3://bucket/folder or gs://bucket/folder"
_CHUNK = 1 << 22
_Result = TypeVar("_Result")

#: Begins what pyarrow says of a failure of S3 or of Google Cloud Storage.
_REMOTE = re.compile(r"AWS Error|google::cloud::Status\(")
#: What such a server, or the way to it, says while it is only away or busy.
_PASSES = re.compile(
    r"AWS Error (NETWORK_CONNECTION|SERVICE_UNAVAILABLE|SLOW_DOWN|REQUEST_TIMEOUT|INTERNAL_FAILURE|THROTTLING)"
    r"|HTTP status (429|5\d\d)"
    r"|google::cloud::Status\((UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|INTERNAL|ABORTED)"
)
PATIENCE_SECONDS = 120.0  # for a store that has answered before
FIRST_PATIENCE_SECONDS = 12.0  # for one that has not: its address may be wrong
_PAUSE_SECONDS = 1.0
_GCS_LIMIT = "retry_limit_seconds"  # option of an address that pyarrow knows
_answered: set[str] = set()  # addresses that have answered this process

#: What to do about a failure, by what pyarrow says of it; the first that fits.
_ADVICE = (
    (
        r"NO_SUCH_BUCKET|[Bb]ucket '.*' not found|Status\(NOT_FOUND",
        "there is no such bucket: make it, or correct its name in params.yaml",
    ),
    (
        r"HTTP status 301|PermanentRedirect|AUTHORIZATION_?HEADER_?MALFORMED|AuthorizationHeaderMalformed"
        r"|bucket is located in",
        "the bucket is in another region: name it in AWS_REGION, or in the address as ?region=...",
    ),
    (
        r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE|INVALID_CLIENT_TOKEN|EXPIRED|CREDENTIALS|HTTP status 40[013]",
        "the server refuses the credentials: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, and "
        "what they allow in this bucket",
    ),
    (
        r"Status\((UNAUTHENTICATED|PERMISSION_DENIED)|OAuth2",
        "the server refuses the credentials: check GOOGLE_APPLICATION_CREDENTIALS, or the service account of each "
        "machine, and what they allow in this bucket",
    ),
    (
        r"Status\(UNAVAILABLE.*(CURL error|PerformWork)",
        "no server answers: check the network and the server's address (CLOUD_STORAGE_EMULATOR_ENDPOINT, or in the "
        "address ?endpoint_override=host:port)",
    ),
    (
        r"Status\((UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|INTERNAL|ABORTED)",
        "the server does not do what it is asked for: see the status page of Google Cloud Storage and the quotas of "
        "the project, and try again later",
    ),
    (
        r"NETWORK_CONNECTION|REQUEST_TIMEOUT",
        "no server answers: check the network and the server's address (AWS_ENDPOINT_URL, or in the address "
        "?endpoint_override=http://host:9000)",
    ),
)

#: Variables that say how to reach an S3 store; AWS_PROFILE and files of credentials are those of each machine.
_VARIABLES = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"),
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_EC2_METADATA_DISABLED"),
)


def environment_of(storage: str | None) -> dict[str, str]:
    """The variables of this process that workers on other machines need to reach an s3:// address as this one does."""
    if storage is None or not storage.startswith("s3:"):
        return {}
    return {name: os.environ[name] for name in _VARIABLES if name in os.environ}


def _with_limit(address: str) -> str:
    """A gs:// address whose client does not try again for minutes in silence: `Store` tries again, and says so."""
    if not address.startswith(("gs:", "gcs:")) or _GCS_LIMIT in address:
        return address
    return f"{address}{'&' if '?' in address else '?'}{_GCS_LIMIT}=2"


def below(root: str, name: str) -> str:
    """The folder or address `name` below `root`; options at the end of an address (?region=...) stay there."""
    place, mark, options = root.partition("?") if _SCHEME.match(root) else (root, "", "")
    return f"{place.rstrip('/')}/{name}{mark}{options}"


class DiskFull(UserError):
    """There is no space for a file: another attempt would not help."""


class Store:
    """Files below one root, named by relative POSIX paths ("keys").

    When a write returns, the data are on the disk (a folder) or accepted by the object store. A key never holds half a
    file: not after an error, and not while a write is going on.

    Args:
        root: a folder, or an address that pyarrow understands.
        patient: whether to wait for a remote store that is away; if not, this is an error at once.

    Raises:
        UserError: it is an address of another kind, or none at all.
    """

    def __init__(self, root: str, patient: bool = True) -> None:
        self.patient = patient
        self.local = not _SCHEME.match(root)
        self.root = self._path = str(Path(root).expanduser()) if self.local else root
        self._files: Any = None
        if not root.strip() or "\0" in root:
            raise UserError(f"cluster.storage is {redacted(root)!r}: {_EXPECTED}; correct it in params.yaml")
        if not self.local:
            self._files, self._path = self._open_address()

    @property
    def shown(self) -> str:
        """The root for messages: without the password of an address."""
        return redacted(self.root)

    def _open_address(self) -> tuple[Any, str]:
        import pyarrow.fs

        scheme, _, place = self.root.partition(":")
        known = f"cluster.storage is {self.shown}"
        if scheme not in _SCHEMES or not place.startswith("//") or not place.strip("/"):
            meant = redacted(f"{scheme.lower()}://{place.lstrip('/')}")
            near = f"; did you mean {meant}?" if scheme.lower() in _SCHEMES else ""
            raise UserError(f"{known}: {_EXPECTED}{near}; correct it in params.yaml")
        try:
            files, path = pyarrow.fs.FileSystem.from_uri(_with_limit(self.root))
        except Exception as error:  # pyarrow raises many types
            advice = _advice(error) or f"{_EXPECTED}; correct it in params.yaml"
            raise UserError(f"{known}: {advice} ({_first_line(error)})") from error
        return files, str(path)

    @contextlib.contextmanager
    def _opening(self, purpose: str = "written to") -> Iterator[None]:
        """Turn the failure to make a folder or to open a file into a UserError that names the storage."""
        try:
            yield
        except FileNotFoundError as error:
            if purpose == "read" or _REMOTE.search(str(error)):
                raise
            raise self._not_usable(purpose, "no such folder") from None
        except OSError as error:
            if _REMOTE.search(str(error)):
                raise  # see `_patiently`
            raise self._not_usable(purpose, _first_line(error)) from error

    def _not_usable(self, purpose: str, reason: str) -> UserError:
        return UserError(
            f"cluster.storage {self.shown} cannot be {purpose} ({reason}): {_EXPECTED} that driver and workers may "
            "read and write; make it, allow access, or correct it in params.yaml"
        )

    def _refused(self, purpose: str, error: Exception) -> UserError:
        """The message for a failure of an object store that does not pass."""
        reason, advice = _first_line(error), _advice(error)
        if advice is None:
            return self._not_usable(purpose, reason)
        return UserError(f"cluster.storage {self.shown} cannot be {purpose}: {advice} ({reason})")

    def _patiently(self, purpose: str, action: Callable[[], _Result]) -> _Result:
        """The result of `action`, which is tried again while a remote store cannot be reached.

        Raises:
            UserError: it does not answer for a while, or once if this store is not patient, or it refuses. Failures of
                other kinds are raised unchanged.
        """
        address = "/".join(self.root.split("/")[:3])
        began = time.monotonic()
        said = False
        while True:
            try:
                result = action()
            except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
                passes = bool(_PASSES.search(str(error)))
                missing = purpose == "read" and isinstance(error, FileNotFoundError)
                if missing or (not passes and not _REMOTE.search(str(error))):
                    raise
                patience = PATIENCE_SECONDS if address in _answered else FIRST_PATIENCE_SECONDS
                if not (passes and self.patient) or time.monotonic() - began > patience:
                    raise self._refused(purpose, error) from error
                if not said:
                    print(f"cluster.storage {self.shown} does not answer: trying again", file=sys.stderr, flush=True)
                    said = True
                time.sleep(_PAUSE_SECONDS)
                continue
            _answered.add(address)
            return result

    def put(self, source: Path, key: str) -> None:
        """Copy the local file `source` to `key`."""
        self._write(key, source.open("rb"))

    def write(self, key: str, content: bytes) -> None:
        """Make `content` the file `key`."""
        self._write(key, io.BytesIO(content))

    def _write(self, key: str, source: BinaryIO) -> None:
        def copy(stream: BinaryIO) -> None:
            source.seek(0)
            shutil.copyfileobj(source, stream, _CHUNK)

        with source:
            self.produce(key, copy, source.seek(0, os.SEEK_END))

    def produce(self, key: str, write: Callable[[BinaryIO], None], size: int) -> None:
        """Make the file `key` of what `write` writes to a stream; it is called again where a remote store was away.

        Args:
            key: of the file.
            write: writes all bytes of the file.
            size: about so many bytes, for the message about a full disk.
        """
        if self.local:
            with self._opening():
                Path(self._at(key)).parent.mkdir(parents=True, exist_ok=True)
            with (
                room_for(Path(self._path), size, key),
                atomic_write(Path(self._at(key)), durable=True) as part,
                part.open("wb") as stream,
            ):
                write(stream)
            return
        self._patiently("written to", lambda: self._produce_object(key, write))

    def _produce_object(self, key: str, write: Callable[[BinaryIO], None]) -> None:
        # Closing a stream makes the object, also after an error: so it gets another name until it is whole. Object
        # stores rename by copying, S3 up to 5 GB.
        part_key = self._at(f"{key}.{uuid.uuid4().hex[:8]}.part")
        try:
            with self._open_output(part_key) as stream:
                write(stream)
            self._files.move(part_key, self._at(key))
        except BaseException:
            with contextlib.suppress(OSError):
                self._files.delete_file(part_key)
            raise

    def _open_output(self, path: str) -> Any:
        with self._opening():
            try:
                return self._files.open_output_stream(path)
            except FileNotFoundError:  # a file system that has folders
                self._files.create_dir(str(PurePosixPath(path).parent))
                return self._files.open_output_stream(path)

    def require_usable(self) -> None:
        """Write a file and remove it. Raises UserError if the storage cannot be written to."""
        key = f"probe-{uuid.uuid4().hex[:8]}"
        self.write(f"{key}/probe", b"")
        self.delete(key)

    def require_space(self, size: int, what: str) -> None:
        """Raise DiskFull if the disk of a local store has less than `size` bytes free for `what`."""
        if self.local and size > _free_bytes(Path(self._path)):
            raise _disk_full(Path(self._path), size, what)

    def size(self, folder: str) -> int:
        """Bytes of all files below a folder."""
        if self.local:
            return sum(path.lstat().st_size for path in Path(self._at(folder)).rglob("*") if not path.is_dir())
        import pyarrow.fs

        selector = pyarrow.fs.FileSelector(self._at(folder), allow_not_found=True, recursive=True)
        entries = self._list(selector)
        return sum(entry.size or 0 for entry in entries)

    def _list(self, selector: Any) -> Any:
        with self._opening("read"):
            return self._patiently("read", lambda: self._files.get_file_info(selector))

    def read(self, key: str) -> bytes | None:
        """Bytes of `key`, None where there is no such file."""

        def read_object() -> bytes:
            with self._files.open_input_stream(self._at(key)) as stream:
                return bytes(stream.read())

        try:
            with self._opening("read"):
                return Path(self._at(key)).read_bytes() if self.local else self._patiently("read", read_object)
        except FileNotFoundError:
            return None

    def fetch(self, key: str, target: Path) -> Path:
        """A local file with the bytes of `key`: the file itself where the store is local, else a copy at
        `target`. Raises FileNotFoundError."""
        if self.local:
            found = Path(self._at(key))
            if not found.is_file():
                raise FileNotFoundError(found)
            return found
        target.parent.mkdir(parents=True, exist_ok=True)

        def copy() -> None:
            with self._files.open_input_stream(self._at(key)) as source, target.open("wb") as stream:
                shutil.copyfileobj(source, stream, _CHUNK)

        self._patiently("read", copy)
        return target

    def folders(self) -> list[str]:
        """Names of the folders directly below the root, sorted."""
        if self.local:
            root = Path(self._path)
            return sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
        import pyarrow.fs

        selector = pyarrow.fs.FileSelector(self._path, allow_not_found=True)
        entries = self._list(selector)
        return sorted(entry.base_name for entry in entries if entry.type == pyarrow.fs.FileType.Directory)

    def delete(self, folder: str) -> None:
        """Remove a folder and all below it, if it exists."""
        if self.local:
            shutil.rmtree(self._at(folder), ignore_errors=True)
        elif folder in self.folders():
            self._patiently("written to", lambda: self._files.delete_dir(self._at(folder)))

    def _at(self, key: str) -> str:
        return str(PurePosixPath(self._path) / key)


@contextlib.contextmanager
def room_for(folder: Path, size: int, what: str) -> Iterator[None]:
    """Turn the failure of the body to write `size` bytes in `folder` because of a full disk into DiskFull."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise _disk_full(folder, size, what) from error


def _disk_full(folder: Path, size: int, what: str) -> DiskFull:
    return DiskFull(
        f"{folder}: there is no space for {what}: it needs {size} bytes, and the disk has {_free_bytes(folder)} bytes "
        "free; free some space, or raise the quota or the limit of a file's size. Earlier checkpoints are unchanged, "
        "and the same command resumes from the last one"
    )


def _free_bytes(folder: Path) -> int:
    """Free bytes of the disk of a folder that need not exist yet."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _advice(error: Exception) -> str | None:
    """What to do about a failure of an object store; None if its words are not known."""
    return next((advice for words, advice in _ADVICE if re.search(words, str(error))), None)


def _first_line(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    first = (reason.strip().splitlines() or [type(error).__name__])[0]
    first = re.sub(
        r"(?:Permanent error|Retry policy exhausted), with a last message of |google::cloud::Status\(", "", first
    )
    return redacted(re.sub(r" \(Request ID: .*|; Details: .*| error_info=.*", "", first))[:200]
