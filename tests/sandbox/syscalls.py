"""The system calls of FreeBSD that a program of the fake host finds in its C library by ctypes.

nmount(2), unmount(2), getfsstat(2), statfs(2), fstatfs(2) and sysctlbyname(3), as in FreeBSD
14 (64-bit inodes). They take what a program gives to the real ones: numbers, bytes, None, arrays,
structures, pointers and byref(); they return -1 and set errno, to Linux's number of that name.

The calls happen in this process, under the lock that the stand-ins take; no signal is handled
meanwhile, as in a kernel. Each adds a line to the list of commands. Where the file BY_PROGRAM
exists, a program of PROGRAMS stands for each of nmount, unmount and getfsstat, so that a test
can put something of its own in front of it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys

from sandbox import calls
from sandbox.state import INSIDE, PROC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

BY_PROGRAM = f"{INSIDE}/by_program"
PROGRAMS = "/usr/libexec/syscall"
MNT_WAIT, MNT_NOWAIT, MNT_SUSPEND = 1, 2, 4


class Call:
    """What ctypes finds under a name; programs may set its types, which need nothing here."""

    argtypes: Any = None
    restype: Any = None

    def __init__(self, function: Callable[..., int]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> int:
        try:
            return self._function(*arguments)
        except OSError as error:
            ctypes.set_errno(error.errno or errno.EIO)
            return -1


def install() -> None:
    """Give them to each C library that a program opens."""
    for function in (nmount, unmount, getfsstat, statfs, fstatfs, sysctlbyname):
        setattr(ctypes.CDLL, function.__name__, Call(function))


def nmount(vector: Any, count: int, flags: int) -> int:
    """nmount(2); vfs_buildopts() takes the vector apart."""
    count, flags = _number(count), _number(flags)
    words = [_word(vector, n) for n in range(count)]
    names = words[::2]
    if count % 2 or any(not name or not name.endswith(b"\0") for name in names):
        raise OSError(errno.EINVAL, "")
    options = [b"flags=%#x" % flags] if flags else []
    message = None
    for number, (name, value) in enumerate(zip(names, words[1::2], strict=True)):
        if name == b"errmsg\0":
            message = number * 2 + 1
            continue
        if b"\0" in name[:-1] or (value and not value.endswith(b"\0")):
            raise OSError(errno.EINVAL, "")
        options.append(name[:-1] + (b"=" + value[:-1] if value else b""))
    try:
        perform("nmount", *options)
    except OSError as error:
        if message is not None:
            # A text for people, as mount(8) prints it; only some errors have one.
            _put(vector, message, error.strerror or "")
        raise
    return 0


def unmount(path: Any, flags: int) -> int:
    """unmount(2)."""
    perform("unmount", _text(path), b"flags=%#x" % _number(flags))
    return 0


def getfsstat(buffer: Any, size: int, mode: int) -> int:
    """getfsstat(2)."""
    address, size, mode = _address(buffer), _number(size), _number(mode)
    if size < 0 or mode not in (MNT_WAIT, MNT_NOWAIT):
        raise OSError(errno.EINVAL, "")
    found = perform("getfsstat", b"mode=%d" % mode)
    there = len(found) // calls.STATFS
    if not address:
        return there
    there = min(there, size // calls.STATFS)
    ctypes.memmove(address, found, there * calls.STATFS)
    return there


def statfs(path: Any, buffer: Any) -> int:
    """statfs(2)."""
    found = perform("statfs", _text(path))
    ctypes.memmove(_address(buffer), found, calls.STATFS)
    return 0


def fstatfs(descriptor: int, buffer: Any) -> int:
    """fstatfs(2)."""
    from sandbox.kernel import mount_id_of

    descriptor = _number(descriptor)
    os.fstat(descriptor)
    found = perform("fstatfs", b"%d" % descriptor, b"mount=%d" % mount_id_of(descriptor, PROC))
    ctypes.memmove(_address(buffer), found, calls.STATFS)
    return 0


def sysctlbyname(name: Any, old: Any, size: Any, new: Any = None, _new_size: int = 0) -> int:
    """sysctlbyname(3), for numbers, which are all taken for int, and strings; reading only."""
    if new is not None:
        raise OSError(errno.EPERM, "")
    data = perform("sysctlbyname", _text(name))
    if not _address(size):
        return 0
    room = ctypes.c_size_t.from_address(_address(size))
    if _address(old):
        if room.value < len(data):
            raise OSError(errno.ENOMEM, "")
        ctypes.memmove(_address(old), data, len(data))
    room.value = len(data)
    return 0


# -- carrying them out -----------------------------------------------------------------------


def perform(name: str, *words: bytes) -> bytes:
    """Do a call by itself or by a program; returns what it answers, raises OSError."""
    texts = [os.fsdecode(word) for word in words]
    if name in calls.PROGRAMS and os.path.exists(BY_PROGRAM):
        return _by_program(name, texts)
    with _Undisturbed():
        answer = calls.answer(name, texts)
    if answer is None:
        # Some file system does not answer. Signals are heeded: mount(8) could be killed there.
        import time

        while True:
            time.sleep(3600)
    return answer


def _by_program(name: str, words: list[str]) -> bytes:
    import subprocess

    done = subprocess.run([f"{PROGRAMS}/{name}", *words], check=False, start_new_session=True,
                          stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode:
        code = done.returncode if done.returncode in errno.errorcode else errno.EIO
        raise OSError(code, os.strerror(code))
    return done.stdout


class _Undisturbed:
    """No signal handler runs in the middle of it, and no import finds the program's modules."""

    def __enter__(self) -> None:
        import signal

        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        sys.path.insert(0, f"{INSIDE}/lib")

    def __exit__(self, *_: object) -> None:
        import signal

        sys.path.remove(f"{INSIDE}/lib")
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)


# -- reading arguments -----------------------------------------------------------------------


def _address(argument: Any) -> int:
    """Where an argument points to; 0 for NULL."""
    if argument is None:
        return 0
    if isinstance(argument, int):
        return argument
    if isinstance(argument, (ctypes.c_void_p, ctypes.c_char_p, ctypes._Pointer)):
        return ctypes.cast(argument, ctypes.c_void_p).value or 0
    if hasattr(argument, "_obj"):
        argument = argument._obj
    return ctypes.addressof(argument)


def _number(argument: Any) -> int:
    return int(getattr(argument, "value", argument))


def _text(argument: Any) -> bytes:
    """A string that is passed by its address."""
    data = argument if isinstance(argument, bytes) else ctypes.string_at(_address(argument))
    data = data.partition(b"\0")[0]
    if len(data) > 1023:
        raise OSError(errno.ENAMETOOLONG, "")
    return data


class _Iovec(ctypes.Structure):
    """struct iovec of <sys/uio.h>."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _vector(vector: Any, number: int) -> _Iovec:
    return _Iovec.from_address(_address(vector) + number * ctypes.sizeof(_Iovec))


def _word(vector: Any, number: int) -> bytes:
    one = _vector(vector, number)
    return ctypes.string_at(one.base, one.length) if one.base and one.length else b""


def _put(vector: Any, number: int, text: str) -> None:
    one = _vector(vector, number)
    data = os.fsencode(text)[:max(one.length - 1, 0)] + b"\0"
    if one.base and one.length:
        ctypes.memmove(one.base, data, len(data))


__all__ = ["Call", "install", "perform"]
