"""zpool get, set and status: what a pool is made of, and what was set on it."""

from __future__ import annotations

import re

from sandbox.datasets import World
from sandbox.standin import options, split_commas, warn

FEATURES = (
    "async_destroy", "empty_bpobj", "lz4_compress", "multi_vdev_crash_dump", "spacemap_histogram",
    "enabled_txg", "hole_birth", "extensible_dataset", "embedded_data", "bookmarks",
    "filesystem_limits", "large_blocks", "large_dnode", "sha512", "skein", "edonr",
    "userobj_accounting", "encryption", "project_quota", "device_removal", "obsolete_counts",
    "zpool_checkpoint", "spacemap_v2", "allocation_classes", "resilver_defer", "bookmark_v2",
    "redaction_bookmarks", "redacted_datasets", "bookmark_written", "log_spacemap", "livelist",
    "device_rebuild", "zstd_compress", "draid", "zilsaxattr", "head_errlog", "blake3",
    "block_cloning", "vdev_zaps_v2",
)
# In use as soon as there is a pool.
ACTIVE = ("empty_bpobj", "lz4_compress", "spacemap_histogram", "enabled_txg", "hole_birth",
          "extensible_dataset", "embedded_data", "userobj_accounting", "project_quota",
          "spacemap_v2", "log_spacemap", "head_errlog", "vdev_zaps_v2")
DEFAULTS = {
    "altroot": "-", "bootfs": "-", "delegation": "on", "autoreplace": "off", "cachefile": "-",
    "failmode": "wait", "listsnapshots": "off", "autoexpand": "off", "comment": "-",
    "version": "-", "ashift": "0", "multihost": "off", "compatibility": "off", "autotrim": "off",
}
CHOICES = {
    "delegation": ("on", "off"), "autoreplace": ("on", "off"), "listsnapshots": ("on", "off"),
    "autoexpand": ("on", "off"), "autotrim": ("on", "off"), "multihost": ("on", "off"),
    "failmode": ("wait", "continue", "panic"),
}
READ_ONLY = ("size", "capacity", "health", "guid", "free", "allocated", "readonly")
KINDS = r"mirror|raidz[123]?|draid[0-9a-z:]*"
SECTIONS = {"log": "logs", "cache": "cache", "spare": "spares", "special": "special",
            "dedup": "dedup"}


def wrong(props: dict[str, str]) -> str:
    """Why these cannot be set; nothing if they can."""
    for name, value in props.items():
        if name.startswith("feature@"):
            if name.removeprefix("feature@") not in FEATURES:
                return f"feature '{name.removeprefix('feature@')}' unsupported by kernel"
            if value not in ("enabled", "disabled"):
                return f"property '{name}' can only be set to 'enabled' or 'disabled'"
        elif name in READ_ONLY:
            return f"'{name}' is readonly"
        elif name not in DEFAULTS:
            return f"property '{name}' is not a valid pool or vdev property"
        elif name in CHOICES and value not in CHOICES[name]:
            return f"'{name}' must be one of '{' | '.join(CHOICES[name])}'"
    return ""


def devices(words: list[str]) -> list[str]:
    """The devices among the words that describe a pool, as paths."""
    known = {*SECTIONS, *(w for w in words if re.fullmatch(KINDS, w))}
    return [word if word.startswith("/") else f"/dev/{word}"
            for word in words if word not in known]


def in_the_way(world: World, words: list[str], force: bool) -> bool:
    """Say so, and that nothing is done, where a device belongs to another pool."""
    taken: dict[str, tuple[str, str]] = {}
    for name, text, exported in world.state.rows("select name, vdevs, exported from pools"):
        for each in devices(text.split("\t")) if text else []:
            taken[each] = (name, "exported" if exported else "active")
    found = [(each, *taken[each]) for each in devices(words) if each in taken]
    found = [each for each in found if each[2] == "active" or not force]
    if not found:
        return False
    hint = ("the following errors must be manually repaired:" if force
            else "use '-f' to override the following errors:")
    warn(f"invalid vdev specification\n{hint}")
    for device, pool, state in found:
        warn(f"{device} is part of {state} pool '{pool}'")
    return True


def _enabled(world: World, name: str) -> dict[str, str]:
    rows = world.state.rows("select name, value from poolprops where pool = ?", name)
    return dict(rows)


def keep(world: World, name: str, props: dict[str, str], all_features: bool) -> None:
    """Write down what a new pool was given."""
    given = dict(props)
    if all_features:
        for each in FEATURES:
            given.setdefault(f"feature@{each}", "enabled")
    for each, value in given.items():
        world.state.run("insert or replace into poolprops values (?, ?, ?)", name, each, value)


def get(world: World, arguments: list[str]) -> int:
    """zpool get [-Hp] [-o field[,...]] all|property[,...] [pool ...]."""
    from sandbox.zfs_list import print_table

    given, words = options(arguments, "Hp", "o")
    if not words:
        warn("missing property argument")
        return 2
    fields = split_commas(given.get("o", ["name,property,value,source"]))
    names = words[1:] or sorted(world.pools)
    rows = []
    if names and names[0] not in world.pools:
        warn(f"Cannot get properties of {names[0]}: no such pool available.")
        return 1
    if any(name not in world.pools for name in names):
        warn(f'Expected a list of vdevs in "{names[0]}", but got:\n\t{names[1]} (unknown)\n')
        return 2
    for name in names:
        found = {each: (value, source) for each, value, source in _rows(world, name)}
        asked = list(found) if words[0] == "all" else words[0].split(",")
        for each in asked:
            if each not in found:
                warn(f"bad property list: invalid property '{each}'")
                return 2
            row = {"name": name, "property": each, "value": found[each][0],
                   "source": found[each][1]}
            rows.append([row[field] for field in fields])
    print_table([f.upper() for f in fields], rows, "H" in given, [False] * len(fields))
    return 0


def _rows(world: World, name: str) -> list[tuple[str, str, str]]:
    own = _enabled(world, name)
    _, altroot, readonly, full = world.pools[name]
    rows = [("size", "1006632960", "-"), ("capacity", "100" if full else "0", "-")]
    for each, default in DEFAULTS.items():
        value, source = own.get(each, default), "local" if each in own else "default"
        if each == "altroot" and altroot:
            value, source = altroot, "local"
        if each == "cachefile" and altroot and each not in own:
            value, source = "none", "local"
        rows.append((each, value, source))
    rows += [("health", "ONLINE", "-"), ("guid", "8284649658947775850", "-"),
             ("readonly", "on" if readonly else "off", "-"), ("free", "1004535808", "-"),
             ("allocated", "2097152", "-")]
    for each in FEATURES:
        value = own.get(f"feature@{each}", "disabled")
        shown = "active" if value == "enabled" and each in ACTIVE else value
        rows.append((f"feature@{each}", shown, "local"))
    return rows


def put(world: World, arguments: list[str]) -> int:
    """zpool set property=value pool."""
    if len(arguments) != 2 or "=" not in arguments[0]:
        warn("missing property=value argument")
        return 2
    name, _, value = arguments[0].partition("=")
    pool = arguments[1]
    if pool not in world.pools:
        warn(f"cannot open '{pool}': no such pool")
        return 1
    reason = wrong({name: value})
    known = value in world.datasets and value.partition("/")[0] == pool
    if name == "bootfs" and value and not known:
        reason = "no such pool or dataset"
    if world.pools[pool][2]:
        reason = "pool is read-only"
    if reason:
        warn(f"cannot set property for '{pool}': {reason}")
        return 1
    world.state.run("insert or replace into poolprops values (?, ?, ?)", pool, name, value)
    return 0


def status(world: World, arguments: list[str]) -> int:
    """zpool status [-x] [-P] [pool ...]."""
    given, words = options(arguments, "xPLgv")
    if "x" in given:
        print("all pools are healthy")
        return 0
    names = words or sorted(world.pools)
    for name in names:
        if name not in world.pools:
            warn(f"cannot open '{name}': no such pool")
    for index, name in enumerate(each for each in names if each in world.pools):
        row = world.state.one("select vdevs from pools where name = ?", name)
        lines = _tree(name, row[0].split("\t") if row[0] else [], "P" in given)
        width = max(len(line) for line in lines)
        print(f"{chr(10) if index else ''}  pool: {name}\n state: ONLINE\nconfig:\n")
        print(f"\t{'NAME':<{width}}  STATE     READ WRITE CKSUM")
        for line in lines:
            section = line in SECTIONS.values()
            print(f"\t{line}\t" if section else f"\t{line:<{width}}  ONLINE       0     0     0")
        print("\nerrors: No known data errors")
    return int(any(name not in world.pools for name in names))


def _tree(name: str, words: list[str], whole: bool) -> list[str]:
    lines, number, depth = [name], 0, 2
    for word in words:
        if word in SECTIONS:
            lines.append(SECTIONS[word])
            depth = 2
        elif re.fullmatch(KINDS, word):
            kind = "raidz1" if word == "raidz" else word
            lines.append(f"  {kind}-{number}")
            number, depth = number + 1, 4
        else:
            path = word if word.startswith("/") else f"/dev/{word}"
            lines.append(" " * depth + (path if whole else path.removeprefix("/dev/")))
    return lines
