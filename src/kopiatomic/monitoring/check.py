"""What endangers the backups: old ones, datasets in none, leftovers, secrets others can read.

``observe`` gathers what there is to know of the machine; ``findings`` judges it and
touches nothing.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kopiatomic import state
from kopiatomic.clients import programs
from kopiatomic.errors import Refusal
from kopiatomic.formatting import OUTCOMES, TOLERANCE, age, when
from kopiatomic.monitoring.exposure import WatchedPath, exposures, find_watched
from kopiatomic.monitoring.history import DAY, JobHistory, PastRun, read_histories
from kopiatomic.monitoring.leftovers import Leftover, described_by_job, find_leftovers
from kopiatomic.monitoring.status import running_since
from kopiatomic.state import Place
from kopiatomic.system import mounts, zfs
from kopiatomic.system.command import CommandFailed, Door, printable, quote
from kopiatomic.system.machine import Dataset, Mount, visible_mounts

HOUR = 3600.0
MAX_AGE = 48.0

# A job that is not expected counts for its datasets this long, so that a monthly one does.
STILL_COUNTS = 40 * DAY

# How many names one finding tells.
NAMED = 10

_NOT_ALL_IS_CHECKED = "correct this: until then, not everything can be checked"


@dataclass(frozen=True)
class Finding:
    """One danger: ``text`` says what is wrong, ``remedy`` what to do about it."""

    kind: str  # unseen, never, stale, clock, uncovered, leftover or exposed
    job: str | None  # program/job
    text: str
    remedy: str


@dataclass(frozen=True)
class Expected:
    """A job whose last successful backup must be at most ``max_age`` hours old."""

    place: Place
    max_age: float = MAX_AGE


@dataclass(frozen=True)
class Observations:
    """What is known of a machine; ``unseen`` says what could not be found out.

    ``expected`` are the jobs that must have a recent successful backup; None means
    all that ever ran, each with one of at most ``max_age`` hours.
    """

    jobs: tuple[JobHistory, ...] = ()
    expected: tuple[Expected, ...] | None = None
    max_age: float = MAX_AGE
    datasets: tuple[Dataset, ...] = ()
    table: tuple[Mount, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    watched: tuple[WatchedPath, ...] = ()
    unseen: tuple[str, ...] = ()


# What was asked for


def hours(text: str) -> float:
    """Return the value of --max-age; raises Refusal."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise Refusal(f"--max-age {text}: give a number of hours, such as 48")
    return value


def expected(text: str) -> Place:
    """Return the job that --expect names; raises Refusal."""
    program, slash, job = text.partition("/")
    if not slash or program not in programs():
        raise Refusal(f"--expect {text}: write PROGRAM/JOB, such as restomic/default")
    return Place(program, state.check_job_name(job))


def wishes(options: Iterable[tuple[str, str]]) -> tuple[list[Expected], float]:
    """Return the expected jobs, and the age for all jobs if none is expected; raises Refusal.

    A --max-age applies to each --expect after it; to an --expect that has none
    before it, the last --max-age of all applies.
    """
    places: list[tuple[Place, float | None]] = []
    latest = None
    for name, value in options:
        if name == "--max-age":
            latest = hours(value)
        elif name == "--expect":
            places.append((expected(value), latest))
    last = MAX_AGE if latest is None else latest
    return [Expected(place, last if limit is None else limit) for place, limit in places], last


# Gathering


def observe(door: Door, expect: Sequence[Expected], max_age: float) -> Observations:
    """Return what is known of this machine."""
    unseen = []
    jobs: list[JobHistory] = []
    datasets: list[Dataset] = []
    table: list[Mount] = []
    leftovers: list[Leftover] = []
    try:
        jobs = read_histories()
    except Refusal as error:
        unseen.append(str(error))
    try:
        table = mounts.table(door)
        datasets = zfs.list_datasets(door)
        leftovers = find_leftovers(door)
    except (CommandFailed, Refusal) as error:
        unseen.append(f"cannot list the datasets and mounts: {error}")
    return Observations(
        jobs=tuple(jobs),
        expected=tuple(dict.fromkeys(expect)) or None,
        max_age=max_age,
        datasets=tuple(datasets),
        table=tuple(table),
        leftovers=tuple(leftovers),
        watched=tuple(find_watched(jobs)),
        unseen=tuple(unseen),
    )


# Judging


def findings(observed: Observations, now: float) -> list[Finding]:
    """Return what endangers the backups, the worst first; ``now`` is as time(3) has it."""
    return [
        *(Finding("unseen", None, each, _NOT_ALL_IS_CHECKED) for each in observed.unseen),
        *_stale(observed, now),
        *_uncovered(observed, now),
        *_left_over(observed.leftovers),
        *_exposed(observed.watched),
    ]


def last_dated_success(history: JobHistory, now: float) -> PastRun | None:
    """Return the last successful run whose moment is not in the future.

    It is the last one in the order of the history, which no clock can change.
    """
    for run in reversed(history.runs):
        if run.succeeded and run.when is not None and run.when <= now + TOLERANCE:
            return run
    return None


def _stale(observed: Observations, now: float) -> list[Finding]:
    known = {history.place: history for history in observed.jobs}
    jobs = observed.expected
    if jobs is None:
        jobs = tuple(Expected(place, observed.max_age) for place in known)
    if not jobs:
        return [_nothing_ran()]
    found: list[Finding] = []
    for job in jobs:
        history = known.get(job.place, JobHistory(job.place))
        found += _wrong_clock(history, now)
        run = last_dated_success(history, now)
        if run is None:
            found.append(_never(history, now, observed.expected is None))
        elif now - (run.when or 0.0) > job.max_age * HOUR:
            found.append(_too_old(history, run, now, job.max_age, observed.expected is None))
    return found


def _nothing_ran() -> Finding:
    return Finding(
        "never", None,
        "no backup has been made on this machine yet, neither by kopiatomic nor by restomic",
        "enable a job in periodic.conf(5), or make a backup by hand; "
        "see kopiatomic(8) and restomic(8)",
    )  # fmt: skip


def _wrong_clock(history: JobHistory, now: float) -> list[Finding]:
    run = history.last_success
    if run is None or run.when is None or run.when <= now + TOLERANCE:
        return []
    label = history.place.label
    text = (
        f"{label}: its last successful backup is dated {when(run.when)}, which is in the future, "
        "so its age is not known"
    )
    return [Finding("clock", label, text, "check the clock: date(1), ntpd(8)")]


def _never(history: JobHistory, now: float, forgettable: bool) -> Finding:
    text = "no successful backup yet" if history.runs else "it has never run"
    if history.last_success is not None:
        text = "no successful backup whose date can be trusted"
    remedy = _what_to_do(history, forgettable)
    label = history.place.label
    return Finding("never", label, f"{label}: {text}{_circumstances(history, now)}", remedy)


def _too_old(
    history: JobHistory, run: PastRun, now: float, max_age: float, forgettable: bool
) -> Finding:
    label = history.place.label
    text = (
        f"{label}: the last successful backup was made {when(run.when)}, "
        f"{age(now - (run.when or now))} ago; at most {max_age:g} h are allowed"
    )
    remedy = _what_to_do(history, forgettable)
    return Finding("stale", label, text + _circumstances(history, now), remedy)


def _circumstances(history: JobHistory, now: float) -> str:
    """Say how the last run ended, if not well, and since when one is running."""
    text = ""
    if history.runs and history.runs[-1].outcome != "success":
        last = history.runs[-1]
        why = f": {printable(last.problems[0])}" if last.problems else ""
        text = f"; the last run ({when(last.start)}) {OUTCOMES[last.outcome]}{why}"
    if history.running:
        text += f"; it is running now{running_since(history, now)}"
    return text


def _what_to_do(history: JobHistory, forgettable: bool) -> str:
    """Say what to do about a job; ``forgettable`` if only its history makes it expected."""
    details = history.place.status_command
    if history.running:
        return f"wait for it to end; if it hangs, stop it, and see: {details}"
    if history.runs and history.runs[-1].outcome != "success":
        advice = f"correct that and run the job again; for details: {details}"
    elif history.runs:
        advice = (
            "nothing has started it since: check whether it is enabled in periodic.conf(5), "
            "and whether the machine was off"
        )
    else:
        advice = (
            "if it is new, its first run is still to come; "
            "if not, find out why nothing has started it"
        )
    if forgettable and history.runs:
        advice += f"; if this job no longer exists: {quote(['rm', history.place.history])}"
    return advice


def _uncovered(observed: Observations, now: float) -> list[Finding]:
    """Find the mounted datasets that are in no backup, although nobody has excluded them."""
    speaking = (_speaks(history, observed, now) for history in observed.jobs)
    runs = [run for run in speaking if run is not None]
    if not runs:
        # That no job has a successful backup is reported already.
        return []
    covered = {name for run in runs for name in (*run.captured, *run.excluded)}
    mounted = {mount.special for mount in visible_mounts(observed.table) if mount.type == "zfs"}
    bare = [
        each.name
        for each in observed.datasets
        if each.name in mounted and each.name not in covered
        and not each.jailed and each.backup != "off"
    ]  # fmt: skip
    if not bare:
        return []
    many = "1 dataset is" if len(bare) == 1 else f"{len(bare)} datasets are"
    return [
        Finding(
            "uncovered", None, f"{many} in no job's last successful backup: {_some(bare)}",
            "add it to a job; or, if neither it nor the datasets below it need a backup: "
            f"zfs set {zfs.BACKUP_PROPERTY}=off DATASET",
        )
    ]  # fmt: skip


def _speaks(history: JobHistory, observed: Observations, now: float) -> PastRun | None:
    """Return the run that says what a job covers; None if there is none, or it is long ago."""
    run = history.last_success
    if run is None or observed.expected is None:
        return run
    if any(history.place == each.place for each in observed.expected):
        return run
    return run if run.when is not None and now - run.when < STILL_COUNTS else None


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(printable, names[:NAMED]))
    return f"{shown} and {len(names) - NAMED} more" if len(names) > NAMED else shown


def _left_over(leftovers: Sequence[Leftover]) -> list[Finding]:
    found = []
    for place, own in described_by_job(leftovers):
        text = f"{place.label}: left behind by a killed run: {'; '.join(own)}"
        remedy = f"to remove it: {place.sweep_command}"
        found.append(Finding("leftover", place.label, text, remedy))
    return found


def _exposed(watched: Sequence[WatchedPath]) -> list[Finding]:
    return [Finding("exposed", path.job, *each) for path in watched for each in exposures(path)]


# What is printed


def as_text(found: Sequence[Finding]) -> str:
    """Return the findings for a person: nothing if there are none."""
    return "".join(f"{each.text}\n    {each.remedy}\n" for each in found)


def as_dict(found: Sequence[Finding]) -> dict[str, object]:
    """Return the findings as plain data, for --json."""
    return {
        "findings": [
            {"kind": each.kind, "job": each.job, "text": f"{each.text}; {each.remedy}"}
            for each in found
        ]
    }
