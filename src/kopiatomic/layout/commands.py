"""A layout as the commands that make the machine's pools and datasets anew, for sh(1).

What stands in a layout may come from anywhere. So each value is quoted, a property that is
not known is left out, and nothing is forced: a disk that has partitions, or a pool, stops
the commands, as any failure does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from shlex import quote

from kopiatomic.layout.form import DatasetLayout, Layout, PoolLayout
from kopiatomic.system.disks import Disk
from kopiatomic.system.zfs import pool_of

# What begins a line that is for when the files are there again.
AFTER = "#after: "

# The properties of a pool that can be set when it is made; zpoolprops(7).
_OF_POOLS = frozenset(
    "ashift autoexpand autoreplace autotrim comment compatibility dedup_table_quota delegation "
    "failmode listsnapshots multihost version".split()
)

# Those of a dataset, but for its size and its key; zfsprops(7).
_OF_DATASETS = frozenset(
    "aclinherit aclmode acltype atime canmount casesensitivity checksum compression copies dedup "
    "devices direct dnodesize exec filesystem_limit jailed logbias longname mlslabel mountpoint "
    "nbmand normalization overlay prefetch primarycache quota readonly recordsize "
    "redundant_metadata refquota refreservation relatime reservation secondarycache setuid "
    "sharenfs sharesmb snapdev snapdir snapshot_limit special_small_blocks sync utf8only "
    "volblocksize volmode volthreading vscan xattr".split()
)

# With these, files could not be written back, or would be shown to others too early.
_LATER = ("jailed", "readonly", "sharenfs", "sharesmb")

# What loader.efi(8) is called where firmware looks for it.
_LOADER = r"(?i)/EFI/(BOOT/BOOT[A-Z0-9]{2,8}|FREEBSD/LOADER)\.EFI"
_DEFAULT_LOADERS = {
    "amd64": "/EFI/BOOT/BOOTX64.EFI", "i386": "/EFI/BOOT/BOOTIA32.EFI",
    "arm64": "/EFI/BOOT/BOOTAA64.EFI", "riscv": "/EFI/BOOT/BOOTRISCV64.EFI",
}  # fmt: skip

# How long a line of options is, in characters.
_WIDTH = 90

# Where each scheme of partitions puts the number into a partition's name.
_PARTITIONS = {"GPT": "p", "MBR": "s"}


def script(layout: Layout) -> list[str]:
    """Return the commands, line by line, each with what there is to know about it."""
    return [
        *_head(layout),
        *_disks(layout),
        *(line for pool in layout.pools for line in _pool(layout, pool)),
        *_datasets(layout),
        *_boot(layout),
        *_mounts(layout),
        *_after(layout),
    ]


def _head(layout: Layout) -> Iterator[str]:
    versions = ", ".join(f"{name} {value}" for name, value in sorted(layout.versions.items()))
    yield "#!/bin/sh"
    yield f"# The layout of {layout.host} ({layout.machine}; {versions})."
    yield "# These commands make its partitions, pools and datasets anew, below ALTROOT."
    yield "# Read them first: disks may have other names now, or other sizes. None of them is"
    yield "# forced, so a disk that has partitions or a pool already stops them."
    yield f"# The lines that begin with {AFTER.strip()} are for when the files are restored."
    yield "set -eu"
    yield "ALTROOT=${ALTROOT:-/mnt}"


# Disks


def _disks(layout: Layout) -> Iterator[str]:
    if layout.disks:
        yield ""
        yield "# Partitions, and what the machine boots from; gpart(8)"
    for disk in layout.disks:
        yield f"gpart restore -l {quote(disk.name)} <<'END'"
        yield from disk.table
        yield "END"
        yield from _long_labels(disk)
        yield from _boot_code(layout, disk)
    devices = [each for pool in layout.pools for group in pool.groups for each in group.devices]
    for device in devices:
        if device.endswith(".eli"):
            below = quote(device.removesuffix(".eli"))
            yield f"# {device} was encrypted by geli(8), whose key is in no backup. Before the"
            yield f"# pool: geli init -b -s 4096 {below}; geli attach {below}"


def _long_labels(disk: Disk) -> Iterator[str]:
    """Return what restores labels of several words: gpart(8) takes the first, and no flags then."""
    for line in disk.table[1:]:
        index, _, _, _, *rest = line.split()
        flags = rest.pop()[1:-1].split(",") if rest and re.fullmatch(r"\[.*\]", rest[-1]) else []
        if len(rest) < 2:
            continue
        which = f"-i {quote(index)}"
        yield f"gpart modify {which} -l {quote(' '.join(rest))} {quote(disk.name)}"
        yield from (f"gpart set -a {quote(flag)} {which} {quote(disk.name)}" for flag in flags)


def _boot_code(layout: Layout, disk: Disk) -> Iterator[str]:
    letter = _PARTITIONS.get(disk.table[0].split()[0])
    for index, kind in (line.split()[:2] for line in disk.table[1:]):
        if kind == "freebsd-boot":
            yield (
                f"gpart bootcode -b /boot/pmbr -p /boot/gptzfsboot -i {index} {quote(disk.name)}"
            )
        elif kind == "efi" and letter:
            yield from _efi(layout, f"/dev/{disk.name}{letter}{index}")


def _efi(layout: Layout, device: str) -> Iterator[str]:
    """Return what makes an EFI partition, with loader.efi(8) of the system that runs."""
    default = _DEFAULT_LOADERS.get(layout.machine)
    known = [each for each in layout.loaders if re.fullmatch(_LOADER, each)]
    loaders = known or [default or "/EFI/BOOT/BOOTX64.EFI"]
    yield f"newfs_msdos -F 32 -c 1 {quote(device)}"
    yield "mkdir -p /tmp/efi"
    yield f"mount -t msdosfs {quote(device)} /tmp/efi"
    for directory in dict.fromkeys(each.rpartition("/")[0] for each in loaders):
        yield f"mkdir -p {quote(f'/tmp/efi{directory}')}"
    for each in loaders:
        yield f"cp /boot/loader.efi {quote(f'/tmp/efi{each}')}"
    yield "umount /tmp/efi"
    others = [each for each in layout.loaders if each not in known]
    if others:
        yield f"# Other systems had there: {' '.join(others)}"


# Pools


def _pool(layout: Layout, pool: PoolLayout) -> Iterator[str]:
    """Return what makes a pool with the features it had, and no other: its system may be old."""
    root = next(each for each in layout.datasets if each.name == pool.name)
    words = [_setting(name, value) for name, value in sorted(pool.properties.items())
             if name in _OF_POOLS]  # fmt: skip
    words += [f"feature@{each}=enabled" for each in sorted(pool.features)]
    # Not mounted yet: what is mounted on / comes first.
    now = [*_key(root), *_now(root, {**root.properties, "canmount": "off"})]
    yield ""
    yield f"# The pool {pool.name}; zpool-create(8)"
    yield from _unknown(root.name, root.properties, _OF_DATASETS)
    yield from _unknown(pool.name, pool.properties, _OF_POOLS)
    yield from _remarks(root)
    yield "zpool create -d -R $ALTROOT \\"
    yield from _wrapped([*(("-o", word) for word in words), *(("-O", word) for word in now)])
    yield f"    {quote(pool.name)} {' '.join(_devices(pool))}"


def _wrapped(options: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Return options in lines that go on, as many in each as can be read at a terminal."""
    line = ""
    for option, word in options:
        one = f"{option} {quote(word)}"
        if line and len(line) + len(one) > _WIDTH:
            yield f"    {line}\\"
            line = ""
        line += f"{one} "
    if line:
        yield f"    {line}\\"


def _devices(pool: PoolLayout) -> Iterator[str]:
    """Return a pool's devices as zpool-create(8) takes them, those of the data proper first."""
    use = ""
    # What stands for itself comes before a mirror, of which it would be a part behind it.
    for group in sorted(pool.groups, key=lambda each: (each.use, each.kind)):
        if group.use != use:
            use = group.use
            yield use
        if group.kind:
            yield group.kind
        yield from map(quote, group.devices)


def _unknown(name: str, properties: Mapping[str, str], known: frozenset[str]) -> Iterator[str]:
    for each, value in sorted(properties.items()):
        if ":" not in each and each not in known:
            yield f"# {name} had a property that is not known here: {_setting(each, value)}"


# Datasets


def _datasets(layout: Layout) -> Iterator[str]:
    yield ""
    yield "# Datasets, none of which is mounted yet; zfs-create(8)"
    for each in _in_order(layout.datasets):
        if "/" in each.name:
            yield from _unknown(each.name, each.properties, _OF_DATASETS)
            yield from _remarks(each)
            yield _create(each)
    for pool in layout.pools:
        root = next(each for each in layout.datasets if each.name == pool.name)
        given = root.properties.get("canmount", "on")
        if given != "off":
            # It mounts nothing by itself, unlike the making of a pool.
            yield f"zfs set {quote(_setting('canmount', given))} {quote(pool.name)}"


def _in_order(datasets: Iterable[DatasetLayout]) -> list[DatasetLayout]:
    """Return the datasets so that each comes after the one that it is in."""
    return sorted(datasets, key=lambda each: each.name.split("/"))


def _create(dataset: DatasetLayout) -> str:
    words = ["zfs", "create"]
    if dataset.size:
        sparse = [] if "refreservation" in dataset.properties else ["-s"]
        words += [*sparse, "-V", dataset.size]
    else:
        words.append("-u")
    for each in (*_key(dataset), *_now(dataset, dataset.properties)):
        words += ["-o", each]
    return " ".join(quote(word) for word in (*words, dataset.name))


def _now(dataset: DatasetLayout, properties: Mapping[str, str]) -> list[str]:
    """Return the properties that a dataset is made with, as name=value."""
    later = dict(_later(dataset))
    return [
        _setting(name, value)
        for name, value in sorted(properties.items())
        if name not in later and (":" in name or name in _OF_DATASETS)
    ]


def _later(dataset: DatasetLayout) -> list[tuple[str, str]]:
    return [
        (name, dataset.properties[name])
        for name in _LATER
        if dataset.properties.get(name, "off") != "off"
    ]


def _key(dataset: DatasetLayout) -> list[str]:
    """Return what makes an encryption root with a key of its own, which is asked for or read."""
    if dataset.key is None:
        return []
    place = "prompt" if dataset.key.form == "passphrase" else f"file://{_key_file(dataset)}"
    return [
        _setting("encryption", dataset.key.cipher), _setting("keyformat", dataset.key.form),
        f"keylocation={place}",
    ]  # fmt: skip


def _key_file(dataset: DatasetLayout) -> str:
    return "/tmp/" + re.sub(r"[^A-Za-z0-9]", "_", dataset.name) + ".key"


def _remarks(dataset: DatasetLayout) -> Iterator[str]:
    """Return what there is to know of a dataset that no option says."""
    name, key = dataset.name, dataset.key
    if dataset.clone_of:
        yield f"# {name} was a clone of {dataset.clone_of}; now it is for itself"
    if dataset.omitted:
        yield f"# Not kept of {name}, for it may be secret or is no text: {_list(dataset.omitted)}"
    if dataset.size:
        yield f"# {name} is a volume: its contents come from a backup of the volume"
    if key is None:
        return
    place = "asked for" if key.place == "prompt" else f"at {key.place}"
    yield f"# {name} is encrypted. Its key, which was {place}, is in no layout."
    if key.form == "passphrase":
        yield "# This asks for a new passphrase."
    else:
        file = _key_file(dataset)
        size = "openssl rand -hex 32" if key.form == "hex" else "openssl rand 32"
        yield f"# Before this: put a key there, and keep it elsewhere as well: {size} > {file}"


def _list(names: Sequence[str]) -> str:
    return " ".join(names)


def _setting(name: str, value: str) -> str:
    return f"{name}={value}"


def _boot(layout: Layout) -> Iterator[str]:
    for pool in layout.pools:
        if pool.boots in {each.name for each in layout.datasets}:
            yield f"zpool set {quote(_setting('bootfs', pool.boots))} {quote(pool.name)}"


# Mounts


def _mounts(layout: Layout) -> Iterator[str]:
    """Return what mounts the datasets where their files belong, / before what is in it."""
    places: list[tuple[str, str, bool]] = []
    own = {each.name: each for each in layout.datasets}
    boots = {pool.boots for pool in layout.pools}
    for each in layout.datasets:
        point = _mount_point(own, each)
        if each.size:
            continue
        is_here = each.mounted and each.mounted == point
        if each.mounted and not is_here:
            places.append((each.mounted, each.name, False))
        elif point and (is_here or each.name in boots or _is_automatic(own, each)):
            places.append((point, each.name, True))
    if places:
        yield ""
        yield "# Mounted, so that the files can be restored to ALTROOT"
    for point, name, by_property in sorted(places):
        if by_property:
            yield f"zfs mount {quote(name)}"
        else:
            yield f"mkdir -p $ALTROOT{quote(point)}"
            yield f"mount -t zfs {quote(name)} $ALTROOT{quote(point)}"


def _mount_point(own: Mapping[str, DatasetLayout], dataset: DatasetLayout) -> str:
    """Return where a dataset's properties have it mounted, empty for nowhere."""
    value, rest = _inherited(own, dataset.name, "mountpoint")
    value = value or f"/{pool_of(dataset.name)}"
    return "" if value in ("none", "legacy") else (value.rstrip("/") + rest) or "/"


def _is_automatic(own: Mapping[str, DatasetLayout], dataset: DatasetLayout) -> bool:
    """Say whether a dataset is mounted at boot: a jailed one is not."""
    jailed, _ = _inherited(own, dataset.name, "jailed")
    return jailed != "on" and dataset.properties.get("canmount", "on") == "on"


def _inherited(own: Mapping[str, DatasetLayout], name: str, what: str) -> tuple[str, str]:
    """Return a property's value, and what of the name is below the dataset that has it."""
    above = name
    while above:
        if what in own[above].properties:
            return own[above].properties[what], name[len(above) :]
        above = above.rpartition("/")[0]
    return "", name[len(pool_of(name)) :]


# Afterwards


def _after(layout: Layout) -> Iterator[str]:
    lines = [
        f"{AFTER}zfs set {quote(_setting(name, value))} {quote(each.name)}"
        for each in _in_order(layout.datasets)
        for name, value in _later(each)
    ]
    if lines:
        yield ""
        yield "# When the files are restored:"
        yield from lines
