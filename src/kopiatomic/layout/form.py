"""The layout of a machine as data, and as the file that is in its backups.

The same machine gives the same file, to the byte: nothing in it says when it was taken, or
how much is stored. What is read is checked, for a backup may come from anywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping

from kopiatomic.errors import EX_DATAERR, Refusal
from kopiatomic.record import TYPE_CHECKING, Record
from kopiatomic.system.disks import Disk
from kopiatomic.system.pools import Group

if TYPE_CHECKING:
    from typing import Any

FORMAT, VERSION = "kopiatomic layout", 1

# No layout is larger, in bytes: it has some 200 for each dataset.
LARGEST = 64 * 1024 * 1024

# As zfs_namecheck.c of OpenZFS has them; a pool begins with a letter.
_POOL = r"[A-Za-z][A-Za-z0-9_.: -]*"
_DATASET = rf"{_POOL}(/[A-Za-z0-9_.: -]+)*"
_SNAPSHOT = rf"{_DATASET}@[A-Za-z0-9_.: -]+"
_NATIVE = r"[a-z][a-z0-9_]*"
_USER = r"[a-z0-9_.:-]*:[a-z0-9_.:-]*"
_NUMBER = r"[0-9]{1,20}"
_DISK = r"[A-Za-z0-9][A-Za-z0-9_.,%+/-]*"
_SCHEME = r"[A-Z0-9]+ [0-9]+"
_PART = r"[0-9]+ [!A-Za-z0-9-]+ [0-9]+ [0-9]+( \S+)*"
_KIND = r"|mirror|raidz[123]|draid[0-9a-z:]*"
_USE = r"|log|cache|spare|special|dedup"
_FEATURE = r"[a-z0-9_.:-]+"
_WORD = r"[A-Za-z0-9_.+-]+"

# Without parts that lead elsewhere.
_PATH = r"/|(/(?!\.\.?(/|$))[^/]+)+"


class Key(Record):
    """How an encryption root is encrypted; the key itself is nowhere in a layout."""

    cipher: str
    form: str  # passphrase, hex or raw
    place: str  # prompt, or where the key was: a file's or another machine's address


class DatasetLayout(Record):
    """A file system or volume: what was set on it when it was made, or later.

    ``size`` is a volume's, in bytes, empty for a file system. ``mounted`` is where it was
    mounted, if its properties do not say so; ``clone_of`` the snapshot it was made of;
    ``omitted`` are properties whose values are no part of a layout.
    """

    name: str
    properties: Mapping[str, str]
    size: str = ""
    key: Key | None = None
    mounted: str = ""
    clone_of: str = ""
    omitted: tuple[str, ...] = ()


class PoolLayout(Record):
    """A pool: its properties, its features that are enabled, and its devices."""

    name: str
    properties: Mapping[str, str]
    features: tuple[str, ...]
    groups: tuple[Group, ...]
    boots: str = ""  # the dataset of bootfs


class Layout(Record):
    """All of it. ``loaders`` are the files on the EFI partition that a machine may start."""

    host: str
    machine: str
    versions: Mapping[str, str]
    pools: tuple[PoolLayout, ...]
    datasets: tuple[DatasetLayout, ...]
    disks: tuple[Disk, ...] = ()
    loaders: tuple[str, ...] = ()


# Written


def as_text(layout: Layout, commands: Iterable[str]) -> str:
    """Return the file: JSON, a line for each value.

    ``commands`` are in it for who has no more than the base system at hand; what reads
    the file passes over them.
    """
    data = {
        "format": FORMAT,
        "version": VERSION,
        "host": layout.host,
        "machine": layout.machine,
        "versions": dict(layout.versions),
        "disks": [{"name": each.name, "table": list(each.table)} for each in layout.disks],
        "loaders": list(layout.loaders),
        "pools": [_pool_as_data(each) for each in layout.pools],
        "datasets": [_dataset_as_data(each) for each in layout.datasets],
        "commands": list(commands),
    }
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def _pool_as_data(pool: PoolLayout) -> dict[str, object]:
    return {
        "name": pool.name,
        "properties": dict(sorted(pool.properties.items())),
        "features": sorted(pool.features),
        "groups": [each._asdict() for each in pool.groups],
        "bootfs": pool.boots,
    }


def _dataset_as_data(dataset: DatasetLayout) -> dict[str, object]:
    data: dict[str, object] = {
        "name": dataset.name,
        "properties": dict(sorted(dataset.properties.items())),
        "volume": dataset.size,
        "key": None if dataset.key is None else dataset.key._asdict(),
        "mounted": dataset.mounted,
        "clone of": dataset.clone_of,
        "omitted": sorted(dataset.omitted),
    }
    return {name: value for name, value in data.items() if value or name == "properties"}


# Read


def parse(data: bytes, name: str) -> Layout:
    """Return the layout in a file's bytes; raises Refusal if it is none, or has what none has.

    ``name`` is what to call the file.
    """
    try:
        held = json.loads(data.decode("utf-8"))
        if not isinstance(held, dict) or held.get("format") != FORMAT:
            raise ValueError("it is something else")
        version = held.get("version")
        if version != VERSION:
            raise Refusal(
                f"{name} is a layout of version {version!r:.20}, of which this program knows "
                f"{VERSION}: take a newer one, or the commands that stand in the file",
                EX_DATAERR,
            )
        return _layout(held)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise Refusal(
            f"{name} is no layout that a backup has saved: {_clean(reason)}", EX_DATAERR
        ) from error


def _clean(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)[:200]


def _layout(held: dict[str, Any]) -> Layout:
    pools = _each(held, "pools", _pool)
    datasets = _each(held, "datasets", _dataset)
    names = {each.name for each in datasets}
    for each in datasets:
        if "/" in each.name and each.name.rpartition("/")[0] not in names:
            raise ValueError(f"{each.name} hangs in the air")
    if len(names) != len(datasets) or {each.name for each in pools} != {
        name for name in names if "/" not in name
    }:
        raise ValueError("its pools are not those of its datasets")
    return Layout(
        host=_text(held, "host", _WORD),
        machine=_text(held, "machine", _WORD),
        versions=_mapping(held, "versions", _WORD),
        pools=pools,
        datasets=datasets,
        disks=_each(held, "disks", _disk),
        loaders=_texts(held, "loaders", _PATH),
    )


def _pool(held: dict[str, Any]) -> PoolLayout:
    return PoolLayout(
        _text(held, "name", _POOL),
        _mapping(held, "properties", _NATIVE),
        _texts(held, "features", _FEATURE),
        _each(held, "groups", _group),
        _text(held, "bootfs", f"|{_DATASET}"),
    )


def _group(held: dict[str, Any]) -> Group:
    devices = _texts(held, "devices", _PATH)
    if not devices:
        raise ValueError("a group without devices")
    return Group(_text(held, "use", _USE), _text(held, "kind", _KIND), devices)


def _dataset(held: dict[str, Any]) -> DatasetLayout:
    key = held.get("key")
    properties = _mapping(held, "properties", f"{_NATIVE}|{_USER}")
    _checked(properties.get("mountpoint", "none"), "mountpoint", f"none|legacy|{_PATH}")
    return DatasetLayout(
        _text(held, "name", _DATASET),
        properties,
        _text(held, "volume", _NUMBER) if "volume" in held else "",
        None if key is None else _key(key),
        _text(held, "mounted", _PATH) if "mounted" in held else "",
        _text(held, "clone of", _SNAPSHOT) if "clone of" in held else "",
        _texts(held, "omitted", f"{_NATIVE}|{_USER}") if "omitted" in held else (),
    )


def _key(held: dict[str, Any]) -> Key:
    form = _text(held, "form", "passphrase|hex|raw")
    return Key(_text(held, "cipher", _WORD), form, _text(held, "place", ".+"))


def _disk(held: dict[str, Any]) -> Disk:
    table = _texts(held, "table", f"{_SCHEME}|{_PART}")
    if not table or not re.fullmatch(_SCHEME, table[0]):
        raise ValueError("a disk without a table")
    if any(re.fullmatch(_SCHEME, line) for line in table[1:]):
        raise ValueError("a disk with two tables")
    return Disk(_text(held, "name", _DISK), table)


def _each(held: dict[str, Any], name: str, read: Callable[[Any], Any]) -> tuple[Any, ...]:
    items = _list(held, name)
    if not all(isinstance(each, dict) for each in items):
        raise TypeError(f"{name} are none")
    return tuple(map(read, items))


def _list(held: dict[str, Any], name: str) -> list[Any]:
    value = held[name]
    if not isinstance(value, list):
        raise TypeError(f"{name} is no list")
    return value


def _texts(held: dict[str, Any], name: str, pattern: str) -> tuple[str, ...]:
    return tuple(_checked(each, name, pattern) for each in _list(held, name))


def _text(held: dict[str, Any], name: str, pattern: str) -> str:
    return _checked(held[name], name, pattern)


def _mapping(held: dict[str, Any], name: str, pattern: str) -> dict[str, str]:
    value = held[name]
    if not isinstance(value, dict):
        raise TypeError(f"{name} is none")
    return {
        _checked(key, name, pattern): _checked(each, f"{name}: {key}", ".*")
        for key, each in value.items()
    }


def _checked(value: object, name: str, pattern: str) -> str:
    """Return a text that a layout may have: of the pattern, and printable."""
    if not isinstance(value, str) or not value.isprintable():
        raise TypeError(f"{name}: a text is wanted")
    if not re.fullmatch(pattern, value):
        raise ValueError(f"{name}: '{value}' cannot be")
    return value
