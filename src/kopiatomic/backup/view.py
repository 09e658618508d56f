"""The view: the live system with the chosen datasets standing still.

It contains the live system, writable. So nothing in here ever deletes anything
but by rmdir(2), which takes empty directories only, and never before the
mount on it is gone; the exceptions are our own TMPDIR's plain files.
"""

import errno
import os
import re
import signal
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

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
    quote,
    reason_of,
)
from kopiatomic.system.kernel import MNT_IGNORE, Kernel
from kopiatomic.system.machine import Mount, join, lies_in

# A network file system that hangs must not hang the backup.
MOUNT_TIME_LIMIT = 120.0

# What open(2) answers where a symbolic link or a file is in the way of a directory.
_NO_DIRECTORY = (errno.ELOOP, errno.EMLINK, errno.ENOTDIR)
LINK = "a symbolic link or a file has taken the place of a directory on the way there"
UNMOUNTED = "somebody has unmounted or destroyed its snapshot meanwhile"
LED_AWAY = "somebody led its path elsewhere meanwhile"
NOTHING = "reported success, and nothing is mounted there"

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


class Misled(CommandFailed):
    """A frozen dataset could not be shown at its mount point; ``dataset`` is which."""

    def __init__(self, dataset: str, error: CommandFailed) -> None:
        super().__init__(error.argv, error.reason)
        self.dataset = dataset


class TakenDown:
    """What taking a view down came to."""

    def __init__(self) -> None:
        self.stopped: list[str] = []  # processes, as "name (pid)"
        self.astray: list[Mount] = []  # frozen mounts that could not be reached any more
        self.left: list[Mount] = []  # what is still mounted
        self.reason = ""  # why it is
        self.unknown = ""  # why the mount table could not be read


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
            source = _walk(mount.source, opened)
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
    mount = _mount_on(door.kernel, directory)
    return "@" in mount.special or mount.point == directory


def _mount_on(kernel: Kernel, directory: str) -> Mount:
    """Return the mount that a directory is on, following no link to it; raises OSError."""
    descriptor = os.open(directory, _ENTER)
    try:
        return kernel.mount_of(descriptor)
    finally:
        os.close(descriptor)


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


# Directories are entered one by one, and no link on the way.
_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _walk(path: str, opened: ExitStack) -> int:
    """Open the directory or file at an absolute ``path``, following no link; raises OSError."""

    def enter(name: str, above: int | None, flags: int = _ENTER) -> int:
        descriptor = os.open(name, flags, dir_fd=above)
        opened.callback(os.close, descriptor)
        return descriptor

    here = enter("/", None)
    *above, last = path.split("/")[1:]
    for part in above:
        here = enter(part, here)
    return enter(last, here, _ENTER & ~os.O_DIRECTORY | os.O_NONBLOCK) if last else here


@contextmanager
def standing_in(target: str) -> Iterator[tuple[str, Callable[[], int]]]:
    """Make ``target``, of the view, the working directory for a while.

    Whoever owns a directory above a mount point can put a symbolic link in its
    place at any time. None is followed on the way, and what is mounted on "."
    cannot be led elsewhere any more.

    Gives what to call the mount point, and a function that opens what is there: it
    changes with what is mounted. Where the mount point is a file, the working
    directory is the one it is in. Raises OSError.
    """
    with ExitStack() as opened:
        *above, name = target.split("/")[1:]
        parent = _walk("/" + "/".join(above), opened)

        def enter(flags: int = os.O_NOFOLLOW | os.O_NONBLOCK) -> int:
            return os.open(name, os.O_RDONLY | os.O_CLOEXEC | flags, dir_fd=parent)

        is_file = stat.S_ISREG(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        here = parent
        if not is_file:
            here = enter(_ENTER)
            opened.callback(os.close, here)
        try:
            back = os.open(".", _ENTER)
        except OSError:
            back = os.open("/", _ENTER)  # from a directory that not even root may open
        opened.callback(os.close, back)
        opened.callback(os.fchdir, back)
        os.fchdir(here)
        yield name if is_file else ".", enter


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
        return _mount_on(door.kernel, mount.point).fsid != mount.fsid
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
            here = _walk(mount.point, opened)
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
