"""ImageNet with one uncompressed tar for each class, <split>/<wnid>.tar, from which images are read directly.

1.28 million files are slow to copy and to list, and a shared disk may limit the number of files. ImageNet itself is
published as a tar of 1000 such tars. Next to each tar is the file <wnid>.index.json with the names, offsets and sizes
of its images. If it does not exist or does not fit the tar, the headers of the tar are read.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from tcformer.checks import is_count
from tcformer.errors import UserError

SUFFIX: Final = ".tar"
WNID: Final = re.compile(r"n\d{8}")

_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
_REPAIR = "download the file again"


class Member(NamedTuple):
    """A file in a tar.

    Attributes:
        name: the file name.
        offset: position of its first byte in the tar.
        size: number of bytes.
    """

    name: str
    offset: int
    size: int


def index_file(archive: Path) -> Path:
    """The index file of a class tar."""
    return archive.with_suffix(".index.json")


def read_index(archive: Path) -> list[Member]:
    """List the members of a tar, sorted by name: from its index file if it fits the tar, else from its headers.

    Raises:
        UserError: the file is not a complete tar of plain files without folders.
    """
    try:
        index, size = json.loads(index_file(archive).read_bytes()), archive.stat().st_size
        members = [Member(*member) for member in index["members"]]
        if index["size"] == size and all(_fits(member, size) for member in members):
            return members
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass  # no index file, or not one of ours: the headers contain the same information
    return scan(archive)


def _fits(member: Member, size: int) -> bool:
    """Whether a member lies in a tar of `size` bytes."""
    is_named = isinstance(member.name, str) and "/" not in member.name
    return is_named and is_count(member.offset, 0) and is_count(member.size, 0) and member.offset + member.size <= size


def scan(archive: Path) -> list[Member]:
    """List the members of a tar as `read_index` does, but from its headers."""
    members = []
    try:
        with tarfile.open(archive, "r:") as tar:
            for member in tar:
                if member.isdir():
                    continue
                name = member.name.removeprefix("./")
                if not member.isreg() or member.issparse() or "/" in name:
                    raise UserError(f"{archive}: {member.name!r:.80}: expected plain files without folders; {_REPAIR}")
                members.append(Member(name, member.offset_data, member.size))
    except UserError:
        raise
    except Exception as error:  # tarfile raises many types for damaged headers
        raise UserError(f"{archive}: cannot be read as an uncompressed tar ({error}); {_REPAIR}") from error
    return sorted(members)


def write_index(archive: Path) -> int:
    """Write the index file of a class tar and return the number of its members.

    Raises:
        UserError: see `read_index`.
    """
    members = scan(archive)
    index_file(archive).write_text(json.dumps({"size": archive.stat().st_size, "members": members}))
    return len(members)


def read_member(archive: Path, member: Member) -> bytes:
    """Read the bytes of a member. The tar is opened each time, because open files do not survive a fork or a pickle.

    Raises:
        OSError: the tar cannot be read, or ends before the member does.
    """
    with archive.open("rb") as stream:
        stream.seek(member.offset)
        data = stream.read(member.size)
    if len(data) != member.size:
        raise OSError(f"ends after {len(data)} of {member.size} bytes")
    return data


def validation_classes(devkit: Path) -> list[str]:
    """Read the class (wnid) of each validation image of ILSVRC2012, in the order of the image numbers.

    The ground truth contains ILSVRC2012_IDs, whose order is not that of the sorted wnids. meta.mat maps them to wnids.

    Args:
        devkit: the unpacked ILSVRC2012_devkit_t12.

    Raises:
        UserError: a file does not exist or breaks its format.
    """
    from scipy.io import loadmat

    meta, truth = devkit / "data/meta.mat", devkit / "data/ILSVRC2012_validation_ground_truth.txt"
    try:
        synsets = loadmat(meta, squeeze_me=True, variable_names=["synsets"])["synsets"]
        leaves = [s for s in synsets if int(s["num_children"]) == 0]  # the others are groups of classes
        wnid_of_id = {int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in leaves}
    except Exception as error:  # scipy raises many types for a broken file
        raise UserError(f"{meta}: cannot be read as ImageNet's synsets ({error}); unpack the devkit again") from error
    try:
        return [wnid_of_id[int(line)] for line in truth.read_text().split()]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{truth}: expected a line with an ILSVRC2012_ID of {meta} for each image, found {error}; "
            f"unpack the devkit again"
        ) from error


def sort_validation(
    archive: Path, classes: list[str], target: Path, progress: Callable[[int], None] = lambda count: None
) -> None:
    """Sort the images of ILSVRC2012_img_val.tar into one tar for each class, with index files.

    The same archive gives the same bytes.

    Args:
        archive: a tar of ILSVRC2012_val_%08d.JPEG without folders.
        classes: see `validation_classes`.
        target: folder to write to.
        progress: is called with the number of bytes written since the last call.

    Raises:
        UserError: the archive contains another file.
    """
    of_class: dict[str, list[Member]] = {}
    for member in scan(archive):
        match = _IMAGE.fullmatch(member.name)
        number = int(match[1]) if match else 0
        if not 0 < number <= len(classes):
            raise UserError(
                f"{archive}: member {member.name!r:.80}: expected ILSVRC2012_val_00000001.JPEG to "
                f"ILSVRC2012_val_{len(classes):08d}.JPEG, as many as the devkit's ground truth has lines; {_REPAIR}"
            )
        of_class.setdefault(classes[number - 1], []).append(member)
    with archive.open("rb") as source:
        for wnid, members in of_class.items():
            path = target / f"{wnid}{SUFFIX}"
            with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
                for member in members:
                    source.seek(member.offset)
                    info = tarfile.TarInfo(member.name)
                    info.size = member.size
                    tar.addfile(info, source)
                    progress(member.size)
            write_index(path)
