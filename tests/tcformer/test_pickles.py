"""Small pickles that would take gigabytes or hours are refused before they are read."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tcformer.pickles import check_pickle

DTYPE = b"cnumpy\ndtype\nU\x01%sK\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3ftb"


def nested_tuples(levels: int) -> bytes:
    """A dict whose key is a tuple of two equal tuples of two equal tuples ... : its hash takes 2**levels steps."""
    return b"\x80\x02}K\x01" + b"2\x86" * levels + b"K\x00s."


#: Pickles of at most 2 kB: each takes gigabytes or hours if it is just read.
BOMBS = {
    "memo": b"\x80\x02Nr" + struct.pack("<I", 2**27) + b".",
    "hash": nested_tuples(60),
    "hash of a set": b"\x80\x04\x8f(K\x01" + b"2\x86" * 60 + b"\x90.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 2**31) + b"N.",
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**31) + b".",
    "objects": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
    + b"J\x00\x00\x00\x14\x85"
    + DTYPE % b"O"
    + b"\x89]tb.",
    "shape": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nJ\x00\x00\x00\x7f\x85U\x01O\x87R.",
    "array class": b"\x80\x02cnumpy\nndarray\nJ\x00\x00\x00\x7f\x85\x81.",
    "number": b"\x80\x02cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nU\x0bV2147483000K\x00K\x01\x87R\x85R.",
}
READ = """
import resource, sys
from pathlib import Path
from tcformer.body import load_pickle
from tcformer.errors import UserError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        load_pickle(path)
    except UserError as error:
        assert str(path) in str(error)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert used < 100_000, f"{path.name}: {used} kB"
"""


def test_bombs_take_neither_memory_nor_time(tmp_path: Path) -> None:
    for name, data in BOMBS.items():
        assert len(data) < 2048
        (tmp_path / name).write_bytes(data)
    done = subprocess.run([sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("protocol", range(6))
def test_honest_pickles_pass(protocol: int) -> None:
    shared = ("a", 1)
    content = {
        "numbers": list(range(3000)),
        "tuples": [tuple(range(n)) for n in range(200)],
        "shared": [shared] * 5000,
        "sets": [{1, 2}, frozenset({shared})],
        "arrays": [np.zeros((3, 2)), np.array([None, "a"], dtype=object), np.float32(2)],
        "text": "\xe9" * 300,
        "bytes": b"\xe9" * 300,
        (1, shared): None,
    }
    data = pickle.dumps(content, protocol=protocol)
    assert check_pickle(b"xx" + data + b"rest", 2) == 2 + len(data)


def test_what_python_2_wrote_passes() -> None:
    data = b"(dp1\nS'x\\xe9'\np2\nI1\ns."
    assert check_pickle(data) == len(data)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x80\x02K", b"\x80\x02K\x01", b"s.", b"h\x05.", b"a."])
def test_incomplete_pickles_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        check_pickle(data)
