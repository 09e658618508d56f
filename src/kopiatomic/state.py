"""What outlives a run: its lock, the marker that it is unfinished, and the history.

Everything here belongs to root alone. The working directory lies in /var/run,
the rest in /var/db, because /var/run is emptied at boot. There is one more file in
/var/run, just for that: see note_search().
"""

import fcntl
import json
import os
import re
import signal
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from kopiatomic import client_rows
from kopiatomic.errors import EX_CANTCREAT, EX_NOPERM, EX_TEMPFAIL, EX_USAGE, Refusal
from kopiatomic.formatting import clock, duration
from kopiatomic.record import Record
from kopiatomic.system.command import quote
from kopiatomic.system.process import CAUGHT

RUN_ROOT = "/var/run"
STATE_DIRECTORY = "/var/db/kopiatomic"

# How often a lock that another run has is tried again, in seconds.
INTERVAL = 1.0

# The outcomes of a run that made a complete backup.
GOOD = client_rows.GOOD

# Entries kept in a job's history: more than a year of nights.
HISTORY_LENGTH = 500

# The newest entries that fit into this keep their lists of datasets; the others lose them.
HISTORY_BYTES = 1_000_000
LISTS = frozenset({"captured", "left_out", "paths"})
FEW = 8  # of any other list in them so many are kept

_JOB_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}"


class Place(Record):
    """One job of one program: what it is called, and where it keeps its files."""

    program: str
    job: str

    @property
    def label(self) -> str:
        """What to call the job in a text, where there are two programs."""
        return f"{self.program}/{self.job}"

    @property
    def status_command(self) -> str:
        """The command that shows the state of the job, as a shell takes it."""
        return quote([self.program, "--status", "-j", self.job])

    @property
    def full_status_command(self) -> str:
        """The command that lists what the last good backup of the job captured and left out."""
        job = [] if self.job == "default" else ["-j", self.job]
        return quote([self.program, "--status", "--full", *job])

    @property
    def sweep_command(self) -> str:
        """The command that removes what earlier runs of the job have left behind, likewise."""
        return quote([self.program, "--sweep", "-j", self.job])

    @property
    def root(self) -> str:
        """The program's working directory, for root only; as the mount table calls it."""
        return f"{os.path.realpath(RUN_ROOT)}/{self.program}"

    @property
    def directory(self) -> str:
        """The job's working directory, which is there only during a run."""
        return f"{self.root}/{self.job}"

    @property
    def lock(self) -> str:
        """The lock file; it stays, what counts is whether it is locked."""
        return f"{self.root}/{self.job}.lock"

    @property
    def unfinished(self) -> str:
        """The marker that a run has begun and has not been taken down yet."""
        return f"{STATE_DIRECTORY}/{self.program}.{self.job}.unfinished"

    @property
    def holds(self) -> str:
        """The note of the snapshots of others that a run holds, or that a killed one held."""
        return f"{STATE_DIRECTORY}/{self.program}.{self.job}.holds"

    @property
    def history(self) -> str:
        """One line of JSON for each run that was not refused."""
        return f"{STATE_DIRECTORY}/{self.program}.{self.job}.history"

    @property
    def layout(self) -> str:
        """The layout of the pools as it was last saved, or was to be."""
        return f"{STATE_DIRECTORY}/{self.program}.{self.job}.layout"

    @property
    def upkeep(self) -> str:
        """The history of upkeep and restore drills."""
        return f"{STATE_DIRECTORY}/{self.program}.{self.job}.upkeep"


def places(program: str) -> list[Place]:
    """Return the jobs of a program that have a history, by their names."""
    try:
        names = os.listdir(STATE_DIRECTORY)
    except OSError:
        return []
    before, after = f"{program}.", ".history"
    jobs = [
        name[len(before) : -len(after)]
        for name in names
        if name.startswith(before) and name.endswith(after)
    ]
    return [Place(program, job) for job in sorted(jobs) if re.fullmatch(_JOB_NAME, job)]


class Wait(Record):
    """For how many seconds another run of the job is waited for; ``tell`` hears of it first."""

    seconds: float = 0.0
    tell: Callable[[str], None] | None = None


NO_WAIT = Wait()


def is_job_name(name: str) -> bool:
    """Say whether a job may be called so."""
    # "a.lock" as a job's directory would be where the lock of job "a" is.
    return re.fullmatch(_JOB_NAME, name) is not None and not name.endswith(".lock")


def check_job_name(name: str) -> str:
    """Return a job's name if it may be one; raises Refusal."""
    if not is_job_name(name):
        raise Refusal(
            f"'{name}' cannot be a job's name; "
            "use up to 32 letters, digits, '_', '-' and '.', a letter or digit first, "
            "no .lock at the end",
            EX_USAGE,
        )
    return name


def private_directory(path: str) -> None:
    """Make a directory that only we can enter, or make sure that it is one.

    Raises Refusal if something else is there, or if other users could enter it.
    """
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise Refusal(f"cannot make {path}: {error.strerror}", EX_CANTCREAT) from error
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise Refusal(f"{path} is in the way: it is not a directory; move it", EX_CANTCREAT)
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise Refusal(
            f"{path} must belong to root and be closed to other users; "
            f"check what is in it, then: chown root {path}; chmod 700 {path}",
            EX_NOPERM,
        )


@contextmanager
def lock(place: Place, wait: Wait = NO_WAIT) -> Iterator[float]:
    """Hold the job's lock; gives the seconds for which another run had it still.

    It is flock(2)'s, which the kernel drops with the process, however that ends.
    Raises Refusal if the other run goes on for longer than ``wait`` says
    (EX_TEMPFAIL), or if a signal ends the wait (128 and its number).
    """
    private_directory(place.root)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(place.lock, flags, 0o600)
    except OSError as error:
        raise Refusal(f"cannot lock {place.lock}: {error.strerror}", EX_CANTCREAT) from error
    try:
        waited = _take(place, descriptor, wait)
        # What is written there is for people; a full file system is no reason not to run.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {int(time.time())}\n".encode(), 0)
        yield waited
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _take(place: Place, descriptor: int, wait: Wait) -> float:
    """Lock an open lock file, and return the seconds that this took; raises Refusal.

    It is tried again and again, for a flock(2) that waits knows no limit of time.
    """
    if _try(descriptor):
        return 0.0
    if not wait.seconds:
        reason = f"{_still_runs(place, descriptor)}; wait for it (with --wait), or end it"
        raise Refusal(reason, EX_TEMPFAIL)
    began, limit = time.monotonic(), duration(wait.seconds)
    # They wait to be asked for, so that one of them ends a wait of hours at once.
    wanted = {each for each in CAUGHT if signal.getsignal(each) is not signal.SIG_IGN}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    try:
        if wait.tell is not None:
            wait.tell(f"{_still_runs(place, descriptor)}; waiting up to {limit} for it")
        while (left := began + wait.seconds - time.monotonic()) > 0:
            came = signal.sigtimedwait(wanted, min(INTERVAL, left))
            if came is not None:
                name = signal.Signals(came.si_signo).name
                raise Refusal(
                    f"interrupted by {name} while it waited: {_still_runs(place, descriptor)}",
                    128 + came.si_signo,
                )
            if _try(descriptor):
                return time.monotonic() - began
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    raise Refusal(
        f"{_still_runs(place, descriptor)}; waited {limit} for it; "
        "end it, or wait longer (with --wait)",
        EX_TEMPFAIL,
    )


def _try(descriptor: int) -> bool:
    """Lock an open lock file, if nobody else has; say whether it is locked by us."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _still_runs(place: Place, descriptor: int) -> str:
    words = os.pread(descriptor, 100, 0).split()
    since = ""
    if len(words) == 2 and words[0].isdigit() and words[1].isdigit():
        since = f", since {clock(int(words[1]))} (process {int(words[0])})"
    return f"{place.label} is still running{since}"


def is_locked(place: Place) -> bool:
    """Say whether a run of the job is under way.

    An empty lock file is nobody's. It is left alone, because to try its lock
    would for a moment be in the way of a run that begins.
    """
    try:
        descriptor = os.open(place.lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if os.fstat(descriptor).st_size == 0:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def begin(place: Place, run: str) -> None:
    """Write the marker that ``run`` is unfinished, before it makes anything."""
    private_directory(STATE_DIRECTORY)
    _replace(place.unfinished, run + "\n")


def finish(place: Place) -> None:
    """Remove the marker: nothing of the run is left.

    With it goes the half of a file that a killed run has written: see _replace().
    """
    whole = (place.unfinished, place.history, place.upkeep, place.holds)
    for path in (*(f"{each}.new" for each in whole), place.unfinished):
        with suppress(FileNotFoundError):
            os.unlink(path)


def is_unfinished(place: Place) -> bool:
    """Say whether an earlier run was not taken down completely."""
    return os.path.lexists(place.unfinished)


class NotedHold(Record):
    """A hold that a run has made, or was about to: its tag, and whose snapshot it is on."""

    tag: str
    guid: str
    snapshot: str


def note_holds(place: Place, holds: Sequence[NotedHold]) -> None:
    """Write down which holds of the job there may be, before they are made; none: remove it."""
    private_directory(STATE_DIRECTORY)
    if holds:
        _replace(place.holds, "".join("\t".join(each) + "\n" for each in holds))
        return
    with suppress(FileNotFoundError):
        os.unlink(place.holds)


def read_holds(place: Place) -> list[NotedHold]:
    """Return what note_holds() has written; raises OSError.

    A line that makes no sense is none: what a damaged note says is not to be acted upon.
    """
    rows = (line.decode("utf-8", "replace").split("\t") for line in _lines(place.holds))
    return [NotedHold(*row) for row in rows if len(row) == 3 and "@" in row[2]]


def note_search(pools: Iterable[str], path: str | None = None) -> None:
    """Note that no snapshot of ours is in any of these pools, which are all that are imported.

    Where it cannot be noted, the next one searches again. ``path`` is the file that notes it,
    where it is about something else.
    """
    with suppress(OSError):
        _replace(path or search_mark(), "\n".join([_home(), *sorted(pools)]) + "\n")


def forget_search() -> None:
    """Take back what note_search() has noted; where that cannot be, it holds until the boot."""
    with suppress(OSError):
        os.unlink(search_mark())


def was_searched(pools: Iterable[str] = (), path: str | None = None) -> bool:
    """Say whether that was noted for these pools since the machine was booted.

    After a boot the state may be that of another time: /var/db belongs to the boot
    environment in the installer's layout, and what a run that was killed has left is
    not noted in another one. The same is so where the directory is another one.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(path or search_mark(), flags), encoding="utf-8") as file:
            age = time.time() - os.fstat(file.fileno()).st_mtime
            home, *known = file.read().split("\n")
    except (OSError, ValueError):
        return False
    # rc.d/cleanvar removes the mark at boot. Where it is switched off, the mark's age tells:
    # clock_gettime(2)'s CLOCK_MONOTONIC counts from the boot. A clock that was set costs a search.
    return 0 <= age <= time.monotonic() and home == _home() and set(pools) <= set(known)


def search_mark() -> str:
    """Return the file that notes it."""
    return f"{os.path.realpath(RUN_ROOT)}/kopiatomic.searched"


def holds_mark(place: Place) -> str:
    """Return the file that notes that no hold of a job is left, likewise."""
    return f"{search_mark()}.{place.program}.{place.job}"


def _home() -> str:
    """Return what tells one state directory from another that is in its place."""
    try:
        found = os.stat(STATE_DIRECTORY)
    except OSError:
        return "none"
    return f"{found.st_dev}:{found.st_ino}"


def write_layout(place: Place, text: str) -> None:
    """Keep the layout of the pools; raises OSError, or Refusal."""
    private_directory(STATE_DIRECTORY)
    _replace(place.layout, text)


def _replace(path: str, text: str) -> None:
    """Write a file so that after a crash it holds the old text or the new one."""
    fresh = path + ".new"
    # Whatever is there, it need not be ours: a link, or a file that others hold open.
    with suppress(FileNotFoundError):
        os.unlink(fresh)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(fresh, flags, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_history(place: Place) -> list[dict[str, object]]:
    """Return the job's runs, oldest first, without lines that cannot be read."""
    return _entries(place.history)


def newest_first(place: Place) -> Iterator[dict[str, object]]:
    """Yield the job's runs one by one, so that only those looked at are held in memory."""
    for line in reversed(_lines(place.history)):
        entry = _parse(line)
        if entry is not None:
            yield entry


def successes(place: Place) -> Iterator[dict[str, object]]:
    """Yield the job's runs that made a complete backup, likewise."""
    return (each for each in newest_first(place) if each.get("outcome") in GOOD)


def read_upkeep(place: Place) -> list[dict[str, object]]:
    """Return the job's upkeep runs and restore drills, oldest first; ``kind`` says which."""
    return _entries(place.upkeep)


def _entries(path: str) -> list[dict[str, object]]:
    return [entry for entry in map(_parse, _lines(path)) if entry is not None]


def _lines(path: str) -> list[bytes]:
    try:
        with open(path, "rb") as file:
            return file.read().split(b"\n")
    except FileNotFoundError:
        return []


def _parse(line: bytes) -> dict[str, object] | None:
    try:
        entry = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def remember(place: Place, entry: Mapping[str, object]) -> None:
    """Add a run to the job's history, and remove the oldest: see _kept()."""
    _add(place.history, entry)


def remember_upkeep(place: Place, entry: Mapping[str, object]) -> None:
    """Add an upkeep run or a restore drill to the job's, likewise."""
    _add(place.upkeep, entry)


def _add(path: str, entry: Mapping[str, object]) -> None:
    private_directory(STATE_DIRECTORY)
    entries = _kept([*_entries(path), entry])
    whole = _last_good_files(entries)
    lines, room, successful = [], HISTORY_BYTES, False
    for number, each in reversed([*enumerate(entries)]):
        line = _line(each)
        last_successful = each.get("outcome") in GOOD and not successful
        successful = successful or last_successful
        room -= len(line)
        # --check and the next run need to know what the last successful backup contains.
        keeps = room >= 0 or last_successful or number in whole
        lines.append(line if keeps else _line(_thinned(each)))
    _replace(path, "".join(reversed(lines)))


def _kept(entries: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """Return the newest entries, and before them the last good one of each kind and client run.

    What fails every few minutes for days must not push out when it last worked, and with
    what, to which the next good backup is compared.
    """
    good = {str(e.get("kind")): n for n, e in enumerate(entries) if e.get("outcome") in GOOD}
    kept = {*good.values(), *client_rows.last_good(entries).values()}
    older = [each for number, each in enumerate(entries[:-HISTORY_LENGTH]) if number in kept]
    return [*older, *entries[-HISTORY_LENGTH:]]


def _last_good_files(entries: Sequence[Mapping[str, object]]) -> set[int]:
    """Return the numbers of the entries with the last good backup in each of several repositories.

    A drill there needs to know what it has to find.
    """
    last = client_rows.last_good(entries)
    return {number for key, number in last.items() if key[0] == client_rows.FILES}


def _line(entry: Mapping[str, object]) -> str:
    return json.dumps(entry, sort_keys=True) + "\n"


def _thinned(entry: Mapping[str, object]) -> dict[str, object]:
    """Return an entry without what grows with the number of datasets."""
    thin = {key: value for key, value in entry.items() if key not in LISTS}
    return {key: _first_few(value) for key, value in thin.items()}


def _first_few(value: object) -> object:
    if isinstance(value, dict):
        return {key: _first_few(each) for key, each in value.items()}
    if not isinstance(value, list):
        return value
    # Of each client run there stays a row: how long ago one was good is known by them alone.
    is_rows = any(isinstance(each, dict) for each in value)
    return [_first_few(each) for each in value] if is_rows else value[:FEW]
