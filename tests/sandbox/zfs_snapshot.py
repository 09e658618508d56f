"""zfs snapshot, hold, holds and release."""

from __future__ import annotations

from sandbox.cmd_zfs import Usage
from sandbox.datasets import Dataset, Snapshot, World
from sandbox.standin import options, warn
from sandbox.state import State, now

LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.: ")
LONGEST = 255


def run(state: State, command: str, arguments: list[str]) -> int:
    """Any of the four."""
    world = World(state)
    if command in ("snapshot", "snap"):
        return _snapshot(world, command, arguments)
    return {"hold": _hold, "holds": _holds, "release": _release}[command](world, arguments)


def _snapshot(world: World, command: str, arguments: list[str]) -> int:
    try:
        given, words = options(arguments, "r", "o")
    except ValueError as error:
        raise Usage(f"invalid option '{error}'") from None
    if not words:
        raise Usage("missing snapshot argument")
    props = {}
    for word in given.get("o", []):
        name, equals, value = word.partition("=")
        if not equals:
            raise Usage(f"missing '=' for property=value argument '{word}'")
        props[name] = value
    wanted: dict[str, tuple[Dataset, str]] = {}
    for word in words:
        name, at, short = word.partition("@")
        if not at:
            raise Usage("")
        if name not in world.datasets:
            raise Usage(f"cannot open '{name}': dataset does not exist")
        for dataset in world.below(name) if "r" in given else [world.datasets[name]]:
            wanted[f"{dataset.name}@{short}"] = (dataset, short)
    refusal = _why_not(world, wanted, props)
    if refusal:
        warn(refusal)
        if len(wanted) > 1:
            warn("no snapshots were created")
        return 1
    make(world, list(wanted.values()), props)
    return 0


def make(world: World, wanted: list[tuple[Dataset, str]], props: dict[str, str]) -> None:
    """All of them in one transaction group."""
    state = world.state
    state.begin()
    world.take(wanted, props, state.next_txg())
    state.commit()


def _why_not(world: World, wanted: dict[str, tuple[Dataset, str]], props: dict[str, str]) -> str:
    if not all(world.is_ours(dataset) for dataset, _ in wanted.values()):
        return "cannot create snapshots : permission denied"
    for name, (_, short) in wanted.items():
        reason = invalid(name, short)
        if reason:
            return f"cannot create snapshot '{name}': {reason}"
    if any(":" not in name for name in props):
        return "cannot create snapshots : this property can not be modified for snapshots"
    pools = {dataset.pool for dataset, _ in wanted.values()}
    datasets = [dataset.name for dataset, _ in wanted.values()]
    if len(pools) > 1 or len(set(datasets)) < len(datasets):
        return "cannot create snapshots : multiple snapshots of same fs not allowed"
    _, _, readonly, full = world.pools[pools.pop()]
    if readonly:
        return "cannot create snapshots : pool is read-only"
    errors = [f"cannot create snapshot '{name}': dataset already exists"
              for name in wanted if world.snapshot(name)]
    if errors:
        return "\n".join(errors)
    errors = [f"cannot create snapshot '{name}': out of space"
              for name, (dataset, _) in wanted.items() if world.roomless(dataset)]
    if full:
        return "cannot create snapshots : out of space"
    return "\n".join(errors)


def invalid(name: str, short: str) -> str:
    """What is wrong with a snapshot's name, in ZFS's words."""
    if len(name) > LONGEST:
        return "name is too long"
    if not short:
        return "empty component or misplaced '@' or '#' delimiter in name"
    if "@" in short:
        return "multiple '@' and/or '#' delimiters in name"
    if "/" in short:
        return "trailing slash in name"
    for letter in short:
        if letter not in LETTERS:
            return f"invalid character '{letter}' in name"
    return ""


# -- holds -----------------------------------------------------------------------------------


def _tagged(world: World, arguments: list[str]) -> tuple[str, list[Snapshot]]:
    given, words = options(arguments, "r", "")
    if len(words) < 2:
        raise Usage("missing snapshot argument")
    found = []
    for word in words[1:]:
        name, _, short = word.partition("@")
        for dataset in world.below(name) if "r" in given else world.below(name)[:1]:
            snapshot = world.snapshot(f"{dataset.name}@{short}")
            if snapshot:
                found.append(snapshot)
    return words[0], found


def _hold(world: World, arguments: list[str]) -> int:
    tag, snapshots = _tagged(world, arguments)
    if not snapshots:
        warn(f"cannot hold: '{arguments[-1]}': dataset does not exist")
        return 1
    for one in snapshots:
        query = "select 1 from holds where snapshot = ? and tag = ?"
        if world.state.one(query, one.id, tag):
            warn(f"cannot hold snapshot '{one.name}': tag already exists on this dataset")
            return 1
    world.state.many("insert into holds values (?, ?, ?)", ((s.id, tag, now()) for s in snapshots))
    return 0


def _release(world: World, arguments: list[str]) -> int:
    tag, snapshots = _tagged(world, arguments)
    for one in snapshots:
        query = "select 1 from holds where snapshot = ? and tag = ?"
        if not world.state.one(query, one.id, tag):
            warn(f"cannot release hold from snapshot '{one.name}': no such tag on this dataset")
            return 1
    if not snapshots:
        warn(f"cannot release hold: '{arguments[-1]}': dataset does not exist")
        return 1
    for one in snapshots:
        world.state.run("delete from holds where snapshot = ? and tag = ?", one.id, tag)
    world.reload()
    deferred = [s for s in (world.snapshot(one.name) for one in snapshots)
                if s and s.defer and not world.holds.get(s.id) and not world.clones(s)]
    if deferred:
        from sandbox.zfs_destroy import drop

        drop(world, deferred)
    return 0


def _holds(world: World, arguments: list[str]) -> int:
    import time

    given, words = options(arguments, "Hpr", "")
    rows = []
    for word in words:
        one = world.snapshot(word)
        if not one:
            warn(f"cannot open '{word}': dataset does not exist")
            return 1
        query = "select tag, creation from holds where snapshot = ? order by tag"
        for tag, moment in world.state.rows(query, one.id):
            when = str(moment) if "p" in given else time.strftime(
                "%a %b %e %H:%M %Y", time.localtime(moment))
            rows.append([one.name, tag, when])
    from sandbox.zfs_list import print_table

    print_table(["NAME", "TAG", "TIMESTAMP"], rows, "H" in given, [False] * 3)
    return 0
