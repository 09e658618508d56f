"""The view: the live system with the chosen datasets standing still.

It contains the live system, writable, so nothing in here deletes anything; see takedown.py.
"""

import errno
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from kopiatomic import state
from kopiatomic.backup.names import Names
from kopiatomic.backup.plan import Hold, Plan, ViewMount
from kopiatomic.clients import programs
from kopiatomic.record import Record
from kopiatomic.system import mounts
from kopiatomic.system.command import (
    CommandFailed,
    Door,
    MountRefused,
    printable,
    reason_of,
)
from kopiatomic.system.entering import LED_AWAY, mount_on, standing_in, walk
from kopiatomic.system.kernel import MNT_IGNORE
from kopiatomic.system.machine import Mount, join, lies_in

# A network file system that hangs must not hang the backup.
MOUNT_TIME_LIMIT = 120.0

# What open(2) answers where a symbolic link or a file is in the way of a directory.
_NO_DIRECTORY = (errno.ELOOP, errno.EMLINK, errno.ENOTDIR)
LINK = "a symbolic link or a file has taken the place of a directory on the way there"
UNMOUNTED = "somebody has unmounted or destroyed its snapshot meanwhile"
NOTHING = "reported success, and nothing is mounted there"


class Misled(CommandFailed):
    """A frozen dataset could not be shown at its mount point; ``dataset`` is which."""

    def __init__(self, dataset: str, error: CommandFailed) -> None:
        super().__init__(error.argv, error.reason)
        self.dataset = dataset


class Lost(Record):
    """Why a dataset is lost to a run; ``gone`` if it is there no more, ``told`` if it is known."""

    reason: str
    gone: bool
    told: bool = False


def mount_command(mount: ViewMount, names: Names) -> list[str]:
    """Return the command that makes one mount of the view."""
    target = join(names.view, mount.point)
    if mount.kind == "device":
        ruleset = ["-o", f"ruleset={mount.ruleset}"] if mount.ruleset else []
        return ["mount", "-t", "devfs", *ruleset, "devfs", target]
    options = [*(["ro"] if mount.read_only else []), *mount.options]
    flags = ["-o", ",".join(options)] if options else []
    return ["mount_nullfs", *flags, mount.source, target]


def hold_command(hold: Hold) -> list[str]:
    """Return the command that mounts a snapshot at our private place for it."""
    return ["mount", "-t", "zfs", "-o", "ro,nosuid", hold.snapshot, hold.directory]


def options_of(mount: ViewMount, point: str) -> dict[str, str]:
    """Return nmount(2)'s options for a mount of the view, those that the programs pass."""
    if mount.kind == "device":
        ruleset = {"ruleset": mount.ruleset} if mount.ruleset else {}
        return {"fstype": "devfs", "fspath": point, "from": "devfs", **ruleset}
    options = {"fstype": "nullfs", "fspath": point, "target": mount.source}
    if mount.read_only:
        options["ro"] = ""
    return options | dict.fromkeys(mount.options, "")


def prepare(plan: Plan, private_directory: Callable[[str], None]) -> None:
    """Make the directories that the view needs.

    Before the snapshot, so that those which lie in a frozen file system are in it.
    """
    names = plan.names
    private_directory(names.directory)
    private_directory(names.view)
    if plan.temporary is not None:
        private_directory(plan.temporary)
    gaps = [mount for mount in plan.view if mount.kind == "gap"]
    closed = any(mount.kind == "closed" for mount in plan.view)
    if gaps or closed:
        private_directory(names.gaps)
    if closed and not os.path.isdir(names.closed):
        os.mkdir(names.closed, 0o555)
    for mount in gaps:
        pairs = {mount.source: mount.point}
        for directory in mount.directories:
            path, live = mount.source, mount.point
            for part in directory.split("/"):
                path, live = f"{path}/{part}", join(live, f"/{part}")
                pairs[path] = live
        for path, live in pairs.items():
            _make_like(path, live)
        # The innermost first: to make a directory changes the times of the one it is in.
        for path, live in reversed(pairs.items()):
            _date_like(path, live)


def make_places(plan: Plan) -> list[str]:
    """Make the directories that the client will write to where they do not exist yet.

    The client would make them itself, but not where the view is frozen. They are its
    own and closed to others, as it makes them. Returns what to say of those that
    cannot be made.
    """
    notes = []
    for place in plan.written:
        if not os.path.lexists(place):
            try:
                os.makedirs(place, 0o700)
            except OSError as error:
                notes.append(f"{printable(place)} cannot be made: {reason_of(error)}")
    return notes


def _make_like(path: str, live: str) -> None:
    """Make an empty directory that looks like a live one: its mode and owner.

    One that has gone meanwhile, with the dataset that was mounted there, is made all the
    same: that this dataset is lost is found out later.
    """
    if not os.path.isdir(path):
        os.mkdir(path, 0o700)
    try:
        found = os.stat(live)
    except FileNotFoundError:
        return
    os.chown(path, found.st_uid, found.st_gid)
    os.chmod(path, stat.S_IMODE(found.st_mode))


def _date_like(path: str, live: str) -> None:
    """Give a directory the times of a live one."""
    try:
        found = os.stat(live)
    except FileNotFoundError:
        return
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


# The snapshots, at places of our own


def hold_all(door: Door, plan: Plan) -> dict[str, Lost]:
    """Mount each snapshot at a private place; return the datasets whose snapshot could not be.

    A snapshot that is mounted so does not need ``.zfs``, and the live dataset can be
    unmounted, renamed or rolled back meanwhile; with a nullfs on it, it cannot be
    destroyed either. Raises CommandFailed if the places cannot be made.
    """
    lost = {}
    try:
        os.mkdir(plan.names.holds, 0o700)
        for hold in plan.holds:
            os.mkdir(hold.directory, 0o700)
    except OSError as error:
        raise CommandFailed(["mkdir", plan.names.holds], reason_of(error)) from error
    for hold in plan.holds:
        try:
            _hold(door, hold)
        except CommandFailed as error:
            gone = isinstance(error, MountRefused) and error.number == errno.ENOENT
            lost[hold.dataset] = Lost(error.reason, gone)
    return lost


def _hold(door: Door, hold: Hold) -> None:
    argv = hold_command(hold)
    options = {
        "fstype": "zfs", "fspath": hold.directory, "from": hold.snapshot, "ro": "", "nosuid": "",
    }  # fmt: skip
    before = _numbers(hold.directory)
    try:
        door.mount(argv, options, MNT_IGNORE, time_limit=MOUNT_TIME_LIMIT)
    except MountRefused as error:
        if error.number != errno.EBUSY:
            raise
        shown = [mount for mount in mounts.table(door) if mount.special == hold.snapshot]
        if hold.existing is not None and _is_in_use(door, shown):
            _show_again(door, hold, shown[0])
            return
        # Somebody has looked into .zfs/snapshot, where ZFS mounted it by itself.
        for mount in shown if hold.existing is None else ():
            door.unmount(mount.point, mount.fsid)
        door.mount(argv, options, MNT_IGNORE, time_limit=MOUNT_TIME_LIMIT)
    if door.kernel is None and _numbers(hold.directory) == before:
        raise CommandFailed(argv, NOTHING)


def _is_in_use(door: Door, shown: Sequence[Mount]) -> bool:
    """Say whether somebody needs a mount of his snapshot; one that nobody does is taken away.

    That is one that he made himself, or that ZFS made when he looked into .zfs/snapshot,
    and where he still is. Raises CommandFailed if it is one of ours: with a nullfs on it,
    that job could not unmount it.
    """
    ours = [f"{os.path.realpath(state.RUN_ROOT)}/{program}" for program in programs()]
    for mount in shown:
        if any(lies_in(mount.point, each) for each in ours):
            raise CommandFailed(
                ["mount", mount.special],
                f"another job backs it up just now, at {mount.point}; "
                "let one run after the other",
            )
        if "/.zfs/snapshot/" not in mount.point:
            return True
        try:
            door.unmount(mount.point, mount.fsid)
        except CommandFailed:
            return True
    return False


def _show_again(door: Door, hold: Hold, mount: Mount) -> None:
    """Show a snapshot at our private place from where it is mounted, which can be only once."""
    argv = ["mount_nullfs", "-o", "ro,nosuid", mount.point, hold.directory]
    options = {
        "fstype": "nullfs", "fspath": hold.directory, "target": mount.point, "ro": "", "nosuid": "",
    }  # fmt: skip
    door.mount(argv, options, MNT_IGNORE, time_limit=MOUNT_TIME_LIMIT)


def _numbers(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


# The view


def build(door: Door, plan: Plan, say: Callable[[str], None]) -> list[str]:
    """Mount everything, parents first.

    A live mount that cannot be shown is told through ``say`` and left out, if the
    client is not known to need it: it does without a cache, too; their mount points are
    returned. What cannot be closed, a mount point that has gone or is a file, stays as it
    is. Raises Misled for a frozen dataset that cannot be shown, CommandFailed for any other.
    """
    missing = []
    wanted = {"/", plan.temporary, *plan.live}.difference(
        place for place in plan.written if place != plan.temporary
    )
    for mount in plan.view:
        try:
            _make(door, mount, plan.names)
        except CommandFailed as error:
            if mount.kind == "frozen":
                raise Misled(mount.dataset, error) from error
            if mount.kind == "closed":
                continue
            if mount.kind != "live" or mount.needed or mount.point in wanted:
                raise
            say(f"{printable(mount.point)} is not in the view: {error.reason}")
            missing.append(mount.point)
    return missing


def _make(door: Door, mount: ViewMount, names: Names) -> None:
    """Make one mount and see that it is there; raises CommandFailed."""
    argv, target = mount_command(mount, names), join(names.view, mount.point)
    if mount.remote:
        _make_remote(door, argv, target)
        return
    try:
        _make_local(door, mount, argv, target)
    except OSError as error:
        reason = LINK if error.errno in _NO_DIRECTORY else reason_of(error)
        raise CommandFailed(argv, reason) from error


def _make_local(door: Door, mount: ViewMount, argv: Sequence[str], target: str) -> None:
    with standing_in(target) as (here, enter):
        before = _what_is(door, enter)
        door.mount(argv, options_of(mount, here), MNT_IGNORE, time_limit=MOUNT_TIME_LIMIT)
        made = _what_is(door, enter)
        if made == before:
            raise CommandFailed(argv, NOTHING)
        held = mount.kind == "frozen" and mount.source != mount.point  # not what stands still
        if held and not _is_held(door, mount.source):
            _undo(door, target, made)
            raise CommandFailed(argv, UNMOUNTED)
        if _is_to_check(door, mount) and not _is_meant(door, mount, made):
            _undo(door, target, made)
            raise CommandFailed(argv, LED_AWAY)


def _undo(door: Door, target: str, made: "_Seen") -> None:
    """Take away a mount that shows what it should not; raises CommandFailed.

    By mounting on it, the kernel has moved our working directory onto the mount, which keeps
    it busy: mountcheckdirs() of FreeBSD's vfs_mount.c.
    """
    os.chdir("/")
    door.unmount(target, made.fsid)


class _Seen(Record):
    """What a name leads to at a moment: its file system, where that can be told, and inode."""

    fsid: tuple[int, int] | None
    device: int
    inode: int


def _what_is(door: Door, enter: Callable[[], int]) -> _Seen:
    """Say what is at the place that ``enter`` opens; raises OSError."""
    descriptor = enter()
    try:
        found = os.fstat(descriptor)
        on = door.kernel.mount_of(descriptor) if door.kernel else None
        return _Seen(on.fsid if on else None, found.st_dev, found.st_ino)
    finally:
        os.close(descriptor)


def _is_to_check(door: Door, mount: ViewMount) -> bool:
    """Say whether a nullfs may show another directory than the one that was meant.

    Of those who have the kernel's word for it: by the number of the file system, or, in a
    jail, which is told none, of what is live.
    """
    if mount.fsid:
        return mount.kind in ("live", "frozen")
    return door.jailed and mount.kind == "live"


def _is_meant(door: Door, mount: ViewMount, made: _Seen) -> bool:
    """Say whether a nullfs shows the directory of the live file system that was meant.

    Whoever owns a directory above could have led the path of it elsewhere in the
    very moment: a nullfs has the inode numbers of what is below it.
    """
    try:
        with ExitStack() as opened:
            source = walk(mount.source, opened)
            found = _what_is(door, lambda: os.dup(source))
    except OSError:
        return False
    return (found.fsid, found.inode) == (mount.fsid, made.inode)


def _is_held(door: Door, directory: str) -> bool:
    """Say whether a snapshot is mounted at a private place still; also if that is not known.

    Until there is a nullfs on it, any ``zfs destroy`` takes it away, without a word, and so does
    ``zfs promote`` of a clone, which unmounts all snapshots of where that came from.
    """
    if door.kernel is None:
        return True
    mount = mount_on(door.kernel, directory)
    return "@" in mount.special or mount.point == directory


def _make_remote(door: Door, argv: Sequence[str], target: str) -> None:
    """Make a mount of what lies on another machine, by programs that can be given up.

    This process must not wait for it, so it does not even look at it.
    """
    real = door.run(["realpath", target], time_limit=MOUNT_TIME_LIMIT).stdout
    if real.removesuffix("\n") != target:
        raise CommandFailed(argv, LINK)
    door.run(argv, time_limit=MOUNT_TIME_LIMIT)
    if target not in (each.point for each in mounts.table(door)):
        raise CommandFailed(argv, "it is not mounted there, perhaps elsewhere: see mount -v")
