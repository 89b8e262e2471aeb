"""What files of other people may hold, and what the message says if they do not."""

from pathlib import Path

import numpy as np
import pytest

from tcformer.checks import (
    array_of,
    check_finite_rows,
    is_below_folder,
    number_array,
    numbers_of_list,
    read_json,
    read_npz,
)
from tcformer.errors import UserError


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (None, "nothing"),
        ([1, 2], r"\[1, 2\]"),
        ([[1, 2, 3], [4]], r"\[\[1, 2, 3\], \[4\]\]"),
        ([True, False, True], r"\[True, False, True\]"),
        ([1, float("nan"), 2], r"\[1, nan, 2\]"),
        ([1, 10**400, 2], r"\[1, 1000"),
        ("abc", "'abc'"),
        (np.zeros((3, 2)), r"float64 of shape \(3, 2\)"),
        (np.array(["a", "b", "c"]), "<U1 of shape"),
        (np.array([0, np.inf, 0]), "NaN, infinity or a number too large for float32"),
        (np.array([0, -1e39, 0]), "NaN, infinity or a number too large for float32"),
    ],
)
def test_anything_but_finite_numbers_is_named(values: object, found: str) -> None:
    with pytest.raises(
        UserError, match=rf"^a\.json: field 'x': expected finite numbers of shape \(3,\), found {found}"
    ):
        number_array("a.json: field 'x'", values, (3,))


def test_numbers_become_float64() -> None:
    for values in ([1, 2, 3], np.array([1, 2, 3], np.uint8), np.array([1, 2, 3], np.float32)):
        array = number_array("here", values, (None,))
        assert array.dtype == np.float64 and array.tolist() == [1, 2, 3]
    assert number_array("here", 0.5, ()) == 0.5
    assert np.isnan(number_array("here", np.array([np.nan]), (1,), finite=False)).all()


def test_rows_that_are_not_finite_are_counted() -> None:
    values = np.zeros((4, 2))
    check_finite_rows(values, str)
    values[1, 0], values[3] = np.inf, np.nan
    with pytest.raises(UserError, match=r"^frame 1: expected finite numbers; .* \(2 frames are wrong\)"):
        check_finite_rows(values, lambda row: f"frame {row}", rows="frames")


def test_lists_of_numbers() -> None:
    for values in ([1, 2.5], [[1, 2], [3, 4]]):
        array = numbers_of_list(values)
        assert array is not None and array.dtype == np.float64 and array.tolist() == values
    for other in (None, 1, "a", ["a"], [None], [[1], [2, 3]], [10**400], (1, 2)):
        assert numbers_of_list(other) is None


def test_names_that_leave_the_folder() -> None:
    assert all(is_below_folder(name) for name in ("a.jpg", "a/b.jpg", "a/..b.jpg"))
    assert not any(is_below_folder(name) for name in ("", "/a.jpg", "../a.jpg", "a/../../b.jpg"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json: no such file; make it"):
        read_json(tmp_path / "a.json", "make it")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UserError, match=r"a\.json: cannot be read as JSON"):
        read_json(tmp_path / "a.json", "make it")
    with pytest.raises(UserError, match=r"a\.npz: no such file; make it"):
        read_npz(tmp_path / "a.npz", "make it")
    np.savez(tmp_path / "a.npz", x=np.array([{}]))
    with pytest.raises(UserError, match=r"a\.npz: cannot be read as \.npz of plain arrays"):
        read_npz(tmp_path / "a.npz", "make it")


def test_lists_that_would_be_large_arrays() -> None:
    """Each is small in a file whose lists can be shared, or whose texts differ in length."""
    assert array_of([[1, 2], (3, 4.5), np.array([5, 6])]).tolist() == [[1, 2], [3, 4.5], [5, 6]]
    numbers = np.arange(3)
    assert array_of(numbers) is numbers and array_of(2.5).shape == ()
    shared = [[[0.0] * 1000] * 1000] * 1000
    texts = ["a" * 10**6] * 10**5
    for large in (shared, texts, [np.array(["a" * 10**6])] * 10**5, {"a": 1}, "a", [[1], [2, 3]]):
        assert array_of(large).dtype == object
