"""FreeBSD's C library, replaced: its system calls for mounts, on a table in memory."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from typing import Any

from kopiatomic.system.kernel import Kernel

RDONLY, NOEXEC, NOSUID, LOCAL = 0x1, 0x4, 0x8, 0x1000
NOSYMFOLLOW, IGNORE, BYFSID, FORCE = 0x400000, 0x00800000, 0x08000000, 0x00080000
NOWAIT = 2

Fsid = tuple[int, int]


class Statfs(ctypes.Structure):
    """struct statfs of <sys/mount.h>, since 64-bit inodes."""

    _fields_ = (
        ("version", ctypes.c_uint32), ("type", ctypes.c_uint32), ("flags", ctypes.c_uint64),
        *((name, ctypes.c_uint64) for name in
          "bsize iosize blocks bfree bavail files ffree sw aw sr ar".split()),
        ("nvnodes", ctypes.c_uint32), ("spare0", ctypes.c_uint32), ("spare", ctypes.c_uint64 * 9),
        ("namemax", ctypes.c_uint32), ("owner", ctypes.c_uint32), ("fsid", ctypes.c_int32 * 2),
        ("charspare", ctypes.c_char * 80), ("fstype", ctypes.c_char * 16),
        ("mntfrom", ctypes.c_char * 1024), ("mnton", ctypes.c_char * 1024),
    )  # fmt: skip


def mounted(
    special: bytes, point: bytes, fstype: bytes, fsid: Fsid = (1, 2), flags: int = LOCAL
) -> Statfs:
    """Return an entry of the mount table."""
    made = Statfs(version=0x20140518, flags=flags)
    made.fstype, made.mntfrom, made.mnton = fstype, special, point
    made.fsid[:] = fsid
    return made


class Library:
    """The calls; each notes what it is given, and fails as often as it is told to.

    ``refusals`` has errno(2) values by the name of a call, to be used up one by one;
    ``does`` is done by an nmount(2) that succeeds, with its options.
    """

    def __init__(self, *table: Statfs, jailed: int = 0) -> None:
        self.table = list(table)
        self.jailed = jailed
        self.rights: dict[str, int] = {}  # other variables of sysctl(8)
        self.given: list[tuple[dict[str, str], int]] = []
        self.unmounted: list[tuple[Fsid, int]] = []
        self.busy: set[Fsid] = set()
        self.refusals: dict[str, list[int]] = {}
        self.message = b""
        self.does: Callable[[dict[str, str]], None] = lambda options: None
        # What an open file or directory is on: by its numbers, or by descriptor for one look.
        self.known: dict[tuple[int, int], Statfs] = {}
        self.shown: dict[int, Statfs] = {}

    def kernel(self) -> Kernel:
        """Return the calls as the program makes them."""
        return Kernel(self, ctypes)  # type: ignore[arg-type]

    def put(self, path: str | os.PathLike[str], entry: Statfs) -> None:
        """Let a file or directory be on a file system."""
        found = os.stat(path)
        self.known[found.st_dev, found.st_ino] = entry

    def _fails(self, name: str) -> bool:
        numbers = self.refusals.get(name)
        if not numbers:
            return False
        ctypes.set_errno(numbers.pop(0))
        return True

    def nmount(self, vector: Any, count: int, flags: int) -> int:
        assert count == len(vector)
        words = [ctypes.string_at(each.base, each.length) for each in vector]
        assert words[-2] == b"errmsg\0"
        assert all(word.endswith(b"\0") and word.count(b"\0") == 1 for word in words[:-2])
        texts = [os.fsdecode(word[:-1]) for word in words[:-2]]
        options = dict(zip(texts[::2], texts[1::2], strict=True))
        self.given.append((options, flags))
        if self._fails("nmount"):
            ctypes.memmove(vector[-1].base, self.message + b"\0", len(self.message) + 1)
            return -1
        self.does(options)
        return 0

    def unmount(self, name: bytes, flags: ctypes.c_int) -> int:
        assert flags.value & BYFSID
        start, first, second = name.split(b":")
        assert start == b"FSID"
        fsid = (int(first), int(second))
        if self._fails("unmount"):
            return -1
        here = [each for each in self.table if tuple(each.fsid) == fsid]
        if not here:
            ctypes.set_errno(errno.ENOENT)
            return -1
        if fsid in self.busy and not flags.value & FORCE:
            ctypes.set_errno(errno.EBUSY)
            return -1
        self.unmounted.append((fsid, flags.value & ~BYFSID))
        self.table.remove(here[0])
        return 0

    def getfsstat(self, buffer: Any, size: ctypes.c_long, mode: int) -> int:
        assert mode == NOWAIT
        if self._fails("getfsstat"):
            return -1
        if buffer is None:
            return len(self.table)
        count = min(len(self.table), size.value // ctypes.sizeof(Statfs))
        data = b"".join(bytes(each) for each in self.table[:count])
        ctypes.memmove(buffer, data, len(data))
        return count

    def fstatfs(self, descriptor: int, buffer: Any) -> int:
        if self._fails("fstatfs"):
            return -1
        found = os.fstat(descriptor)
        entry = self.shown.pop(descriptor, None) or self.known.get(
            (found.st_dev, found.st_ino), mounted(b"/dev/vtbd0", b"/", b"ufs", (0, 0))
        )
        ctypes.memmove(buffer, bytes(entry), ctypes.sizeof(Statfs))
        return 0

    def sysctlbyname(
        self, name: bytes, old: Any, size: Any, new: None, new_size: ctypes.c_size_t
    ) -> int:
        assert name.startswith(b"security.jail.")
        assert (new, new_size.value) == (None, 0)
        if self._fails("sysctlbyname"):
            return -1
        value = self.rights.get(name.decode()) if name != b"security.jail.jailed" else self.jailed
        if value is None:
            ctypes.set_errno(errno.ENOENT)
            return -1
        assert size._obj.value == ctypes.sizeof(ctypes.c_int)
        old._obj.value = value
        return 0
