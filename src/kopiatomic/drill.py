"""The restore drill: a few files at random come back from the backup, and are compared.

Each file's content is written to a scratch file of ours, under a name of ours,
so no name out of a backup ever reaches a file system; there is one such file at
a time, and it is unlinked by its name. Nothing is deleted that is not ours, and
nothing recursively.
"""

import errno
import json
import os
import random
import re
import select
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import IO, Any

from kopiatomic import backend, mounts, preflight, report, state, upkeep
from kopiatomic.client import Interrupted, Signals
from kopiatomic.command import CommandFailed, Door, decode, describe_status, printable
from kopiatomic.invocation import base_command
from kopiatomic.job import Job
from kopiatomic.machine import join, nearest
from kopiatomic.redact import redactor
from kopiatomic.refusal import EX_NOINPUT, EX_OSERR, EX_SOFTWARE, EX_UNAVAILABLE, Refusal
from kopiatomic.state import Place
from kopiatomic.upkeep import Account, Done

# Larger files are not restored unless the user says otherwise.
SIZE_LIMIT = 1 << 30

# What a drill leaves free on the file system of its scratch file, in bytes.
RESERVE = 64 << 20

# The exit status when a file differs or does not come back.
EX_DIFFERENT = 1

_BLOCK = 1 << 18

# JSON of Go has this for bytes that are not UTF-8, and U+FFFD itself unescaped.
_NOT_UTF8 = re.compile(rb"(?<!\\)(?:\\\\)*\\ufffd")


@dataclass(frozen=True)
class Wishes:
    """How many files of each source, the seed of the choice, the largest file in bytes."""

    files: int
    seed: int
    size_limit: int = SIZE_LIMIT


@dataclass(frozen=True)
class Source:
    """The newest backup of one source: its id, its paths, the moment it shows."""

    backup: str
    title: str
    moment: float
    # kopia's: the path of the source and the entry of its root.
    path: str = ""
    root: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class File:
    """A file in a backup: as it was recorded, and the words that make the client print it.

    Times are in nanoseconds, None where the backup does not know.
    """

    path: str
    size: int
    mtime: int | None
    fetch: tuple[str, ...]
    ctime: int | None = None
    inode: int | None = None


@dataclass
class Tally:
    """What came of one source; ``too_large`` and ``unnamed`` files were not chosen."""

    source: Source
    chosen: int = 0
    restored: int = 0
    identical: int = 0
    changed: list[str] = field(default_factory=list)
    too_large: int = 0
    unnamed: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass
class Drill(Account):
    """The account of a drill."""

    seed: int = 0
    wanted: int = 0
    size_limit: int = SIZE_LIMIT
    tallies: list[Tally] = field(default_factory=list)

    def conceal(self, hide: Callable[[str], str]) -> None:
        """Take secrets out of all that is told."""
        super().conceal(hide)
        for tally in self.tallies:
            tally.problems[:] = map(hide, tally.problems)


class ClientFailed(Exception):
    """The client could not do what it was asked; the message says what it said."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def run(job: Job, door: Door, inherited: Mapping[str, str], wishes: Wishes) -> Drill:
    """Restore and compare some files and return the account.

    Raises Refusal before anything was started.
    """
    preflight.need_root(job)
    base = base_command(job)
    program = preflight.client_program(job)
    environment = backend.client_environment(job, inherited, None)
    hide = redactor(environment, [*job.command, *job.options], program)
    place = Place(job.program, job.name)
    with state.lock(place), Signals() as signals:
        account = Drill(
            "drill", job.program, job.name, time.time(), seed=wishes.seed, wanted=wishes.files,
            size_limit=wishes.size_limit,
        )  # fmt: skip
        reader = Reader(door, base, environment, signals)
        try:
            state.private_directory(state.STATE_DIRECTORY)
            account.notes += sweep(place)
            with Scratch(place, account) as scratch:
                _drill(job, reader, scratch, account, environment)
        except Interrupted as error:
            account.fail(str(error), 128 + error.signum, "interrupted")
        except ClientFailed as error:
            account.fail(_with_hint(job, error), upkeep.exit_status(error.status))
        except CommandFailed as error:
            # Only the reason: the command line may hold a password.
            account.fail(f"{base[0]}: {error.reason}", EX_UNAVAILABLE)
        except (OSError, Refusal) as error:
            account.fail(str(error), EX_OSERR)
        except Exception as error:
            account.fail(f"internal error, please report it: {error!r}", EX_SOFTWARE)
        finally:
            upkeep.close(place, account, hide)
    return account


def _with_hint(job: Job, error: ClientFailed) -> str:
    hint = upkeep.status_hint(job, error.status)
    return f"{error}; {hint}" if hint else str(error)


def _drill(
    job: Job, reader: "Reader", scratch: "Scratch", account: Drill, environment: Mapping[str, str]
) -> None:
    if job.program == "kopiatomic":
        sources = kopia_sources(reader)
    else:
        sources = restic_sources(reader, upkeep.host_of(job, environment))
    if not sources:
        account.fail("there is no backup of this machine in the repository", EX_NOINPUT)
    comparer = Comparer(reader.door)
    for source in sources:
        began = time.monotonic()
        tally = Tally(source)
        account.tallies.append(tally)
        done = Done(f"restore from {source.backup[:8]} ({source.title})")
        account.steps.append(done)
        try:
            _drill_source(reader, scratch, comparer, account, tally)
        except ClientFailed as error:
            tally.problems.append(f"{source.title}: {_with_hint(job, error)}")
        finally:
            done.seconds = time.monotonic() - began
            done.outcome = "failed" if tally.problems else "ok"
            for problem in tally.problems:
                account.fail(problem, EX_DIFFERENT)


def _drill_source(
    reader: "Reader", scratch: "Scratch", comparer: "Comparer", account: Drill, tally: Tally
) -> None:
    # Of each source and backup the choice is the same for the same seed.
    rng = random.Random(f"{account.seed} {tally.source.title}")
    choose = restic_files if not tally.source.root else kopia_files
    for file in choose(reader, tally, account.wanted, account.size_limit, rng):
        reader.signals.check()
        tally.chosen += 1
        try:
            with scratch.file(file.size) as descriptor:
                reader.into(descriptor, *file.fetch)
                verdict = comparer.compare(descriptor, file, tally.source.moment)
        except (ClientFailed, OSError) as error:
            tally.problems.append(f"{file.path}: cannot be restored: {error}")
            continue
        tally.restored += 1
        if verdict == IDENTICAL:
            tally.identical += 1
        elif verdict == CHANGED:
            tally.changed.append(file.path)
        else:
            tally.problems.append(f"{file.path}: {verdict}")


# The client, whose output is ours to read


@dataclass(frozen=True)
class Reader:
    """Runs the client to read from it; signals that reach us are passed to it."""

    door: Door
    base: Sequence[str]
    environment: Mapping[str, str]
    signals: Signals

    def lines(self, *words: str) -> Iterator[bytes]:
        """Return what the client prints, line by line; raises ClientFailed, Interrupted."""
        rest = b""
        for block in self._blocks(words):
            *lines, rest = (rest + block).split(b"\n")
            yield from lines
        if rest:
            yield rest

    def whole(self, *words: str) -> bytes:
        """Return all that the client prints; raises ClientFailed, Interrupted."""
        return b"".join(self._blocks(words))

    def into(self, descriptor: int, *words: str) -> None:
        """Have the client write to a file; raises ClientFailed, Interrupted."""
        with tempfile.TemporaryFile(dir=state.STATE_DIRECTORY) as messages:
            child = self._start(words, descriptor, messages)
            try:
                while not _ended(child):
                    self.signals.enforce()
            finally:
                self._finish(child)
            self._check(child, words, messages)

    def _blocks(self, words: Sequence[str]) -> Iterator[bytes]:
        with tempfile.TemporaryFile(dir=state.STATE_DIRECTORY) as messages:
            child = self._start(words, subprocess.PIPE, messages)
            assert child.stdout is not None
            descriptor = child.stdout.fileno()
            try:
                while True:
                    self.signals.enforce()
                    if not select.select([descriptor], [], [], 0.5)[0]:
                        continue
                    block = os.read(descriptor, _BLOCK)
                    if not block:
                        break
                    yield block
                while not _ended(child):
                    self.signals.enforce()
            finally:
                self._finish(child)
                child.stdout.close()
            self._check(child, words, messages)

    def _start(
        self, words: Sequence[str], output: int, messages: IO[bytes]
    ) -> "subprocess.Popen[bytes]":
        self.signals.check()
        child = self.door.start(
            [*self.base, *words],
            environment=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=messages,
            process_group=0,
        )
        self.signals.watch(child, shares_terminal=False)
        return child

    def _finish(self, child: "subprocess.Popen[bytes]") -> None:
        if child.poll() is None:
            child.kill()
            child.wait()
        self.signals.unwatch()

    def _check(
        self, child: "subprocess.Popen[bytes]", words: Sequence[str], messages: IO[bytes]
    ) -> None:
        self.signals.check()
        status = child.returncode
        if status != 0:
            messages.seek(max(0, messages.seek(0, os.SEEK_END) - 4096))
            lines = [line.strip() for line in decode(messages.read()).splitlines()]
            said = "; ".join([line for line in lines if line][-2:])
            name = f"{os.path.basename(self.base[0])} {words[0]}"
            how = describe_status(status)
            raise ClientFailed(status, printable(f"{name}: {said} ({how})" if said else
                                                 f"{name}: {how}"))  # fmt: skip


def _ended(child: "subprocess.Popen[bytes]") -> bool:
    try:
        child.wait(timeout=0.5)
    except subprocess.TimeoutExpired:
        return False
    return True


# What there is in a backup: restic


def restic_sources(reader: Reader, host: str) -> list[Source]:
    """Return the newest snapshot of ``host`` for each of its groups of paths."""
    answer = reader.whole("snapshots", "--json", "--latest", "1", "--host", host)
    return [
        Source(
            backup=str(each["id"]),
            title=", ".join(map(str, each["paths"])),
            moment=(nanoseconds(each["time"]) or 0) / 1e9,
        )
        for each in _json(answer, list)
    ]


def restic_files(
    reader: Reader, tally: Tally, wanted: int, size_limit: int, rng: random.Random
) -> list[File]:
    """Return files of a snapshot, each with the same chance; memory is for those only.

    ``restic dump`` is asked for a file by its path, which takes no pattern; a
    path that is not UTF-8 it does not tell us in a form to ask with.
    """
    chosen: list[File] = []
    seen = 0
    backup = tally.source.backup
    for line in reader.lines("ls", "--json", backup):
        if b'"file"' not in line:
            continue
        node = _json(line, dict)
        if node.get("type") != "file":
            continue
        size = int(node.get("size") or 0)
        if size > size_limit:
            tally.too_large += 1
            continue
        if _NOT_UTF8.search(line):
            tally.unnamed += 1
            continue
        seen += 1
        slot = len(chosen) if len(chosen) < wanted else rng.randrange(seen)
        if slot < wanted:
            chosen[slot : slot + 1] = [_restic_file(backup, node, size)]
    return chosen


def _restic_file(backup: str, node: Mapping[str, object], size: int) -> File:
    path = str(node["path"])
    inode = node.get("inode")
    return File(
        path, size, nanoseconds(node.get("mtime")), ("dump", backup, path),
        ctime=nanoseconds(node.get("ctime")), inode=inode if isinstance(inode, int) else None,
    )  # fmt: skip


# What there is in a backup: kopia


def kopia_sources(reader: Reader) -> list[Source]:
    """Return the newest complete backup of each source of this user and host."""
    newest: dict[str, Source] = {}
    for each in _json(reader.whole("snapshot", "list", "--json"), list):
        if each.get("incomplete"):
            continue
        path = str(each["source"]["path"])
        moment = (nanoseconds(each["startTime"]) or 0) / 1e9
        if path not in newest or newest[path].moment < moment:
            root = each["rootEntry"]
            newest[path] = Source(str(each["id"]), path, moment, path=path, root=root)
    return [newest[path] for path in sorted(newest)]


def kopia_files(
    reader: Reader, tally: Tally, wanted: int, size_limit: int, rng: random.Random
) -> list[File]:
    """Return files of a backup, each with the same chance.

    Every directory entry says how many files there are below it, so the number
    of a file leads to it; only the directories on the way are read. A file is
    asked for by its object, so its name does not matter.
    """

    @lru_cache(maxsize=32)
    def entries(name: str) -> list[dict[str, object]]:
        listing = _json(reader.whole("show", name), dict)["entries"]
        return [each for each in listing or () if isinstance(each, dict)]

    root, path = tally.source.root, tally.source.path
    total = _files_below(root)
    chosen: list[File] = []
    # Some of them may be too large.
    for number in rng.sample(range(total), min(total, 4 * wanted + 20)):
        if len(chosen) == wanted:
            break
        here, at, left = root, path, number
        while here.get("type") == "d":
            for entry in entries(str(here["obj"])):
                count = _files_below(entry)
                if left < count:
                    here, at = entry, f"{at.rstrip('/')}/{entry['name']}"
                    break
                left -= count
            else:
                raise ClientFailed(1, f"the directory {at} holds fewer files than was noted")
        size = here.get("size")
        size = size if isinstance(size, int) else 0
        if size > size_limit:
            tally.too_large += 1
        else:
            fetch = ("show", str(here["obj"]))
            chosen.append(File(at, size, nanoseconds(here.get("mtime")), fetch))
    return chosen


def _files_below(entry: Mapping[str, object]) -> int:
    if entry.get("type") == "f":
        return 1
    summary = entry.get("summ")
    count = summary.get("files") if isinstance(summary, dict) else 0
    return count if isinstance(count, int) else 0


def _json(text: bytes, kind: type) -> Any:
    """Return the JSON value that the client printed; raises ClientFailed if it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise ClientFailed(1, "the client printed something that is not understood")
    return value


def nanoseconds(text: object) -> int | None:
    """Return a time as the clients print it, to the nanosecond; None if it is no time."""
    match = re.fullmatch(r"([^.]+?)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", str(text))
    if not match:
        return None
    zone = "+00:00" if match[3] == "Z" else match[3]
    try:
        whole = datetime.fromisoformat(match[1] + zone)
    except ValueError:
        return None
    seconds = (whole - _EPOCH) // timedelta(seconds=1)
    return seconds * 10**9 + int((match[2] or "0").ljust(9, "0"))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


# The scratch file


class Scratch:
    """A directory of ours for the file that is being restored, closed to others."""

    def __init__(self, place: Place, account: Account) -> None:
        self.account = account
        self.path = tempfile.mkdtemp(prefix=_prefix(place), dir=state.STATE_DIRECTORY)
        self.descriptor = os.open(self.path, _DIRECTORY)

    def __enter__(self) -> "Scratch":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)
        reason = remove(self.path)
        if reason:
            self.account.fail(f"the scratch directory {self.path} stays: {reason}", EX_OSERR)

    @contextmanager
    def file(self, size: int) -> Iterator[int]:
        """Hold an empty scratch file that is to grow to ``size``; raises OSError."""
        free = os.fstatvfs(self.descriptor)
        if free.f_bavail * free.f_frsize < size + RESERVE:
            raise OSError(
                errno.ENOSPC,
                f"{report.size(size)} are too much for the free space in {state.STATE_DIRECTORY}",
            )
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open("file", flags, 0o600, dir_fd=self.descriptor)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
            os.unlink("file", dir_fd=self.descriptor)


_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _prefix(place: Place) -> str:
    return f"drill.{place.program}.{place.job}."


def remove(path: str) -> str | None:
    """Remove a scratch directory and the plain files in it; say why if it stays."""
    try:
        descriptor = os.open(path, _DIRECTORY)
        try:
            for name in os.listdir(descriptor):
                found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    os.unlink(name, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        os.rmdir(path)
    except OSError as error:
        return error.strerror
    return None


def sweep(place: Place) -> list[str]:
    """Remove what a drill of this job that was killed has left; return what to say of it.

    Call it with the job's lock held: no other drill of the job is under way.
    """
    ours = re.compile(re.escape(_prefix(place)) + "[a-z0-9_]{8}")
    notes = []
    for name in sorted(os.listdir(state.STATE_DIRECTORY)):
        path = f"{state.STATE_DIRECTORY}/{name}"
        if ours.fullmatch(name):
            reason = remove(path)
            told = f"{path}, left by an earlier drill, "
            notes.append(told + (f"stays: {reason}" if reason else "is removed"))
    return notes


# The comparison

IDENTICAL = "identical"
CHANGED = "changed"


class Comparer:
    """Compares what came back with the live file, or with the file in a ZFS snapshot."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self._points: dict[str, str] | None = None
        self._snapshots: dict[str, list[tuple[str, float]]] = {}

    def compare(self, restored: int, file: File, moment: float) -> str:
        """Return IDENTICAL, CHANGED, or in words what is wrong with a restored file.

        CHANGED means that nothing on this machine is known to be as it was at the
        ``moment`` of the backup.
        """
        size = os.fstat(restored).st_size
        if size != file.size:
            return f"restored as {size} bytes, but backed up as {file.size}"
        verdict = against(restored, file, file.path, moment)
        if verdict == CHANGED:
            for path in self._in_snapshots(file.path, moment):
                verdict = against(restored, file, path, moment)
                if verdict != CHANGED:
                    break
        return verdict

    def _in_snapshots(self, path: str, moment: float) -> list[str]:
        """Return ``path`` in the last ZFS snapshot before the backup and the first after it."""
        try:
            if self._points is None:
                table = mounts.table(self.door)
                self._points = {each.point: each.special for each in table if each.type == "zfs"}
            point = nearest(path, self._points)
            if point is None:
                return []
            known = self._snapshots_of(self._points[point])
        except CommandFailed:
            return []
        before = max((each for each in known if each[1] <= moment), key=_when, default=None)
        after = min((each for each in known if each[1] >= int(moment)), key=_when, default=None)
        inside = path if point == "/" else path[len(point) :]
        return [
            join(point, f"/.zfs/snapshot/{each[0]}") + inside for each in (before, after) if each
        ]

    def _snapshots_of(self, dataset: str) -> list[tuple[str, float]]:
        if dataset not in self._snapshots:
            argv = ["zfs", "list", "-Hp", "-d", "1", "-t", "snapshot", "-o", "name,creation"]
            lines = self.door.run([*argv, dataset]).stdout.split("\n")
            pairs = (line.partition("\t") for line in lines if line)
            self._snapshots[dataset] = [
                (name.partition("@")[2], float(when)) for name, _, when in pairs if when.isdigit()
            ]
        return self._snapshots[dataset]


def _when(snapshot: tuple[str, float]) -> float:
    return snapshot[1]


def against(restored: int, file: File, path: str, moment: float) -> str:
    """Compare a restored file with the one at ``path``; returns what compare() does.

    The same bytes are the same file whatever its times say. Different ones are a
    fault of the backup only if the file is provably as it was then: it has its
    inode and the time of its last change, which nobody can set; kopia does not
    record these, so there the last change must lie before the backup.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        live = os.open(path, flags)
    except (OSError, ValueError):
        return CHANGED
    try:
        before = os.fstat(live)
        if not stat.S_ISREG(before.st_mode) or before.st_size != file.size:
            return CHANGED
        if before.st_mtime_ns != file.mtime:
            return CHANGED
        offset = first_difference(restored, live)
        if offset is None:
            return IDENTICAL
        if file.ctime is None:
            untouched = before.st_ctime_ns < moment * 1e9
        else:
            untouched = (before.st_ctime_ns, before.st_ino) == (file.ctime, file.inode)
        if not untouched or os.fstat(live).st_ctime_ns != before.st_ctime_ns:
            return CHANGED
        return f"differs from byte {offset} on, although {path} is unchanged since the backup"
    except OSError as error:
        return f"{path} cannot be read to compare: {error.strerror}"
    finally:
        os.close(live)


def first_difference(one: int, other: int) -> int | None:
    """Return the offset of the first byte in which two files differ, or None."""
    offset = 0
    while True:
        ours, theirs = os.pread(one, _BLOCK, offset), os.pread(other, _BLOCK, offset)
        if ours != theirs:
            same = zip(ours, theirs, strict=False)
            within = next((i for i, (a, b) in enumerate(same) if a != b), None)
            return offset + (min(len(ours), len(theirs)) if within is None else within)
        if not ours:
            return None
        offset += len(ours)


# The report


def as_dict(drill: Drill) -> dict[str, object]:
    """Return the account of a drill as plain data, for --json."""
    return {
        **upkeep.as_dict(drill),
        "seed": drill.seed,
        "sources": [
            {
                "backup": tally.source.backup,
                "title": tally.source.title,
                "moment": upkeep.stamp(tally.source.moment),
                "chosen": tally.chosen,
                "restored": tally.restored,
                "identical": tally.identical,
                "changed_since": tally.changed,
                "too_large": tally.too_large,
                "unnamed": tally.unnamed,
                "problems": tally.problems,
            }
            for tally in drill.tallies
        ],
    }


def as_text(drill: Drill) -> str:
    """Return the account of a drill for a person."""
    lines = [upkeep.headline(drill, "the restore drill")]
    lines += [f"  ! {printable(problem)}" for problem in drill.problems]
    for tally in drill.tallies:
        source = tally.source
        when = report.clock(source.moment)
        lines += ["", f"{printable(source.title)}, backup {source.backup[:8]} of {when}:"]
        lines += [f"  {line}" for line in _told(tally, drill)]
    if drill.notes:
        lines += ["", "Note:", *(f"  {printable(note)}" for note in drill.notes)]
    again = f"--seed {drill.seed} chooses the same again, until the next backup"
    lines += ["", f"The files were chosen at random; {again}."]
    return "\n".join(lines) + "\n"


def _told(tally: Tally, drill: Drill) -> list[str]:
    lines = [f"{tally.identical} of {tally.chosen} files restored identical"]
    if tally.changed:
        lines.append(
            f"{len(tally.changed)} restored, live file has changed since or is gone: "
            + _few(tally.changed)
        )
    if tally.too_large:
        lines.append(f"{tally.too_large} over {report.size(drill.size_limit)} passed over")
    if tally.unnamed:
        lines.append(f"{tally.unnamed} passed over because their names are not UTF-8")
    return [printable(line) for line in lines]


def _few(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(paths[:3]) + more


def size_of(text: str) -> int:
    """Return a size like 500M or 2G in bytes, in binary units; raises Refusal."""
    match = re.fullmatch(r"([0-9]{1,12})([KMGT]?)", text.upper())
    if not match:
        raise Refusal(f"--size-limit {text}: a number of bytes is wanted, as in 500M or 2G")
    return int(match[1]) << 10 * " KMGT".index(match[2] or " ")


def count_of(text: str, option: str, least: int = 0) -> int:
    """Return a whole number that was given as an option's text; raises Refusal."""
    if not re.fullmatch(r"[0-9]{1,12}", text) or int(text) < least:
        raise Refusal(f"{option} {text}: a whole number is wanted, {least} or more")
    return int(text)


def new_seed() -> int:
    """Return a seed that nobody can foresee."""
    return random.SystemRandom().randrange(10**9)
