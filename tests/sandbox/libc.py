"""nmount(2) for the fake host's python, whose C library is Linux's.

A file of the host's site-packages, which python imports when it starts. It takes the
arguments apart as FreeBSD's kernel does and leaves the rest to the stand-in of mount_nullfs(8).
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
from typing import Any

PROGRAM = "/sbin/mount_nullfs"


class _Nmount:
    """What ctypes finds under the name; programs set its argtypes."""

    argtypes: Any = None

    def __call__(self, vector: Any, count: int, flags: int) -> int:
        words = [ctypes.string_at(_address(each), each.length) for each in vector[:count]]
        # vfs_buildopts(): names and values in turn, each name with the NUL that ends it.
        if len(words) != count or count % 2 or any(not n.endswith(b"\0") for n in words[::2]):
            return self._fail(errno.EINVAL)
        options = {n[:-1].decode(): v for n, v in zip(words[::2], words[1::2], strict=True)}
        values = [options.get(name, b"") for name in ("fspath", "target")]
        known = {"fstype", "fspath", "target", "ro"}
        if options.get("fstype") != b"nullfs\0" or set(options) - known or flags:
            return self._fail(errno.EINVAL)
        if not all(value.endswith(b"\0") and len(value) > 1 for value in values):
            return self._fail(errno.EINVAL)
        point, source = (value[:-1] for value in values)
        point = os.path.join(os.getcwdb(), point).removesuffix(b"/.")
        flag = [b"-o", b"ro"] if "ro" in options else []
        done = subprocess.run([PROGRAM, *flag, source, point], check=False,
                              env={**os.environ, "SANDBOX_NMOUNT": "", "LC_ALL": "C.UTF-8"},
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True, start_new_session=True)
        return 0 if done.returncode == 0 else self._fail(_number_in(done.stderr))

    @staticmethod
    def _fail(number: int) -> int:
        ctypes.set_errno(number)
        return -1


def _number_in(message: str) -> int:
    """The error that a message ends with."""
    known = {os.strerror(number): number for number in errno.errorcode}
    return known.get(message.strip().rpartition(": ")[2], errno.EIO)


def _address(each: Any) -> int:
    """Where the first member of a struct points to, whatever it is declared as."""
    return int(ctypes.c_void_p.from_buffer(each).value or 0)


ctypes.CDLL.nmount = _Nmount()  # type: ignore[attr-defined]
