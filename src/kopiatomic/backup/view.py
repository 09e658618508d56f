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
from dataclasses import dataclass, field

from kopiatomic.backup.names import Names
from kopiatomic.backup.plan import Plan, ViewMount
from kopiatomic.system import mounts, nullfs
from kopiatomic.system.command import CommandFailed, Door, chunks, failure, printable, reason_of
from kopiatomic.system.machine import Mount, join, lies_in

# A network file system that hangs must not hang the backup.
MOUNT_TIME_LIMIT = 120.0

# What open(2) answers where a symbolic link or a file is in the way of a directory.
_NO_DIRECTORY = (errno.ELOOP, errno.EMLINK, errno.ENOTDIR)
LINK = "a symbolic link or a file has taken the place of a directory on the way there"

# How often a mount is made anew whose source may have been led elsewhere meanwhile.
TRIES = 5

# How often and how long to wait for a mount table that cannot be read, in seconds.
PATIENCE = (1.0, 1.0, 0.0)

# What a process that the client left in the view gets between TERM and KILL, seconds.
GRACE = 5.0

_FSTAT_LINE = re.compile(r"^\S+\s+(?P<command>.+?)\s+(?P<pid>\d+)\s+(text|wd|root|jail|\S+)\s+/")


@dataclass
class TakenDown:
    """What taking a view down came to."""

    stopped: list[str] = field(default_factory=list)  # processes, as "name (pid)"
    forced: list[str] = field(default_factory=list)  # mounts taken away by force
    left: list[str] = field(default_factory=list)  # mount points that are still mounted
    reason: str = ""  # why they are
    unknown: str = ""  # why the mount table could not be read


def mount_command(mount: ViewMount, names: Names) -> list[str]:
    """Return the command that makes one mount of the view."""
    target = join(names.view, mount.point)
    if mount.kind == "device":
        ruleset = ["-o", f"ruleset={mount.ruleset}"] if mount.ruleset else []
        return ["mount", "-t", "devfs", *ruleset, "devfs", target]
    options = ["-o", "ro"] if mount.read_only else []
    return ["mount_nullfs", *options, mount.source, target]


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
    if gaps:
        private_directory(names.gaps)
    for mount in gaps:
        _make_like(mount.source, mount.point)
        for directory in mount.directories:
            path, live = mount.source, mount.point
            for part in directory.split("/"):
                path, live = f"{path}/{part}", join(live, f"/{part}")
                _make_like(path, live)


def _make_like(path: str, live: str) -> None:
    """Make an empty directory that looks like a live one: its mode, owner and times."""
    found = os.stat(live)
    if not os.path.isdir(path):
        os.mkdir(path, 0o700)
    os.chown(path, found.st_uid, found.st_gid)
    os.chmod(path, stat.S_IMODE(found.st_mode))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def build(door: Door, plan: Plan, say: Callable[[str], None]) -> None:
    """Mount everything, parents first.

    A live mount that cannot be shown is told through ``say`` and left out, if
    the client is not known to need it. Raises CommandFailed for any other.
    """
    for mount in plan.view:
        try:
            _make(door, mount, plan.names)
        except CommandFailed as error:
            if mount.kind != "live" or mount.needed or mount.point in ("/", *plan.live):
                raise
            say(f"{printable(mount.point)} is not in the view: {error.reason}")


def _make(door: Door, mount: ViewMount, names: Names) -> None:
    """Make one mount and see that it is there; raises CommandFailed."""
    argv, target = mount_command(mount, names), join(names.view, mount.point)
    if mount.remote:
        _make_remote(door, argv, target)
        return
    live = mount.point if mount.kind in ("frozen", "live") else "/"
    try:
        for _ in range(TRIES):
            way = way_to(live)
            _make_local(door, mount, argv, target)
            if way_to(live) == way:
                return
            door.run(["umount", target])
    except OSError as error:
        reason = LINK if error.errno in _NO_DIRECTORY else reason_of(error)
        raise CommandFailed(argv, reason) from error
    raise CommandFailed(argv, f"a directory above {printable(live)} changes all the time")


def _make_local(door: Door, mount: ViewMount, argv: Sequence[str], target: str) -> None:
    with standing_in(target) as (here, look):
        before = look()
        options = {}
        if mount.kind != "device":
            options = nullfs.options(mount.source, here, mount.read_only)
        door.mount(argv, options, time_limit=MOUNT_TIME_LIMIT)
        if look() == before:
            raise CommandFailed(argv, "reported success, and nothing is mounted there")


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


def way_to(path: str) -> list[tuple[int, int, int]]:
    """Return what changes if anybody but root changes where the absolute ``path`` leads.

    Of each directory above that is not root's alone: what tells it from others,
    and its last change. Raises OSError if it is no way of directories.
    """
    way = []
    with ExitStack() as opened:
        here = None
        for part in ["/", *path.split("/")[1:-1]]:
            here = os.open(part, _ENTER, dir_fd=here)
            opened.callback(os.close, here)
            found = os.fstat(here)
            open_to_others = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
            if found.st_uid != 0 or open_to_others:
                way.append((found.st_dev, found.st_ino, found.st_ctime_ns))
    return way


@contextmanager
def standing_in(target: str) -> Iterator[tuple[str, Callable[[], tuple[int, int]]]]:
    """Make ``target``, of the view, the working directory for a while.

    Whoever owns a directory above a mount point can put a symbolic link in its
    place at any time. None is followed on the way, and what is mounted on "."
    cannot be led elsewhere any more.

    Gives what to call the mount point, and a function that tells what is there:
    its answer changes with what is mounted. Where the mount point is a file, the
    working directory is the one it is in. Raises OSError.
    """
    with ExitStack() as opened:

        def enter(path: str, above: int | None = None) -> int:
            descriptor = os.open(path, _ENTER, dir_fd=above)
            opened.callback(os.close, descriptor)
            return descriptor

        *above, name = target.split("/")[1:]
        parent = enter("/")
        for part in above:
            parent = enter(part, parent)

        def status() -> os.stat_result:
            return os.stat(name, dir_fd=parent, follow_symlinks=False)

        def look() -> tuple[int, int]:
            found = status()
            return found.st_dev, found.st_ino

        is_file = stat.S_ISREG(status().st_mode)
        here = parent if is_file else enter(name, parent)
        try:
            back = enter(".")
        except OSError:
            back = enter("/")  # a directory that not even root may open
        opened.callback(os.fchdir, back)
        os.fchdir(here)
        yield name if is_file else ".", look


def chroot_command(names: Names, client: Sequence[str]) -> list[str]:
    """Return the command that runs ``client`` inside the view."""
    return ["chroot", names.view, *client]


def take_down(door: Door, directory: str, points: Sequence[str] | None = None) -> TakenDown:
    """Unmount whatever is mounted below ``directory``, the latest first.

    ``points`` are the mount points there, where the mount table has been read
    already. Only what it lists is unmounted: umount(8) would follow the name of
    anything else, and a symbolic link may lead from there to a live mount.

    What runs in the mounts is asked to end, then made to; one that stays busy is
    taken away by force, which nullfs(5) allows at any time.
    """
    outcome = TakenDown()
    left = _mounted(door, directory, outcome) if points is None else points
    if left:
        left = _unmount(door, directory, left, outcome)
    if left:
        _end_processes(door, left, outcome, signal.SIGTERM)
        left = _unmount(door, directory, left, outcome)
    if left:
        _end_processes(door, left, outcome, signal.SIGKILL)
        left = _unmount(door, directory, left, outcome)
    if left:
        forced = left
        left = _unmount(door, directory, left, outcome, "-f")
        outcome.forced = [point for point in forced if point not in left]
    outcome.left = list(left)
    return outcome


def _unmount(
    door: Door, directory: str, points: Sequence[str], outcome: TakenDown, *flags: str
) -> Sequence[str]:
    """Unmount in reverse order; return the points at which something is still mounted."""
    failed = False
    for words in chunks(list(reversed(points))):
        try:
            result = door.run(["umount", *flags, *words], check=False)
        except CommandFailed as error:
            failed, outcome.reason = True, error.reason
            continue
        if result.status != 0:
            failed, outcome.reason = True, failure(result)
    return _mounted(door, directory, outcome) if failed else []


def _mounted(door: Door, directory: str, outcome: TakenDown) -> list[str]:
    """Return the mount points below ``directory``; says so in ``outcome`` if it cannot tell."""
    outcome.unknown = ""
    for pause in PATIENCE:
        try:
            return mounted_below(mounts.table(door), directory)
        except CommandFailed as error:
            outcome.unknown = str(error)
            time.sleep(pause)
    return []


def _end_processes(
    door: Door, points: Sequence[str], outcome: TakenDown, signum: signal.Signals
) -> None:
    """Send a signal to what has files open in ``points`` and wait until it has gone."""
    users = _users(door, points)
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


def _users(door: Door, points: Sequence[str]) -> dict[int, str]:
    """Return the processes that keep mounts busy, by fstat(1): their number and name."""
    users: dict[int, str] = {}
    for words in chunks(list(points)):
        try:
            result = door.run(["fstat", "-f", *words], check=False, time_limit=60.0)
        except CommandFailed:
            continue
        for line in result.stdout.split("\n"):
            match = _FSTAT_LINE.match(line)
            if match and int(match["pid"]) not in (0, 1, os.getpid(), os.getppid()):
                users[int(match["pid"])] = match["command"]
    return users


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def mounted_below(table: Iterable[Mount], directory: str) -> list[str]:
    """Return the mount points in a mount table that lie in ``directory``, in its order."""
    return [mount.point for mount in table if lies_in(mount.point, directory)]


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
    for path in (names.temporary, names.gaps, names.view, names.directory):
        try:
            os.rmdir(path)
        except OSError:
            continue
    return [names.directory] if os.path.lexists(names.directory) else []


def _entries(path: str) -> list["os.DirEntry[str]"]:
    try:
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
