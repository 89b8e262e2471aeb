"""Checks of files that people bring: JSON, .npz archives, arrays of numbers, names of images.

Every fault is a `UserError` that says where it is, what was expected and what was found.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeGuard

import numpy as np
from numpy.typing import NDArray

from tcformer.errors import UserError

#: What to do about a wrong value in a downloaded file.
REPAIR: Final = "correct it or download the file again"
#: Most numbers of an array that a file does not store as one, but as lists or as a sparse matrix.
MOST_ENTRIES: Final = 10**7


def read_json(path: Path, hint: str, object_hook: Callable[[dict[str, Any]], object] | None = None) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        hint: what to do if it does not exist.
        object_hook: is applied to each object as soon as it is parsed, see `json.load`.

    Raises:
        UserError: the file does not exist, cannot be read or is not JSON.
    """
    try:
        with path.open(encoding="utf-8-sig") as stream:  # with or without the mark that Windows writes first
            return json.load(stream, object_hook=object_hook)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; {hint}") from error
    except RecursionError as error:
        raise UserError(
            f"{path}: cannot be read as JSON: its lists are nested too deeply; download the file again"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); download the file again") from error


def read_npz(path: Path, hint: str) -> dict[str, NDArray]:
    """Read all arrays of an .npz file; arrays of Python objects are refused.

    Args:
        path: the file.
        hint: what to do if it does not exist.

    Raises:
        UserError: the file does not exist or is not an .npz of plain arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; {hint}") from error
    except Exception as error:  # zipfile and numpy raise many kinds for a broken file
        raise UserError(
            f"{path}: cannot be read as .npz of plain arrays ({error}); download or make the file again"
        ) from error


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value of a JSON file is a finite number."""
    # Integers in JSON can be too large for a float. The comparison is false for NaN.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_count(value: object, least: int) -> TypeGuard[int]:
    """Whether a value of a JSON file is an integer of at least `least` that 64 bits can hold."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**63


def array_of(values: object) -> NDArray:
    """An array as it is; one of a number or nested lists; an empty array of objects for anything else.

    Of texts, or of a list that a pickle names many times, NumPy alone can make an array that is much larger than the
    file: every text takes as much room as the longest one.
    """
    if isinstance(values, np.ndarray):
        return values
    try:
        if _count_entries(values, {}) <= MOST_ENTRIES:
            return np.asarray(values)
    except (ValueError, OverflowError):  # texts, lists of different lengths, huge numbers
        pass
    return np.empty(0, object)


def _count_entries(values: object, known: dict[int, int], levels: int = 16) -> int:
    """Number of entries of nested lists.

    Args:
        values: the lists.
        known: the numbers of the lists that are counted already, by their ids.
        levels: how deeply they may be nested.

    Raises:
        ValueError: they contain something else than numbers and arrays of numbers, or are nested too deeply.
    """
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiubc":
        return values.size
    if isinstance(values, str | bytes | dict | np.ndarray) or levels == 0:
        raise ValueError
    if not isinstance(values, list | tuple):
        return 1
    if id(values) not in known:
        only_numbers = set(map(type, values)) <= {int, float}
        known[id(values)] = (
            len(values) if only_numbers else sum(_count_entries(value, known, levels - 1) for value in values)
        )
    return known[id(values)]


def numbers_of_list(values: object) -> NDArray[np.float64] | None:
    """A JSON list of numbers, or of equally long lists of them, as float64; None if it is anything else."""
    array = array_of(values) if isinstance(values, list) else None
    return array.astype(np.float64) if array is not None and array.dtype.kind in "if" else None


def number_array(where: str, values: object, shape: tuple[int | None, ...], finite: bool = True) -> NDArray[np.float64]:
    """Numbers of a file as a float64 array.

    Args:
        where: the file and the field, for the message.
        values: an array, or a number or nested lists of a JSON file; None for a missing field.
        shape: the expected shape; None stands for any length.
        finite: False leaves it to the caller to look for NaN and infinity (`check_finite_rows`).

    Raises:
        UserError: `values` are not numbers of that shape.
    """
    if isinstance(values, np.ndarray):
        array, kinds, found = values, "fiub", f"{values.dtype} of shape {values.shape}"
    else:
        kinds, found = "fi", "nothing" if values is None else f"{values!r:.60}"
        array = array_of(values)
    fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    good = array.dtype.kind in kinds and fits
    if good and not (finite and not _fits_float32(array).all()):
        return array.astype(np.float64)
    if good and isinstance(values, np.ndarray):
        found = "NaN, infinity or a number too large for float32"
    wanted = str(shape).replace("None", "any")
    raise UserError(f"{where}: expected finite numbers of shape {wanted}, found {found}; {REPAIR}")


def _fits_float32(values: NDArray) -> NDArray[np.bool_]:
    """Which values stay finite in float32, in which networks and body models compute."""
    return np.abs(values) <= np.finfo(np.float32).max


def check_finite_rows(values: NDArray[np.float64], where: Callable[[int], str], rows: str = "rows") -> None:
    """Raise UserError if a row of `values` (N, ...) holds NaN, infinity or a number too large for float32.

    Args:
        values: the numbers.
        where: the file, row and field of a row's index, for the message.
        rows: what the rows are, in the plural.
    """
    wrong = ~_fits_float32(values).all(axis=tuple(range(1, values.ndim)))
    if wrong.any():
        raise UserError(
            f"{where(int(wrong.argmax()))}: expected finite numbers; {REPAIR} ({int(wrong.sum())} {rows} are wrong)"
        )


def is_below_folder(name: str) -> bool:
    """Whether an image name of an annotation file stays below the image folder."""
    path = PurePosixPath(name)
    return bool(name) and "\0" not in name and not path.is_absolute() and ".." not in path.parts
