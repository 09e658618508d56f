"""zfs destroy: all of what is asked for, or nothing.

A snapshot that is mounted itself is unmounted first, by force, whatever then comes of destroying
it; FreeBSD's readers get EIO then, the sandbox's read on (see mounts.py).
"""

from __future__ import annotations

import os

from sandbox import volumes
from sandbox.cmd_zfs import Usage
from sandbox.datasets import Dataset, MountError, Snapshot, World, cannot_unmount
from sandbox.standin import options, warn
from sandbox.state import State

NONE_FOUND = "could not find any snapshots to destroy; check snapshot names."


def run(state: State, _command: str, arguments: list[str]) -> int:
    """`zfs destroy ...`."""
    try:
        given, words = options(arguments, "rRfdnvp", "")
    except ValueError as error:
        raise Usage(f"invalid option '{error}'") from None
    if len(words) != 1:
        raise Usage("missing dataset argument" if not words else "too many arguments")
    world = World(state)
    name, at, spec = words[0].partition("@")
    if name not in world.datasets:
        warn(f"cannot open '{name}': dataset does not exist")
        return 1
    if not world.is_ours(world.datasets[name]):
        what = f"cannot destroy '{name}'" if not at else "cannot destroy snapshots"
        warn(f"{what}: permission denied")
        return 1
    kind = world.datasets[name].kind
    if at:
        status = _snapshots(world, given, name, spec)
    else:
        status = _dataset(world, given, world.datasets[name])
    if kind == "volume" or "r" in given or "R" in given:
        world.reload()
        volumes.show_devices(world)
    return status


def _snapshots(world: World, given: dict[str, list[str]], name: str, spec: str) -> int:
    recursive = "r" in given or "R" in given
    found: list[Snapshot] = []
    for dataset in world.below(name) if recursive else [world.datasets[name]]:
        found += _matching(world.snapshots.get(dataset.name, []), spec)
    if not found:
        warn(NONE_FOUND)
        return 1
    if "v" in given or "n" in given:
        _announce(given, found)
    if "n" in given:
        return 0
    if world.pools[found[0].of.pool][2]:
        warn("cannot destroy snapshots: pool is read-only")
        return 1
    return _destroy(world, given, found)


def _announce(given: dict[str, list[str]], found: list[Snapshot]) -> None:
    parsable = "p" in given
    if "v" in given:
        for one in found:
            word = "would destroy" if "n" in given else "will destroy"
            print(f"destroy\t{one.name}" if parsable else f"{word} {one.name}")
        print("reclaim\t0" if parsable else
              f"would reclaim 0B" if "n" in given else "will reclaim 0B")  # noqa: F541


def _matching(snapshots: list[Snapshot], spec: str) -> list[Snapshot]:
    """Comma lists and ranges with %."""
    chosen = []
    names = [s.short for s in snapshots]
    for part in spec.split(","):
        first, percent, last = part.partition("%")
        if not percent:
            chosen += [s for s in snapshots if s.short == part]
            continue
        low = names.index(first) if first in names else 0 if not first else len(names)
        high = names.index(last) if last in names else len(names) - 1 if not last else -1
        chosen += snapshots[low:high + 1]
    return chosen


def _destroy(world: World, given: dict[str, list[str]], found: list[Snapshot]) -> int:
    defer = "d" in given
    blocked = []
    for one in found:
        clones = world.clones(one)
        if clones and not defer:
            blocked.append(f"cannot destroy '{one.name}': snapshot has dependent clones\n"
                           "use '-R' to destroy the following datasets:\n" + "\n".join(clones))
    if not blocked:
        world.let_go(found)
        for one in found:
            if world.busy(one) or (world.holds.get(one.id) and not defer):
                blocked.append(f"cannot destroy snapshot {one.name}: dataset is busy")
    if blocked:
        warn("\n".join(blocked))
        return 1
    later = [s for s in found if world.holds.get(s.id) or world.clones(s)]
    for one in later:
        world.state.run("update snapshots set defer = 1 where id = ?", one.id)
    drop(world, [s for s in found if s not in later])
    return 0


def drop(world: World, unwanted: list[Snapshot]) -> None:
    """Forget first, then remove the files: killed in between, only garbage is left."""
    state = world.state
    state.begin()
    world.drop(unwanted)
    state.next_txg()
    state.commit()
    state.store.drop([(s.of.id, s.id) for s in unwanted])


def _dataset(world: World, given: dict[str, list[str]], what: Dataset) -> int:
    children = [d.name for d in world.children(what.name)]
    snapshots = [s.name for d in world.below(what.name) for s in world.snapshots.get(d.name, [])]
    if (children or snapshots) and "r" not in given and "R" not in given:
        listed = "\n".join(sorted(children + snapshots))
        warn(f"cannot destroy '{what.name}': {what.kind} has children\n"
             f"use '-r' to destroy the following datasets:\n{listed}")
        return 1
    if "n" in given:
        return 0
    for one in reversed(world.below(what.name)):
        point, source = world.mountpoint(one)
        world.let_go(world.snapshots.get(one.name, []))
        try:
            world.unmount(one, "f" in given)
        except MountError as error:
            warn(cannot_unmount(error))
            return 1
        if not source.startswith("local") and point.startswith("/"):
            try:  # noqa: SIM105
                os.rmdir(point)
            except OSError:
                pass
        busy = [s for s in world.snapshots.get(one.name, [])
                if world.clones(s) or world.holds.get(s.id) or world.busy(s)]
        if busy or (one.kind == "volume" and volumes.is_open(world.state, one)):
            warn(f"cannot destroy '{one.name}': dataset is busy")
            return 1
        world.forget(one)
        _drop_origin(world, one)
    return 0


def _drop_origin(world: World, clone: Dataset) -> None:
    """A snapshot whose destruction was deferred goes with its last clone."""
    found = [s for of in world.snapshots.values() for s in of if s.id == clone.origin and s.defer]
    drop(world, [s for s in found if not world.clones(s) and not world.holds.get(s.id)])
