"""The layout of the machine as it is now, without anything secret or short-lived."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from kopiatomic import __version__
from kopiatomic.layout.form import DatasetLayout, Key, Layout, PoolLayout
from kopiatomic.record import Record
from kopiatomic.redact import holds_secret, is_secret
from kopiatomic.system import disks, mounts, pools
from kopiatomic.system.command import CommandFailed, Door
from kopiatomic.system.machine import Mount
from kopiatomic.system.pools import Setting
from kopiatomic.system.zfs import RUN_PROPERTY, is_like_our_clone, lines_of, pool_of

# What is decided when a dataset is made, with the values that need not be said.
_DECIDED = {"casesensitivity": "sensitive", "normalization": "none", "utf8only": "off"}

# What says how a dataset is encrypted, and what is noted in another place.
_APART = frozenset("encryption keyformat keylocation pbkdf2iters volsize version".split())

# What is no property of the pool but of how it was imported here.
_OF_THE_IMPORT = frozenset("altroot bootfs cachefile readonly".split())

# A password in an address, and what may hold one behind it.
_WITH_PASSWORD = r"://[^/\s@]*@"
_ADDRESS = r"(https?)://(?:[^/@]*@)?([^/?#]*).*"

# What tells the versions of the system, in its first line.
_VERSIONS = (("FreeBSD", ("freebsd-version",)), ("ZFS", ("zfs", "version")))

# Where the EFI partition is mounted, by its file system, and what firmware starts.
_EFI_TYPE, _EFI_FILES = "msdosfs", r"(?i).*\.efi"


class Taken(Record):
    """A layout, and what of it could not be found out, each a line."""

    layout: Layout
    lacking: tuple[str, ...]


def take(
    door: Door, names: Iterable[str], client: Mapping[str, str], hide: Callable[[str], str] = str
) -> Taken:
    """Return the layout of the pools ``names``; raises CommandFailed if there is none.

    ``client`` is the version of what makes the backups, by its name. What cannot be said
    of the disks is lacking and no failure. Free text in which ``hide`` finds a secret, or that
    looks like one, is no part of it.
    """
    wanted = sorted(names)
    settings = pools.dataset_settings(door, wanted)
    of_pools = pools.pool_settings(door, wanted)
    groups = pools.groups(door, wanted)
    table = mounts.table(door)
    made = tuple(
        _pool(name, of_pools.get(name, {}), groups.get(name, ()), hide) for name in wanted
    )
    secret = [
        f"the comment of the pool {name}, which may hold a secret"
        for name in wanted
        if _tells_secret(of_pools.get(name, {}).get("comment", Setting("-", "-")).value, hide)
    ]
    roots = {name: of_pools.get(name, {}).get("altroot") for name in wanted}
    devices = [each for pool in made for group in pool.groups for each in group.devices]
    divided, lacking = _disks(door, devices)
    found, more = _versions(door)
    return Taken(
        Layout(
            host=_name(os.uname().nodename),
            machine=_name(os.uname().machine),
            versions={**found, **client, "kopiatomic": __version__},
            pools=made,
            datasets=_datasets(settings, _points(table), roots, hide),
            disks=divided,
            loaders=_loaders(table),
        ),
        (*secret, *lacking, *more),
    )


def _name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", text) or "_"


def _disks(door: Door, devices: Sequence[str]) -> tuple[tuple[disks.Disk, ...], list[str]]:
    try:
        found = disks.disks(door, devices)
    except CommandFailed as error:
        return (), [f"the partitions of the disks: {error}"]
    made, lacking = [], []
    for disk in found:
        table = []
        for line in disk.table:
            if not line.isprintable():
                lacking.append(f"the label of partition {line.split()[0]} of {disk.name}: no text")
                line = " ".join(line.split()[:4])
            table.append(line)
        made.append(disk._replace(table=tuple(table)))
    return tuple(made), lacking


def _versions(door: Door) -> tuple[dict[str, str], list[str]]:
    found, lacking = {}, []
    for name, argv in _VERSIONS:
        try:
            said = lines_of(door.run(argv).stdout)
            first = said[0].removeprefix("zfs-") if said else ""
            found[name] = first if first.isprintable() and first else "unknown"
        except CommandFailed as error:
            lacking.append(f"the version of {name}: {error}")
    return found, lacking


def _loaders(table: Sequence[Mount]) -> tuple[str, ...]:
    """Return what the EFI partition holds that firmware can start; nothing if there is none."""
    found: list[str] = []
    for mount in table:
        top = f"{mount.point}/EFI"
        if mount.type != _EFI_TYPE or not mount.special.startswith("/dev/"):
            continue
        try:
            for vendor in sorted(os.listdir(top)):
                if os.path.isdir(f"{top}/{vendor}"):
                    names = sorted(os.listdir(f"{top}/{vendor}"))
                    found += [f"/EFI/{vendor}/{name}" for name in names
                              if re.fullmatch(_EFI_FILES, name)]  # fmt: skip
        except OSError:
            continue
    return tuple(each for each in found if each.isprintable())


def _tells_secret(text: str, hide: Callable[[str], str]) -> bool:
    """Say whether free text holds what is known as a secret, or looks like one."""
    return hide(text) != text or holds_secret(text) or bool(re.search(_WITH_PASSWORD, text))


# Pools


def _pool(
    name: str,
    settings: Mapping[str, Setting],
    groups: Sequence[pools.Group],
    hide: Callable[[str], str],
) -> PoolLayout:
    features = [
        each.removeprefix("feature@")
        for each, setting in settings.items()
        if each.startswith("feature@") and setting.value in ("enabled", "active")
    ]
    own = {
        each: setting.value
        for each, setting in settings.items()
        if setting.source == "local" and "@" not in each and each not in _OF_THE_IMPORT
        and setting.value.isprintable() and ":" not in each
        and not (each == "comment" and _tells_secret(setting.value, hide))
    }  # fmt: skip
    boots = settings.get("bootfs", Setting("-", "-")).value
    return PoolLayout(
        name, own, tuple(sorted(features)), tuple(groups), "" if boots == "-" else boots
    )


# Datasets


def _points(table: Sequence[Mount]) -> dict[str, str]:
    """Return where each dataset is mounted first."""
    return {each.special: each.point for each in reversed(table) if each.type == "zfs"}


def _datasets(
    settings: Mapping[str, Mapping[str, Setting]],
    points: Mapping[str, str],
    roots: Mapping[str, Setting | None],
    hide: Callable[[str], str],
) -> tuple[DatasetLayout, ...]:
    """Return the datasets but for clones of ours, which are gone after the run."""
    made = []
    for name in sorted(settings, key=lambda each: each.split("/")):
        setting = roots.get(pool_of(name))
        root = "" if setting is None or setting.value == "-" else setting.value.rstrip("/")
        if not _is_our_clone(name, settings[name]):
            made.append(_dataset(name, settings, points.get(name, ""), root, hide))
    return tuple(made)


def _is_our_clone(name: str, own: Mapping[str, Setting]) -> bool:
    """Say so of a volume that is called as the clones of ours are and was marked here.

    A mark anywhere else is somebody's idea of a property.
    """
    marked = own.get(RUN_PROPERTY, Setting("-", "-")).source == "local"
    return marked and "volsize" in own and is_like_our_clone(name)


def _dataset(
    name: str,
    settings: Mapping[str, Mapping[str, Setting]],
    point: str,
    root: str,
    hide: Callable[[str], str],
) -> DatasetLayout:
    own = settings[name]
    kept: dict[str, str] = {}
    omitted = []
    for each, (value, source) in own.items():
        decided = each in _DECIDED and value != _DECIDED[each]
        decided = decided or (each == "volblocksize" and value != "-")
        is_default = (each, value) == ("canmount", "on")  # it is not inherited
        without = each in _APART or each == RUN_PROPERTY or is_default
        if without or (source == "-" and not decided):
            continue
        secret = is_secret(each) or (":" in each and _tells_secret(value, hide))
        if not value.isprintable() or secret or re.search(_WITH_PASSWORD, value):
            omitted.append(each)
        else:
            kept[each] = _without(value, root) if each == "mountpoint" else value
    place = _without(point, root) if point.isprintable() else ""
    return DatasetLayout(
        name,
        kept,
        size=own["volsize"].value if "volsize" in own else "",
        key=_key(name, own),
        mounted="" if _is_said(name, settings, place, root) else place,
        clone_of=_value(own, "origin"),
        omitted=tuple(sorted(omitted)),
    )


def _value(own: Mapping[str, Setting], name: str) -> str:
    value = own[name].value if name in own else "-"
    return "" if value == "-" else value


def _without(path: str, root: str) -> str:
    """Return a path as it is without the pool's altroot."""
    if root and (path == root or path.startswith(f"{root}/")):
        return path[len(root) :] or "/"
    return path


def _is_said(
    name: str, settings: Mapping[str, Mapping[str, Setting]], point: str, root: str
) -> bool:
    """Say whether a dataset's properties say that it is mounted where it is, or it is nowhere."""
    if not point:
        return True
    if _value(settings[name], "canmount") not in ("", "on"):
        return False
    above = name
    while above:
        value = _without(_value(settings.get(above, {}), "mountpoint"), root)
        if value:
            return (value.rstrip("/") + name[len(above) :] or "/") == point
        above = above.rpartition("/")[0]
    return point == f"/{name}"


def _key(name: str, own: Mapping[str, Setting]) -> Key | None:
    """Return how an encryption root is encrypted, None for any other dataset."""
    if _value(own, "encryptionroot") != name:
        return None
    place = _value(own, "keylocation") or "prompt"
    address = re.fullmatch(_ADDRESS, place)
    if address:
        place = f"{address[1]}://{address[2]}/..."
    form = _value(own, "keyformat")
    return Key(_value(own, "encryption"), form, place if place.isprintable() else "a file")
