"""What the history tells of each job, and what runs that died have left behind.

A history may be damaged, or written by an older version: what is not there or
makes no sense is taken as unknown, and nothing in it can stop the account.
"""

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from kopiatomic import mounts, state, zfs
from kopiatomic.command import CommandFailed, Door, printable
from kopiatomic.machine import Mount, lies_in
from kopiatomic.refusal import EX_OSERR, Refusal
from kopiatomic.report import OUTCOMES, clock, duration, size
from kopiatomic.state import Place

PROGRAMS = ("kopiatomic", "restomic")

# How far a moment may lie ahead of the clock, which is set back a little at times.
TOLERANCE = 600.0

DAY = 86400
NIGHTS = 7
MARKS = {"success": "+", "incomplete": "~", "failed": "x", "none": "."}
LEGEND = "nights, oldest first: + good   ~ incomplete   x failed   . none (yet)"


@dataclass(frozen=True)
class Run:
    """One entry of a history, as far as it could be read; moments as time(3) has them.

    ``excluded`` are the datasets that -x left out; ``program`` is the first word
    of the client's command, ``env_file`` the path given with -e, ``hooks`` the
    programs of its hooks.
    """

    outcome: str
    began: float | None = None
    moment: float | None = None
    seconds: float | None = None
    captured: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    added: int | None = None
    new_or_changed: int | None = None
    problems: tuple[str, ...] = ()
    program: str | None = None
    env_file: str | None = None
    hooks: tuple[str, ...] = ()

    @property
    def when(self) -> float | None:
        """The moment that the run captured, or else when it began."""
        return self.began if self.moment is None else self.moment

    @property
    def start(self) -> float | None:
        """When the run began, or else the moment that it captured."""
        return self.moment if self.began is None else self.began

    @property
    def night(self) -> str:
        """How the run shows in a row of nights."""
        return self.outcome if self.outcome in MARKS else "failed"


@dataclass(frozen=True)
class Past:
    """A job with its runs, oldest first, and since when it runs if it does so now."""

    place: Place
    runs: tuple[Run, ...] = ()
    running: bool = False
    since: float | None = None

    @property
    def label(self) -> str:
        """What to call the job where there are two programs."""
        return f"{self.place.program}/{self.place.job}"

    @property
    def success(self) -> Run | None:
        """The newest run that succeeded, or None."""
        return next((run for run in reversed(self.runs) if run.outcome == "success"), None)


@dataclass(frozen=True)
class Leftover:
    """Something that a run of a job which is not running now has left behind."""

    place: Place
    kind: str  # snapshot, mount or note
    name: str


@dataclass(frozen=True)
class Account:
    """All that --status tells; ``trouble`` says why there may be more left over.

    ``job`` is the one that was asked for, or None for all of the program.
    """

    program: str
    job: str | None
    host: str
    now: float
    pasts: tuple[Past, ...]
    leftovers: tuple[Leftover, ...] = ()
    trouble: str | None = None


# Gathering


def look(door: Door, program: str, job: str | None, now: float) -> Account:
    """Return the account of a program's jobs, or of one of them; raises Refusal."""

    def wanted(place: Place) -> bool:
        return place.program == program and job in (None, place.job)

    pasts = tuple(past for past in read_pasts() if wanted(past.place))
    host = os.uname().nodename
    try:
        left = tuple(each for each in find_leftovers(door) if wanted(each.place))
    except CommandFailed as error:
        trouble = f"cannot see what is left over: {error}"
        return Account(program, job, host, now, pasts, trouble=trouble)
    return Account(program, job, host, now, pasts, left)


def read_pasts() -> list[Past]:
    """Return every job that has a history, a note that it began, or a run under way.

    Raises Refusal if the state cannot be read.
    """
    found = {*_places(state.STATE_DIRECTORY, ".history"), *find_notes()}
    for program in PROGRAMS:
        for place in _places(Place(program, "").root, ".lock", program):
            if _is_running(place):
                found.add(place)
    return [_read_past(place) for place in sorted(found, key=lambda each: (each.program, each.job))]


def find_notes() -> list[Place]:
    """Return the jobs with a note that a run has begun and was not taken down."""
    return _places(state.STATE_DIRECTORY, ".unfinished")


def _places(directory: str, ending: str, program: str | None = None) -> list[Place]:
    """Return the jobs that files of a directory are named after; raises Refusal."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Refusal(f"cannot read {directory}: {error.strerror}", EX_OSERR) from error
    found = []
    for name in names:
        if name.endswith(ending):
            stem = name.removesuffix(ending)
            owner, _, job = (program, "", stem) if program else stem.partition(".")
            place = _place(owner, job)
            if place is not None:
                found.append(place)
    return found


def _place(program: str, job: str) -> Place | None:
    """Return the place of a job, or None if there can be no such job."""
    if program not in PROGRAMS:
        return None
    try:
        return Place(program, state.check_job_name(job))
    except Refusal:
        return None


def _read_past(place: Place) -> Past:
    try:
        entries = state.read_history(place)
    except (OSError, RecursionError) as error:
        entries = [{"problems": [f"the history {place.history} cannot be read: {error}"]}]
    runs = tuple(run_of(entry) for entry in entries)
    running = _is_running(place)
    return Past(place, runs, running, _lock_time(place) if running else None)


def _is_running(place: Place) -> bool:
    # An empty lock file is nobody's. Trying the lock only where somebody wrote
    # into it keeps us from standing in the way of a run that begins just now.
    try:
        written = os.path.getsize(place.lock) > 0
    except OSError:
        return False
    return written and state.is_locked(place)


def _lock_time(place: Place) -> float | None:
    try:
        with open(place.lock, "rb") as file:
            return _number(float(file.read(100).split()[1]))
    except (OSError, ValueError, IndexError):
        return None


def find_leftovers(door: Door) -> list[Leftover]:
    """Return what runs that died have left behind, of both programs.

    Raises CommandFailed or Refusal if that cannot be seen.
    """
    found = _left_now(door)
    if not found:
        return []
    # A run that ended while we looked is no dead run: its things are gone by now.
    still = set(_left_now(door))
    return [each for each in found if each in still]


def _left_now(door: Door) -> list[Leftover]:
    found = [
        *(Leftover(place, "note", place.unfinished) for place in find_notes()),
        *_left_mounts(mounts.table(door)),
        *_left_snapshots(door),
    ]
    running = {place for place in {each.place for each in found} if _is_running(place)}
    return [each for each in found if each.place not in running]


def _left_mounts(table: Sequence[Mount]) -> list[Leftover]:
    found = []
    for mount in table:
        for program in PROGRAMS:
            root = Place(program, "").root
            if mount.point != root and lies_in(mount.point, root):
                place = _place(program, mount.point[len(root) + 1 :].split("/")[0])
                found += [Leftover(place, "mount", mount.point)] if place else []
    return found


def _left_snapshots(door: Door) -> list[Leftover]:
    """Return the snapshots that bear our mark, set here: see zfs.own_snapshots()."""
    argv = (
        "zfs", "get", "-Hp", "-t", "snapshot", "-s", "local", "-o", "name,value", zfs.RUN_PROPERTY,
    )  # fmt: skip
    found = []
    for line in zfs.lines_of(door.run(argv).stdout):
        name, _, value = line.partition("\t")
        owner = value.split(":")
        place = _place(owner[0], owner[1]) if len(owner) == 3 else None
        if place is not None and "@" in name:
            found.append(Leftover(place, "snapshot", name))
    return found


# Reading one entry


def run_of(entry: dict[str, object]) -> Run:
    """Return what an entry of a history says, as far as it makes sense."""
    client = entry.get("client")
    told: dict[str, object] = client if isinstance(client, dict) else {}
    outcome = entry.get("outcome")
    known = isinstance(outcome, str) and outcome in OUTCOMES
    words = (*_texts(entry.get("command")), *_texts(told.get("command")))
    env_file = entry.get("env_file")
    return Run(
        outcome=str(outcome) if known else "failed",
        began=_seconds(entry.get("began")),
        moment=_seconds(entry.get("moment")),
        seconds=_number(entry.get("seconds")),
        captured=_column(entry.get("captured"), "dataset"),
        excluded=_column(entry.get("left_out"), "name", "excluded by "),
        added=_count(told.get("added")),
        new_or_changed=_count(told.get("new_or_changed")),
        problems=_texts(entry.get("problems")),
        program=words[0] if words else None,
        env_file=env_file if isinstance(env_file, str) else None,
        hooks=_texts(entry.get("hooks")),
    )


def _seconds(value: object) -> float | None:
    """Return a moment in ISO 8601 as time(3) has it."""
    try:
        moment = datetime.fromisoformat(str(value)).timestamp()
        time.localtime(moment)
    except (ValueError, OverflowError, OSError):
        return None
    return moment


def _number(value: object) -> float | None:
    """Return a number that can be one of seconds."""
    if not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _count(value: object) -> int | None:
    """Return a number that can be one of bytes or files."""
    number = _number(value)
    return None if number is None else int(number)


def _texts(value: object) -> tuple[str, ...]:
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _column(value: object, key: str, reason: str = "") -> tuple[str, ...]:
    """Return one member of each dictionary in a list, of those with a reason that fits."""
    rows = [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
    return tuple(
        str(each[key])
        for each in rows
        if key in each and str(each.get("reason", "")).startswith(reason)
    )


# What it comes to


def nights(runs: Sequence[Run], now: float) -> list[str]:
    """Return how the last seven nights went, the oldest first; the last one is today's.

    A night goes by the date on which its run began. Of several runs on a date
    the last one counts: one that mends an earlier one as well as one that fails.
    """
    outcomes = {
        time.localtime(run.start)[:3]: run.night for run in runs if run.start is not None
    }
    today = date(*time.localtime(now)[:3]).toordinal()
    days = [date.fromordinal(today - back) for back in reversed(range(NIGHTS))]
    return [outcomes.get((day.year, day.month, day.day), "none") for day in days]


def newest_failure(runs: Sequence[Run], now: float) -> Run | None:
    """Return the newest run that did not succeed, if it was lately or nothing came after it."""
    for index, run in enumerate(reversed(runs)):
        if run.outcome != "success":
            lately = run.start is not None and now - run.start < NIGHTS * DAY
            return run if lately or index == 0 else None
    return None


def age(seconds: float) -> str:
    """Return how long ago something was, in words."""
    if seconds < -TOLERANCE:
        return "in the future"
    minutes = max(0, int(seconds // 60))
    if minutes < 60:
        return f"{minutes} min" if minutes else "just now"
    days, hours = divmod(minutes // 60, 24)
    if not days:
        return f"{hours} h"
    return f"{days} d {hours} h" if hours else f"{days} d"


def when(moment: float | None) -> str:
    """Return a moment to the minute, for a column."""
    if moment is None:
        return "unknown"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))


def running_since(past: Past, now: float) -> str:
    """Say since when a job runs."""
    if past.since is None:
        return "now"
    return f"since {when(past.since)} ({duration(max(0.0, now - past.since))})"


# As text


def as_text(account: Account) -> str:
    """Return the account for a person."""
    lines = [f"{account.program} on {printable(account.host)}, {clock(account.now)}", ""]
    if account.pasts:
        lines += [*_table(account), "", LEGEND]
    else:
        lines += _no_history(account.program, account.job)
    lines += _running(account)
    lines += _failures(account)
    lines += _left(account)
    return "\n".join(lines) + "\n"


def _no_history(program: str, job: str | None) -> list[str]:
    if job is not None:
        return [f"Job {job} has not run on this machine yet; without -j you see those that have."]
    return [
        f"{program} has made no backup on this machine yet. To begin, see what one would do:",
        f"    {program} -n -a",
        f"then leave out the -n; {program}(8) shows how to have it run every night.",
    ]


def _table(account: Account) -> list[str]:
    head = ("job", "newest good backup", "age", "datasets", "added", "took", "nights")
    rows = [head, *(_row(past, account.now) for past in account.pasts)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(_pad, row, widths, range(len(row)))).rstrip() for row in rows]


def _pad(text: str, width: int, column: int) -> str:
    return text.rjust(width) if column in (3, 4, 5) else text.ljust(width)


def _row(past: Past, now: float) -> tuple[str, ...]:
    marks = "".join(MARKS[night] for night in nights(past.runs, now))
    run = past.success
    if run is None:
        return (past.place.job, "never", "-", "-", "-", "-", marks)
    return (
        past.place.job,
        when(run.when),
        "unknown" if run.when is None else age(now - run.when),
        str(len(run.captured)) if run.captured else "-",
        _added(run),
        "-" if run.seconds is None else duration(run.seconds),
        marks,
    )


def _added(run: Run) -> str:
    """Say what the backup added: bytes, or files where the client tells no more."""
    if run.added is not None:
        return size(run.added)
    if run.new_or_changed is not None:
        return f"{run.new_or_changed} files"
    return "-"


def _running(account: Account) -> list[str]:
    lines = [
        f"  {past.place.job}, {running_since(past, account.now)}"
        for past in account.pasts
        if past.running
    ]
    return ["", "Running now:", *lines] if lines else []


def _failures(account: Account) -> list[str]:
    lines = []
    for past in account.pasts:
        run = newest_failure(past.runs, account.now)
        if run is not None:
            problem = printable(run.problems[0]) if run.problems else "no reason is known"
            how = "" if run.outcome == "failed" else f", {run.outcome}"
            lines.append(f"  {past.place.job}, {when(run.when)}{how}: {problem}")
    return ["", "Newest failure:", *lines] if lines else []


def _left(account: Account) -> list[str]:
    lines = []
    for place in dict.fromkeys(each.place for each in account.leftovers):
        own = [each for each in account.leftovers if each.place == place]
        lines += [f"  {each}" for each in described(own)]
        lines.append(f"    to remove it: {place.program} --sweep -j {place.job}")
    return ["", "Left behind by runs that died:", *lines] if lines else []


def described(leftovers: Sequence[Leftover]) -> list[str]:
    """Say what one job has left over, snapshots and mounts each in a few words."""
    lines = []
    for kind in ("snapshot", "mount", "note"):
        names = [printable(each.name) for each in leftovers if each.kind == kind]
        if len(names) == 1:
            lines.append(f"{kind} {names[0]}")
        elif names:
            lines.append(f"{len(names)} {kind}s, such as {names[0]}")
    if len(lines) > 1:
        # The note says nothing that the rest does not.
        lines = [line for line in lines if not line.startswith("note ")]
    return lines


# As data


def as_dict(account: Account) -> dict[str, object]:
    """Return the account as plain data, for --json."""
    return {
        "program": account.program,
        "host": account.host,
        "now": _iso(account.now),
        "jobs": [_past_as_dict(past, account.now) for past in account.pasts],
        "left_over": [
            {"job": each.place.job, "kind": each.kind, "name": each.name}
            for each in account.leftovers
        ],
        "trouble": account.trouble,
    }


def _past_as_dict(past: Past, now: float) -> dict[str, object]:
    return {
        "job": past.place.job,
        "newest_success": _run_as_dict(past.success, now),
        "newest_failure": _run_as_dict(newest_failure(past.runs, now), now),
        "nights": nights(past.runs, now),
        "running": past.running,
        "running_since": _iso(past.since),
    }


def _run_as_dict(run: Run | None, now: float) -> dict[str, object] | None:
    if run is None:
        return None
    return {
        "outcome": run.outcome,
        "began": _iso(run.began),
        "moment": _iso(run.moment),
        "age_seconds": None if run.when is None else round(now - run.when),
        "seconds": run.seconds,
        "datasets": len(run.captured),
        "added": run.added,
        "new_or_changed": run.new_or_changed,
        "problems": list(run.problems),
    }


def _iso(moment: float | None) -> str | None:
    if moment is None:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(moment))
