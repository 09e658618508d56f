"""zfs create, clone, rename, rollback, set, inherit, mount, unmount, load-key and unload-key."""

from __future__ import annotations

from sandbox import keys, volumes
from sandbox.cmd_zfs import Usage
from sandbox.datasets import (
    ALIASES,
    CHOICES,
    INHERITED,
    ONCE,
    OWN,
    READ_ONLY,
    Dataset,
    MountError,
    World,
    cannot_unmount,
)
from sandbox.jails import give
from sandbox.standin import options, warn
from sandbox.state import State, new_guid, now, violation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# After these the devices of volumes may be others.
DEVICES = {"create", "clone", "rename", "set", "inherit", "load-key", "unload-key"}
LONGEST = 255

SETTABLE = {*INHERITED, *OWN, *ONCE, "mountpoint", "volsize", "encryption", "keyformat",
            "keylocation", "volblocksize"}


def run(state: State, command: str, arguments: list[str]) -> int:
    """Any of them."""
    commands = {
        "create": _create, "clone": _clone, "rename": _rename, "rollback": _rollback,
        "set": _set, "inherit": _inherit,
        "mount": _mount, "unmount": _unmount, "umount": _unmount, "load-key": _load_key,
        "unload-key": _unload_key,
    }
    if command in ("jail", "unjail"):
        return give(state, arguments, command == "unjail")
    world = World(state)
    what = world.datasets.get(arguments[-1].partition("@")[0]) if arguments else None
    if state.flag("jailed") and command != "mount" and not (what and world.is_ours(what)):
        warn(f"cannot {command} '{arguments[-1] if arguments else ''}': permission denied")
        return 1
    status = _fixed(world, command, arguments) or commands[command](world, arguments)
    if command in DEVICES:
        world.reload()
        if any(d.kind == "volume" for d in world.datasets.values()):
            volumes.show_devices(world)
    return status


def _fixed(world: World, command: str, arguments: list[str]) -> int:
    """Say what a read-only pool refuses, and return the status; 0 if it does not."""
    word = arguments[-1] if arguments else ""
    pool = word.partition("@")[0].partition("/")[0]
    if not world.pools.get(pool, ("", "", 0))[2]:
        return 0
    named = [each for each in arguments if each in world.datasets or world.snapshot(each)]
    if command == "set" and named:
        for each in named:
            warn(f"cannot set property for '{each}': pool is read-only")
        return 255
    said = {
        "create": "" if named else f"cannot create '{word}'",
        "rename": f"cannot rename '{named[0]}'" if named else "",
        "inherit": f"cannot inherit {arguments[-2:][0]} for '{word}'" if named else "",
        "rollback": f"cannot rollback '{word.partition('@')[0]}'" if named else "",
    }.get(command)
    if said:
        warn(f"{said}: pool is read-only")
    return int(bool(said))


def _options(arguments: list[str], flags: str, valued: str = ""
             ) -> tuple[dict[str, list[str]], list[str]]:
    try:
        return options(arguments, flags, valued)
    except ValueError as error:
        raise Usage(f"invalid option '{error}'") from None


def properties(words: list[str]) -> dict[str, str]:
    """name=value words."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise Usage(f"missing '=' for property=value argument '{word}'")
        found[ALIASES.get(name, name)] = value
    return found


def wrong(props: dict[str, str]) -> str:
    """Why these cannot be set; nothing if they can."""
    for name, value in props.items():
        if ":" not in name and name in READ_ONLY and name not in ("encryption", "volblocksize"):
            return f"'{name}' is readonly"
        if ":" not in name and name not in SETTABLE:
            return f"invalid property '{name}'"
        if name in CHOICES and value not in CHOICES[name]:
            return f"'{name}' must be one of '{' | '.join(CHOICES[name])}'"
        if name == "mountpoint" and value not in ("none", "legacy") and not value.startswith("/"):
            return f"'{name}' must be an absolute path, 'none', or 'legacy'"
    return ""


def _create(world: World, arguments: list[str]) -> int:
    given, words = _options(arguments, "pusPnv", "oVb")
    if len(words) != 1:
        raise Usage("missing filesystem argument" if not words else "too many arguments")
    name = words[0]
    props = properties(given.get("o", []))
    kind = "volume" if "V" in given else "filesystem"
    if kind == "volume":
        props["volsize"] = volumes.rounded(given["V"][-1])
        if "s" not in given:
            props.setdefault("refreservation", props["volsize"])
    missing = _missing(world, name)
    reason = wrong(props)
    if not reason and props.get("encryption", "off") != "off" and "keyformat" in props:
        reason = keys.hindrance(props["keyformat"], props.setdefault("keylocation", "prompt"))
    if reason:
        warn(f"cannot create '{name}': {reason}")
        return 1
    if name in world.datasets and "p" not in given:
        warn(f"cannot create '{name}': dataset already exists")
        return 1
    if name.partition("/")[0] not in world.pools or "/" not in name:
        pool = name.partition("/")[0]
        text = f"no such pool '{pool}'" if "/" in name else "missing dataset name"
        warn(f"cannot create '{name}': {text}")
        return 1
    if missing and "p" not in given:
        warn(f"cannot create '{name}': parent does not exist")
        return 1
    made = _make(world, [*missing, name], kind, props)
    if "u" not in given:
        for dataset in made:
            if world.automatic(dataset):
                world.mount_at_property(dataset)
    return 0


def _missing(world: World, name: str) -> list[str]:
    parts = name.split("/")
    parents = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
    return [parent for parent in parents if parent not in world.datasets]


def _make(world: World, names: list[str], kind: str, props: dict[str, str]) -> list[Dataset]:
    state = world.state
    state.begin()
    txg = state.next_txg()
    made = []
    for name in names:
        if name not in world.datasets:
            last = name == names[-1]
            made.append(world.create(name, kind if last else "filesystem", props if last else {},
                                     txg))
    state.commit()
    world.reload()
    return [world.datasets[one.name] for one in made]


def _clone(world: World, arguments: list[str]) -> int:
    given, words = _options(arguments, "pu", "o")
    if len(words) != 2:
        raise Usage("missing source dataset argument")
    source, name = world.snapshot(words[0]), words[1]
    if not source:
        warn(f"cannot open '{words[0]}': dataset does not exist")
        return 1
    props = properties(given.get("o", []))
    reason = _no_clone(world, source.of, name, props)
    if reason:
        warn(f"cannot create '{name}': {reason}")
        return 1
    state = world.state
    number = state.run(
        "insert into datasets (name, kind, creation, txg, guid, origin, encroot, locked)"
        " values (?, ?, ?, ?, ?, ?, ?, 0)",
        name, source.of.kind, now(), state.next_txg(), new_guid(), source.id, source.of.encroot)
    volume = source.of.kind == "volume"
    if volume:
        props["volsize"] = world.value(source, "volsize")[0]
        volumes.raced(state, number, "volmode" in props)
        if props.get("volmode", "none") != "none":
            violation(f"zfs clone -o volmode of {name}: GEOM may panic")
    for key, value in props.items():
        state.run("insert into props values (?, ?, ?, 'local')", number, key, value)
    state.store.clone(source.of.id, source.id, number)
    world.reload()
    if world.automatic(world.datasets[name]):
        world.mount_at_property(world.datasets[name])
    return 0


def _no_clone(world: World, of: Dataset, name: str, props: dict[str, str]) -> str:
    """Why there can be no clone of that name: libzfs's zfs_clone(), as far as it is imitated."""
    parent = world.datasets.get(name.rpartition("/")[0])
    unfit = wrong(props)
    if len(name) > LONGEST:
        return "name is too long"
    if name in world.datasets:
        return "dataset already exists"
    if parent is None:
        return "parent does not exist"
    if parent.kind != "filesystem":
        return "parent is not a filesystem"
    if parent.pool != of.pool:
        return "source and target pools differ"
    if unfit:
        return unfit
    _, _, readonly, full = world.pools[of.pool]
    return "pool is read-only" if readonly else "out of space" if full else ""


def _rename(world: World, arguments: list[str]) -> int:
    """What is mounted is mounted anew, with -u it stays where it is.

    The old mount points go, of what was not mounted as well.
    """
    given, words = _options(arguments, "uf")
    if len(words) != 2:
        raise Usage("missing target dataset argument")
    old, new = words
    if "@" in old:
        return _rename_snapshot(world, old, new)
    if old not in world.datasets:
        warn(f"cannot open '{old}': dataset does not exist")
        return 1
    if new in world.datasets:
        warn(f"cannot rename '{old}': dataset already exists")
        return 1
    taken: list[Dataset] = []
    if "u" not in given:
        moving = [d for d in world.below(old) if world.mountpoint(d)[0].startswith("/")]
        if not _unmount_in_order(world, moving, "f" in given, taken):
            return 1
        for dataset in reversed(moving):
            world.table.remove_point(world.mountpoint(dataset)[0])
    renamed = {d.name: new + d.name[len(old):] for d in world.below(old)}
    world.state.begin()
    for dataset in world.below(old):
        name = renamed[dataset.name]
        world.state.run("update datasets set name = ? where id = ?", name, dataset.id)
        # The names of mounted snapshots follow.
        world.state.run("update mounts set special = ? || substr(special, ?) where dataset = ?"
                        " and fstype = 'zfs'", name, len(dataset.name) + 1, dataset.id)
    world.state.commit()
    world.reload()
    for dataset in taken:
        world.mount_at_property(world.datasets[renamed[dataset.name]])
    return 0


def _rename_snapshot(world: World, old: str, new: str) -> int:
    """A hold goes along, and so does what mounts it."""
    found = world.snapshot(old)
    name = new if "@" in new else f"{old.partition('@')[0]}@{new}"
    if not found:
        warn(f"cannot open '{old}': dataset does not exist")
        return 1
    if world.snapshot(name):
        warn(f"cannot rename to '{name}': dataset already exists")
        return 1
    world.state.begin()
    world.state.run("update snapshots set name = ? where id = ?", name.partition("@")[2], found.id)
    world.state.run("update mounts set special = ? where snapshot = ? and fstype = 'zfs'",
                    name, found.id)
    world.state.commit()
    return 0


def _unmount_in_order(world: World, datasets: list[Dataset], force: bool, taken: list[Dataset]
                      ) -> bool:
    """Unmount for a change, children first, or say why not; then all is as before.

    What was mounted is put into ``taken``, parents first; libzfs's changelist_prefix().
    """
    try:
        for dataset in reversed(datasets):
            if world.unmount(dataset, force):
                taken.insert(0, dataset)
    except MountError as error:
        warn(cannot_unmount(error))
        for dataset in taken:
            world.mount_at_property(dataset)
        return False
    return True


def _rollback(world: World, arguments: list[str]) -> int:
    """The files become those of the snapshot; nothing is unmounted for it."""
    given, words = _options(arguments, "rRf")
    if len(words) != 1:
        raise Usage("missing dataset argument" if not words else "too many arguments")
    target = world.snapshot(words[0])
    if not target:
        warn(f"cannot open '{words[0]}': dataset does not exist")
        return 1
    everything = world.snapshots[target.of.name]
    newer = everything[everything.index(target) + 1:]
    if newer and "r" not in given and "R" not in given:
        names = "\n".join(s.name for s in newer)
        warn(f"cannot rollback to '{target.name}': more recent snapshots or bookmarks exist\n"
             f"use '-r' to force deletion of the following snapshots and bookmarks:\n{names}")
        return 1
    from sandbox.zfs_destroy import drop

    status = 0
    for one in reversed(newer):
        world.let_go([one])
        if world.busy(one) or world.holds.get(one.id) or world.clones(one):
            warn(f"cannot destroy '{one.name}': dataset is busy")
            status = 1
        else:
            drop(world, [one])
    if not status:
        world.state.next_txg()
        world.state.store.rollback(target.of.id, target.id)
    return status


# -- properties ------------------------------------------------------------------------------


def _set(world: World, arguments: list[str]) -> int:
    given, words = _options(arguments, "u")
    count = next((n for n, word in enumerate(words) if "=" not in word), len(words))
    props, targets = properties(words[:count]), words[count:]
    if not props or not targets:
        raise Usage("missing property=value argument(s)" if not props else
                    "missing dataset name(s)")
    once = {*ONCE, "volblocksize"}
    reason = wrong(props) or next((f"'{name}' is readonly" for name in props if name in once), "")
    for target in targets:
        what = world.snapshot(target) if "@" in target else world.datasets.get(target)
        if not what:
            warn(f"cannot open '{target}': dataset does not exist")
            return 1
        if reason:
            warn(f"cannot set property for '{target}': {reason}")
            return 255
        if isinstance(what, Dataset):
            if what.kind == "volume":
                _set_volume(world, what, props)
            if not _change(world, what, props, "u" not in given):
                return 255
            continue
        if any(":" not in name for name in props):
            warn(f"cannot set property for '{target}': this property can not be modified for"
                 " snapshots")
            return 1
        world.state.many("insert or replace into snapprops (snapshot, name, value)"
                         " values (?, ?, ?)",
                         ((what.id, name, value) for name, value in props.items()))
    return 0


def _set_volume(world: World, what: Dataset, props: dict[str, str]) -> None:
    if "volsize" in props:
        props["volsize"] = volumes.rounded(props["volsize"])
        world.set_size(what.id, int(props["volsize"]))
    if "volmode" in props:
        volumes.raced(world.state, what.id, False)


def _change(world: World, what: Dataset, props: Mapping[str, str | None], mount: bool) -> bool:
    """Change properties (None: inherit), moving mounts as far as they depend on them."""
    tree = [d for d in world.below(what.name) if d.kind == "filesystem"]
    moving = bool({"mountpoint", "canmount"} & set(props)) and mount
    before = {d.name: world.mountpoint(d)[0] for d in tree}
    source = world.mountpoint(what)[1]
    affected = tree if "mountpoint" in props else [what]
    taken: list[Dataset] = []
    if moving and (props.get("canmount", "off") == "off" or "mountpoint" in props) \
            and not _unmount_in_order(world, affected, False, taken):
        return False
    mounted = {d.name for d in taken}
    if moving and "mountpoint" in props and source != "local" and what in taken:
        # libzfs's remove_mountpoint(): only what was not set on it.
        world.table.remove_point(before[what.name])
    for name, value in props.items():
        if value is None:
            world.state.run("delete from props where dataset = ? and name = ?", what.id, name)
        else:
            world.state.run("insert or replace into props values (?, ?, ?, 'local')",
                            what.id, name, value)
    world.reload()
    for dataset in tree if moving else []:
        fresh = world.datasets[dataset.name]
        # canmount=on by itself mounts nothing; libzfs's zfs_prop_set_list().
        newly = before[fresh.name] in ("none", "legacy")
        if (fresh.name in mounted or newly) and not world.why_not(fresh) and (
                fresh.name in mounted or world.automatic(fresh)):
            world.mount_at_property(fresh)
    if {"readonly", "atime", "exec", "setuid"} & set(props) and mount:
        # These take effect on what is mounted, where it is and whatever is stacked on it.
        for line in world.table.all():
            one = world.by_id.get(line.dataset or 0)
            if line.fstype == "zfs" and not line.snapshot and one and one.name in before:
                world.table.change_flags(line, world.flags(one))
    return True


def _inherit(world: World, arguments: list[str]) -> int:
    given, words = _options(arguments, "rS")
    if len(words) < 2:
        raise Usage("missing property argument")
    name = ALIASES.get(words[0], words[0])
    for target in words[1:]:
        if "@" in target:
            snapshot = world.snapshot(target)
            if snapshot:
                world.state.run("delete from snapprops where snapshot = ? and name = ?",
                                snapshot.id, name)
            continue
        if target not in world.datasets:
            warn(f"cannot open '{target}': dataset does not exist")
            return 1
        whole = world.below(target) if "r" in given else [world.datasets[target]]
        for dataset in whole:
            if not _change(world, world.datasets[dataset.name], {name: None}, True):
                return 1
    return 0


# -- mounting and keys -----------------------------------------------------------------------


def _mount(world: World, arguments: list[str]) -> int:
    given, words = _options(arguments, "aflvO", "o")
    if "a" in given:
        world.mount_all()
        return 0
    if not words:
        for mount in world.mounts:
            if mount.fstype == "zfs" and not mount.snapshot:
                print(f"{mount.special:<30}  {mount.node}")
        return 0
    what = world.datasets.get(words[0])
    if not what:
        warn(f"cannot open '{words[0]}': dataset does not exist")
        return 1
    reason = world.why_not(what)
    if not reason and (world.value(what, "jailed")[0] == "on") != bool(world.jail):
        where = "is exported to a local zone" if not world.jail else "is not in this zone"
        reason = f"dataset {where}"
    if not reason and world.jail and not (world.is_ours(what) and world.jail.mounts_a("zfs")):
        reason = "Operation not permitted"
    if reason:
        warn(f"cannot mount '{what.name}': {reason}")
        return 1
    world.mount_at_property(what)
    return 0


def _unmount(world: World, arguments: list[str]) -> int:
    given, words = _options(arguments, "afu")
    if "a" in given:
        found = [m for m in reversed(world.mounts) if m.fstype == "zfs" and m.node != "/"
                 and not m.snapshot]
    else:
        if not words:
            raise Usage("missing filesystem argument")
        found = [m for m in reversed(world.mounts) if words[0] in (m.special, m.node)
                 and m.fstype == "zfs"][:1]
    if not found and "a" not in given:
        if words[0] in world.datasets:
            warn(f"cannot unmount '{words[0]}': not currently mounted")
        else:
            warn(f"cannot open '{words[0]}': dataset does not exist")
        return 1
    status = 0
    for mount in found:
        try:
            if "a" not in given:
                # Unlike umount(8), zfs takes the file systems below along.
                _unmount_below(world, mount.special, "f" in given)
            try:
                world.table.unmount(mount.node, "f" in given)
            except MountError as error:
                raise MountError(mount.node, error.code) from error
        except MountError as error:
            warn(cannot_unmount(error))
            status = 1
    return status


def _unmount_below(world: World, name: str, force: bool) -> None:
    for dataset in reversed(world.children(name)):
        if world.value(dataset, "mountpoint")[1].startswith("inherited") or "/" in dataset.name:
            world.unmount(dataset, force)


def _load_key(world: World, arguments: list[str]) -> int:
    return _keys(world, arguments, 0)


def _unload_key(world: World, arguments: list[str]) -> int:
    return _keys(world, arguments, 1)


def _keys(world: World, arguments: list[str], locked: int) -> int:
    _, words = _options(arguments, "arn", "L")
    names = words or [d.name for d in world.datasets.values() if d.encroot == d.id]
    for name in names:
        what = world.datasets.get(name)
        verb = "unload" if locked else "load"
        if not what or what.encroot != what.id:
            warn(f"Key {verb} error: '{name}' is not encrypted." if what else
                 f"cannot open '{name}': dataset does not exist")
            return 255 if what else 1
        members = {d.id for d in world.by_id.values() if d.encroot == what.id}
        if locked and any(m.dataset in members for m in world.mounts):
            warn(f"Key unload error: '{name}' is busy.")
            return 255
        if not locked and not what.locked and not words:
            continue
        reason = "" if locked else _no_key(world, what)
        if reason:
            warn(f"Key load error: {reason}")
            return 255
        world.state.run("update datasets set locked = ? where encroot = ?", locked, what.id)
    return 0


def _no_key(world: World, what: Dataset) -> str:
    if not what.locked:
        return f"Key already loaded for '{what.name}'."
    form, place = (world.value(what, each)[0] for each in ("keyformat", "keylocation"))
    return keys.hindrance(form, place)
