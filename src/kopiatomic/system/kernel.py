"""FreeBSD's system calls that Python does not offer, through ctypes.

One call for what would be a program of its own: nmount(2), unmount(2),
getfsstat(2), fstatfs(2), sysctlbyname(3). The layouts are those of FreeBSD 12 and
later (sys/mount.h): 64-bit inodes, struct statfs of 2,344 bytes.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Mapping

from kopiatomic.record import TYPE_CHECKING
from kopiatomic.system.command import decode, encode
from kopiatomic.system.machine import Mount

if TYPE_CHECKING:
    import ctypes
    from typing import Any

# struct statfs: its size, and where the members lie that are read here.
STATFS_BYTES = 2344
_FLAGS = struct.Struct("<Q")
_FSID = struct.Struct("<ii")
_AT_FLAGS, _AT_FSID = 8, 192
_AT_TYPE, _AT_SPECIAL, _AT_POINT = 280, 296, 1320
_TYPE_BYTES, _NAME_BYTES = 16, 1024

# Do not ask the file systems, of which some may not answer: take what the kernel knows.
_MNT_NOWAIT = 2

_MNT_RDONLY, _MNT_LOCAL = 0x1, 0x1000

# Flags of a mount that another mount of the same files must not lose.
_KEPT = ((0x4, "noexec"), (0x8, "nosuid"), (0x400000, "nosymfollow"))

# nmount(2)'s flag for what mount(8) and df(1) need not show.
MNT_IGNORE = 0x00800000

_MNT_FORCE, _MNT_BYFSID = 0x00080000, 0x08000000

# nmount(2) says here what its error number does not.
_ERROR_BYTES = 255


class Kernel:
    """The calls; each raises OSError where the system call fails."""

    def __init__(self, library: ctypes.CDLL, ctypes: Any) -> None:
        self._library = library
        self._ctypes = ctypes

        class Iovec(ctypes.Structure):  # type: ignore[misc, name-defined, unused-ignore]
            """struct iovec of <sys/uio.h>: where some bytes are, and how many."""

            _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

        self._iovec: Any = Iovec

    def mount(self, options: Mapping[str, str], flags: int = 0) -> None:
        """Make a mount, by nmount(2); an option that has no value is given as ""."""
        ctypes = self._ctypes
        words = [encode(word) for option in options.items() for word in option]
        message = ctypes.create_string_buffer(_ERROR_BYTES)
        # The kernel counts the NUL that ends a word, which Python keeps behind it.
        buffers = [ctypes.create_string_buffer(word) for word in (*words, b"errmsg")]
        lengths = [len(word) + 1 for word in (*words, b"errmsg")]
        vector = (self._iovec * (len(buffers) + 1))()
        for slot, buffer, length in zip(vector, [*buffers, message], [*lengths, 255], strict=True):
            slot.base, slot.length = ctypes.addressof(buffer), length
        if self._library.nmount(vector, len(vector), flags) != 0:
            number = ctypes.get_errno()
            reason, said = os.strerror(number), decode(message.value)
            raise OSError(number, f"{reason} ({said})" if said not in ("", reason) else reason)

    def unmount(self, fsid: tuple[int, int], force: bool = False) -> None:
        """Take a mount away by the number of its file system, wherever its path leads."""
        flags = _MNT_BYFSID | (_MNT_FORCE if force else 0)
        name = b"FSID:%d:%d" % fsid
        self._check(self._library.unmount(name, self._ctypes.c_int(flags)))

    def mounts(self) -> list[Mount]:
        """Return the mount table by getfsstat(2), in the order in which it was mounted."""
        ctypes = self._ctypes
        room = self._library.getfsstat(None, ctypes.c_long(0), _MNT_NOWAIT)
        self._check(room)
        while True:
            # Something may be mounted meanwhile: a table that fills all the room may be longer.
            room += 8
            buffer = ctypes.create_string_buffer(room * STATFS_BYTES)
            size = ctypes.c_long(room * STATFS_BYTES)
            count = self._library.getfsstat(buffer, size, _MNT_NOWAIT)
            self._check(count)
            if count < room:
                break
            room *= 2
        view = memoryview(buffer)
        starts = range(0, count * STATFS_BYTES, STATFS_BYTES)
        return [mount_in(view[start : start + STATFS_BYTES]) for start in starts]

    def mount_of(self, descriptor: int) -> Mount:
        """Return the mount that an open file or directory is on, by fstatfs(2)."""
        buffer = self._ctypes.create_string_buffer(STATFS_BYTES)
        self._check(self._library.fstatfs(descriptor, buffer))
        return mount_in(memoryview(buffer))

    def number(self, name: str) -> int:
        """Return a value of the system's that is an int, by sysctlbyname(3)."""
        ctypes = self._ctypes
        value = ctypes.c_int(0)
        size = ctypes.c_size_t(ctypes.sizeof(value))
        pointers = ctypes.byref(value), ctypes.byref(size)
        name_as_bytes = encode(name)
        self._check(self._library.sysctlbyname(name_as_bytes, *pointers, None, ctypes.c_size_t(0)))
        return int(value.value)

    def _check(self, result: int) -> None:
        if result < 0:
            number = self._ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def find_kernel() -> Kernel | None:
    """Return the calls, or None where there is no ctypes or no such system."""
    # Loaded by those alone who need it; a python without it still does the rest.
    try:
        import ctypes
    except ImportError:
        return None
    library = ctypes.CDLL(None, use_errno=True)
    wanted = ("nmount", "unmount", "getfsstat", "fstatfs", "sysctlbyname")
    return Kernel(library, ctypes) if all(hasattr(library, name) for name in wanted) else None


def mount_in(record: memoryview) -> Mount:
    """Return the mount that a struct statfs describes; its names are bytes as they are.

    In a jail it does not tell the number of the file system: see kern_statfs() in
    sys/kern/vfs_syscalls.c.
    """
    flags = _FLAGS.unpack_from(record, _AT_FLAGS)[0]
    fsid = _FSID.unpack_from(record, _AT_FSID)
    return Mount(
        special=_text(record, _AT_SPECIAL, _NAME_BYTES),
        point=_text(record, _AT_POINT, _NAME_BYTES),
        type=sys.intern(_text(record, _AT_TYPE, _TYPE_BYTES)),
        read_only=bool(flags & _MNT_RDONLY),
        local=bool(flags & _MNT_LOCAL),
        options=tuple(name for flag, name in _KEPT if flags & flag),
        fsid=(fsid[0], fsid[1]) if any(fsid) else None,
    )


def _text(record: memoryview, start: int, length: int) -> str:
    return decode(record[start : start + length].tobytes().split(b"\0", 1)[0])
