"""Volumes: their devices, and read-only clones of their snapshots, from which they are read.

A snapshot of a volume has no device unless the volume's snapdev is visible, which is the
user's to say. A clone of it has one and takes no space; see zfs-clone(8), zfsprops(7).
"""

import os
import time
from collections.abc import Sequence

from kopiatomic.record import Record
from kopiatomic.system import zfs
from kopiatomic.system.command import CommandFailed, Door, GivenUp, quote
from kopiatomic.system.machine import device_of
from kopiatomic.system.zfs import RUN_PROPERTY, Destroyed, NotDestroyed

# For how long a device is waited for, in seconds, if it is not there when zfs(8) has ended.
WAIT, PAUSE = 40.0, 0.1

# How long it may be busy yet after its last reader has ended, in seconds.
SETTLE = 1.0


# What others that go through whole pools heed: zfs-auto-snapshot and zfstools make no snapshot
# of what is set so, syncoid(8) sends it nowhere.
_LEFT_ALONE = ("com.sun:auto-snapshot=false", "syncoid:sync=false")


class Facts(Record):
    """What there is to know of a volume: its size in bytes, volmode, and whether it is for swap."""

    size: int
    mode: str
    swap: bool = False


def facts_of(door: Door, volumes: Sequence[str]) -> dict[str, Facts]:
    """Return what there is to know of these volumes; raises CommandFailed."""
    columns = "name,volsize,volmode,org.freebsd:swap"
    argv = ["zfs", "list", "-Hp", "-t", "volume", "-o", columns, *volumes]
    rows = [line.split("\t") for line in zfs.lines_of(door.run(argv).stdout)]
    if any(len(row) != 4 or not row[1].isdigit() for row in rows):
        raise CommandFailed(argv, "printed something that is not understood")
    return {name: Facts(int(size), mode, swap == "on") for name, size, mode, swap in rows}


def clone_commands(snapshot: str, clone: str, run: str) -> list[list[str]]:
    """Return the commands that make a clone, marked as ours, and then its device.

    Nobody can write to it, and it is no disk to geom(4). With the volmode that zfsprops(7)
    has by default, and that it would have, GEOM looks at what is on it: partitions and labels
    of the virtual machine's appear on the host, and mirrors are put together. And where the
    clone is made with ``-o volmode=dev``, that comes after the default: GEOM looks at a device
    that goes away meanwhile, upon which there is none in the end, or the kernel panics.
    """
    options = ("readonly=on", "volmode=none", *_LEFT_ALONE, f"{RUN_PROPERTY}={run}")
    words = [word for option in options for word in ("-o", option)]
    return [["zfs", "clone", *words, snapshot, clone], ["zfs", "set", "volmode=dev", clone]]


def clone(door: Door, snapshot: str, name: str, run: str) -> Facts:
    """Make a clone and its device, and return what there is to know of it.

    Raises CommandFailed; the clone may be there all the same.
    """
    argv: list[str] = []
    for argv in clone_commands(snapshot, name, run):
        door.run(argv)
    device = device_of(name)
    if not _appears(device, WAIT):
        raise CommandFailed(argv, f"there is no {device} after {WAIT:g} s")
    return facts_of(door, [name])[name]


def _appears(path: str, seconds: float) -> bool:
    """Wait so long at most for a path to exist, and say whether it does."""
    end = time.monotonic() + seconds
    while not os.path.exists(path):
        if time.monotonic() >= end:
            return False
        time.sleep(PAUSE)
    return True


class Removed(Record):
    """What came of destroying clones; ``strangers`` are snapshots of them that went as well."""

    done: Destroyed = Destroyed()
    strangers: tuple[str, ...] = ()


def destroy(door: Door, clones: Sequence[str]) -> Removed:
    """Destroy exactly these clones of ours, never recursively.

    Whoever snapshots a whole pool snapshots a clone of ours as well, which then could not be
    destroyed: such a snapshot holds nothing but what we have cloned, and goes, by its name. But
    nothing goes of a clone that was promoted (zfs-promote(8)), which has taken over what was
    the volume's. Raises ValueError, before anything is done, for a name that is none of ours.
    """
    if not all(map(zfs.is_like_our_clone, clones)):
        raise ValueError("only clones of ours are ever destroyed")
    left: list[NotDestroyed] = []
    missing: list[str] = []
    strangers: list[str] = []
    for name in clones:
        try:
            done, gone = _destroy_one(door, name)
        except GivenUp as error:
            done, gone = Destroyed(left=(NotDestroyed(name, error.reason),)), []
        left += done.left
        missing += done.missing
        strangers += gone
    return Removed(Destroyed(tuple(left), tuple(missing)), tuple(strangers))


def _destroy_one(door: Door, name: str) -> tuple[Destroyed, list[str]]:
    """Destroy one clone and return what came of it, and the snapshots that stood in the way."""
    done = zfs.destroy_one(door, name)
    if done.left and "busy" in done.left[0].reason:
        time.sleep(SETTLE)
        done = zfs.destroy_one(door, name)
    if not done.left or "has children" not in done.left[0].reason:
        return done, []
    gone: list[str] = []
    for each in _snapshots_since(door, name):
        stays = zfs.destroy_one(door, each).left
        if stays:
            # What is said of the clone does not tell what is in the way.
            look = quote(["zfs", "holds", each])
            reason = (
                f"another program has made the snapshot {each} of it, which stays: "
                f"{stays[0].reason}; if it is held, release it, see: {look}"
            )
            return Destroyed(left=(NotDestroyed(name, reason),)), gone
        gone.append(each)
    return (zfs.destroy_one(door, name), gone) if gone else (done, [])


def _snapshots_since(door: Door, name: str) -> list[str]:
    """Return the snapshots that others have made of a clone; none if it is no clone any more."""
    try:
        origin = door.run(["zfs", "list", "-H", "-o", "origin", name]).stdout.strip()
        if "@" not in origin:
            return []
        argv = ["zfs", "list", "-H", "-d", "1", "-t", "snapshot", "-o", "name", name]
        found = zfs.lines_of(door.run(argv).stdout)
    except GivenUp:
        raise
    except CommandFailed:
        return []
    return [each for each in found if each.startswith(f"{name}@")]
