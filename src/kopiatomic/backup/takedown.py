"""Taking a view down: mounts, what runs in it, and the directories it was made of.

Live file systems are mounted in it. So nothing in here ever deletes anything but by
rmdir(2), which takes empty directories only, and never before the mount on it is gone;
the exceptions are our own TMPDIR's plain files.
"""

import os
import re
import signal
import stat
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress

from kopiatomic.backup.names import Names
from kopiatomic.system import mounts
from kopiatomic.system.command import CommandFailed, Door, printable, quote
from kopiatomic.system.entering import LED_AWAY, mount_on, walk
from kopiatomic.system.machine import Mount, lies_in

# How often and how long to wait for a mount table that cannot be read, in seconds.
PATIENCE = (1.0, 1.0, 0.0)

# What a process that the client left in the view gets between TERM and KILL, seconds.
GRACE = 5.0

# A line of ``fstat -n``: user, command, process, descriptor, device, inode, mode, size, access.
# The command may be anything, even what looks like these: so as much as possible belongs to it.
_FSTAT_LINE = (
    r"^\S+\s+(?P<command>.+)\s(?P<pid>[0-9]+)\s+(?P<use>\S+)\s+(?P<device>0x[0-9a-f]+)"
    r"\s+[0-9]+\s+[0-7]+\s+\S+\s+\S+\s*$"
)


class TakenDown:
    """What taking a view down came to."""

    def __init__(self) -> None:
        self.stopped: list[str] = []  # processes, as "name (pid)"
        self.astray: list[Mount] = []  # frozen mounts that could not be reached any more
        self.left: list[Mount] = []  # what is still mounted
        self.reason = ""  # why it is
        self.unknown = ""  # why the mount table could not be read


def take_down(door: Door, directory: str, below: Sequence[Mount] | None = None) -> TakenDown:
    """Unmount whatever is mounted below ``directory``, the latest first.

    ``below`` is what the mount table has there, where it has been read already. Only
    what it lists is unmounted, and by the number of its file system: to a name,
    a symbolic link may lead from there to a live mount.

    The client, and what it has left running, is asked to end, then made to: that is
    what has its root directory in the mounts. One that stays busy is taken away by
    force, which mounts of mount_nullfs(8) allow at any time.
    """
    outcome = TakenDown()
    if below is None:
        below = _mounted(door, directory, outcome)
        holds = Names("", "", directory).holds + "/"
        frozen = [mount for mount in below if mount.special.startswith(holds)]
        remote = [mount for mount in below if not mount.local]
        outcome.astray = [m for m in frozen if _is_near(m, remote) and _is_astray(door, m)]
    left = _unmount(door, directory, below, outcome)
    for signum in (signal.SIGTERM, signal.SIGKILL):
        if left and _end_processes(door, below, outcome, signum):
            left = _unmount(door, directory, left, outcome)
    outcome.left = _unmount(door, directory, left, outcome, force=True)
    return outcome


def _is_near(mount: Mount, remote: Iterable[Mount]) -> bool:
    """Say whether nothing on the way to a mount lies on another machine, which may not answer."""
    return not any(lies_in(mount.point, each.point) for each in remote)


def _is_astray(door: Door, mount: Mount) -> bool:
    """Say whether the mount point of a mount leads to it no more.

    zfs(8) removes the mount point of a dataset that it renames. Where that lies on the live
    system, it is gone from the view too, or another directory is in its place.
    """
    if door.jailed:
        return not _leads_to(door, mount)
    if door.kernel is None or mount.fsid is None:
        return False
    try:
        return mount_on(door.kernel, mount.point).fsid != mount.fsid
    except OSError:
        return True


def _unmount(
    door: Door, directory: str, below: Sequence[Mount], outcome: TakenDown, force: bool = False
) -> list[Mount]:
    """Unmount in reverse order; return what is still mounted."""
    failed = False
    for mount in reversed(below):
        try:
            if door.jailed and not _leads_to(door, mount):
                raise CommandFailed(["umount", mount.point], LED_AWAY)
            door.unmount(mount.point, mount.fsid, force)
        except CommandFailed as error:
            failed, outcome.reason = True, error.reason
    return _mounted(door, directory, outcome) if failed else []


def _leads_to(door: Door, mount: Mount) -> bool:
    """Say whether the path of a mount leads to it, by no link.

    A jail has to unmount by the path, which might lead to a live mount by now.
    """
    return _device_at(door, mount) is not None


def _device_at(door: Door, mount: Mount) -> int | None:
    """Return the device number of what the path of a mount leads to, if that is the mount."""
    try:
        with ExitStack() as opened:
            here = walk(mount.point, opened)
            if door.kernel is not None:
                found = door.kernel.mount_of(here)
                if found[:3] != mount[:3]:
                    return None
            return os.fstat(here).st_dev & 0xFFFFFFFFFFFFFFFF
    except OSError:
        return None


def _mounted(door: Door, directory: str, outcome: TakenDown) -> list[Mount]:
    """Return the mounts below ``directory``; says so in ``outcome`` if it cannot tell."""
    outcome.unknown = ""
    for pause in PATIENCE:
        try:
            return mounted_below(mounts.table(door), directory)
        except CommandFailed as error:
            outcome.unknown = str(error)
            time.sleep(pause)
    return []


def unmount_by_hand(mount: Mount) -> str:
    """Return the command that unmounts what we could not."""
    return quote(["umount", "-f", mount.point])


def _end_processes(
    door: Door, below: Sequence[Mount], outcome: TakenDown, signum: signal.Signals
) -> bool:
    """Send a signal to what has its root directory in the mounts and wait until it has gone.

    Returns whether there is anything of that kind.
    """
    users = _users(door, below)
    for pid, command in users.items():
        try:
            os.kill(pid, signum)
        except (ProcessLookupError, PermissionError):
            continue
        told = f"{printable(command)} ({pid})"
        if told not in outcome.stopped:
            outcome.stopped.append(told)
    deadline = time.monotonic() + GRACE
    while any(_runs(pid) for pid in users) and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(users)


def _users(door: Door, below: Sequence[Mount]) -> dict[int, str]:
    """Return the processes that run in the mounts, by fstat(1): their number and name.

    They are found by the device that their root directory is on. By the path of a mount
    (``fstat -f``) it would be those of whatever file system that leads to by now; and
    somebody else who looks into the view has the root directory of the machine.
    """
    devices = set(filter(None, (_device(door, mount) for mount in below)))
    if not devices:
        return {}
    try:
        result = door.run(["fstat", "-n"], check=False, time_limit=60.0)
    except CommandFailed:
        return {}
    users: dict[int, str] = {}
    for line in result.stdout.split("\n"):
        match = re.match(_FSTAT_LINE, line)
        if match is None or match["use"] != "root" or int(match["device"], 16) not in devices:
            continue
        if int(match["pid"]) not in (0, 1, os.getpid(), os.getppid()):
            users[int(match["pid"])] = match["command"].strip()
    return users


def _device(door: Door, mount: Mount) -> int | None:
    """Return the device number of a mount, or None if it is not known.

    A jail is not told the numbers of file systems, but is told those of files. What has
    been unmounted has none: its path leads to a live file system by now.
    """
    if mount.fsid:
        return device_of(mount)
    return _device_at(door, mount) if door.jailed and door.kernel is not None else None


def device_of(mount: Mount) -> int:
    """Return the device number under which fstat(1) lists the files of a mount.

    That of ZFS is the whole of its fsid, that of a nullfs the first half.
    """
    low, high = (half & 0xFFFFFFFF for half in mount.fsid or (0, 0))
    return low | high << 32 if mount.type == "zfs" else low


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def mounted_below(table: Iterable[Mount], directory: str) -> list[Mount]:
    """Return what a mount table has in ``directory``, in its order."""
    return [mount for mount in table if lies_in(mount.point, directory)]


def remove_directories(names: Names) -> list[str]:
    """Remove our working directories, each only if it is empty; return what stays.

    Call it when nothing is mounted there any more. What the client left in its
    own TMPDIR goes if it is a plain file; anything else there stays and is told.
    """
    for entry in _entries(names.temporary):
        with suppress(OSError):
            if entry.is_file(follow_symlinks=False):
                os.unlink(entry.path)
    for gap in _entries(names.gaps):
        _remove_empty_tree(gap.path)
    for hold in _entries(names.holds):
        with suppress(OSError):
            os.rmdir(hold.path)
    for path in (names.temporary, names.gaps, names.holds, names.view, names.directory):
        try:
            os.rmdir(path)
        except OSError:
            continue
    return [names.directory] if os.path.lexists(names.directory) else []


def _entries(path: str) -> list["os.DirEntry[str]"]:
    """Return what a directory holds; nothing if it is a symbolic link or not there."""
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            return []
        with os.scandir(path) as entries:
            return list(entries)
    except OSError:
        return []


def _remove_empty_tree(path: str) -> None:
    """Remove a stand-in tree, which consists of empty directories and nothing else."""
    for entry in _entries(path):
        if entry.is_dir(follow_symlinks=False):
            _remove_empty_tree(entry.path)
    try:
        os.rmdir(path)
    except OSError:
        return
