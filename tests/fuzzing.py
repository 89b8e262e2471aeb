"""Damaged and odd content of files, for hypothesis: what a loader makes of it is a result or a `UserError`."""

from __future__ import annotations

import contextlib
import copy
import json
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st
from scipy import sparse

from tcformer.errors import UserError, printable

FUZZING = settings(max_examples=80, derandomize=True, deadline=None)

MOST_SECONDS = 5.0  # of the processor, for one load
MOST_KILOBYTES = 300_000  # that the loads of one test may add to the memory of the process

TEXTS = st.one_of(st.text(max_size=6), st.sampled_from(["", "../a.jpg", "/a", "nan", "1e999", "\x1b[2J", "\ud800"]))
NUMBERS = st.one_of(
    st.booleans(),
    st.integers(-3, 300),
    st.sampled_from([2**31, 2**63, -(2**63), 10**400, float("nan"), float("inf"), 1e-320]),
    st.floats(),
)
JSON = st.recursive(
    st.one_of(st.none(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)
#: Arrays of every plain type, most of them with another number of axes or entries than a field has.
ARRAYS = st.one_of(
    numpy_st.arrays(
        st.sampled_from(["f8", "f4", "f2", "i8", "u1", "?", "c16", "U3", "S3", "M8[s]"]),
        numpy_st.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    ),
    st.sampled_from(
        [np.zeros((5, 2)), np.full((5, 24, 3), np.nan), np.full((5, 72), 1e308), np.zeros((0, 3), "i8")]
        + [np.zeros((3, 56)), np.zeros((3, 84)), np.full((7, 56), "1"), np.full((7, 84), np.inf), np.zeros((14, 1))]
    ),
)
#: Small in a pickle, and large as an array: a matrix of zeros, and objects that are in it many times.
LARGE = [sparse.csc_matrix((10**5, 10**5)), ["a" * 10**6] * 500, [[[0.0] * 1000] * 1000] * 1000]
#: What a pickle can have in a field.
OBJECTS = st.recursive(
    st.one_of(JSON, ARRAYS, st.binary(max_size=4), st.just(sparse.csc_matrix(np.eye(3)))),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """`whole` after bytes of it were changed, removed, repeated, or cut off at the end."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(["change", "change", "remove", "repeat", "cut"]))
        length = draw(st.sampled_from([1, 1, 4, 100]))
        if kind == "change":
            data[place : place + length] = draw(st.binary(min_size=length, max_size=length))
        elif kind == "remove":
            del data[place : place + length]
        elif kind == "repeat":
            data[place:place] = data[place : place + length]
        else:
            del data[place:]
    return bytes(data)


def places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value in nested lists and objects; of long lists the first three."""
    found: list[tuple[Any, Any]] = []
    keys = value if isinstance(value, dict) else range(min(3, len(value))) if isinstance(value, list) else ()
    for key in keys:
        found += [(value, key), *places(value[key])]
    return found


@st.composite
def json_with_any_value(draw: st.DrawFn, content: Any) -> str:
    """The JSON of `content` with any value in any place."""
    root = {"root": copy.deepcopy(content)}
    found = places(root)
    container, key = draw(st.one_of(st.just(found[0]), st.sampled_from(found)))
    container[key] = draw(JSON)
    return json.dumps(root["root"])


def text_file(name: str, text: str) -> Callable[[Path], Path]:
    """A function that writes a file in a folder."""

    def write(folder: Path) -> Path:
        (folder / name).write_text(text, encoding="utf-8")
        return folder / name

    return write


def json_file(name: str, value: object) -> Callable[[Path], Path]:
    """As `text_file`, of a value in JSON."""
    return text_file(name, json.dumps(value))


def load_or_refuse(load: Callable[[Path], Any], path: Path) -> None:
    """Load a file; it may be refused by a `UserError` with its name, or the name of its folder, within the time."""
    started = time.process_time()
    try:
        load(path)
    except UserError as error:
        text = str(error)
        assert path.name in text or path.parent.name in text, text
        assert text == printable(text)
    assert time.process_time() - started < MOST_SECONDS


@contextlib.contextmanager
def bounded_memory() -> Iterator[None]:
    """Fail if the body makes the process larger than `MOST_KILOBYTES`."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert used < MOST_KILOBYTES, f"{used} kB"
