"""fstat -f PATH ...: which processes use files on the mounts that the paths are on."""

from __future__ import annotations

import os
import stat

from sandbox.kernel import mount_id
from sandbox.mounts import Table
from sandbox.standin import options, warn
from sandbox.state import PROC, State

HEADER = "USER     CMD          PID   FD MOUNT      INUM MODE         SZ|DV R/W"


def main(_name: str, arguments: list[str]) -> int:
    """The header always; then a line for each use."""
    given, paths = options(arguments, "fmnv", "pu")
    missing = [path for path in paths if not os.path.exists(path)]
    for path in missing:
        warn(f"fstat: {path}: No such file or directory")
    with State() as state:
        nodes = {m.kernel: m.node for m in Table(state).all()}
    wanted = {mount_id(path, PROC) for path in paths if path not in missing}
    if missing and not wanted:
        return 1
    if not paths:
        wanted = set(nodes)
    users = _users()
    print(HEADER)
    for pid in sorted(int(name) for name in os.listdir(PROC) if name.isdigit()):
        if pid != os.getpid() and given.get("p", [str(pid)])[-1] == str(pid):
            _process(pid, wanted, nodes, users)
    return 0


def _process(pid: int, wanted: set[int], nodes: dict[int, str], users: dict[int, str]) -> None:
    base = f"{PROC}/{pid}"
    try:
        with open(f"{base}/comm") as file:
            command = file.read().strip()
        user = users.get(os.stat(base).st_uid, str(os.stat(base).st_uid))
        # A jailed process is one whose root is not /: fstat says so as well.
        uses = [("text", "exe"), ("wd", "cwd"), ("root", "root")]
        uses += [("jail", "root")] if mount_id(f"{base}/root", PROC) != mount_id("/", PROC) else []
        uses += [(fd, f"fd/{fd}") for fd in sorted(os.listdir(f"{base}/fd"), key=int)]
    except OSError:
        return
    for word, name in uses:
        number = mount_id(f"{base}/{name}", PROC)
        if number not in wanted:
            continue
        try:
            status = os.stat(f"{base}/{name}")
            access = _access(base, name)
        except OSError:
            continue
        print(f"{user:<8.8} {command:<10.10} {pid:>5} {word:>4} {nodes.get(number, '-'):<8}"
              f" {status.st_ino:>6} {stat.filemode(status.st_mode):>10} {status.st_size:>7}"
              f" {access:>2}")


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
