"""The system call nmount(2), replaced."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any


class Call:
    """The system call: notes what it is given, and answers what it is told to."""

    argtypes = None

    def __init__(self, answer: int) -> None:
        self.answer = answer
        self.given: list[tuple[list[bytes], int]] = []

    def __call__(self, vector: Sequence[Any], count: int, flags: int) -> int:
        words = []
        for each in vector:
            where = ctypes.c_void_p.from_buffer(each).value
            words.append(ctypes.string_at(where, each.length))
        assert len(words) == count
        self.given.append((words, flags))
        return self.answer


class Swap:
    """A system call that does as it is told."""

    argtypes = None

    def __init__(self, does: Callable[..., int]) -> None:
        self.does = does

    def __call__(self, *words: Any) -> int:
        return self.does(*words)
