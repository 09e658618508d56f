"""A FreeBSD machine in memory, behind the door: whole runs without starting a process.

It knows what zfs(8), channel programs, the system calls for mounts and the programs that
stand for these mean as far as kopiatomic uses them, does what a fault plan says at a given
call, and notes whatever is done to what is not the run's.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from kopiatomic import state
from kopiatomic.backup import parts, plan, preflight, proof, routine, takedown, unmounted, view
from kopiatomic.backup.client_runs import FILES
from kopiatomic.backup.names import Names
from kopiatomic.backup.report import Report
from kopiatomic.clients import make_ready
from kopiatomic.clients.records import Missing, Needs, Proof, Request, Streamed
from kopiatomic.clients.restic import Restic
from kopiatomic.commands import common
from kopiatomic.errors import Refusal
from kopiatomic.job import Job
from kopiatomic.system import machine, process, zfs
from kopiatomic.system.command import CommandFailed, Door, GivenUp, Result, failure
from kopiatomic.system.machine import (
    Dataset,
    Mount,
    ancestors,
    lies_in,
    nearest,
    visible_mounts,
)

FAULTS = (
    "fails", "fails-after", "killed", "killed-after", "hangs", "hangs-after", "garbage",
    "garbage-after", "no-start", "lies", "TERM", "INT", "HUP",
)  # fmt: skip
SIGNALS = ("TERM", "INT", "HUP")
GARBAGE = '\udcff{]\t\x1b[31m\nnonsense\n'

# What a client, its libraries and the system's programs are found by: said once more here.
SYSTEM = tuple(
    "/bin /sbin /lib /libexec /etc /root /usr /usr/bin /usr/sbin /usr/lib /usr/local "
    "/usr/local/bin /usr/local/sbin /var /var/db /var/run /tmp /var/tmp".split()
)


@dataclass
class Snapshot:
    """One snapshot: in which transaction group it was made, whose it is, what its files are."""

    txg: int
    run: str = "-"
    source: str = "local"
    held: bool = False
    point: str = ""  # where the dataset was mounted
    tags: set[str] = field(default_factory=set)  # of holds that a run may have

    @property
    def is_kept(self) -> bool:
        """Whether a hold keeps it."""
        return self.held or bool(self.tags)

    @property
    def guid(self) -> str:
        """What it is known by under any name."""
        return str(id(self))


@dataclass
class Clone:
    """A clone of a volume's snapshot, whose it is, and the snapshots that others made of it."""

    origin: str
    run: str
    snapshots: list[str] = field(default_factory=list)


@dataclass
class Model:
    """The machine."""

    datasets: dict[str, Dataset]
    mounts: list[Mount]
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    clones: dict[str, Clone] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    stubborn: set[str] = field(default_factory=set)  # points that only -f unmounts
    calls: bool = True  # whether there is a ctypes to call the kernel with
    txg: int = 10
    call: int = 0
    faults: dict[int, str] = field(default_factory=dict)
    destroyed: list[tuple[str, Snapshot]] = field(default_factory=list)
    trespasses: list[str] = field(default_factory=list)

    # What else may happen: see test_runs.py.
    refused: dict[str, int] = field(default_factory=dict)  # datasets: why no snapshot is made
    read_only: set[str] = field(default_factory=set)  # pools
    suspended: set[str] = field(default_factory=set)  # pools
    misled: set[str] = field(default_factory=set)  # points that a link leads elsewhere
    occupied: set[str] = field(default_factory=set)  # directories with files in them
    looked: bool = False  # somebody looks into each .zfs/snapshot
    pruned: str = ""  # the dataset whose snapshot somebody destroys while the view is built
    moves: tuple[str, str] | None = None  # what is renamed, and to what
    moves_at: int = 0  # before which call; 0: while the client runs
    blind: set[str] = field(default_factory=set)  # points that the client does not back up
    idle: bool = False  # it makes no backup at all
    full: bool = False  # the client's places cannot be made
    down: set[str] = field(default_factory=set)  # repositories that the client cannot reach
    vanished: set[str] = field(default_factory=set)  # directories that are in no snapshot

    # What came of a run.
    seen: dict[str, tuple[str, int]] | None = None
    visible: list[tuple[str, str]] = field(default_factory=list)
    planned: dict[str, plan.ViewMount] = field(default_factory=dict)
    pinned: set[str] = field(default_factory=set)
    # What is in each repository, by mount point, and the volumes in it, by name.
    backups: dict[str, dict[str, str]] = field(default_factory=dict)
    streams: dict[str, dict[str, tuple[str, int]]] = field(default_factory=dict)
    hourly: bool = False  # somebody makes a snapshot of all while the client runs

    _target: str = ""
    _fsid: int = 1000

    def __post_init__(self) -> None:
        self.mounts = [self._numbered(mount) for mount in self.mounts]

    def _numbered(self, mount: Mount) -> Mount:
        self._fsid += 1
        return mount._replace(fsid=(self._fsid, -self._fsid))

    def door(self) -> Door:
        """Return the door to this machine."""
        made = Through(kernel=Calls(self) if self.calls else None)  # type: ignore[arg-type]
        object.__setattr__(made, "model", self)
        return made

    def _next(self, what: str) -> str:
        """Count a call and return the fault that is planned for it."""
        self.call += 1
        if self.moves and self.call == self.moves_at:
            self.rename(*self.moves)
        fault = self.faults.get(self.call, "")
        if fault in SIGNALS:
            send(fault)
        return fault

    # -- the kernel --------------------------------------------------------------------------

    def _call(self, what: str, act: Callable[[], Any]) -> Any:
        """Do what a call does, or fail before or after it; the kernel neither dies nor lies."""
        fault = self._next(what)
        if fault and fault not in (*SIGNALS, "lies"):
            if fault.endswith("-after"):
                act()
            raise OSError(errno.EIO, "fault injected")
        return act()

    def nmount(self, options: Mapping[str, str], flags: int = 0) -> None:
        """nmount(2)."""
        assert flags == 0x00800000
        special = options.get("target", options.get("from", ""))
        point = options["fspath"]
        made = Mount(special, self._target if point == "." else point, options["fstype"],
                     read_only="ro" in options)  # fmt: skip
        self._call("nmount", lambda: self._make(made))

    def unmount(self, fsid: tuple[int, int], force: bool = False) -> None:
        """unmount(2)."""
        index = next((n for n, m in enumerate(self.mounts) if m.fsid == fsid), None)
        self._call("unmount", lambda: self._take(index, force))

    def getfsstat(self) -> list[Mount]:
        """getfsstat(2)."""
        table: list[Mount] = self._call("getfsstat", lambda: list(self.mounts))
        return table

    def number(self, name: str) -> int:
        """sysctlbyname(3)."""
        assert name == "security.jail.jailed"
        return int(self._call("sysctl", lambda: 0))

    def look_at(self, path: str) -> str:
        """Stand for preflight.look: there is nothing but directories here, and some files."""
        if path == "/mnt":
            return unmounted.EMPTY
        if path not in self.directories:
            return unmounted.MISSING
        inside = any(each.startswith(f"{path}/") for each in self.directories)
        return unmounted.OCCUPIED if inside or path in self.occupied else unmounted.EMPTY

    # -- programs ----------------------------------------------------------------------------

    def run(self, argv: Sequence[str], *, check: bool = True, text: str | None = None) -> Result:
        """Do what the command does, or the fault that is planned for it."""
        fault = self._next(" ".join(argv[:2]))
        if fault == "no-start":
            raise CommandFailed(argv, "cannot be started: No such file or directory")
        # Of all but mounts it is believed that they did what they say.
        if fault == "lies" and not argv[0].startswith("mount"):
            fault = ""
        status, out, err = int(fault != "lies"), "", "fault injected"
        # What acts may print what it likes, but is taken by its word that it did what it was told.
        acts = not {"list", "get", "holds", "--libxo", "-n", "-q"} & set(argv[:3])
        if fault == "garbage" and acts:
            fault = "garbage-after"
        if fault in ("", *SIGNALS) or fault.endswith("-after"):
            status, out, err = self._do(list(argv), text)
        if fault.startswith("hangs"):
            raise GivenUp(argv, "did not end within 900 s")
        if fault.startswith("fails"):
            status, err = 1, err or "fault injected"
        elif fault.startswith("killed"):
            status, out = -9, ""
        elif fault.startswith("garbage"):
            status, out = (status if fault.endswith("-after") else 0), GARBAGE
        result = Result(tuple(argv), status, out, err)
        if check and status != 0:
            raise CommandFailed(argv, failure(result))
        return result

    def _do(self, argv: list[str], text: str | None) -> tuple[int, str, str]:
        done = {
            "sysctl": lambda _: (0, "0\n", ""),
            "kldstat": lambda _: (0, "", ""),
            "fstat": lambda _: (0, "USER CMD PID FD DEV INUM MODE SZ|DV R/W\n", ""),
            "realpath": lambda words: (0, f"{words[0]}\n", ""),
            "zpool": self._zpool,
            "mount": self._mount_program,
            "mount_nullfs": lambda words: self._program(
                lambda: self._make(Mount(words[-2], words[-1], "nullfs", "ro" in words))
            ),
            "umount": self._umount,
        }
        if argv[0] == "zfs":
            return self._zfs(argv[1:], text)
        return done[argv[0]](argv[1:])

    def _program(self, act: Callable[[], None]) -> tuple[int, str, str]:
        try:
            act()
        except OSError as error:
            return 1, "", f"mount: {error.strerror}"
        return 0, "", ""

    def _mount_program(self, words: list[str]) -> tuple[int, str, str]:
        if "--libxo" in words:
            entries = [
                {"special": m.special, "node": m.point, "fstype": m.type,
                 "opts": ["local"] * m.local + ["read-only"] * m.read_only} for m in self.mounts
            ]  # fmt: skip
            return 0, json.dumps({"mount": {"mounted": entries}}), ""
        kind = words[words.index("-t") + 1]
        made = Mount(words[-2], words[-1], kind, read_only=any(w[:2] == "ro" for w in words))
        return self._program(lambda: self._make(made))

    def _umount(self, words: list[str]) -> tuple[int, str, str]:
        index = max((n for n, m in enumerate(self.mounts) if m.point == words[-1]), default=None)
        return self._program(lambda: self._take(index, "-f" in words))

    # -- mounts ------------------------------------------------------------------------------

    def _make(self, mount: Mount) -> None:
        """Make a mount; raises OSError."""
        if not lies_in(mount.point, RUNS):
            self.trespasses.append(f"mount on {mount.point}")
        if not self._exists(mount.point):
            raise OSError(errno.ENOENT, "No such file or directory")
        if mount.type == "zfs":
            if mount.special not in self.snapshots:
                raise OSError(errno.ENOENT, "No such file or directory")
            if any(m.special == mount.special for m in self.mounts):
                raise OSError(errno.EBUSY, "Device busy")
            mount = mount._replace(read_only=True)
        self.mounts.append(self._numbered(mount))

    def _take(self, index: int | None, force: bool) -> None:
        """Unmount; raises OSError."""
        if index is None:
            raise OSError(errno.ENOENT, "No such file or directory")
        mount = self.mounts[index]
        ours = self.snapshots.get(mount.special)
        if not lies_in(mount.point, RUNS) and not (ours and ours.run.startswith("restomic:")):
            self.trespasses.append(f"umount of {mount.point}")
        stubborn = mount.point in self.stubborn and not force
        if self._is_used(mount) or stubborn:
            raise OSError(errno.EBUSY, "Device busy")
        self.mounts.pop(index)

    def _is_used(self, mount: Mount) -> bool:
        """Say whether another mount is in this one or, as a nullfs, on it: not even -f helps."""
        inside = any(m.point.startswith(mount.point.rstrip("/") + "/") for m in self.mounts)
        return inside or mount.point in self._pinned()

    def _pinned(self) -> set[str]:
        """Return the points of the mounts that a nullfs keeps from being unmounted."""
        points = {m.point for m in visible_mounts(self.mounts)}
        sources = [m.special for m in self.mounts if m.type == "nullfs" and m.special[:1] == "/"]
        return {nearest(source, points) or "/" for source in sources}

    def _exists(self, path: str) -> bool:
        """Say whether a directory is there, among those that anything is ever mounted on."""
        visible = {m.point: m for m in visible_mounts(self.mounts)}
        point = nearest(path, visible)
        assert point is not None
        if point == path:
            return True
        source = visible[point].special
        held = visible.get(source)
        snapshot = self.snapshots.get(held.special) if held is not None else None
        if snapshot is not None and not snapshot.point:
            return True  # of what was not mounted, nobody knows what is in it
        if visible[point].type != "nullfs":
            return path in self.directories or os.path.isdir(path)
        rest = path[len(point.rstrip("/")) :]
        hold = nearest(source, visible)
        if hold is not None and visible[hold].special in self.snapshots:
            live = self.snapshots[visible[hold].special].point
            return self._on((live.rstrip("/") + source[len(hold) :] + rest) or "/", live)
        if source.startswith(RUNS):
            return os.path.isdir(source + rest)
        under = nearest(source, self._live_points())
        return self._on(source.rstrip("/") + rest, under or "/")

    def _live_points(self) -> set[str]:
        return {m.point for m in visible_mounts(self.mounts) if not m.point.startswith(RUNS)}

    def _on(self, path: str, point: str) -> bool:
        """Say whether the directory ``path`` lies in the file system mounted on ``point``."""
        known = path in self.directories or os.path.isdir(path)
        return known and nearest(path, self._live_points() - {path}) == point

    def make_places(self, drawn: plan.Plan) -> list[str]:
        """Stand for view.make_places: here the client's places are no real directories."""
        if self.full:
            return ["no space left"]
        self.directories |= {up for place in drawn.written for up in ancestors(place)}
        return []

    @contextlib.contextmanager
    def standing_in(self, target: str) -> Iterator[tuple[str, Callable[[], int]]]:
        """Stand for view.standing_in: the place that the next mount is made on."""
        if any(target == f"{HERE.directory}/view{point}" for point in self.misled):
            raise OSError(errno.ELOOP, "Too many levels of symbolic links")
        if not self._exists(target):
            raise OSError(errno.ENOENT, "No such file or directory")
        self._target = target
        # The program is given the whole path, the call the working directory.
        for name, each in list(self.snapshots.items()):
            ours = each.run.startswith("restomic:default:") and each.source == "local"
            if ours and name.startswith(f"{self.pruned}@"):
                self.prune(name)
        with contextlib.chdir("."):
            yield ".", lambda: 0

    def prune(self, name: str) -> None:
        """Let somebody destroy a snapshot, as far as ZFS lets him."""
        before, trespasses = list(self.destroyed), list(self.trespasses)
        self._destroy(name)
        self.destroyed, self.trespasses = before, trespasses

    def what_is(self, _door: Door, _enter: Callable[[], int]) -> view._Seen:
        """Stand for view._what_is: what a look at that place finds."""
        here = [n for n, m in enumerate(self.mounts) if m.point == self._target]
        return view._Seen(None, max(here, default=-1), 0)

    def is_meant(self, _door: Door, mount: plan.ViewMount, _made: view._Seen) -> bool:
        """Stand for view._is_meant: nobody leads a source elsewhere here."""
        return any(m.point == nearest(mount.source, self._live_points()) for m in self.mounts)

    def is_held(self, _door: Door, directory: str) -> bool:
        """Stand for view._is_held."""
        held = {m.point for m in self.mounts if m.special in self.snapshots}
        return nearest(directory, held) is not None

    def real(self, path: str) -> str:
        """Stand for preflight._real: there are no symbolic links here."""
        if path not in self.directories:
            raise Refusal(f"the path '{path}' does not exist", os.EX_NOINPUT)
        return path

    def absent(self, drawn: plan.Plan, links: Collection[str] = ()) -> dict[str, view.Lost]:
        """Stand for parts.absent: which directories are not in the snapshots."""
        gone = drawn.parts & self.vanished
        return {path: view.Lost(parts.ABSENT, gone=False) for path in gone}

    def numbers(self, path: str) -> tuple[int, int]:
        """Stand for view._numbers."""
        return 0, sum(m.point == path for m in self.mounts)

    # -- zfs(8) ------------------------------------------------------------------------------

    def _zpool(self, words: list[str]) -> tuple[int, str, str]:
        assert words[0] == "list"
        pools = sorted({zfs.pool_of(name) for name in self.datasets})
        rows = [(pool, "on" if pool in self.read_only else "off", "ONLINE") for pool in pools]
        return 0, "".join("\t".join(row) + "\n" for row in rows), ""

    def _zfs(self, words: list[str], text: str | None) -> tuple[int, str, str]:
        verb = words[0]
        if verb in ("hold", "release"):
            return self._hold(verb, words[1], words[2:])
        if verb == "holds":
            return self._answer(words[2:], lambda name: [
                f"{name}\t{tag}\tMon Nov 23 05:04 2026\n"
                for tag in sorted(self.snapshots[name].tags)
            ])  # fmt: skip
        if verb == "list" and words[-1] == "snapshot,volume":
            volumes = [d.name for d in self.datasets.values() if d.type == "volume"]
            names = sorted([*self.snapshots, *volumes, *self.clones])
            return 0, "".join(f"{name}\n" for name in names), ""
        if verb in ("clone", "set") or (words[1] == "-H" and zfs.is_like_our_clone(words[-1])):
            return self._clones(verb, words[1:])
        if verb == "list" and "snapshot" in words:
            return self._list_snapshots(words)
        if verb == "list" and "volume" in words:
            names = words[words.index("-o") + 2 :]
            if not {*names} <= {*self.datasets, *self.clones}:
                return 1, "", f"cannot open '{names[0]}': dataset does not exist"
            return 0, "".join(f"{name}\t65536\tdefault\t-\n" for name in names), ""
        if verb == "list":
            names = words[words.index("-o") + 2 :]
            if not {*names} <= {*self.datasets}:
                return 1, "", f"cannot open '{names[0]}': dataset does not exist"
            above = tuple(f"{name}/" for name in names) if "-r" in words else ()
            rows = [
                (d.name, d.type, "yes" if d.mounted else "no", d.canmount,
                 "on" if d.jailed else "off", d.backup, d.mountpoint, d.keystatus)
                for d in self.datasets.values()
                if not names or d.name in names or d.name.startswith(above)
            ]  # fmt: skip
            rows += [
                (name, "volume", "-", "-", "-", "-", "-", "-")
                for name in self.clones if not names or name.startswith(above)
            ]  # fmt: skip
            return 0, "".join("\t".join(row) + "\n" for row in rows), ""
        if verb == "get":
            named = words[words.index(zfs.RUN_PROPERTY) + 1 :]
            fields = words[words.index("-o") + 1].split(",")
            sources = words[words.index("-s") + 1].split(",") if "-s" in words else None
            marked = [(name, each.run, "local") for name, each in self.clones.items()]
            marked += [(name, e.run, e.source) for name, e in self.snapshots.items()]
            lines = []
            for name, mark, source in marked:
                told = {"name": name, "value": mark, "source": "-" if mark == "-" else source}
                if name in (named or [name]) and (
                    sources is None or (mark != "-" and source in sources)
                ):
                    lines.append("\t".join(told[each] for each in fields) + "\n")
            return 0, "".join(lines), ""
        if verb == "destroy":
            assert len(words) == 2, words
            return self._destroy(words[1])
        assert (verb, words[-1]) == ("program", "-"), words
        assert text is not None
        return self._channel_program(words[-2], text)

    def _list_snapshots(self, words: list[str]) -> tuple[int, str, str]:
        """Do what zfs list -t snapshot does, with -s name."""
        given: dict[str, str] = {}
        rest = words[1:]
        while rest and rest[0].startswith("-"):
            flag = rest.pop(0)
            if flag in ("-o", "-s", "-t", "-d"):
                given[flag] = rest.pop(0)
        columns = given["-o"].split(",")

        def row(name: str) -> str:
            each = self.snapshots[name]
            values = {"name": name, "guid": each.guid, "createtxg": str(each.txg),
                      "creation": str(created(each)), "userrefs": str(len(each.tags))}  # fmt: skip
            return "\t".join(values[column] for column in columns) + "\n"

        if not rest or "-d" in given or "-r" in words:
            found = [name for name in sorted(self.snapshots) if not rest or any(
                name.partition("@")[0] == each if "-d" in given else within(name, each)
                for each in rest
            )]  # fmt: skip
            gone = [each for each in rest if each not in self.datasets]
            errors = "".join(f"cannot open '{each}': dataset does not exist\n" for each in gone)
            return int(bool(gone)), "".join(map(row, found)), errors
        return self._answer(rest, lambda name: [row(name)])

    def _answer(
        self, names: list[str], tell: Callable[[str], list[str]]
    ) -> tuple[int, str, str]:
        """Tell of the snapshots that are there, and complain of those that are not."""
        there = [name for name in names if name in self.snapshots]
        gone = [name for name in names if name not in self.snapshots]
        errors = "".join(f"cannot open '{name}': dataset does not exist\n" for name in gone)
        return int(bool(gone)), "".join(line for name in there for line in tell(name)), errors

    def _hold(self, verb: str, tag: str, names: list[str]) -> tuple[int, str, str]:
        """Do what zfs-hold(8) and zfs-release(8) do: each for itself."""
        errors = []
        for name in names:
            each = self.snapshots.get(name)
            if zfs.pool_of(name) in self.read_only | self.suspended:
                errors.append(f"cannot {verb}: pool is read-only\n")
            elif each is None:
                errors.append(f"cannot open '{name}': dataset does not exist\n")
            elif verb == "hold":
                each.tags.add(tag)
            else:
                # Mounts go with it, as far as nothing is on them.
                self.mounts = [m for m in self.mounts if m.special != name or self._is_used(m)]
                if tag not in each.tags:
                    errors.append(f"cannot release hold from snapshot '{name}': no such tag\n")
                each.tags.discard(tag)
        return int(bool(errors)), "", "".join(errors)

    def _clones(self, verb: str, words: list[str]) -> tuple[int, str, str]:
        """Do what zfs clone and set do, and list what is asked about a clone."""
        name = words[-1]
        if verb == "clone":
            snapshot, marks = words[-2], [each for each in words if each[:4] == "org."]
            if snapshot not in self.snapshots:
                return 1, "", f"cannot open '{snapshot}': dataset does not exist"
            if zfs.pool_of(name) in self.suspended or self.full:
                return 1, "", f"cannot create '{name}': out of space"
            self.clones[name] = Clone(snapshot, marks[0].partition("=")[2])
            assert "volmode=none" in words, "GEOM would look at it"
            return 0, "", ""
        if name not in self.clones:
            return 1, "", f"cannot open '{name}': dataset does not exist"
        if verb == "set":
            os.makedirs(os.path.dirname(machine.device_of(name)), exist_ok=True)
            with open(machine.device_of(name), "w"):
                pass
            return 0, "", ""
        clone = self.clones[name]
        answers = {"origin": [clone.origin], "name": clone.snapshots}
        asked = answers[words[words.index("-o") + 1]] if verb == "list" else []
        return 0, "".join(f"{each}\n" for each in asked), ""

    def _destroy_clone(self, name: str) -> tuple[int, str, str]:
        of = name.partition("@")[0]
        if name != of and name in self.clones[of].snapshots:
            self.clones[of].snapshots.remove(name)
            return 0, "", ""
        if self.clones[of].snapshots:
            return 1, "", f"cannot destroy '{name}': volume has children"
        del self.clones[name]
        with contextlib.suppress(FileNotFoundError):  # of a run that was killed before it made it
            os.unlink(machine.device_of(name))
        return 0, "", ""

    def _channel_program(self, pool: str, text: str) -> tuple[int, str, str]:
        strings = [unquoted(each) for each in re.findall(r'"((?:[^"\\]|\\\d\d\d)*)"', text)]
        names = [each for each in strings if "@" in each]
        if any(zfs.pool_of(name) != pool for name in names):
            self.trespasses.append(f"a program for {pool}: {names}")
        if pool in self.read_only | self.suspended:
            why = "pool is read-only" if pool in self.read_only else "pool I/O is suspended"
            return 1, "", f"Channel program execution failed: {why}"
        if "zfs.sync.snapshot" in text:
            assert text.index("zfs.check.snapshot") < text.index("zfs.sync.snapshot")
            mark = strings[strings.index(zfs.RUN_PROPERTY) + 1]
            failed = self._snapshot(names, mark)
        else:
            assert "zfs.sync.destroy" in text
            failed = {name: number for name in names if (number := self._destroy_here(name))}
        return 0, json.dumps({"return": failed}) + "\n", ""

    def _snapshot(self, names: list[str], mark: str) -> dict[str, int]:
        failed = {name: number for name in names if (number := self._obstacle(name))}
        self.txg += 1
        for name in names:
            if name not in failed:
                dataset = name.partition("@")[0]
                point = next((m.point for m in self.mounts if m.special == dataset), "")
                self.snapshots[name] = Snapshot(self.txg, mark, point=point)
                if self.looked:
                    short = name.partition("@")[2]
                    where = f"{point.rstrip('/')}/.zfs/snapshot/{short}"
                    self.mounts.append(self._numbered(Mount(name, where, "zfs", True)))
        return failed

    def _obstacle(self, name: str) -> int:
        dataset = name.partition("@")[0]
        if dataset not in self.datasets:
            return 2
        return 17 if name in self.snapshots else self.refused.get(dataset, 0)

    def _destroy_here(self, name: str) -> int:
        """Do what a channel program can: it unmounts nothing."""
        if name not in self.snapshots:
            return 2
        if self.snapshots[name].is_kept or any(m.special == name for m in self.mounts):
            return 16
        if any(clone.origin == name for clone in self.clones.values()):
            return 17
        self._gone(name)
        return 0

    def _destroy(self, name: str) -> tuple[int, str, str]:
        """Do what zfs-destroy(8) does: it unmounts what nothing is on."""
        if name.partition("@")[0] in self.clones:
            return self._destroy_clone(name)
        if zfs.is_like_our_clone(name):
            return 1, "", f"cannot open '{name}': dataset does not exist"
        if "@" not in name:
            self.trespasses.append(f"zfs destroy {name}")
        if name.partition("@")[0] not in self.datasets:
            return 1, "", f"cannot open '{name.partition('@')[0]}': dataset does not exist"
        if name not in self.snapshots:
            return 1, "", "could not find any snapshots to destroy; check snapshot names."
        if any(clone.origin == name for clone in self.clones.values()):
            return 1, "", f"cannot destroy '{name}': snapshot has dependent clones"
        used = any(m.special == name and self._is_used(m) for m in self.mounts)
        if self.snapshots[name].is_kept or used or zfs.pool_of(name) in self.read_only:
            return 1, "", f"cannot destroy snapshot {name}: dataset is busy"
        self.mounts = [m for m in self.mounts if m.special != name]
        self._gone(name)
        return 0, "", ""

    def _gone(self, name: str) -> None:
        self.txg += 1
        self.destroyed.append((name, self.snapshots.pop(name)))

    def rename(self, old: str, new: str) -> None:
        """Do what ``zfs rename -u`` does: mounts stay where they are."""

        def after(name: str) -> str:
            return new + name[len(old) :] if within(name, old) else name

        self.datasets = {
            after(name): each._replace(name=after(name)) for name, each in self.datasets.items()
        }
        self.snapshots = {after(name): each for name, each in self.snapshots.items()}
        for clone in self.clones.values():
            clone.origin = after(clone.origin)
        self.mounts = [
            m._replace(special=after(m.special)) if m.type == "zfs" else m for m in self.mounts
        ]

    # -- the client --------------------------------------------------------------------------

    def look(self, names: Names, paths: Sequence[str], repository: str) -> None:
        """Do what the client does: note what stands at each point of the view, and save it."""
        held = {m.point: m.special for m in self.mounts if m.special in self.snapshots}
        live = {m.point: m for m in visible_mounts(self.mounts) if not lies_in(m.point, RUNS)}
        self.seen, self.visible = {}, []
        for mount in visible_mounts(self.mounts):
            if not lies_in(mount.point, names.view):
                continue
            point = mount.point[len(names.view) :] or "/"
            self.visible.append((point, mount.special))
            hold = nearest(mount.special, held) if mount.special[:1] == "/" else None
            if hold is not None:
                snapshot = held[hold]
                self.seen[point] = (snapshot.partition("@")[0], self.snapshots[snapshot].txg)
            elif mount.special[:1] == "/":
                dataset = live[nearest(mount.special, live) or "/"].special
                if zfs.pool_of(dataset) in self.read_only:
                    self.seen[point] = (dataset, 0)
        self.pinned = self._pinned() - set(held)
        if not self.idle:
            self.backups[repository] = {
                point: self.seen[shown][0] for point in (*self.seen, *paths)
                if point not in self.blind and any(lies_in(point, path) for path in paths)
                and (shown := nearest(point, self.seen)) is not None and point not in self.vanished
            }  # fmt: skip

    def read(self, source: str, stream: str, repository: str) -> None:
        """Do what the client does with a volume that it reads on its standard input."""
        name = machine.volume_at(source) or ""
        if name in self.clones:
            origin = self.clones[name].origin
            if self.hourly:
                self.clones[name].snapshots.append(f"{name}@hourly")
            found = origin.partition("@")[0], self.snapshots[origin].txg
        else:
            # Itself, since its pool stands still.
            assert zfs.pool_of(name) in self.read_only, source
            found = name, 0
        if not self.idle and stream not in self.blind:
            self.streams.setdefault(repository, {})[stream] = found

    def prove(self, points: Mapping[str, bool], repository: str) -> Proof:
        """Answer as a repository does."""
        backup = self.backups.get(repository)
        if backup is None:
            return Proof(backups=())
        there = tuple(point for point in points if point in backup)
        missing = [Missing(point, empty=False) for point in points if point not in backup]
        return Proof(backups=("0123",), found=there, missing=tuple(missing))


class Through(Door):
    """The door to a model."""

    model: Model

    def run(self, argv: Sequence[str], **options: Any) -> Result:
        """Run one of the system's programs."""
        return self.model.run(argv, check=options.get("check", True), text=options.get("text"))


class Calls:
    """The kernel's calls by the names that kopiatomic has for them."""

    def __init__(self, model: Model) -> None:
        self.mount, self.unmount, self.mounts = model.nmount, model.unmount, model.getfsstat
        self.number = model.number


def unquoted(text: str) -> str:
    """Return what a Lua string literal of ours says."""
    data = re.sub(rb"\\(\d\d\d)", lambda found: bytes([int(found[1])]), text.encode())
    return data.decode("utf-8", "surrogateescape")


def created(snapshot: Snapshot) -> int:
    """Return when a snapshot was made, in seconds: each transaction group takes an hour."""
    return 1_700_000_000 + snapshot.txg * 3600


def within(name: str, dataset: str) -> bool:
    """Say whether a dataset or snapshot is ``dataset``, below it, or a snapshot of these."""
    return name == dataset or name.startswith((f"{dataset}/", f"{dataset}@"))


RUNS = "/nonexistent"
HERE = state.Place("restomic", "default")
BUILD = view.build


def send(name: str) -> None:
    """Send a signal to ourselves, if a run catches it; it would be the end of the tests."""
    number = getattr(signal, f"SIG{name}")
    if isinstance(getattr(signal.getsignal(number), "__self__", None), process.Signals):
        os.kill(os.getpid(), number)


@pytest.fixture(scope="module")
def place() -> Any:
    """Let kopiatomic keep its state in a directory of the test's, and its client be the model's."""
    global RUNS
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        RUNS = f"{os.path.realpath(directory)}/run"
        os.mkdir(RUNS)
        patch.setattr(state, "RUN_ROOT", RUNS)
        patch.setattr(state, "STATE_DIRECTORY", f"{directory}/db")
        patch.setattr(view, "_make_like", lambda path, live: os.makedirs(path, exist_ok=True))
        patch.setattr(view, "_date_like", lambda path, live: None)
        patch.setattr(routine.time, "sleep", lambda seconds: None)
        patch.setattr(common, "need_root", lambda job: None)
        patch.setattr(process, "run", run_client)
        patch.setattr(process, "run_hook", run_client)
        patch.setattr(proof, "is_wanted", lambda job: job.proof)
        patch.setattr(proof, "Reader", lambda door, *_: door)
        patch.setattr(Restic, "base_command", lambda self, job: ["/bin/echo"])
        patch.setattr(Restic, "proves_itself", lambda self, *_: False)
        patch.setattr(Restic, "prove", prove)
        patch.setattr(Restic, "prove_stream", prove_stream)
        patch.setattr(Restic, "said_of_stream", lambda self, *_: None)
        patch.setattr(Restic, "parent", lambda self, *_: None)
        patch.setattr(machine, "DEVICES", f"{directory}/zvol")
        patch.setattr(Restic, "likely_reason", lambda self, *_: "who knows")
        yield directory


def prove(_client: Restic, door: Through, job: Job, _request: object, _figures: object,
          points: Mapping[str, bool], *_: object) -> Proof:  # fmt: skip
    """Stand for Restic.prove, which asks the repository."""
    return door.model.prove(points, repository_of(job.environment))


def prove_stream(_client: Restic, door: Through, job: Job, request: Request, *_: object
                 ) -> Streamed:  # fmt: skip
    """Stand for Restic.prove_stream."""
    model = door.model
    if model.idle:
        return Streamed()
    held = model.streams.get(repository_of(job.environment), {})
    return Streamed(("0123",), 65536 if request.stream in held else None)


def repository_of(variables: Mapping[str, str]) -> str:
    """Return the repository that the client's variables name; a job with one names none."""
    return variables.get("RESTIC_REPOSITORY", "")


def each_of(job: Job) -> list[Job]:
    """Return a job for each of its repositories, with what the env file of that would hold."""
    return [
        job._replace(env_files=(file,), environment={"RESTIC_REPOSITORY": place_of(file)})
        for file in job.env_files
    ] or [job]


def place_of(file: str) -> str:
    """Return the repository that an env file leads to; it is no directory."""
    return f"rest:http://host{file}"


def run_client(
    door: Through, argv: Sequence[str], environment: Mapping[str, str],
    signals: process.Signals, streams: process.Streams, root: str | None = None,
    source: str | None = None,
) -> process.Ended:  # fmt: skip
    """Stand in for process.run and run_hook: the model's client, or a hook."""
    model, repository = door.model, repository_of(environment)
    fault = model._next(argv[0])
    if fault == "no-start":
        raise CommandFailed(argv, "cannot be started: No such file or directory")
    if root is not None and repository in model.down:
        return process.Ended(1, 0.0, b"", b"odd\n", b"")
    if source is not None:
        model.read(source, argv[-1], repository)
    elif root is not None:
        model.look(Names("", "", os.path.dirname(root)), argv[1:], repository)
    if root is not None and model.moves and not model.moves_at:
        model.rename(*model.moves)
    status = {"fails": 1, "fails-after": 3, "killed": -9, "killed-after": -11}.get(fault, 0)
    return process.Ended(status, 0.0, GARBAGE.encode("utf-8", "surrogateescape"), b"odd\n", b"")


# Both systems have it.
JOB = Job("restomic", plain=True, command=("/bin/echo",))
ENVIRONMENT = {"HOME": "/nonexistent", "TMPDIR": "/tmp"}
QUIET = process.Streams(output=None, messages=None)


def attempt(model: Model, job: Job) -> Report:
    """Do one run on the model; raises Refusal as routine.run does."""
    model.call, model.seen, model.visible, model.planned = 0, None, [], {}
    model.pinned, model.backups, model.streams = set(), {}, {}

    def build(door: Any, drawn: plan.Plan, *rest: Any) -> list[str]:
        model.planned = {mount.point: mount for mount in drawn.view}
        return BUILD(door, drawn, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(view, "build", build)
        show(model, patch)
        first, *further = each_of(job)
        ready = make_ready(first, model.door(), ENVIRONMENT, further=further)
        return routine.run(ready._replace(job=preflight.resolve(ready.job)), QUIET)


def show(model: Model, patch: pytest.MonkeyPatch) -> None:
    """Let kopiatomic find the model's directories where it would look at the machine's."""
    patch.setattr(preflight, "look", model.look_at)
    patch.setattr(view, "make_places", model.make_places)
    patch.setattr(view, "standing_in", model.standing_in)
    patch.setattr(view, "_what_is", model.what_is)
    patch.setattr(view, "_is_meant", model.is_meant)
    patch.setattr(view, "_is_held", model.is_held)
    patch.setattr(view, "_numbers", model.numbers)
    patch.setattr(takedown, "_is_astray", lambda *_: False)  # no mount point goes here
    patch.setattr(preflight, "_real", model.real)
    patch.setattr(parts, "absent", model.absent)
    patch.setattr(parts, "check_shown", lambda drawn: None)


def needs_of(job: Job) -> Needs:
    """Return what the client says that it needs."""
    ready = make_ready(each_of(job)[0], Door(), ENVIRONMENT)
    return ready.client.needs(job, ready.program, ready.environment, ready.script)


def left_over(model: Model, job: str = "default") -> list[str]:
    """Name what runs of the job have left on the model and in the file system."""
    here = state.Place("restomic", job)
    left = [
        f"snapshot {name}" for name, each in model.snapshots.items()
        if each.run.startswith(f"restomic:{job}:") and each.source == "local"
    ]  # fmt: skip
    left += [
        f"hold on {name}" for name, each in model.snapshots.items()
        if any(tag.startswith(f"restomic:{job}:") for tag in each.tags)
    ]  # fmt: skip
    left += [f"clone {name}" for name, each in model.clones.items()
             if each.run.startswith(f"restomic:{job}:")]  # fmt: skip
    left += [f"mount {m.point}" for m in model.mounts if lies_in(m.point, here.directory)]
    notes = (here.directory, here.unfinished, here.holds)
    left += [path for path in notes if os.path.lexists(path)]
    if state.is_locked(here):
        left.append("the lock")
    return left


def complete(model: Model, report: Report) -> list[str]:
    """Name what the client did not see or save as the plan has it."""
    drawn = report.plan
    if drawn is None or (drawn.captured and model.seen is None):
        return ["the client did not run"]
    wrong = []
    moments: dict[str, set[int]] = {}
    for each in drawn.captured:
        for path in each.paths:
            shown = nearest(path, model.seen or {})
            dataset, txg = (model.seen or {}).get(shown or "", ("nothing frozen", 0))
            if dataset not in (each.dataset, renamed(model, each.dataset)):
                wrong.append(f"{path} shows {dataset} instead of {each.dataset}")
            if each.existing is None:
                moments.setdefault(each.dataset.split("/")[0], set()).add(txg)
            elif each.existing.txg != txg:
                wrong.append(f"{path} is not of {each.existing.name}")
            if not any(lies_in(path, each) for each in drawn.paths):
                wrong.append(f"{path} is in none of the paths")
        if each.directories and any(
            (here := nearest(path, model.planned)) is not None
            and model.planned[here].dataset == each.dataset
            and nearest(path, each.directories) is None
            for path in (*drawn.paths, each.point) if nearest(path, drawn.paths)
        ):  # fmt: skip
            wrong.append(f"more of {each.dataset} is backed up than {each.directories}")
    for repository in places_of(report):
        wrong += files_lacking(model, drawn, repository)
        wrong += volumes_lacking(model, drawn, repository)
        for each in drawn.volumes:
            txg = model.streams.get(repository, {}).get(each.point, ("nothing", 0))[1]
            moments.setdefault(each.dataset.split("/")[0], set()).add(txg)
    wrong += [f"{pool} is of several moments" for pool, txgs in moments.items() if len(txgs) != 1]
    planned = model.planned
    for point, special in model.visible:
        if any(lies_in(point, path) for path in drawn.paths):
            kind = planned[point].kind if point in planned else "unplanned"
            if kind not in ("frozen", "gap") and not any(lies_in(point, t) for t in drawn.live):
                wrong.append(f"{special} slipped into the backup at {point}")
    return wrong


def places_of(report: Report) -> list[str]:
    """Return the repositories of a run, as the client's variables name them."""
    return [place_of(file) for file in report.env_files] or [""]


def files_lacking(model: Model, drawn: plan.Plan, repository: str) -> list[str]:
    """Name the paths of the plan that are not in a repository."""
    held = model.backups.get(repository, {})
    return [
        f"{path} of {each.dataset} is not in the backup {repository}"
        for each in drawn.captured for path in each.paths if path not in held
    ]  # fmt: skip


def volumes_lacking(model: Model, drawn: plan.Plan, repository: str) -> list[str]:
    """Name the volumes of the plan that are not in a repository."""
    held = model.streams.get(repository, {})
    found = {each.dataset: held.get(each.point, ("nothing", 0))[0] for each in drawn.volumes}
    return [
        f"{name} is not in the backup {repository}, but {there}"
        for name, there in found.items() if there not in (name, renamed(model, name))
    ]  # fmt: skip


def half_good(model: Model, report: Report) -> list[str]:
    """Name what is lacking where a client run is called good, whatever the others came to."""
    wrong = []
    for run in report.runs:
        if run.outcome == "success" and report.plan is not None:
            place = places_of(report)[run.run.repository]
            if run.run.kind == FILES:
                wrong += files_lacking(model, report.plan, place)
            else:
                lacking = volumes_lacking(model, report.plan, place)
                wrong += [each for each in lacking if each.startswith(f"{run.run.of} ")]
    return wrong


def renamed(model: Model, name: str) -> str:
    """Return what a dataset is called once the renaming has happened that a model plans."""
    if model.moves and within(name, model.moves[0]):
        return model.moves[1] + name[len(model.moves[0]) :]
    return name


def disturbs(model: Model, report: Report, job: Job) -> list[str]:
    """Name the live mounts that nobody could unmount while the client ran, and it needs not."""
    needs = needs_of(job)
    places = [*SYSTEM, needs.program, needs.temporary, *needs.places, *needs.scratch]
    places += [*needs.writable, *needs.live, *([needs.repository] if needs.repository else [])]
    if report.plan is not None:
        places += [each.point for each in report.plan.captured]
    leads = {up for path in places for up in ancestors(path)}
    mounts = {m.point: m for m in model.mounts}
    still = {p for p, m in mounts.items() if zfs.pool_of(m.special) in model.read_only}
    frozen = {each.point for each in report.plan.captured} if report.plan is not None else set()
    wrong = [f"{point} is pinned" for point in model.pinned - leads - still]
    # Of what is frozen nothing live is needed but what the client writes to.
    live = (*report.plan.live, *report.plan.written, "/") if report.plan else ()
    written = {nearest(path, mounts) for path in live}
    wrong += [f"{point} is pinned, and frozen" for point in model.pinned & frozen - written - still]
    return wrong


__all__ = ["JOB", "Model", "Snapshot", "attempt", "complete", "disturbs", "left_over", "place"]
