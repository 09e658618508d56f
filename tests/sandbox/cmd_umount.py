"""umount(8)."""

from __future__ import annotations

import errno
import os

from sandbox.mounts import Mount, MountError, Table, may_mount
from sandbox.standin import options, split_commas, warn
from sandbox.state import State

USAGE = """usage: umount [-fNnv] special ... | node ... | fsid ...
       umount -a | -A [-F fstab] [-fnv] [-h host] [-t type]"""


def main(_name: str, arguments: list[str]) -> int:
    """Each argument is tried; 1 when any failed."""
    try:
        given, rest = options(arguments, "AafNnv", "Fht")
    except ValueError as error:
        warn(f"umount: illegal option -- {error}\n{USAGE}")
        return 1
    everything = "A" in given or "a" in given
    if not rest and not everything:
        warn(USAGE)
        return 1
    force = "f" in given
    with State() as state:
        table = Table(state)
        if everything:
            return _all(table, split_commas(given.get("t", [])), force)
        failed = [word for word in rest if not _one(table, word, force)]
    return 1 if failed else 0


def _all(table: Table, types: list[str], force: bool) -> int:
    failed = False
    for mount in reversed(table.all()):
        if mount.node == "/" or (types and mount.fstype not in types):
            continue
        if any(m.id == mount.id for m in table.all()) and not _remove(table, mount, force):
            failed = True
    return 1 if failed else 0


def _one(table: Table, word: str, force: bool) -> bool:
    mount = _find(table, word)
    if mount:
        return _remove(table, mount, force)
    if os.path.lexists(word):
        warn(f"umount: {word}: not a file system root directory")
    else:
        warn(f"umount: {word}: statfs: No such file or directory")
        warn(f"umount: {word}: unknown file system")
    return False


def _find(table: Table, word: str) -> Mount | None:
    """The latest mount by mount point, by special or by file system id."""
    mounts = list(reversed(table.all()))
    word = word.rstrip("/") or word
    real = os.path.realpath(word)
    # The name as it is comes first; only what the table does not have is looked up by statfs(2).
    for wanted in (lambda m: m.node == word, lambda m: m.special == word,
                   lambda m: m.fsid == word, lambda m: m.node == real):
        found = next(filter(wanted, mounts), None)
        if found:
            return found
    return None


def _remove(table: Table, mount: Mount, force: bool) -> bool:
    try:
        if not may_mount(table.state):
            raise MountError(mount.node, errno.EPERM)
        table.remove(mount, force)
        return True
    except MountError as error:
        warn(f"umount: unmount of {mount.node} failed: {error.text}")
        return False
