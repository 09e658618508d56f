"""What the fake kernel knows, in one sqlite file; one stand-in at a time changes it."""

from __future__ import annotations

import fcntl
import os
import time

from sandbox.store import Store, open_store

# `typing` is as slow to import as all the rest together.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

# Where a stand-in finds all of this inside the fake host; not in the mount table.
INSIDE = "/compat/sandbox"
PROC = "/compat/linux/proc"
ARG_MAX = 524288

SCHEMA = """
create table meta (key text primary key, value text) without rowid;
create table pools (name text primary key, guid integer, altroot text default '',
    readonly integer default 0, full integer default 0, exported integer default 0,
    vdevs text default '');
create table poolprops (pool text, name text, value text, primary key (pool, name)) without rowid;
create table datasets (id integer primary key autoincrement, name text unique, kind text,
    creation integer, txg integer, guid integer, origin integer, encroot integer, locked integer);
create table props (dataset integer, name text, value text, source text,
    primary key (dataset, name)) without rowid;
create table snapshots (id integer primary key autoincrement, dataset integer, name text,
    creation integer, txg integer, guid integer, defer integer default 0, unique (dataset, name));
create index by_name on snapshots (name);
create table snapprops (snapshot integer, name text, value text, source text default 'local',
    primary key (snapshot, name)) without rowid;
create table holds (snapshot integer, tag text, creation integer,
    primary key (snapshot, tag)) without rowid;
create table mounts (id integer primary key autoincrement, special text, node text, fstype text,
    flags text, hidden integer, fsid text, dataset integer, snapshot integer, lower integer,
    kernel integer, owner integer default 0, answer text default '');
create index by_kernel on mounts (kernel);
create index by_snapshot on mounts (snapshot);
create index by_lower on mounts (lower);
create index by_node on mounts (node);
create index by_fsid on mounts (fsid);
create table roomless (dataset integer primary key) without rowid;
"""
FIRST = {"txg": "4", "jailed": "0", "zfs": "1", "nullfs": "0", "fsid": "0",
         "changing": "0", "loadable": "1"}


class State:
    """The state of a host, locked for as long as this object is open."""

    def __init__(self, base: str = INSIDE) -> None:
        # The C module itself: `sqlite3` would import datetime, which costs each stand-in 6 ms.
        import _sqlite3

        self.base = base
        self.may_write = os.geteuid() == 0
        path = f"{base}/lock"
        if self.may_write:
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self.db = _sqlite3.connect(f"{base}/state.sqlite", isolation_level=None)
            self.db.execute("pragma synchronous=off")
            self.db.execute("pragma journal_mode=truncate")
        else:
            self._lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_SH)
            uri = f"file:{base}/state.sqlite?mode=ro"
            self.db = _sqlite3.connect(uri, isolation_level=None, uri=True)

    def close(self) -> None:
        """Let the next one in."""
        self.db.close()
        os.close(self._lock)

    def __enter__(self) -> State:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def rows(self, query: str, *values: Any) -> list[Any]:
        """All rows of a query, as tuples."""
        return self.db.execute(query, values).fetchall()

    def one(self, query: str, *values: Any) -> Any:
        """The first row of a query, or None."""
        return self.db.execute(query, values).fetchone()

    def run(self, query: str, *values: Any) -> int:
        """Execute a change; returns the number of the row it inserted."""
        return int(self.db.execute(query, values).lastrowid or 0)

    def many(self, query: str, values: Iterable[tuple[Any, ...]]) -> None:
        """Execute the same change for many rows."""
        self.db.executemany(query, values)

    def begin(self) -> None:
        """Start a change that happens wholly or not at all."""
        self.db.execute("begin immediate")

    def commit(self) -> None:
        """Finish it."""
        self.db.execute("commit")

    def rollback(self) -> None:
        """Undo it."""
        self.db.execute("rollback")

    def meta(self, key: str) -> str:
        """A setting; empty when there is none."""
        row = self.one("select value from meta where key = ?", key)
        return str(row[0]) if row else ""

    def set_meta(self, key: str, value: str) -> None:
        """Change a setting."""
        self.run("insert or replace into meta values (?, ?)", key, value)

    def flag(self, key: str) -> bool:
        """A setting that is on or off."""
        return self.meta(key) == "1"

    def next_txg(self) -> int:
        """Every command that changes a pool gets a transaction group of its own."""
        txg = int(self.meta("txg")) + 1
        self.set_meta("txg", str(txg))
        return txg

    @property
    def store(self) -> Store:
        """Where the files are."""
        return open_store(self.meta("store"), f"{self.base}/pool")


def create_state(base: str, settings: dict[str, str]) -> None:
    """Make the state of a new host."""
    with State(base) as state:
        state.begin()
        for statement in SCHEMA.split(";"):
            if statement.strip():
                state.run(statement)
        for key, value in {**FIRST, **settings}.items():
            state.set_meta(key, value)
        state.commit()
    for name in ("state.sqlite", "lock"):
        os.chmod(f"{base}/{name}", 0o644)
    for name in ("commands.log", "violations.log"):
        with open(f"{base}/{name}", "w"):
            os.chmod(f"{base}/{name}", 0o666)


def new_guid() -> int:
    """A random number as ZFS gives to everything."""
    return int.from_bytes(os.urandom(8), "big") >> 1


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())


def quoted(text: str) -> str:
    """A JSON string; json itself would cost each stand-in 20 ms."""
    from _json import encode_basestring_ascii

    return str(encode_basestring_ascii(text))


def log_command(argv: list[str], base: str = INSIDE) -> None:
    """Add one line to the list of commands that ran."""
    _append(f"{base}/commands.log", "[" + ", ".join(map(quoted, argv)) + "]\n")


def check_size(argv: list[str], base: str = INSIDE) -> None:
    """Linux starts programs with argument lists that FreeBSD refuses: note it and give up."""
    size = sum(len(os.fsencode(word)) + 1 for word in argv)
    size += sum(len(key) + len(value) + 2 for key, value in os.environb.items())
    if size > ARG_MAX:
        text = f"{argv[0]}: argument list too long: {size} bytes in {len(argv)} words"
        violation(text, base)
        os.write(2, (text + "\n").encode())
        raise SystemExit(70)


def violation(text: str, base: str = INSIDE) -> None:
    """Note what must never be done to a FreeBSD machine: the test fails."""
    _append(f"{base}/violations.log", text + "\n")


def _append(path: str, line: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        os.write(descriptor, line.encode("utf-8", "surrogateescape"))
    finally:
        os.close(descriptor)
