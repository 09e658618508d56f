"""zpool(8): create, destroy, export, import and list; zpool_get has the rest."""

from __future__ import annotations

from sandbox import cmd_geom, zpool_get
from sandbox.datasets import MountError, World, cannot_unmount
from sandbox.mounts import AUTOMOUNT
from sandbox.standin import options, split_commas, warn
from sandbox.state import State, new_guid
from sandbox.volumes import show_devices
from sandbox.zfs_change import properties, wrong

COLUMNS = "name,size,alloc,free,ckpoint,expandsz,frag,cap,dedup,health,altroot"


def main(_name: str, arguments: list[str]) -> int:
    """`zpool SUBCOMMAND ...`."""
    commands = {"create": _create, "destroy": _destroy, "export": _export, "import": _import,
                "list": _list, "status": zpool_get.status, "get": zpool_get.get,
                "set": zpool_get.put}
    if not arguments or arguments[0] not in commands:
        warn("usage: zpool command args ...")
        return 2
    with State() as state:
        if not state.flag("zfs"):
            warn("internal error: failed to initialize ZFS library")
            return 1
        world = World(state)
        status = commands[arguments[0]](world, arguments[1:])
        if arguments[0] in ("destroy", "export", "import"):
            world.reload()
            show_devices(world)
        return status


def _create(world: World, arguments: list[str]) -> int:
    given, words = options(arguments, "fnd", "oOmRt")
    if len(words) < 2:
        warn("missing vdev specification" if words else "missing pool name argument")
        return 2
    name, state = words[0], world.state
    if state.one("select 1 from pools where name = ?", name):
        warn(f"cannot create '{name}': pool already exists")
        return 1
    props, own = properties(given.get("O", [])), properties(given.get("o", []))
    if "m" in given:
        props["mountpoint"] = given["m"][-1]
    altroot = own.pop("altroot", given.get("R", [""])[-1])
    reason = wrong(props) or zpool_get.wrong(own)
    if reason:
        warn(f"cannot create '{name}': {reason}")
        return 1
    if _lacking(state, words[1:]) or zpool_get.in_the_way(world, words[1:], "f" in given):
        return 1
    state.run("insert into pools (name, guid, altroot, vdevs) values (?, ?, ?, ?)", name,
              new_guid(), altroot, "\t".join(words[1:]))
    zpool_get.keep(world, name, own, "d" not in given)
    world.reload()
    state.begin()
    world.create(name, "filesystem", props, state.next_txg())
    state.commit()
    world.reload()
    if world.automatic(world.datasets[name]):
        world.mount_at_property(world.datasets[name])
    return 0


def _lacking(state: State, words: list[str]) -> bool:
    for word in words:
        if cmd_geom.lacks(state, word):
            warn(f"cannot resolve path '{word}'" if word.startswith("/") else
                 f"cannot open '{word}': no such device in /dev\n"
                 "must be a full path or shorthand device name")
            return True
    return False


def _unmount_all(world: World, pool: str, force: bool) -> int:
    """Everything of a pool goes, snapshots too, the last mount point in the alphabet first."""
    members = {d.id for d in world.below(pool)}
    found = [m for m in world.table.all()
             if m.fstype == "zfs" and m.dataset in members and m.kernel != AUTOMOUNT]
    for mount in sorted(found, key=lambda m: m.node, reverse=True):
        try:
            world.table.unmount(mount.node, force)
        except MountError as error:
            warn(cannot_unmount(MountError(mount.node, error.code)))
            return 1
    return 0


def _missing(world: World, words: list[str]) -> bool:
    if words and words[0] in world.pools:
        return False
    warn(f"cannot open '{words[0] if words else ''}': no such pool")
    return True


def _destroy(world: World, arguments: list[str]) -> int:
    given, words = options(arguments, "f", "")
    if _missing(world, words):
        return 1
    if _unmount_all(world, words[0], "f" in given):
        warn(f"could not destroy '{words[0]}': could not unmount datasets")
        return 1
    for dataset in reversed(world.below(words[0])):
        world.forget(dataset)
    world.state.run("delete from pools where name = ?", words[0])
    world.state.run("delete from poolprops where pool = ?", words[0])
    return 0


def _export(world: World, arguments: list[str]) -> int:
    given, words = options(arguments, "fa", "")
    if _missing(world, words) or _unmount_all(world, words[0], "f" in given):
        return 1
    world.state.run("update pools set exported = 1, readonly = 0, altroot = '' where name = ?",
                    words[0])
    world.state.run("update datasets set locked = 1 where encroot is not null"
                    " and (name = ? or name like ?)", words[0], f"{words[0]}/%")
    return 0


def _import(world: World, arguments: list[str]) -> int:
    given, words = options(arguments, "afN", "oRdc")
    state = world.state
    row = words and state.one("select 1 from pools where name = ? and exported = 1", words[0])
    if not row:
        warn(f"cannot import '{words[0] if words else ''}': no such pool available")
        return 1
    settings = split_commas(given.get("o", []))
    state.run("update pools set exported = 0, readonly = ?, altroot = ? where name = ?",
              int("readonly=on" in settings), given.get("R", [""])[-1], words[0])
    world.reload()
    if "N" not in given:
        for dataset in world.below(words[0]):
            if world.automatic(dataset):
                world.mount_at_property(dataset)
    return 0


def _list(world: World, arguments: list[str]) -> int:
    from sandbox.zfs_list import print_table

    given, words = options(arguments, "HpvPgL", "oT")
    columns = split_commas(given.get("o", [COLUMNS]))
    unknown = [word for word in words if word not in world.pools]
    for word in unknown:
        warn(f"cannot open '{word}': no such pool")
    rows = []
    for name, altroot, readonly, full in sorted(world.pools.values()):
        if words and name not in words:
            continue
        values = {
            "name": name, "size": "7.50G", "alloc": "1.93M", "free": "0" if full else "7.50G",
            "ckpoint": "-", "expandsz": "-", "frag": "0%", "cap": "100%" if full else "0%",
            "dedup": "1.00x", "health": "ONLINE", "altroot": altroot or "-",
            "readonly": "on" if readonly else "off", "guid": "1",
        }
        rows.append([values.get(column, "-") for column in columns])
    header = [column.upper() for column in columns]
    right = [column not in ("name", "health", "altroot") for column in columns]
    print_table(header, rows, "H" in given, right)
    return 1 if unknown else 0
