"""nullfs mounts without a program for each: nmount(2), which FreeBSD's C library has.

mount_nullfs(8) does the same one call, but starting it takes sixty times as long.
"""

import os
from collections.abc import Callable, Mapping

from kopiatomic.system.command import encode

# Takes nmount(2)'s options by name; raises OSError if there is no mount.
Nmount = Callable[[Mapping[str, str]], None]


def find_nmount() -> Nmount | None:
    """Return what calls nmount(2), or None on a system that has no such call.

    Options are given as in nmount(2): ``fstype``, ``fspath`` and the file
    system's own; one without a value is the empty string.
    """
    # Loaded by those alone who mount; a python without it still does the rest.
    try:
        import ctypes
    except ImportError:
        return None

    class Iovec(ctypes.Structure):
        """struct iovec of <sys/uio.h>: where some bytes are, and how many."""

        _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))

    call = getattr(ctypes.CDLL(None, use_errno=True), "nmount", None)
    if call is None:
        return None
    call.argtypes = [ctypes.POINTER(Iovec), ctypes.c_uint, ctypes.c_int]

    def nmount(options: Mapping[str, str]) -> None:
        words = [encode(word) for option in options.items() for word in option]
        # The kernel counts the NUL that ends a word, which Python keeps behind it.
        vector = (Iovec * len(words))(*(Iovec(word, len(word) + 1) for word in words))
        if call(vector, len(words), 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    return nmount


def options(source: str, point: str, read_only: bool) -> dict[str, str]:
    """Return nmount(2)'s options for a nullfs mount, those that mount_nullfs(8) passes."""
    mount = {"fstype": "nullfs", "fspath": point, "target": source}
    return mount | ({"ro": ""} if read_only else {})
