"""Volumes: each is a file in a directory of its own, and its device a symbolic link to that.

FreeBSD has devices there. What is the same: a name below /dev/zvol for each volume unless its
volmode is none, one for each snapshot where snapdev is visible, and none for what was cloned with
`-o volmode=...`, which is a race that ends without one, or with a panic in g_label_taste(). GEOM
looks at a volume whose volmode is not dev: what is in its table of partitions, of which only
that of an MBR is understood here, has a name, too.
"""

from __future__ import annotations

import os

from sandbox.datasets import Dataset, World, size_of
from sandbox.state import PROC, State

BLOCK = 16384
FILE = "volume"


def devices(state: State) -> str:
    """Where the names of the devices are: what each devfs without a ruleset shows as /dev/zvol."""
    return f"{state.base}/dev/full/zvol"


def rounded(text: str) -> str:
    """A size as zfs create -V takes it, in bytes: a multiple of the block size."""
    return str(-(-size_of(text) // BLOCK) * BLOCK)


def raced(state: State, number: int, lost: bool) -> None:
    """Note that a clone has got no device, or that its volmode has been set since."""
    if lost:
        state.set_meta(f"no device {number}", "1")
    else:
        state.run("delete from meta where key = ?", f"no device {number}")


def partitions(path: str) -> list[str]:
    """What GEOM adds to a device's name for each partition in its MBR."""
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError:
        return []
    if len(head) < 512 or head[510:] != b"\x55\xaa" or head[54:57] == b"FAT":
        return []
    return [f"s{number + 1}" for number in range(4) if head[446 + 16 * number + 4]]


def show_devices(world: World) -> None:
    """Make the names of the devices what they have to be."""
    top = devices(world.state)
    wanted = _wanted(world)
    present = {}
    for directory, _, names in os.walk(top):
        for name in names:
            path = f"{directory}/{name}"
            present[path[len(top) + 1:]] = os.readlink(path)
    for name, target in present.items():
        if wanted.get(name) != target:
            os.unlink(f"{top}/{name}")
    for name, target in wanted.items():
        if present.get(name) != target:
            os.makedirs(os.path.dirname(f"{top}/{name}"), exist_ok=True)
            os.symlink(target, f"{top}/{name}")
    for directory, _, _ in os.walk(top, topdown=False):
        if not os.listdir(directory):
            os.rmdir(directory)


def _wanted(world: World) -> dict[str, str]:
    store, found = world.state.store, {}
    for one in world.datasets.values():
        mode = world.value(one, "volmode")[0]
        if one.kind != "volume" or mode == "none" or one.locked:
            continue
        if not world.state.meta(f"no device {one.id}"):
            path = f"{store.dataset(one.id)}/{FILE}"
            found[one.name] = path
            if mode != "dev":
                found |= {f"{one.name}{each}": path for each in partitions(path)}
        if world.value(one, "snapdev")[0] == "visible":
            for each in world.snapshots.get(one.name, []):
                found[each.name] = f"{store.snapshot(one.id, each.id)}/{FILE}"
    return found


def is_open(state: State, what: Dataset) -> bool:
    """Whether any process has the device open."""
    try:
        volume = os.stat(f"{state.store.dataset(what.id)}/{FILE}")
    except OSError:
        return False
    for pid in filter(str.isdigit, os.listdir(PROC)):
        try:
            for descriptor in os.listdir(f"{PROC}/{pid}/fd"):
                found = os.stat(f"{PROC}/{pid}/fd/{descriptor}")
                if (found.st_dev, found.st_ino) == (volume.st_dev, volume.st_ino):
                    return True
        except OSError:
            continue
    return False
