"""Comparing what came back from a backup with what is there."""

import os
import stat

from kopiatomic.clients.records import File
from kopiatomic.system import mounts, zfs
from kopiatomic.system.command import CommandFailed, Door
from kopiatomic.system.machine import join, nearest

_BLOCK = 1 << 18

IDENTICAL = "identical"
CHANGED = "changed"


class Comparer:
    """Compares what came back with the live file, or with the file in a ZFS snapshot."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self._points: dict[str, str] | None = None
        self._snapshots: dict[str, list[tuple[str, float]]] = {}

    def compare(self, restored: int, file: File, moment: float, start: int = 0) -> str:
        """Return IDENTICAL, CHANGED, or in words what is wrong with a restored file.

        CHANGED means that nothing on this machine is known to be as it was at the
        ``moment`` of the backup. The content begins at the offset ``start``.
        """
        size = os.fstat(restored).st_size - start
        if size != file.size:
            return f"restored as {size} bytes, but backed up as {file.size}"
        verdict = against(restored, file, file.path, moment, start)
        if verdict == CHANGED:
            for path in self._in_snapshots(file.path, moment):
                verdict = against(restored, file, path, moment, start)
                if verdict != CHANGED:
                    break
        return verdict

    def _in_snapshots(self, path: str, moment: float) -> list[str]:
        """Return ``path`` in the last ZFS snapshot before the backup and the first after it."""
        try:
            if self._points is None:
                table = mounts.table(self.door)
                self._points = {each.point: each.special for each in table if each.type == "zfs"}
            point = nearest(path, self._points)
            if point is None:
                return []
            known = self._snapshots_of(self._points[point])
        except CommandFailed:
            return []
        before = max((each for each in known if each[1] <= moment), key=_when, default=None)
        after = min((each for each in known if each[1] >= int(moment)), key=_when, default=None)
        inside = path if point == "/" else path[len(point) :]
        return [
            join(point, f"/.zfs/snapshot/{each[0]}") + inside for each in (before, after) if each
        ]

    def _snapshots_of(self, dataset: str) -> list[tuple[str, float]]:
        if dataset not in self._snapshots:
            self._snapshots[dataset] = zfs.snapshots_of(self.door, dataset)
        return self._snapshots[dataset]


def _when(snapshot: tuple[str, float]) -> float:
    return snapshot[1]


def against(restored: int, file: File, path: str, moment: float, start: int = 0) -> str:
    """Compare a restored file with the one at ``path``; returns what compare() does.

    The same bytes are the same file whatever its times say. Different ones, or
    another owner, group or mode in the backup, are a fault of the backup only if the
    file is provably as it was then: it has its inode and the time of its last
    change, which nobody can set; kopia does not record these, so there the last
    change must lie before the backup.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        live = os.open(path, flags)
    except (OSError, ValueError):
        return CHANGED
    try:
        before = os.fstat(live)
        if not stat.S_ISREG(before.st_mode) or before.st_size != file.size:
            return CHANGED
        if before.st_mtime_ns != file.mtime:
            return CHANGED
        offset = first_difference(restored, live, start)
        wrong = _other_attributes(file, before) if offset is None else f"byte {offset} on"
        if wrong is None:
            return IDENTICAL
        if file.ctime is None:
            untouched = before.st_ctime_ns < moment * 1e9
        else:
            untouched = (before.st_ctime_ns, before.st_ino) == (file.ctime, file.inode)
        if not untouched or os.fstat(live).st_ctime_ns != before.st_ctime_ns:
            return CHANGED if offset is not None else IDENTICAL
        if offset is None:
            return f"{wrong}, although {path} is unchanged since the backup"
        return f"differs from {wrong}, although {path} is unchanged since the backup"
    except OSError as error:
        return f"{path} cannot be read to compare: {error.strerror}"
    finally:
        os.close(live)


def _other_attributes(file: File, live: os.stat_result) -> str | None:
    """Say in what a file in the backup is not as the live one, beside its content; or None."""
    compared = (
        ("owner", file.owner, live.st_uid, "d"),
        ("group", file.group, live.st_gid, "d"),
        ("mode", file.mode, stat.S_IMODE(live.st_mode), "04o"),
    )
    for name, backed_up, there, form in compared:
        if backed_up is not None and backed_up != there:
            return f"has the {name} {backed_up:{form}} in the backup and {there:{form}} here"
    return None


def first_difference(one: int, other: int, start: int = 0) -> int | None:
    """Return the offset of the first byte in which two files differ, or None.

    The first of them begins at its offset ``start``.
    """
    offset = 0
    while True:
        ours, theirs = os.pread(one, _BLOCK, start + offset), os.pread(other, _BLOCK, offset)
        if ours != theirs:
            same = zip(ours, theirs, strict=False)
            within = next((i for i, (a, b) in enumerate(same) if a != b), None)
            return offset + (min(len(ours), len(theirs)) if within is None else within)
        if not ours:
            return None
        offset += len(ours)
