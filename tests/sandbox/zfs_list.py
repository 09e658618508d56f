"""zfs list and zfs get."""

from __future__ import annotations

import os
import sys

from sandbox.cmd_zfs import Usage
from sandbox.datasets import (
    ALIASES,
    INHERITED,
    NUMERIC,
    ONCE,
    OWN,
    READ_ONLY,
    Dataset,
    Snapshot,
    World,
)
from sandbox.standin import options, split_commas, warn
from sandbox.state import State

LIST_COLUMNS = "name,used,avail,refer,mountpoint"
HEADERS = {"available": "AVAIL", "referenced": "REFER", "compressratio": "RATIO"}
KINDS = {"fs": "filesystem", "snap": "snapshot", "vol": "volume", "bookmark": "bookmark"}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def run(state: State, command: str, arguments: list[str]) -> int:
    """Either of the two."""
    return _list(state, arguments) if command == "list" else _get(state, arguments)


class Selection:
    """What the operands of a command mean."""

    def __init__(
        self, world: World, kinds: list[str], depth: int | None, only: bool = False
    ) -> None:
        self.world = world
        self.kinds = kinds
        self.only = only  # -t: what is named must be of these kinds
        self.depth = depth
        self.found: dict[str, Dataset | Snapshot] = {}
        self.failed = False

    def everything(self) -> None:
        """No operand: all pools."""
        for dataset in self.world.datasets.values():
            self._add(dataset)

    def operand(self, word: str) -> None:
        """A dataset, snapshot or path."""
        name = self._name(word)
        if not name:
            self.failed = True
            return
        what = self.world.snapshot(name) if "@" in name else self.world.datasets.get(name)
        if what is None:
            warn(f"cannot open '{word}': dataset does not exist")
            self.failed = True
        elif isinstance(what, Snapshot) and self.only and "snapshot" not in self.kinds:
            # zfs_validate_name() in libzfs_dataset.c.
            warn(f"cannot open '{word}': snapshot delimiter '@' is not expected here")
            self.failed = True
        elif isinstance(what, Snapshot):
            self.found[what.name] = what
        else:
            self._dataset(what, word)

    def _dataset(self, what: Dataset, word: str) -> None:
        if self.depth == 0 and what.kind not in self.kinds:
            if self.kinds == ["snapshot"]:
                self._add(what)
            else:
                warn(f"cannot open '{word}': operation not applicable to datasets of this type")
                self.failed = True
            return
        level = what.name.count("/")
        for one in self.world.below(what.name) if self.depth != 0 else [what]:
            if self.depth is None or one.name.count("/") - level <= self.depth:
                self._add(one, self.depth is None or one.name.count("/") - level < self.depth)

    def _add(self, what: Dataset, snapshots: bool = True) -> None:
        if what.kind in self.kinds:
            self.found[what.name] = what
        if "snapshot" in self.kinds and snapshots:
            for one in self.world.snapshots.get(what.name, []):
                self.found[one.name] = one

    def _name(self, word: str) -> str:
        if not word.startswith(("/", "./")):
            return word
        if not os.path.exists(word):
            warn(f"cannot open '{word}': No such file or directory")
            return ""
        mount = self.world.table.holding(os.path.realpath(word))
        if mount is None or mount.fstype != "zfs":
            warn(f"'{word}': not a ZFS filesystem")
            return ""
        return mount.special

    def sorted(self) -> list[Dataset | Snapshot]:
        """In zfs's own order: by name; snapshots after their dataset, oldest first."""
        def key(one: Dataset | Snapshot) -> tuple[str, int, int, str]:
            if isinstance(one, Snapshot):
                return one.of.name, 1, one.txg, one.short
            return one.name, 0, 0, ""
        return sorted(self.found.values(), key=key)


def _select(world: World, given: dict[str, list[str]], words: list[str], kinds: list[str]
            ) -> Selection:
    depth: int | None = 0
    if "r" in given or not words:
        depth = None
    if "d" in given:
        try:
            depth = int(given["d"][-1])
        except ValueError:
            raise Usage(f"{given['d'][-1]} is not a number") from None
    selection = Selection(world, kinds, depth, "t" in given)
    if words:
        for word in words:
            selection.operand(word)
    else:
        selection.everything()
    return selection


def _kinds(given: dict[str, list[str]], default: list[str]) -> list[str]:
    if "t" not in given:
        return default
    found = []
    for word in split_commas(given["t"]):
        kind = KINDS.get(word, word)
        if kind == "all":
            return ["filesystem", "volume", "snapshot"]
        if kind not in KINDS.values():
            raise Usage(f"invalid type '{word}'")
        found.append(kind)
    return found


def _list(state: State, arguments: list[str]) -> int:
    try:
        given, words = options(arguments, "Hprv", "odtsS")
    except ValueError as error:
        raise Usage(f"invalid option '{error}'") from None
    columns = split_commas(given.get("o", [LIST_COLUMNS]))
    for column in columns:
        if not known(column):
            raise Usage(f"bad property list: invalid property '{column}'")
    world = World(state)
    default = ["snapshot"] if words and all("@" in w for w in words) else ["filesystem", "volume"]
    selection = _select(world, given, words, _kinds(given, default))
    found = selection.sorted()
    for letter in ("s", "S"):
        for column in reversed(given.get(letter, [])):
            found.sort(key=_sort_key(world, column), reverse=letter == "S")
    exact = "p" in given
    rows = [[shown(world, one, column, exact) for column in columns] for one in found]
    header = [HEADERS.get(ALIASES.get(c, c), c.upper()) for c in columns]
    if not rows and not selection.failed and "H" not in given:
        warn("no datasets available")
    print_table(header, rows, "H" in given,
                [ALIASES.get(c, c) in NUMERIC for c in columns])
    return 1 if selection.failed else 0


def known(column: str) -> bool:
    """Whether there is such a property."""
    name = ALIASES.get(column, column)
    return (":" in name or name in READ_ONLY or name in INHERITED or name in OWN
            or name in ONCE
            or name in ("mountpoint", "volsize"))


def _sort_key(world: World, column: str) -> Callable[[Dataset | Snapshot], tuple[int, str]]:
    def key(one: Dataset | Snapshot) -> tuple[int, str]:
        value = world.value(one, column)[0]
        return (int(value), "") if value.isdigit() else (0, value)
    return key


def shown(world: World, one: Dataset | Snapshot, column: str, exact: bool) -> str:
    """A value as text, for people unless exact."""
    value = world.value(one, column)[0]
    return value if exact else friendly(ALIASES.get(column, column), value)


def friendly(name: str, value: str) -> str:
    """Sizes with units, moments as dates."""
    if name == "creation" and value.isdigit():
        import time

        return time.strftime("%a %b %e %k:%M %Y", time.localtime(int(value)))
    if name not in NUMERIC or not value.isdigit():
        return value
    if value == "0":
        return "none" if name in ("quota", "reservation") else "0B"
    size = float(value)
    units = iter("BKMGTP")
    unit = next(units)
    while size >= 1024:
        size /= 1024
        unit = next(units)
    if unit == "B" or size == int(size):
        return f"{int(size)}{unit}"
    return f"{size:.2f}{unit}" if size < 10 else f"{size:.1f}{unit}" if size < 100 \
        else f"{size:.0f}{unit}"


def print_table(header: list[str], rows: list[list[str]], scripted: bool, right: list[bool]
                ) -> None:
    """Tabs for scripts, else columns; numbers to the right."""
    if scripted:
        text = "".join("\t".join(row) + "\n" for row in rows)
    elif rows:
        lines = [header, *rows]
        widths = [max(len(line[n]) for line in lines) for n in range(len(header))]
        text = ""
        for line in lines:
            cells = [cell.rjust(widths[n]) if right[n] else
                     cell if n == len(line) - 1 else cell.ljust(widths[n])
                     for n, cell in enumerate(line)]
            text += "  ".join(cells) + "\n"
    else:
        text = ""
    sys.stdout.write(text)


# -- zfs get ---------------------------------------------------------------------------------

FIELDS = ("name", "property", "value", "received", "source")


def _get(state: State, arguments: list[str]) -> int:
    try:
        given, words = options(arguments, "Hpr", "odts")
    except ValueError as error:
        raise Usage(f"invalid option '{error}'") from None
    if not words:
        raise Usage("missing property argument")
    wanted = words.pop(0).split(",")
    for name in wanted:
        if name != "all" and not known(name):
            raise Usage(f"bad property list: invalid property '{name}'")
    fields = split_commas(given.get("o", ["name,property,value,source"]))
    fields = list(FIELDS) if fields == ["all"] else fields
    sources = split_commas(given["s"]) if "s" in given else None
    world = World(state)
    selection = _select(world, given, words, _kinds(given, ["filesystem", "volume", "snapshot"]))
    if words and "r" not in given and "d" not in given and "t" not in given:
        # An operand means itself, not also its snapshots.
        selection.found = {n: o for n, o in selection.found.items()
                           if "@" not in n or n in words}
    rows = []
    for one in selection.sorted():
        for name in _all(world, one) if wanted == ["all"] else wanted:
            row = _get_row(world, one, name, sources, "p" in given)
            if row:
                rows.append([row[field] for field in fields])
    print_table([f.upper() for f in fields], rows, "H" in given, [False] * len(fields))
    return 1 if selection.failed else 0


def _all(world: World, one: Dataset | Snapshot) -> list[str]:
    names = [n for n in (*READ_ONLY, "mountpoint", "volsize", *INHERITED, *OWN, *ONCE)
             if n not in ("name", "refer", "clones") and world.value(one, n)[0] != "-"]
    own = world.snapprops if isinstance(one, Snapshot) else {}
    user = set(own.get(one.id, {}))
    at: Dataset | None = one.of if isinstance(one, Snapshot) else one
    while at:
        user |= {n for n in world.props.get(at.id, {}) if ":" in n}
        at = world.datasets.get(at.parent)
    return names + sorted(user)


def _get_row(world: World, one: Dataset | Snapshot, name: str, sources: list[str] | None,
             exact: bool) -> dict[str, str] | None:
    value, source = world.value(one, name)
    kind = "none" if source == "-" else source.partition(" ")[0]
    if sources is not None and kind not in sources:
        return None
    name = ALIASES.get(name, name)
    return {"name": one.name, "property": name, "source": source,
            "value": value if exact else friendly(name, value),
            "received": value if source == "received" else "-"}
