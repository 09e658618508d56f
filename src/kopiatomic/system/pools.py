"""zpool(8) and zfs-get(8): what pools and datasets are made of, and what is set on them."""

import re
from collections.abc import Sequence

from kopiatomic.record import Record
from kopiatomic.system.command import CommandFailed, Door
from kopiatomic.system.zfs import lines_of

# Where zpool-status(8) lists what is no part of the data proper, and what it is called
# when a pool is made; zpoolconcepts(7).
_SECTIONS = {
    "logs": "log", "cache": "cache", "spares": "spare", "special": "special", "dedup": "dedup",
}  # fmt: skip

# A group of devices, by the name that zpool-status(8) gives it: mirror-0, draid2:4d:11c:1s-0.
_GROUP = r"(mirror|raidz[123]|draid[0-9a-z:]*)-[0-9]+"

# What else has a line among the devices: a hole that a removed log has left, and the like.
_NO_DEVICE = r"(hole|indirect|missing)-[0-9]+"

# The second column.
_STATE = r" +(?:ONLINE|DEGRADED|FAULTED|OFFLINE|UNAVAIL|REMOVED|AVAIL|INUSE|CANT_OPEN)\b|\t"


class Setting(Record):
    """A property as it was set on a pool or dataset; ``source`` is local, received or -."""

    value: str
    source: str


class Group(Record):
    """Devices of a pool that belong together.

    ``use`` is empty for the data proper, else log, cache, spare, special or dedup; ``kind``
    is mirror, raidz1 and so on, empty for devices that each stand for themselves.
    """

    use: str
    kind: str
    devices: tuple[str, ...]


def dataset_settings(door: Door, pools: Sequence[str]) -> dict[str, dict[str, Setting]]:
    """Return of all datasets of these pools what was set on each, and what never changes.

    The values are exact (zfs-get(8), -p). Raises CommandFailed.
    """
    argv = (
        "zfs", "get", "-Hp", "-r", "-t", "filesystem,volume", "-s", "local,received,none",
        "-o", "name,property,source,value", "all", *pools,
    )  # fmt: skip
    return parse_settings(argv, door.run(argv).stdout)


def parse_settings(argv: Sequence[str], text: str) -> dict[str, dict[str, Setting]]:
    """Turn the answer of our ``zfs get all`` into settings by dataset; raises CommandFailed.

    A value may have any number of lines, and who may set a user property could write there
    what looks like a line of another dataset. But zfs(8) tells of each dataset once, its
    type first, the user properties last: any other order is refused.
    """
    found: dict[str, dict[str, Setting]] = {}
    name = last = ""
    for line in text.split("\n"):
        fields = line.split("\t", 3)
        if not _is_record(fields):
            if last and line:
                value, source = found[name][last]
                found[name][last] = Setting(f"{value}\n{line}", source)
            elif line:
                raise _unclear(argv, line)
            continue
        if fields[0] != name:
            name, last = fields[0], ""
            if name in found or fields[1] != "type":
                raise _unclear(argv, line)
            found[name] = {}
        own = found[name]
        if fields[1] in own or (":" in last and ":" not in fields[1]):
            raise _unclear(argv, line)
        last = fields[1]
        own[last] = Setting(fields[3], fields[2])
    return found


def _is_record(fields: Sequence[str]) -> bool:
    return (
        len(fields) == 4
        and fields[2] in ("local", "received", "-")
        and re.fullmatch(r"[a-zA-Z0-9:_.@/-]+", fields[1]) is not None
    )


def _unclear(argv: Sequence[str], line: str) -> CommandFailed:
    return CommandFailed(argv, f"printed a line that is not understood: {line[:80]!r}")


def pool_settings(door: Door, pools: Sequence[str]) -> dict[str, dict[str, Setting]]:
    """Return of these pools all properties, features among them; raises CommandFailed."""
    argv = ("zpool", "get", "-Hp", "-o", "name,property,source,value", "all", *pools)
    found: dict[str, dict[str, Setting]] = {}
    for line in lines_of(door.run(argv).stdout):
        fields = line.split("\t", 3)
        if len(fields) != 4 or fields[0] not in pools:
            raise _unclear(argv, line)
        found.setdefault(fields[0], {})[fields[1]] = Setting(fields[3], fields[2])
    return found


class _Node:
    """A line of zpool-status(8): a name, and the lines that are indented below it."""

    def __init__(self, depth: int, name: str) -> None:
        self.depth, self.name = depth, name
        self.below: list[_Node] = []

    def device(self) -> str:
        """Return the device that it is, or the one that stays where two stand for one."""
        if not self.below:
            return self.name
        return self.below[0 if self.name.startswith("spare") else -1].device()


def groups(door: Door, pools: Sequence[str]) -> dict[str, tuple[Group, ...]]:
    """Return what devices each of these pools is made of; raises CommandFailed."""
    argv = ("zpool", "status", "-P", *pools)
    return parse_status(argv, door.run(argv).stdout)


def parse_status(argv: Sequence[str], text: str) -> dict[str, tuple[Group, ...]]:
    """Turn the answer of ``zpool status -P`` into groups by pool; raises CommandFailed.

    The devices stand between the line of titles and the one of errors, each indented below
    what it belongs to.
    """
    found: dict[str, tuple[Group, ...]] = {}
    tops: list[_Node] | None = None
    path: list[_Node] = []
    for line in text.split("\n"):
        if re.match(r"\tNAME +STATE ", line):
            tops, path = [], []
        elif tops is not None and line.startswith("\t") and line.strip():
            node = _node(line)
            path = [each for each in path if each.depth < node.depth]
            (path[-1].below if path else tops).append(node)
            path.append(node)
        elif tops and line.strip():
            found[tops[0].name] = _groups_of(tops)
            tops = None
    if tops:
        found[tops[0].name] = _groups_of(tops)
    if not found:
        raise CommandFailed(argv, "printed something that is not the state of a pool")
    return found


def _node(line: str) -> _Node:
    """Return a device or a group of them; of a device that is away, what it was called last."""
    text = line[1:]
    away = re.search(r"  was (/.*)$", text)
    name = re.split(_STATE, text.strip(), maxsplit=1)[0]
    return _Node(len(text) - len(text.lstrip(" ")), away[1] if away else name)


def _groups_of(tops: Sequence[_Node]) -> tuple[Group, ...]:
    """Return the groups below the pool itself, which comes first, and below its sections."""
    made: list[Group] = []
    for top in tops:
        use = "" if top is tops[0] else _SECTIONS.get(top.name, top.name)
        single: list[str] = []
        for node in top.below:
            group = re.fullmatch(_GROUP, node.name)
            if group:
                made.append(Group(use, group[1], tuple(each.device() for each in node.below)))
            elif not re.fullmatch(_NO_DEVICE, node.name):
                single.append(node.device())
        if single:
            made.append(Group(use, "", tuple(single)))
    return tuple(made)
