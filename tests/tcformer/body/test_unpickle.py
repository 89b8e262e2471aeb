"""Foreign pickles are read as data, and those that would do anything are refused."""

from __future__ import annotations

import pickle
import pickletools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from tcformer.body import load_pickle
from tcformer.errors import UserError

RNG = np.random.default_rng(0)
ARRAY = RNG.normal(size=(4, 3))


@pytest.fixture
def chumpy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Modules of chumpy's names with classes that pickle as chumpy's do; gone again when the file is read."""
    root, ch, reordering = ModuleType("chumpy"), ModuleType("chumpy.ch"), ModuleType("chumpy.reordering")
    for module, name in ((ch, "Ch"), (ch, "Add"), (reordering, "Select")):
        setattr(module, name, type(name, (), {"__module__": module.__name__}))
    for module in (root, ch, reordering):
        monkeypatch.setitem(sys.modules, module.__name__, module)

    def make(kind: str, **state: Any) -> Any:
        made = getattr(reordering if kind == "Select" else ch, kind)()
        made.__dict__.update(state)
        return made

    yield make


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_numbers_and_sparse_matrices(protocol: int, tmp_path: Path) -> None:
    content = {
        "floats": ARRAY.astype(np.float32),
        "fortran": np.asfortranarray(ARRAY),
        "flags": np.array([True, False]),
        "names": np.array(["a", "bc"]),
        "number": np.float64(2.5),
        "plain": [1, 2.5, "text", b"\xe9bytes", None, (True, {"inner": ARRAY})],
        "objects": np.array([ARRAY, None], dtype=object),
        "csc": sparse.csc_matrix(np.eye(4)),
        "csr": sparse.csr_matrix(np.eye(3)),
        "coo": sparse.coo_matrix(np.eye(2)),
    }
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    read = load_pickle(path)
    assert list(read) == list(content)
    for name in ("floats", "fortran", "flags", "names"):
        np.testing.assert_array_equal(read[name], content[name])
        assert read[name].dtype == content[name].dtype
    assert read["number"] == 2.5
    assert read["plain"][:5] == [1, 2.5, "text", b"\xe9bytes", None]
    np.testing.assert_array_equal(read["plain"][5][1]["inner"], ARRAY)
    np.testing.assert_array_equal(read["objects"][0], ARRAY)
    for name, size in (("csc", 4), ("csr", 3), ("coo", 2)):
        np.testing.assert_array_equal(read[name].toarray(), np.eye(size))
    assert list(load_pickle(path, ["flags"])) == ["flags"]


def test_python_2_strings_are_latin1(tmp_path: Path) -> None:
    """What Python 2 wrote for {'name': '\\xe9', 'x': array([1, 2], '<i4')}, by hand."""
    path = tmp_path / "old.pkl"
    path.write_bytes(
        b"\x80\x02}q\x00(U\x04nameU\x01\xe9U\x01xcnumpy.core.multiarray\n_reconstruct\n"
        b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02i4K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08\x01\x00\x00\x00\x02\x00\x00\x00tbu."
    )
    read = load_pickle(path)
    assert read["name"] == "\xe9"
    np.testing.assert_array_equal(read["x"], [1, 2])


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_chumpy_arrays_become_numpy_arrays(protocol: int, chumpy: Any, tmp_path: Path) -> None:
    array = chumpy("Ch", x=ARRAY, _dirty_vars=set(), _status="ok")
    content = {
        "shapedirs": array,
        "posedirs": chumpy("Select", a=array, idxs=np.array([5, 0, 7, 1]), preferred_shape=(2, 2)),
        "J": chumpy("Add", a=array, b=array),
    }
    path = tmp_path / "smpl.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    assert b"chumpy" in path.read_bytes()
    read = load_pickle(path, ["shapedirs", "posedirs"])
    assert type(read["shapedirs"]) is np.ndarray
    np.testing.assert_array_equal(read["shapedirs"], ARRAY)
    np.testing.assert_array_equal(read["posedirs"], ARRAY.ravel()[[5, 0, 7, 1]].reshape(2, 2))
    with pytest.raises(UserError, match="a chumpy expression where a chumpy array was expected"):
        load_pickle(path)


def test_chumpy_is_not_imported(chumpy: Any, tmp_path: Path) -> None:
    path = tmp_path / "smpl.pkl"
    path.write_bytes(pickle.dumps({"x": chumpy("Ch", x=ARRAY)}, protocol=2))
    program = (
        "import sys\nclass Refuse:\n def find_spec(self, name, *rest):\n"
        "  assert not name.startswith('chumpy'), name\n"
        "sys.meta_path.insert(0, Refuse())\nfrom tcformer.body import load_pickle\n"
        f"assert load_pickle({str(path)!r})['x'].shape == (4, 3)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


class Harm:
    """Pickles as a call that makes a file."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call = call, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("module", ["os", "subprocess", "builtins", "numpy"])
def test_malicious_pickles_do_nothing(module: str, protocol: int, tmp_path: Path) -> None:
    import os

    victim = tmp_path / "made by the pickle"
    call: dict[str, Harm] = {
        "os": Harm(os.mkdir, str(victim)),
        "subprocess": Harm(subprocess.call, ["touch", str(victim)]),
        "builtins": Harm(eval, f"open({str(victim)!r}, 'w')"),
        "numpy": Harm(np.save, str(victim), ARRAY),
    }
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"v_template": ARRAY, "x": call[module]}, protocol=protocol))
    with pytest.raises(UserError, match=r"refused, because it names .* nothing in it was executed") as caught:
        load_pickle(path)
    assert str(path) in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]
    pickle.loads(path.read_bytes())  # the file is what it is meant to be
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a pickle",
        pickle.dumps(ARRAY)[:-20],
        b"\x80\x02cnumpy\nndarray\n.",  # a class, not an object
        b"\x80\x02ccopy_reg\n_reconstructor\ncnumpy\nndarray\nc__builtin__\nobject\nN\x87R.",
        b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__class__\x93.",
        b"\x80\x02]q\x00h\x00a.",  # a list that holds itself
    ],
)
def test_broken_pickles_are_refused_with_their_name(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.pkl"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"broken\.pkl"):
        load_pickle(path)


def test_sparse_indices_out_of_bounds_are_refused(tmp_path: Path) -> None:
    matrix = sparse.csc_matrix(np.eye(4))
    matrix.indices[2] = 10**6
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"J_regressor": matrix}, protocol=2))
    assert "csc_matrix" in "".join(str(arg) for _, arg, _ in pickletools.genops(path.read_bytes()))
    with pytest.raises(UserError, match=r"model\.pkl"):
        load_pickle(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="put the file there"):
        load_pickle(tmp_path / "nothing.pkl")
