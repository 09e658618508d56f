"""fstat [-fmnv] [-p PID] [-u USER] [PATH ...]: which processes use which files.

As usr.bin/fstat has it: -f follows the paths, and means the file systems that they lead to now;
-n prints a file system as its number, in hexadecimal, and a mode in octal. Of files that are no
files, pipes and sockets are listed where nothing was asked for.
"""

from __future__ import annotations

import os
import stat

from sandbox.kernel import mount_id
from sandbox.mounts import Mount, Table
from sandbox.standin import options, warn
from sandbox.state import PROC, State

HEADER = "USER     CMD          PID   FD MOUNT      INUM MODE         SZ|DV R/W"
NUMERIC = "USER     CMD          PID   FD  DEV    INUM       MODE SZ|DV R/W"
USAGE = "usage: fstat [-fmnv] [-M core] [-N system] [-p pid] [-u user] [file ...]"


def main(_name: str, arguments: list[str]) -> int:
    """The header always; then a line for each use."""
    try:
        given, paths = options(arguments, "fmnv", "puMN")
    except ValueError as error:
        warn(f"fstat: illegal option -- {error}\n{USAGE}")
        return 1
    if "f" in given and not paths:
        paths = ["."]
    missing = [path for path in paths if not os.path.exists(path)]
    for path in missing:
        warn(f"fstat: {path}: No such file or directory")
    there = [path for path in paths if path not in missing]
    if paths and not there:
        return 1
    view = View("n" in given)
    if paths:
        # Where the path leads: stat(2), and its st_dev.
        view.wanted = {m.id for m in map(view.mount_of, there) if m}
        if "f" not in given:
            view.files = {(os.stat(path).st_dev, os.stat(path).st_ino): path for path in there}
    named = " NAME" if view.files else ""
    print((NUMERIC if "n" in given else HEADER) + named)
    for pid in sorted(int(name) for name in os.listdir(PROC) if name.isdigit()):
        if pid != os.getpid() and given.get("p", [str(pid)])[-1] == str(pid):
            _process(pid, view, given.get("u", [""])[-1])
    return 0


class View:
    """The mount table, and what of it was asked for."""

    def __init__(self, numeric: bool) -> None:
        self.numeric = numeric
        self.wanted: set[int] | None = None
        self.files: dict[tuple[int, int], str] = {}
        self.users = _users()
        self._known: dict[int, Mount | None] = {}

    def mount_of(self, path: str) -> Mount | None:
        """The mount that something is on, None for one that was taken away."""
        number = mount_id(path, PROC)
        if number not in self._known:
            with State() as state:
                self._known[number] = Table(state).numbered(number)
        return self._known[number]


def _process(pid: int, view: View, only: str) -> None:
    base = f"{PROC}/{pid}"
    try:
        with open(f"{base}/comm") as file:
            command = file.read().strip()
        owner = os.stat(base).st_uid
        user = view.users.get(owner, str(owner))
        # A jailed process is one whose root is not /: fstat says so as well.
        uses = [("text", "exe"), ("wd", "cwd"), ("root", "root")]
        uses += [("jail", "root")] if mount_id(f"{base}/root", PROC) != mount_id("/", PROC) else []
        uses += [(fd, f"fd/{fd}") for fd in sorted(os.listdir(f"{base}/fd"), key=int)]
    except OSError:
        return
    if only and user != only:
        return
    for word, name in uses:
        try:
            line = _line(view, base, name)
        except OSError:
            continue
        if line:
            print(f"{user:<8.8} {command:<10} {pid:>5} {word:>4}{line}")


def _line(view: View, base: str, name: str) -> str:
    status = os.stat(f"{base}/{name}")
    kind = stat.S_IFMT(status.st_mode)
    target = os.readlink(f"{base}/{name}")
    access = _access(base, name)
    if target.startswith(("pipe:", "socket:", "anon_inode:")):
        if view.wanted is not None:
            return ""
        if kind == stat.S_IFSOCK:
            return f"* local stream {status.st_ino:x}"
        return f"* pipe {status.st_ino:>8x} <-> {status.st_ino:>8x} {0:>6} {access:>2}"
    mount = view.mount_of(f"{base}/{name}")
    if view.wanted is not None and (mount is None or mount.id not in view.wanted):
        return ""
    path = view.files.get((status.st_dev, status.st_ino), "")
    if view.files and not path:
        return ""
    if mount is None:
        return f" -         -  {'bad':>10}    -"
    where = f"{mount.device:#5x}" if view.numeric else f"{mount.node:<8}"
    # strmode(3) ends in a blank.
    mode = f"{status.st_mode:o}" if view.numeric else f"{stat.filemode(status.st_mode)} "
    size = f"{status.st_size:>6}"
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        size = f"{status.st_rdev:#6x}" if view.numeric else f"{os.path.basename(target):>6}"
    tail = f"  {path}" if path else ""
    return f" {where} {status.st_ino:>6} {mode:>10} {size} {access:>2}{tail}"


def _access(base: str, name: str) -> str:
    if not name.startswith("fd/"):
        return "r"
    with open(f"{base}/fdinfo/{name[3:]}") as lines:
        flags = next(int(line.split()[1], 8) for line in lines if line.startswith("flags:"))
    return ("r", "w", "rw")[flags & 3] if flags & 3 < 3 else "r"


def _users() -> dict[int, str]:
    with open("/etc/passwd") as lines:
        found = [line.split(":") for line in lines]
    return {int(words[2]): words[0] for words in reversed(found)}
