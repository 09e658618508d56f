"""zfs send and receive of file systems: a stream only says where the files of a snapshot are.

Guid and creation of a snapshot stay what they were, its transaction group is the receiver's. With
-p or -R its user properties come along and are `received` then. That a target was modified is not
seen here, and of what -F does to a -R stream there is only the destroying of newer snapshots.
"""

from __future__ import annotations

import json
import sys

from sandbox.cmd_zfs import Usage
from sandbox.datasets import Dataset, Snapshot, World
from sandbox.standin import options, warn
from sandbox.state import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_read: list[bytes] = []


def stream() -> None:
    """Read what is sent."""
    _read.append(sys.stdin.buffer.read())


def run(state: State, command: str, arguments: list[str]) -> int:
    """Either of the two."""
    world = World(state)
    if command == "send":
        return _send(world, arguments)
    return _receive(world, arguments)


def _send(world: World, arguments: list[str]) -> int:
    given, words = _options(arguments, "DLPRbcehnpsVvw", "iI")
    if len(words) != 1:
        raise Usage("missing snapshot argument")
    found = world.snapshot(words[0])
    if not found:
        warn(f"cannot open '{words[0]}': dataset does not exist")
        return 1
    of, short = found.of.name, found.short
    start = (given.get("i") or given.get("I") or [""])[-1].rpartition("@")[2]
    records = []
    for dataset in world.below(of) if "R" in given else [found.of]:
        one, since = world.snapshot(f"{dataset.name}@{short}"), None
        if not one:
            continue
        if start:
            since = world.snapshot(f"{dataset.name}@{start}")
            if not since:
                warn(f"cannot send '{one.name}': incremental source (@{start}) does not exist")
                return 1
        everything = world.snapshots[dataset.name]
        first = everything.index(since) + 1 if since else 0
        last = everything.index(one)
        chosen = everything[first:last + 1] if "I" in given or "R" in given else [one]
        props = world.snapprops if "p" in given or "R" in given else {}
        records.append({
            "name": dataset.name[len(of):], "since": since.guid if since else 0,
            "snapshots": [_record(world, each, props.get(each.id, {})) for each in chosen],
        })
    print(json.dumps(records))
    return 0


def _record(world: World, one: Snapshot, props: dict[str, tuple[str, str]]) -> dict[str, Any]:
    return {"short": one.short, "guid": one.guid, "creation": one.creation,
            "files": world.state.store.snapshot(one.of.id, one.id),
            "props": {name: value for name, (value, _) in props.items()}}


def _receive(world: World, arguments: list[str]) -> int:
    given, words = _options(arguments, "vMnsFhu", "ox")
    if len(words) != 1:
        raise Usage("missing snapshot argument")
    target = words[0].partition("@")[0]
    try:
        records = json.loads(_read.pop())
    except ValueError:
        warn("cannot receive: failed to read from stream")
        return 1
    if world.pools.get(target.partition("/")[0], ("", "", 1))[2]:
        warn("cannot receive new filesystem stream: pool is read-only"
             if target.partition("/")[0] in world.pools else
             f"cannot receive: no such pool '{target.partition('/')[0]}'")
        return 1
    for record in records:
        name = target + record["name"]
        reason = _why_not(world, name, record, "F" in given)
        if reason:
            warn(reason)
            return 1
        _take(world, name, record, "u" not in given)
    return 0


def _why_not(world: World, name: str, record: dict[str, Any], force: bool) -> str:
    """Why a target cannot take a stream; with -F, newer snapshots of it are destroyed."""
    dataset = world.datasets.get(name)
    if not record["since"]:
        if dataset:
            return (f"cannot receive new filesystem stream: destination '{name}' exists\n"
                    "must specify -F to overwrite it")
        return "" if name.rpartition("/")[0] in world.datasets else (
            f"cannot receive new filesystem stream: destination '{name}' does not exist")
    everything = world.snapshots.get(name, []) if dataset else []
    guids = [one.guid for one in everything]
    mismatch = (f"cannot receive incremental stream: most recent snapshot of {name} does not\n"
                "match incremental source")
    if record["since"] not in guids:
        return mismatch
    newer = everything[guids.index(record["since"]) + 1:]
    if not newer:
        return ""
    if not force:
        return mismatch
    world.let_go(newer)
    if any(world.busy(one) or world.holds.get(one.id) for one in newer):
        return "cannot receive incremental stream: dataset is busy"
    from sandbox.zfs_destroy import drop

    drop(world, newer)
    world.reload()
    return ""


def _take(world: World, name: str, record: dict[str, Any], mount: bool) -> None:
    from sandbox.store import _Copier

    state = world.state
    fresh = name not in world.datasets
    if fresh:
        world.create(name, "filesystem", {}, state.next_txg())
        world.reload()
    dataset: Dataset = world.datasets[name]
    for one in record["snapshots"]:
        _Copier().again(one["files"], state.store.dataset(dataset.id))
        number = state.run(
            "insert into snapshots (dataset, name, creation, txg, guid) values (?, ?, ?, ?, ?)",
            dataset.id, one["short"], one["creation"], state.next_txg(), one["guid"])
        state.many("insert into snapprops values (?, ?, ?, 'received')",
                   ((number, key, value) for key, value in one["props"].items()))
        state.store.take([(dataset.id, number)])
    world.reload()
    if fresh and mount and world.automatic(world.datasets[name]):
        world.mount_at_property(world.datasets[name])


def _options(arguments: list[str], flags: str, valued: str
             ) -> tuple[dict[str, list[str]], list[str]]:
    try:
        return options(arguments, flags, valued)
    except ValueError as error:
        raise Usage(f"invalid option '{error}'") from None
