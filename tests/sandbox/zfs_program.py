"""zfs program: runs a channel program in one transaction group; see lua.py for its language.

Of the zfs library: exists, get_prop, debug, list.children and snapshots, and of check and sync
snapshot, destroy, set_prop and inherit. Their answers are FreeBSD's error numbers, as in
module/zfs/zcp_synctask.c, dsl_dataset.c and dsl_destroy.c of OpenZFS. What a program did before
it failed stays done.
"""

from __future__ import annotations

import sys

from sandbox import lua
from sandbox.cmd_zfs import Usage
from sandbox.datasets import Dataset, Snapshot, World
from sandbox.lua import LuaError
from sandbox.standin import options, warn
from sandbox.state import State, quoted
from sandbox.zfs_snapshot import invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# FreeBSD's numbers, not Linux's.
ENOENT, EBUSY, EEXIST, EXDEV, EINVAL, ENOSPC, EAGAIN, ENAMETOOLONG = 2, 16, 17, 18, 22, 28, 35, 63
LARGEST = 100 << 20
LONGEST = 255
DRY = ("running functions from the zfs.sync submodule requires passing sync=TRUE to"
       ' lzc_channel_program() (i.e. do not specify the "-n" command line argument)')


def run(state: State, _command: str, arguments: list[str]) -> int:
    """`zfs program [-jn] [-t limit] [-m limit] POOL FILE [ARGUMENT ...]`."""
    try:
        given, words = options(arguments, "jn", "tm")
    except ValueError as error:
        raise Usage(f"invalid option '{error}'") from None
    if len(words) < 2:
        raise Usage("missing program argument" if words else "missing pool argument")
    pool, path = words[:2]
    for letter, largest in (("t", 100_000_000), ("m", LARGEST)):
        limit = given.get(letter, ["1"])[-1]
        if not limit.isdigit() or not 0 < int(limit) <= largest:
            word = "instruction" if letter == "t" else "memory"
            warn(f"Invalid {word} limit: {limit}" if not limit.isdigit() else
                 f"{word.capitalize()} limit must be within 1 and {largest}")
            return 1
    try:
        text = sys.stdin.read() if path == "-" else _read(path)
    except OSError as error:
        warn(f"cannot open '{path}': {error.strerror}")
        return 1
    world = World(state)
    if pool not in world.pools:
        warn(f"cannot open '{pool}': no such pool")
        return 1
    if world.jail is not None:
        warn("Channel program execution failed:\n"
             "Permission denied. Channel programs must be run as root.")
        return 1
    if world.pools[pool][2] and "n" not in given:
        warn("Channel program execution failed: pool is read-only")
        return 1
    program = Program(world, pool, "n" in given)
    try:
        result = program.execute(text, words[2:])
    except LuaError as error:
        warn('Channel program execution failed:\n[string "channel program"]:'
             f"{error.line or 1}: {lua.tostring(error.value)}")
        return 1
    _print(result, "j" in given)
    return 0


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


class Program:
    """One transaction group: what is asked and changed in it."""

    def __init__(self, world: World, pool: str, dry: bool) -> None:
        self.world = world
        self.pool = pool
        self.dry = dry
        self.txg = 0
        self.snapshots = {s.name: s for of in world.snapshots.values() for s in of}
        self.fresh: dict[str, tuple[Dataset, int]] = {}
        self.taken: set[int] = set()
        self.gone: list[Snapshot] = []

    def execute(self, text: str, arguments: list[str]) -> list[Any]:
        """Run it; what it changed is there at once, in the end."""
        state = self.world.state
        given = lua.Table({"argv": lua.Table(dict(enumerate(arguments, 1)))})
        state.begin()
        try:
            if not self.dry:
                self.txg = state.next_txg()
            return lua.run(text, {**lua.library(), "zfs": self._library()}, [given])
        finally:
            state.store.take([(dataset.id, number) for dataset, number in self.fresh.values()])
            state.commit()
            state.store.drop([(s.of.id, s.id) for s in self.gone])

    def _library(self) -> lua.Table:
        calls = {"snapshot": self._snapshot, "destroy": self._destroy,
                 "set_prop": self._set_prop, "inherit": self._inherit}

        def checked(function: Any) -> Any:
            return lambda *words: [self._room(function) or function(False, *words)]

        def synced(function: Any) -> Any:
            def call(*words: Any) -> list[Any]:
                code = self._room(function) or function(False, *words)
                if self.dry:
                    raise LuaError(DRY)
                return [code or function(True, *words)]
            return call

        return lua.Table({
            "check": lua.Table({name: checked(one) for name, one in calls.items()}),
            "sync": lua.Table({name: synced(one) for name, one in calls.items()}),
            "exists": lambda name: [self._find(name)[0] is not None],
            "get_prop": self._get_prop, "debug": lambda *_: [],
            "list": lua.Table({"children": self._children, "snapshots": self._listed}),
        })

    def _room(self, function: Any) -> int:
        """Where a pool has no room at all, all but destroying ends before anything is looked at."""
        full = self.world.pools[self.pool][3]
        return ENOSPC if full and function != self._destroy else 0

    def _find(self, name: str) -> tuple[Dataset | Snapshot | None, int]:
        if name.partition("/")[0].partition("@")[0] != self.pool:
            return None, EXDEV
        found = self.snapshots.get(name) if "@" in name else self.world.datasets.get(name)
        return found, 0 if found else ENOENT

    # -- what changes something; each first says what is in the way ----------------------------

    def _snapshot(self, really: bool, name: str) -> int:
        if not really:
            return self._why_no_snapshot(name)
        of, _, short = name.partition("@")
        dataset = self.world.datasets[of]
        number = self.world.note(dataset, short, self.txg)
        self.fresh[name] = dataset, number
        self.taken.add(dataset.id)
        row = self.world.state.one("select id, dataset, name, creation, txg, guid, defer"
                                   " from snapshots where id = ?", number)
        self.snapshots[name] = Snapshot(dataset, row)
        return 0

    def _why_no_snapshot(self, name: str) -> int:
        of, at, short = name.partition("@")
        if len(name) > LONGEST:
            return ENAMETOOLONG
        if not at or invalid("", short):
            return EINVAL
        dataset, code = self._find(of)
        if not isinstance(dataset, Dataset):
            return code
        if dataset.id in self.taken:
            return EAGAIN
        if name in self.snapshots:
            return EEXIST
        return ENOSPC if not self.dry and self.world.roomless(dataset) else 0

    def _destroy(self, really: bool, name: str, *_: Any) -> int:
        """Only snapshots. One that is not there counts as destroyed already: 0."""
        found, code = self._find(name)
        if found is None:
            return 0 if code == ENOENT else code
        if not isinstance(found, Snapshot):
            raise LuaError("the sandbox destroys nothing but snapshots in a channel program")
        if self.world.busy(found) or self.world.holds.get(found.id):
            return EBUSY
        if self.world.clones(found):
            return EEXIST
        if really:
            self.world.drop([found])
            del self.snapshots[name]
            if self.fresh.pop(name, None) is None:
                self.gone.append(found)
        return 0

    def _set_prop(self, really: bool, name: str, prop: str, value: str) -> int:
        found, code = self._find(name)
        if found is None:
            return code
        if ":" not in prop:
            return EINVAL
        if really:
            self._store(found, prop, value)
        return 0

    def _inherit(self, really: bool, name: str, prop: str) -> int:
        found, code = self._find(name)
        if found is None:
            return code
        if really:
            self._store(found, prop, None)
        return 0

    def _store(self, found: Dataset | Snapshot, prop: str, value: str | None) -> None:
        snapshot = isinstance(found, Snapshot)
        table, column = ("snapprops", "snapshot") if snapshot else ("props", "dataset")
        state = self.world.state
        state.run(f"delete from {table} where {column} = ? and name = ?", found.id, prop)
        if value is not None and snapshot:
            state.run("insert into snapprops (snapshot, name, value) values (?, ?, ?)",
                      found.id, prop, value)
        elif value is not None:
            state.run("insert into props values (?, ?, ?, 'local')", found.id, prop, value)

    # -- what only looks -----------------------------------------------------------------------

    def _get_prop(self, name: str, prop: str) -> list[Any]:
        found, _ = self._find(name)
        if found is None:
            raise LuaError(f"no such dataset '{name}'")
        value, source = self.world.value(found, prop)
        if value == "-":
            return [None]
        return [int(value) if value.isdigit() else value, source]

    def _children(self, name: str) -> list[Any]:
        depth = name.count("/") + 1
        return _iterator(d.name for d in self.world.children(name) if d.name.count("/") == depth)

    def _listed(self, name: str) -> list[Any]:
        return _iterator(s for s in list(self.snapshots) if s.partition("@")[0] == name)


def _iterator(found: Any) -> list[Any]:
    return [lambda *_: [next(found, None)]]


# -- printing --------------------------------------------------------------------------------


def _print(result: list[Any], json: bool) -> None:
    if json:
        value = f'{{"return":{_json(result[0])}}}' if result else "{}"
        print(value)
        return
    if not result:
        print("Channel program fully executed with no return value.")
        return
    print("Channel program fully executed and produced output:")
    _print_plain("return", result[0], 4)


def _json(value: Any) -> str:
    if isinstance(value, lua.Table):
        return "{" + ",".join(f"{quoted(lua.tostring(name))}:{_json(one)}"
                              for name, one in value.items.items()) + "}"
    return quoted(value) if isinstance(value, str) else lua.tostring(value)


def _print_plain(name: str, value: Any, indent: int) -> None:
    if not isinstance(value, lua.Table):
        text = f"'{value}'" if isinstance(value, str) else lua.tostring(value)
        print(f"{' ' * indent}{name}: {text}")
        return
    print(f"{' ' * indent}{name}:")
    for key, one in value.items.items():
        _print_plain(lua.tostring(key), one, indent + 4)
