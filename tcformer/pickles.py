"""Check the opcodes of a pickle before it is read.

A pickle is a program. Where it can call nothing, a few bytes of it can still ask for gigabytes of memory (a large index
in the unpickler's memo, a length) or for hours (hashing of a tuple that contains another one twice, which contains
another one twice, and so on). The readers of foreign pickles in this package call only functions of their own, and this
check first.
"""

from __future__ import annotations

import io
import mmap
import pickletools
from typing import IO, Any, Final

_OPCODES: Final = {opcode.code: opcode for opcode in pickletools.opcodes}
_PUTS: Final = ("PUT", "BINPUT", "LONG_BINPUT")
_GETS: Final = ("GET", "BINGET", "LONG_BINGET")
#: These change a container below the values that they take from the stack. It stays there.
_CHANGES: Final = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
#: Their result cannot be hashed, or is hashed by its identity.
_CONTAINERS: Final = ("LIST", "DICT")

#: The indices of a pickle's memo are consecutive, perhaps with gaps.
_FREE_MEMO: Final = 1000
#: How many parts the values that a pickle combines may have altogether: so many, and so many for each of its bytes.
_FREE_PARTS: Final = 100_000
_PARTS_PER_BYTE: Final = 10


def check_pickle(data: bytes | mmap.mmap, start: int = 0) -> int:
    """Check that a pickle is complete, and that reading it takes memory and time in proportion to its length.

    Args:
        data: contains the pickle.
        start: the index of its first byte.

    Returns:
        The index after its last byte.

    Raises:
        ValueError: it is not complete or would take more.
    """
    stream: Any = io.BytesIO(data) if isinstance(data, bytes) else data
    stream.seek(start)
    try:
        return _check(stream, len(data))
    except (IndexError, KeyError) as error:
        raise ValueError("the opcodes do not fit each other") from error


def _check(stream: IO[bytes], end: int) -> int:
    start = stream.tell()
    stack: list[int] = []  # the number of parts of each value
    marks: list[int] = []  # the height of the stack at each mark
    memo: dict[int, int] = {}
    parts = 0
    while True:
        code = stream.read(1)
        if not code:
            raise ValueError("it ends too early")
        opcode = _OPCODES.get(code.decode("latin-1"))
        if opcode is None:
            raise ValueError(f"no pickle has the opcode {code!r}")
        name, argument = opcode.name, None
        if name == "STRING":  # Python 2 wrote bytes above 127, which pickletools does not decode
            stream.readline()
        elif opcode.arg is not None:
            argument = opcode.arg.reader(stream)
        if name == "STOP":
            return stream.tell()
        if name in _PUTS or name == "MEMOIZE":
            index = len(memo) if argument is None else int(argument)
            if not 0 <= index <= _FREE_MEMO + 2 * len(memo):
                raise ValueError(f"the index {index} of its memo asks for too much memory")
            memo[index] = stack[-1]
        elif name in _GETS:
            stack.append(memo[int(argument or 0)])
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "FRAME":
            if int(argument or 0) > end - stream.tell():
                raise ValueError("it ends too early")
        else:
            taken = _take(stack, marks, opcode)
            parts += sum(taken)
            if parts > _FREE_PARTS + _PARTS_PER_BYTE * (stream.tell() - start):
                raise ValueError("its values contain each other too often")
            if name in _CHANGES:
                stack.append(taken[0])
            elif opcode.stack_after:
                stack.append(1 if name in _CONTAINERS else 1 + sum(taken))


def _take(stack: list[int], marks: list[int], opcode: pickletools.OpcodeInfo) -> list[int]:
    """Remove the values that an opcode takes from the stack, the lowest one first, and the mark that it takes."""
    before = opcode.stack_before
    if pickletools.markobject in before:
        first = marks.pop() - before.index(pickletools.markobject)
    elif opcode.name == "POP" and marks and marks[-1] == len(stack):
        first = marks.pop()
    else:
        first = len(stack) - len(before)
    if first < 0:
        raise IndexError
    taken = stack[first:]
    del stack[first:]
    return taken
