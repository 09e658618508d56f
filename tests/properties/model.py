"""A FreeBSD machine in memory, behind the door: whole runs without starting a process.

It knows what zfs, mount, mount_nullfs and umount mean as far as kopiatomic uses them, does
what a fault plan says at a given call, and notes whatever is done to what is not the run's.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from kopiatomic import state
from kopiatomic.backup import plan, preflight, routine, view
from kopiatomic.backup.names import Names
from kopiatomic.backup.report import Report
from kopiatomic.clients import make_ready
from kopiatomic.commands import common
from kopiatomic.job import Job
from kopiatomic.system import process, zfs
from kopiatomic.system.command import CommandFailed, GivenUp, Result, failure
from kopiatomic.system.machine import Dataset, Mount, lies_in, nearest, visible_mounts

CONTROL = "/.zfs/snapshot/"
FAULTS = (
    "fails", "fails-after", "killed", "killed-after", "hangs", "hangs-after", "garbage",
    "garbage-after", "no-start", "lies", "TERM", "INT", "HUP",
)  # fmt: skip
GARBAGE = '\udcff{]\t\x1b[31m\nnonsense\n'


@dataclass
class Snapshot:
    """One snapshot: in which transaction group it was made, and whose it is."""

    txg: int
    run: str = "-"
    source: str = "local"
    held: bool = False


@dataclass
class Model:
    """The machine."""

    datasets: dict[str, Dataset]
    mounts: list[Mount]
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    stubborn: set[str] = field(default_factory=set)  # points that only -f unmounts
    stuck: set[str] = field(default_factory=set)  # points that nothing unmounts
    txg: int = 10
    call: int = 0
    faults: dict[int, str] = field(default_factory=dict)
    destroyed: list[tuple[str, Snapshot]] = field(default_factory=list)
    unmounted: list[str] = field(default_factory=list)
    trespasses: list[str] = field(default_factory=list)
    seen: dict[str, tuple[str, int]] | None = None
    visible: list[tuple[str, str]] = field(default_factory=list)
    planned: dict[str, plan.ViewMount] = field(default_factory=dict)
    moves: tuple[str, str] | None = None  # what is renamed, and to what, while the client runs

    # -- the door ----------------------------------------------------------------------------

    trace: Any = None
    nmount: Any = None

    def show(self, argv: Sequence[str]) -> None:
        """Nobody watches."""

    def mount(self, argv: Sequence[str], options: object, *, time_limit: float) -> None:
        """Make a mount by its command."""
        self.run(argv)

    @contextlib.contextmanager
    def standing_in(self, path: str) -> Iterator[tuple[str, Callable[[], int]]]:
        """Tell what is mounted on a path: view.standing_in."""
        mounts = self.mounts
        yield ".", lambda: max((n for n, m in enumerate(mounts) if m.point == path), default=-1)

    def run(
        self, argv: Sequence[str], *, check: bool = True, text: str | None = None, **_: object
    ) -> Result:
        """Do what the command does, or the fault that is planned for it."""
        self.call += 1
        fault = self.faults.get(self.call, "")
        if fault == "no-start":
            raise CommandFailed(argv, "cannot be started: No such file or directory")
        if fault in ("TERM", "INT", "HUP"):
            send(fault)
        if fault == "lies" and not argv[0].startswith("mount"):
            fault = ""  # of all but mounts it is believed that they did what they say
        status, out, err = int(fault != "lies"), "", "fault injected"
        # What acts may print what it likes, but is taken by its word that it did what it was told.
        acts = not {"list", "get", "-nvp", "--libxo", "-n", "-q", "-f"} & set(argv[:3])
        if fault == "garbage" and (acts or argv[0] == "umount"):
            fault = "garbage-after"
        if fault in ("", "TERM", "INT", "HUP") or fault.endswith("-after"):
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
            "fstat": lambda _: (0, "USER CMD PID FD MOUNT\n", ""),
            "zfs": self._zfs,
            "mount": self._mount,
            "mount_nullfs": self._mount_nullfs,
            "umount": self._umount,
        }
        return done[argv[0]](argv[1:])

    def _zfs(self, words: list[str]) -> tuple[int, str, str]:
        verb = words[0]
        if verb == "list":
            rows = [
                (d.name, d.type, "yes" if d.mounted else "no", d.canmount,
                 "on" if d.jailed else "off", d.keystatus, d.backup)
                for d in self.datasets.values()
            ]  # fmt: skip
            return 0, "".join("\t".join(row) + "\n" for row in rows), ""
        if verb == "get":
            lines = [
                f"{name}\t{each.run}\n" for name, each in self.snapshots.items()
                if each.run != "-" and each.source == "local"
            ]  # fmt: skip
            return 0, "".join(lines), ""
        if verb == "snapshot":
            return self._snapshot(words[2].partition("=")[2], words[3:])
        assert verb == "destroy", words
        return self._destroy(words[1:])

    def _snapshot(self, mark: str, names: list[str]) -> tuple[int, str, str]:
        if len({name.split("/")[0].split("@")[0] for name in names}) != 1:
            self.trespasses.append(f"snapshot over pools: {names}")
        for name in names:
            if name in self.snapshots:
                return 1, "", f"cannot create snapshot '{name}': dataset already exists"
            if name.partition("@")[0] not in self.datasets:
                return 2, "", f"cannot open '{name}': dataset does not exist"
        self.txg += 1
        for name in names:
            self.snapshots[name] = Snapshot(self.txg, mark)
        return 0, "", ""

    def _busy(self, name: str) -> bool:
        dataset, _, short = name.partition("@")
        points = [m.point for m in self.mounts if m.special == dataset and m.type == "zfs"]
        sources = {f"{point.rstrip('/')}{CONTROL}{short}" for point in points}
        return self.snapshots[name].held or any(m.special in sources for m in self.mounts)

    def _destroy(self, words: list[str]) -> tuple[int, str, str]:
        flags = [word for word in words if word.startswith("-")]
        above, _, short = words[-1].partition("@")
        if not short:
            self.trespasses.append(f"zfs destroy {words}")
        if above not in self.datasets:
            return 1, "", f"cannot open '{above}': dataset does not exist"
        found = [
            name for name in self.snapshots
            if name.partition("@")[2] == short and (
                name == words[-1] or ("-r" in flags and name.startswith(f"{above}/"))
            )
        ]  # fmt: skip
        if not found:
            return 1, "", "could not find any snapshots to destroy; check snapshot names."
        if "-nvp" in flags:
            return 0, "".join(f"destroy\t{name}\n" for name in found) + "reclaim\t0\n", ""
        busy = [name for name in found if self._busy(name)]
        if busy:
            return 1, "", f"cannot destroy snapshot {busy[0]}: dataset is busy"
        self.txg += 1
        for name in found:
            self.destroyed.append((name, self.snapshots.pop(name)))
        return 0, "", ""

    # -- mounts ------------------------------------------------------------------------------

    def _exists(self, path: str) -> bool:
        """Say whether a directory is there, among those that anything is ever mounted on."""
        visible = {m.point: m for m in visible_mounts(self.mounts)}
        point = nearest(path, visible)
        assert point is not None
        if point == path:
            return True
        source = visible[point].special
        if visible[point].type != "nullfs":
            return path in self.directories or os.path.isdir(path)
        rest = path[len(point.rstrip("/")) :]
        if CONTROL in source:
            live = source.partition(CONTROL)[0] or "/"
            return self._on(live.rstrip("/") + rest, live)
        if source.startswith(RUNS):
            return os.path.isdir(source + rest)
        live = {m.point for m in visible_mounts(self.mounts) if not m.point.startswith(RUNS)}
        under = nearest(source, live)
        return self._on(source.rstrip("/") + rest, under or "/")

    def _on(self, path: str, point: str) -> bool:
        """Say whether the directory ``path`` lies in the file system mounted on ``point``."""
        live = {m.point for m in visible_mounts(self.mounts) if not m.point.startswith(RUNS)}
        live.discard(path)
        known = path in self.directories or os.path.isdir(path)
        return known and nearest(path, live) == point

    def _mount(self, words: list[str]) -> tuple[int, str, str]:
        if "--libxo" in words:
            entries = [
                {"special": m.special, "node": m.point, "fstype": m.type,
                 "opts": ["local"] + ["read-only"] * m.read_only} for m in self.mounts
            ]  # fmt: skip
            return 0, json.dumps({"mount": {"mounted": entries}}), ""
        return self._add(Mount(words[-2], words[-1], words[1]))

    def _mount_nullfs(self, words: list[str]) -> tuple[int, str, str]:
        source, target = words[-2:]
        if CONTROL in source:
            point, _, short = source.partition(CONTROL)
            point = point or "/"
            there = next((m for m in visible_mounts(self.mounts) if m.point == point), None)
            if there is None or f"{there.special}@{short}" not in self.snapshots:
                return 64, "", f"mount_nullfs: {source}: No such file or directory"
        return self._add(Mount(source, target, "nullfs", "ro" in words))

    def _add(self, mount: Mount) -> tuple[int, str, str]:
        if not lies_in(mount.point, RUNS):
            self.trespasses.append(f"mount on {mount.point}")
        if not self._exists(mount.point):
            return 64, "", f"mount_nullfs: {mount.point}: No such file or directory"
        self.mounts.append(mount)
        return 0, "", ""

    def _umount(self, words: list[str]) -> tuple[int, str, str]:
        force = words[0] == "-f"
        errors = [self._unmount(word, force) for word in (words[1:] if force else words)]
        told = "\n".join(filter(None, errors))
        return (1 if told else 0), "", told

    def _unmount(self, point: str, force: bool) -> str:
        index = max((n for n, m in enumerate(self.mounts) if m.point == point), default=None)
        if index is None:
            return f"umount: {point}: not a file system root directory"
        inner = any(m.point.startswith(point.rstrip("/") + "/") for m in self.mounts)
        if inner or point in self.stuck or (point in self.stubborn and not force):
            return f"umount: unmount of {point} failed: Device busy"
        self.mounts.pop(index)
        self.unmounted.append(point)
        return ""

    def rename(self, old: str, new: str) -> None:
        """Do what ``zfs rename -u`` does: mounts stay where they are."""

        def after(name: str) -> str:
            return new + name[len(old) :] if within(name, old) else name

        self.datasets = {
            after(name): replace(each, name=after(name)) for name, each in self.datasets.items()
        }
        self.snapshots = {after(name): each for name, each in self.snapshots.items()}
        self.mounts = [
            replace(m, special=after(m.special)) if m.type == "zfs" else m for m in self.mounts
        ]

    # -- the client --------------------------------------------------------------------------

    def look(self, names: Names) -> None:
        """Do what the client does: note what stands at each point of the view."""
        inside = [m for m in visible_mounts(self.mounts) if lies_in(m.point, names.view)]
        self.seen, self.visible = {}, []
        for mount in inside:
            point = mount.point[len(names.view) :] or "/"
            self.visible.append((point, mount.special))
            live, control, short = mount.special.partition(CONTROL)
            if control:
                dataset = next(
                    m.special for m in visible_mounts(self.mounts) if m.point == (live or "/")
                )
                self.seen[point] = (dataset, self.snapshots[f"{dataset}@{short}"].txg)


def within(name: str, dataset: str) -> bool:
    """Say whether a dataset or snapshot is ``dataset``, below it, or a snapshot of these."""
    return name == dataset or name.startswith((f"{dataset}/", f"{dataset}@"))


RUNS = "/nonexistent"
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
        RUNS = f"{directory}/run"
        os.mkdir(RUNS)
        patch.setattr(state, "RUN_ROOT", RUNS)
        patch.setattr(state, "STATE_DIRECTORY", f"{directory}/db")
        patch.setattr(view, "_make_like", lambda path, live: os.makedirs(path, exist_ok=True))
        patch.setattr(routine.time, "sleep", lambda seconds: None)
        patch.setattr(common, "need_root", lambda job: None)
        patch.setattr(process, "run", run_client)
        yield directory


def run_client(
    door: Model, argv: Sequence[str], environment: Mapping[str, str], signals: process.Signals,
    streams: process.Streams,
) -> process.Ended:  # fmt: skip
    """Stand in for process.run: the model's client, or a hook."""
    door.call += 1
    fault = door.faults.get(door.call, "")
    if fault == "no-start":
        raise CommandFailed(argv, "cannot be started: No such file or directory")
    if fault in ("TERM", "INT", "HUP"):
        send(fault)
    if argv[0] == "chroot":
        door.look(Names("", "", os.path.dirname(argv[1])))
        if door.moves:
            door.rename(*door.moves)
    status = {"fails": 1, "fails-after": 3, "killed": -9, "killed-after": -11}.get(fault, 0)
    return process.Ended(status, 0.0, GARBAGE.encode("utf-8", "surrogateescape"), b"odd\n", b"")


# Both systems have it.
JOB = Job("restomic", plain=True, command=("/bin/echo",))
ENVIRONMENT = {"HOME": "/nonexistent", "TMPDIR": "/tmp"}
QUIET = process.Streams(output=None, messages=None)


def attempt(model: Model, job: Job) -> Report:
    """Do one run on the model; raises Refusal as routine.run does."""
    model.call, model.seen, model.visible, model.planned = 0, None, [], {}

    def build(door: Any, drawn: plan.Plan, *rest: Any) -> None:
        model.planned = {mount.point: mount for mount in drawn.view}
        BUILD(door, drawn, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(view, "build", build)
        patch.setattr(view, "standing_in", model.standing_in)
        patch.setattr(view, "way_to", lambda path: [])
        ready = make_ready(job, model, ENVIRONMENT)  # type: ignore[arg-type]
        return routine.run(ready._replace(job=preflight.resolve(job)), QUIET)


def left_over(model: Model, job: str = "default") -> list[str]:
    """Name what runs of the job have left on the model and in the file system."""
    here = state.Place("restomic", job)
    left = [
        f"snapshot {name}" for name, each in model.snapshots.items()
        if each.run.startswith(f"restomic:{job}:") and each.source == "local"
    ]  # fmt: skip
    left += [f"mount {m.point}" for m in model.mounts if lies_in(m.point, here.directory)]
    left += [path for path in (here.directory, here.unfinished) if os.path.lexists(path)]
    if state.is_locked(here):
        left.append("the lock")
    return left


def complete(model: Model, report: Report) -> list[str]:
    """Name what the client did not see as the plan has it."""
    drawn = report.plan
    if drawn is None or model.seen is None:
        return ["the client did not run"]
    wrong = []
    moments: dict[str, set[int]] = {}
    for each in drawn.captured:
        dataset, txg = model.seen.get(each.point, ("nothing frozen", 0))
        if dataset != each.dataset:
            wrong.append(f"{each.point} shows {dataset} instead of {each.dataset}")
        moments.setdefault(each.dataset.split("/")[0], set()).add(txg)
        if not any(lies_in(each.point, path) for path in drawn.paths):
            wrong.append(f"{each.point} is in none of the paths")
    wrong += [f"{pool} is of several moments" for pool, txgs in moments.items() if len(txgs) != 1]
    planned = model.planned
    for point, special in model.visible:
        if any(lies_in(point, path) for path in drawn.paths):
            kind = planned[point].kind if point in planned else "unplanned"
            if kind not in ("frozen", "gap") and not any(lies_in(point, t) for t in drawn.live):
                wrong.append(f"{special} slipped into the backup at {point}")
    return wrong


__all__ = ["JOB", "Model", "Snapshot", "attempt", "complete", "left_over", "place", "zfs"]
