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


def _parted(arguments: list[str], flags: str) -> tuple[bool, list[str]]:
    try:
        given, words = options(arguments, flags, "")
    except ValueError as error:
        raise Usage(f"invalid option '{error}'") from None
    return "r" in given, words


def _tagged(world: World, arguments: list[str], action: str) -> tuple[int, list[Snapshot]]:
    """Hold or release what the words name, each for itself, as zfs_do_hold_rele_impl() does.

    Returns the status, and the snapshots.
    """
    recursive, words = _parted(arguments, "rt" if action == "hold" else "r")
    if len(words) < 2:
        raise Usage("")
    tag = words[0]
    if action == "hold" and tag.startswith("."):
        raise Usage("tag may not start with '.'")
    failed, done = False, []
    for word in words[1:]:
        name, at, short = word.partition("@")
        reason = ""
        if not at:
            reason = f"'{word}' is not a snapshot"
        elif name not in world.datasets:
            reason = f"cannot open '{name}': dataset does not exist"
        else:
            found = [world.snapshot(f"{dataset.name}@{short}") for dataset in
                     (world.below(name) if recursive else [world.datasets[name]])]
            some = [one for one in found if one]
            reason = (_refusal(world, action, tag, some) if some else
                      f"cannot {_WHAT[action]} '{word}': dataset does not exist")
            if not reason:
                _change_holds(world, action, tag, some)
                done += some
        if reason:
            warn(reason)
            failed = True
    return int(failed), done


_WHAT = {"hold": "hold snapshot", "release": "release hold from snapshot"}


def _refusal(world: World, action: str, tag: str, found: list[Snapshot]) -> str:
    has = "select 1 from holds where snapshot = ? and tag = ?"
    none = action == "release" and not any(world.state.one(has, one.id, tag) for one in found)
    if world.pools[found[0].of.pool][2] and not none:
        return f"cannot {action}: pool is read-only"
    if action == "release":
        # It may destroy them: dsl_dataset_user_release_impl() unmounts them all by force first.
        world.let_go(found)
    for one in found:
        held = world.state.one(has, one.id, tag)
        if held and action == "hold":
            return f"cannot hold snapshot '{one.name}': tag already exists on this dataset"
        if not held and action == "release":
            return (f"cannot release hold from snapshot '{one.name}': "
                    "no such tag on this dataset")
        if held and action == "release" and _goes(world, one) and world.busy(one):
            return f"cannot release hold from snapshot '{one.name}': dataset is busy"
    return ""


def _goes(world: World, one: Snapshot) -> bool:
    """Whether it is to be destroyed once the last hold has gone."""
    return one.defer and world.holds.get(one.id) == 1 and not world.clones(one)


def _change_holds(world: World, action: str, tag: str, found: list[Snapshot]) -> None:
    """In a transaction group of its own."""
    state = world.state
    state.begin()
    if action == "hold":
        state.many("insert into holds values (?, ?, ?)", ((s.id, tag, now()) for s in found))
    else:
        state.many("delete from holds where snapshot = ? and tag = ?",
                   ((s.id, tag) for s in found))
    state.next_txg()
    state.commit()


def _hold(world: World, arguments: list[str]) -> int:
    return _tagged(world, arguments, "hold")[0]


def _release(world: World, arguments: list[str]) -> int:
    status, released = _tagged(world, arguments, "release")
    world.reload()
    deferred = [s for s in (world.snapshot(one.name) for one in released)
                if s and s.defer and not world.holds.get(s.id) and not world.clones(s)]
    if deferred:
        from sandbox.zfs_destroy import drop

        drop(world, deferred)
    return status


def _holds(world: World, arguments: list[str]) -> int:
    """zfs_do_holds(): what is not there is told, and the rest listed."""
    import time

    try:
        given, words = options(arguments, "Hpr", "")
    except ValueError as error:
        raise Usage(f"invalid option '{error}'") from None
    if not words:
        raise Usage("")
    rows, failed, found = [], False, []
    for word in words:
        name, at, short = word.partition("@")
        if not at:
            warn(f"'{word}' is not a snapshot")
            failed = True
            continue
        several = world.below(name) if "r" in given else []
        some = [world.snapshot(f"{one.name}@{short}") for one in several] or [world.snapshot(word)]
        if not any(some) and "r" not in given:
            warn(f"cannot open '{word}': dataset does not exist")
            failed = True
        found += [one for one in some if one]
    for one in dict.fromkeys(found):
        query = "select tag, creation from holds where snapshot = ? order by tag"
        for tag, moment in world.state.rows(query, one.id):
            when = str(moment) if "p" in given else time.strftime(
                "%a %b %e %H:%M %Y", time.localtime(moment))
            rows.append([one.name, tag, when])
    from sandbox.zfs_list import print_table

    print_table(["NAME", "TAG", "TIMESTAMP"], rows, "H" in given, [False] * 3)
    if not found:
        warn("no datasets available")
    return int(failed)
