"""What endangers the backups: stale jobs, bare datasets, leftovers, open secrets.

``look`` gathers what there is to know of the machine; ``findings`` judges it and
touches nothing.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kopiatomic import state
from kopiatomic.errors import Refusal
from kopiatomic.formatting import OUTCOMES, TOLERANCE, age, when
from kopiatomic.monitoring.exposure import Thing, exposures, find_things
from kopiatomic.monitoring.history import DAY, PROGRAMS, Past, Run, read_pasts
from kopiatomic.monitoring.leftovers import Leftover, described, find_leftovers
from kopiatomic.monitoring.status import running_since
from kopiatomic.state import Place
from kopiatomic.system import mounts, zfs
from kopiatomic.system.command import CommandFailed, Door, printable, quote
from kopiatomic.system.machine import Dataset, Mount, visible_mounts

HOUR = 3600.0
MAX_AGE = 48.0

# A job that nobody expects speaks for its datasets this long: a monthly one does.
STILL_COUNTS = 40 * DAY

# How many names one finding tells.
NAMED = 10

@dataclass(frozen=True)
class Finding:
    """One danger: ``text`` says what is wrong, ``remedy`` what to do about it."""

    kind: str  # unseen, never, stale, clock, uncovered, leftover or exposed
    job: str | None  # program/job
    text: str
    remedy: str


@dataclass(frozen=True)
class Expected:
    """A job that must have a good backup of at most ``max_age`` hours."""

    place: Place
    max_age: float = MAX_AGE


@dataclass(frozen=True)
class Sight:
    """What there is to know of a machine; ``unseen`` says what could not be looked at.

    ``expected`` are the jobs that must be fresh; None means all that ever ran,
    with a good backup of at most ``max_age`` hours.
    """

    pasts: tuple[Past, ...] = ()
    expected: tuple[Expected, ...] | None = None
    max_age: float = MAX_AGE
    datasets: tuple[Dataset, ...] = ()
    table: tuple[Mount, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    things: tuple[Thing, ...] = ()
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
    if not slash or program not in PROGRAMS:
        raise Refusal(f"--expect {text}: write PROGRAM/JOB, such as restomic/default")
    return Place(program, state.check_job_name(job))


def wishes(options: Iterable[tuple[str, str]]) -> tuple[list[Expected], float]:
    """Return the expected jobs, and the age for all jobs if none is; raises Refusal.

    A --max-age holds for the --expect after it; one that has none before it
    takes the last of all.
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


def look(door: Door, expect: Sequence[Expected], max_age: float) -> Sight:
    """Return what there is to know; what cannot be looked at is told in ``unseen``."""
    unseen = []
    pasts: list[Past] = []
    datasets: list[Dataset] = []
    table: list[Mount] = []
    leftovers: list[Leftover] = []
    try:
        pasts = read_pasts()
    except Refusal as error:
        unseen.append(str(error))
    try:
        table = mounts.table(door)
        datasets = zfs.list_datasets(door)
        leftovers = find_leftovers(door)
    except (CommandFailed, Refusal) as error:
        unseen.append(f"cannot look at the datasets: {error}")
    return Sight(
        pasts=tuple(pasts),
        expected=tuple(dict.fromkeys(expect)) or None,
        max_age=max_age,
        datasets=tuple(datasets),
        table=tuple(table),
        leftovers=tuple(leftovers),
        things=tuple(find_things(pasts)),
        unseen=tuple(unseen),
    )


# Judging


def findings(sight: Sight, now: float) -> list[Finding]:
    """Return what endangers the backups, the worst first; ``now`` is as time(3) has it."""
    return [
        *(Finding("unseen", None, each, "mend this: it hides dangers") for each in sight.unseen),
        *_stale(sight, now),
        *_uncovered(sight, now),
        *_left_over(sight.leftovers),
        *_exposed(sight.things),
    ]


def dated_success(past: Past, now: float) -> Run | None:
    """Return the newest good run, of a moment that is not in the future.

    The newest by the order of the history, which no clock can change.
    """
    for run in reversed(past.runs):
        if run.is_good and run.when is not None and run.when <= now + TOLERANCE:
            return run
    return None


def _stale(sight: Sight, now: float) -> list[Finding]:
    known = {past.place: past for past in sight.pasts}
    jobs = sight.expected
    if jobs is None:
        jobs = tuple(Expected(place, sight.max_age) for place in known)
    if not jobs:
        return [_nothing_ran()]
    found: list[Finding] = []
    for job in jobs:
        past = known.get(job.place, Past(job.place))
        found += _wrong_clock(past, now)
        run = dated_success(past, now)
        if run is None:
            found.append(_never(past, now, sight.expected is None))
        elif now - (run.when or 0.0) > job.max_age * HOUR:
            found.append(_too_old(past, run, now, job.max_age, sight.expected is None))
    return found


def _nothing_ran() -> Finding:
    return Finding(
        "never", None, "no backup has ever been made here, neither by kopiatomic nor by restomic",
        "enable a job in periodic.conf(5), or run one by hand; see restomic(8), kopiatomic(8)",
    )  # fmt: skip


def _wrong_clock(past: Past, now: float) -> list[Finding]:
    run = past.success
    if run is None or run.when is None or run.when <= now + TOLERANCE:
        return []
    text = (
        f"{past.label}: its newest good backup is dated {when(run.when)}, in the future, "
        "so its age is not known"
    )
    return [Finding("clock", past.label, text, "look at the clock: date(1), ntpd(8)")]


def _never(past: Past, now: float, forgettable: bool) -> Finding:
    text = f"{past.label}: " + ("no good backup yet" if past.runs else "it has never run")
    if past.success is not None:
        text = f"{past.label}: no good backup whose date can be trusted"
    remedy = _what_to_do(past, forgettable)
    return Finding("never", past.label, text + _circumstances(past, now), remedy)


def _too_old(past: Past, run: Run, now: float, max_age: float, forgettable: bool) -> Finding:
    text = (
        f"{past.label}: no good backup since {when(run.when)}, {age(now - (run.when or now))} ago; "
        f"{max_age:g} h are allowed"
    )
    remedy = _what_to_do(past, forgettable)
    return Finding("stale", past.label, text + _circumstances(past, now), remedy)


def _circumstances(past: Past, now: float) -> str:
    """Say what the newest run came to, if to no good, and since when one runs."""
    text = ""
    if past.runs and past.runs[-1].outcome != "success":
        last = past.runs[-1]
        why = f": {printable(last.problems[0])}" if last.problems else ""
        text = f"; the newest run ({when(last.start)}) {OUTCOMES[last.outcome]}{why}"
    if past.running:
        text += f"; it runs {running_since(past, now)}"
    return text


def _what_to_do(past: Past, forgettable: bool) -> str:
    """Say what to do about a stale job; ``forgettable`` if only its history makes it expected."""
    look = f"{past.place.program} --status -j {past.place.job}"
    if past.running:
        return f"wait for it; if it hangs, end it and look at: {look}"
    if past.runs and past.runs[-1].outcome != "success":
        advice = f"mend that and run it again; more is told by: {look}"
    elif past.runs:
        advice = "nothing started it: is it enabled in periodic.conf(5), was the machine off?"
    else:
        advice = (
            "if it is new, its first run comes after this check; "
            "if not, look why nothing started it"
        )
    if forgettable and past.runs:
        advice += f" If there is no such job any more: {quote(['rm', past.place.history])}"
    return advice


def _uncovered(sight: Sight, now: float) -> list[Finding]:
    """Find the datasets with files that are in no backup, though nobody wanted that."""
    runs = [run for run in (_speaks(past, sight, now) for past in sight.pasts) if run is not None]
    if not runs:
        # No job has a good backup, which is told already.
        return []
    seen = {name for run in runs for name in (*run.captured, *run.excluded)}
    mounted = {mount.special for mount in visible_mounts(sight.table) if mount.type == "zfs"}
    bare = [
        each.name
        for each in sight.datasets
        if each.name in mounted and each.name not in seen
        and not each.jailed and each.backup != "off"
    ]  # fmt: skip
    if not bare:
        return []
    many = "1 dataset is" if len(bare) == 1 else f"{len(bare)} datasets are"
    return [
        Finding(
            "uncovered", None, f"{many} in no job's newest good backup: {_some(bare)}",
            "add it to a job, or if it needs no backup (nor what is below it): "
            f"zfs set {zfs.BACKUP_PROPERTY}=off DATASET",
        )
    ]  # fmt: skip


def _speaks(past: Past, sight: Sight, now: float) -> Run | None:
    """Return the run that says what a job covers; None if it has none, or is long retired."""
    run = past.success
    if run is None or sight.expected is None:
        return run
    if any(past.place == each.place for each in sight.expected):
        return run
    return run if run.when is not None and now - run.when < STILL_COUNTS else None


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(printable, names[:NAMED]))
    return f"{shown} and {len(names) - NAMED} more" if len(names) > NAMED else shown


def _left_over(leftovers: Sequence[Leftover]) -> list[Finding]:
    found = []
    for place in dict.fromkeys(each.place for each in leftovers):
        label = f"{place.program}/{place.job}"
        own = described([each for each in leftovers if each.place == place])
        text = f"{label}: left behind by a run that died: {'; '.join(own)}"
        remedy = f"to remove it: {place.program} --sweep -j {place.job}"
        found.append(Finding("leftover", label, text, remedy))
    return found


def _exposed(things: Sequence[Thing]) -> list[Finding]:
    return [Finding("exposed", thing.job, *each) for thing in things for each in exposures(thing)]


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
