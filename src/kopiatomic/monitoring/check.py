"""What endangers the backups: old ones, datasets in none, leftovers, secrets others can read.

``observe`` gathers what there is to know of the machine; ``findings`` judges it and
touches nothing.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kopiatomic import state
from kopiatomic.backup import own, preflight
from kopiatomic.backup.names import name_run
from kopiatomic.backup.selection import EXCLUDED, INACTIVE, PROPERTY, is_beside_root, select
from kopiatomic.backup.unmounted import Sight
from kopiatomic.client_rows import FILES
from kopiatomic.clients import programs
from kopiatomic.errors import Refusal
from kopiatomic.formatting import OUTCOMES, TOLERANCE, age, when
from kopiatomic.monitoring import care, runs
from kopiatomic.monitoring.away import away
from kopiatomic.monitoring.exposure import WatchedPath, exposures, find_watched
from kopiatomic.monitoring.history import DAY, UNCHANGED, JobHistory, PastRun, read_histories
from kopiatomic.monitoring.leftovers import Leftover, described_by_job, find_leftovers
from kopiatomic.monitoring.runs import LastGood
from kopiatomic.monitoring.status import running_since
from kopiatomic.record import Record
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

BACKUP = "backup"

# How to say of datasets that no job need have them.
_NEEDS_NONE = (
    "neither it nor the datasets below it need a backup: "
    f"zfs set {zfs.BACKUP_PROPERTY}=off DATASET"
)

_NOT_ALL_IS_CHECKED = "correct this: until then, not everything can be checked"


@dataclass(frozen=True)
class Finding:
    """One danger: ``text`` says what is wrong, ``remedy`` what to do about it."""

    # unseen, never, stale, clock, failed, uncovered, partial, dropped, leftover, copy or exposed
    kind: str
    job: str | None  # program/job
    text: str
    remedy: str


@dataclass(frozen=True)
class Expected:
    """A job of which the last success must be at most ``max_age`` hours old.

    ``what`` is the work of it: BACKUP, care.UPKEEP or care.DRILL.
    """

    place: Place
    max_age: float = MAX_AGE
    what: str = BACKUP


@dataclass(frozen=True)
class Observations:
    """What is known of a machine; ``unseen`` says what could not be found out.

    ``expected`` are the jobs that must have a recent successful backup, upkeep or drill;
    None means a backup of all that ever ran, each of at most ``max_age`` hours; ``copies``
    are snapshots of runs that were received.
    """

    jobs: tuple[JobHistory, ...] = ()
    expected: tuple[Expected, ...] | None = None
    max_age: float = MAX_AGE
    datasets: tuple[Dataset, ...] = ()
    table: tuple[Mount, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    copies: tuple[str, ...] = ()
    watched: tuple[WatchedPath, ...] = ()
    unseen: tuple[str, ...] = ()
    in_jail: bool = False


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


def expected(text: str) -> tuple[Place, str]:
    """Return the job that --expect names, and which work of it; raises Refusal."""
    program, slash, rest = text.partition("/")
    job, slash_again, what = rest.partition("/")
    kinds = (care.UPKEEP, care.DRILL)
    if not slash or program not in programs() or (slash_again and what not in kinds):
        raise Refusal(
            f"--expect {text}: write PROGRAM/JOB, such as restomic/default, and behind it "
            "/upkeep or /drill where these are expected"
        )
    return Place(program, state.check_job_name(job)), what or BACKUP


def wishes(options: Iterable[tuple[str, str]]) -> tuple[list[Expected], float]:
    """Return the expected jobs, and the age for all jobs if none is expected; raises Refusal.

    A --max-age applies to each --expect after it; to an --expect that has none
    before it, the last --max-age of all applies.
    """
    places: list[tuple[tuple[Place, str], float | None]] = []
    latest = None
    for name, value in options:
        if name == "--max-age":
            latest = hours(value)
        elif name == "--expect":
            places.append((expected(value), latest))
    last = MAX_AGE if latest is None else latest
    return [
        Expected(place, last if limit is None else limit, what) for (place, what), limit in places
    ], last


# Gathering


def observe(door: Door, expect: Sequence[Expected], max_age: float) -> Observations:
    """Return what is known of this machine."""
    unseen = []
    jobs: list[JobHistory] = []
    datasets: list[Dataset] = []
    table: list[Mount] = []
    leftovers: list[Leftover] = []
    copies: list[str] = []
    try:
        jobs = read_histories()
    except Refusal as error:
        unseen.append(str(error))
    try:
        table = mounts.table(door)
        datasets = zfs.list_datasets(door)
        leftovers = find_leftovers(door)
        copies = own.copies(door)
    except (CommandFailed, Refusal) as error:
        unseen.append(f"cannot list the datasets and mounts: {error}")
    return Observations(
        jobs=tuple(jobs),
        expected=tuple(dict.fromkeys(expect)) or None,
        max_age=max_age,
        datasets=tuple(datasets),
        table=tuple(table),
        leftovers=tuple(leftovers),
        copies=tuple(copies),
        watched=tuple(find_watched(jobs)),
        unseen=tuple(unseen),
        in_jail=door.jailed,
    )


# Judging


def findings(observed: Observations, now: float) -> list[Finding]:
    """Return what endangers the backups, the worst first; ``now`` is as time(3) has it."""
    return [
        *(Finding("unseen", None, each, _NOT_ALL_IS_CHECKED) for each in observed.unseen),
        *_stale(observed, now),
        *_neglected(observed, now),
        *_uncovered(observed, now),
        *_left_over(observed.leftovers),
        *_copied(observed.copies),
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
    if observed.expected is not None:
        jobs = [each for each in observed.expected if each.what == BACKUP]
    else:
        # Where there is nothing but upkeep, another machine makes the backups.
        made = [each for each in observed.jobs if each.runs or not each.care]
        jobs = [Expected(each.place, observed.max_age) for each in made]
        if not jobs:
            return [_nothing_ran()]
    found: list[Finding] = []
    for job in jobs:
        history = known.get(job.place, JobHistory(job.place))
        found += _wrong_clock(history, now)
        run = last_dated_success(history, now)
        by_name = runs.several_until(history, now)
        if any(each.run is not run for each in by_name):
            found += _stale_by_name(history, by_name, now, job.max_age, observed.expected is None)
        elif run is None:
            found.append(_never(history, now, observed.expected is None))
        elif now - (run.oldest_moment or 0.0) > job.max_age * HOUR:
            found.append(_too_old(history, run, now, job.max_age, observed.expected is None))
    return found


def _stale_by_name(
    history: JobHistory, by_name: Sequence[LastGood], now: float, max_age: float, forgettable: bool
) -> Iterator[Finding]:
    """Find the client runs of a job that were not good for too long; the others may be."""
    label, remedy = history.place.label, _what_to_do(history, forgettable)
    circumstances = _circumstances(history, now)
    for each in by_name:
        if each.when is None:
            text = f"{label}: no good backup {printable(each.what)} yet"
            yield Finding("never", label, text + circumstances, remedy)
        elif now - each.when > max_age * HOUR:
            text = (
                f"{label}: the last good backup {printable(each.what)} was made "
                f"{when(each.when)}, {age(now - each.when)} ago; at most {max_age:g} h are allowed"
            )
            yield Finding("stale", label, text + circumstances, remedy)


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
    label, moment = history.place.label, run.oldest_moment
    made = "was made" if run.oldest is None else f"has {printable(run.oldest_name)}, which is of"
    text = (
        f"{label}: the last successful backup {made} {when(moment)}, "
        f"{age(now - (moment or now))} ago; at most {max_age:g} h are allowed"
    )
    remedy = _what_to_do(history, forgettable)
    last = history.runs[-1]
    if run.oldest is not None and last.is_well and now - (last.start or 0.0) <= max_age * HOUR:
        remedy = (
            "see why there is no newer snapshot for the job to take: it waits for the "
            "replication, or for the program that makes them"
        )
    return Finding("stale", label, text + _circumstances(history, now), remedy)


def _circumstances(history: JobHistory, now: float) -> str:
    """Say how the last run ended, if not well, and since when one is running."""
    text = ""
    if history.runs and history.runs[-1].outcome == UNCHANGED:
        text = f"; the last run ({when(history.runs[-1].start)}) found no newer snapshot"
    elif history.runs and history.runs[-1].outcome != "success":
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
    if history.runs and not history.runs[-1].is_well:
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


def _neglected(observed: Observations, now: float) -> list[Finding]:
    """Find upkeep and drills that failed the last time, and those that are expected and late."""
    known = {history.place: history for history in observed.jobs}
    limits: dict[Place, list[Expected]] = {place: [] for place in known}
    for job in observed.expected or ():
        limits.setdefault(job.place, []).append(job)
    found: list[Finding] = []
    for place, expected in limits.items():
        history = known.get(place, JobHistory(place))
        found += _failing(history, now, observed.expected is None or bool(expected))
        failed = (work.failed for work in history.works)
        told = {(each.kind, each.repository) for each in failed if each}
        backed_up = any(job.what == BACKUP for job in expected)
        for job in sorted(expected, key=lambda each: each.max_age):
            for name in () if job.what == BACKUP else _to_be_done(history, job.what):
                if (job.what, name) not in told:
                    late = _late(history, job, now, backed_up, name)
                    told |= {(job.what, name)} if late else set()
                    found += late
    return found


def _to_be_done(history: JobHistory, what: str) -> list[str]:
    """Return the names of the repositories in which a kind of work is to be done."""
    return care.repositories(history.care, what, history.repositories)


def _failing(history: JobHistory, now: float, expected: bool) -> list[Finding]:
    label, found = history.place.label, []
    for work in history.works:
        failed = work.failed
        if failed is None or not (expected or now - (failed.began or now) < STILL_COUNTS):
            continue
        worked = " (it has never worked)"
        if work.worked is not None:
            worked = f" (it last worked {care.moment(work.worked, now)})"
        text = f"{label}: the {work.name} {care.failure(failed, worked)}"
        remedy = (
            f"correct that and run it again, with --{failed.kind}; "
            f"for details: {history.place.status_command}"
        )
        found.append(Finding("failed", label, text, remedy))
    return found


def _late(
    history: JobHistory, job: Expected, now: float, backed_up: bool, repository: str
) -> list[Finding]:
    """Find upkeep or a drill that is enabled and did not work within its time.

    ``backed_up`` says that the backups of the job are expected as well.
    """
    label, limit = job.place.label, job.max_age * HOUR
    called = "upkeep" if job.what == care.UPKEEP else "restore drill"
    called += f" of {printable(repository)}" if repository else ""
    remedy = (
        "if it is new, its first run is still to come; if not, see what periodic(8) has mailed "
        f"of it, or run it by hand with --{job.what}"
    )
    tried = {each.repository for each in history.care if each.kind == job.what}
    if repository and repository not in tried:
        remedy = (
            "if it is new, its first run is still to come; if not, name its env file as well "
            f"where --{job.what} is started, with -e or in periodic.conf(5)"
        )
    last = care.last_worked(history.care, job.what, now, repository)
    if last is not None:
        if now - (last.began or now) <= limit:
            return []
        text = (
            f"{label}: the last {called} that worked was {care.moment(last, now)}; "
            f"at most {job.max_age:g} h are allowed"
        )
        return [Finding("stale", label, text, remedy)]
    first = next((run.start for run in history.runs if _is_into(history, run, repository)), None)
    # It cannot be late before there was anything for it to work on for that long.
    if (first is None and backed_up) or (first is not None and now - first <= limit):
        return []
    text = f"{label}: its {called} is enabled, and none has ever worked"
    return [Finding("never", label, text, remedy)]


def _is_into(history: JobHistory, run: PastRun, repository: str) -> bool:
    """Say whether a run that has a date was to go to a repository; of a job with one, each is."""
    file = history.repositories.get(repository)
    return run.start is not None and (
        file is None or any(row.key == (FILES, "", file) for row in run.rows)
    )


def _uncovered(observed: Observations, now: float) -> list[Finding]:
    """Find the datasets that no job chooses, or only in part, although nobody says so.

    They are the mounted ones, and of all others those that were in a backup once.
    """
    runs = [run for history in observed.jobs if (run := _speaks(history, observed, now))]
    if not runs:
        # That no job has a successful backup is reported already.
        return []
    seen = visible_mounts(observed.table)
    covers = [_covered_by(run, observed.datasets, seen, observed.in_jail) for run in runs]
    whole = {name for cover in covers for name in cover.whole}
    parts = {name for cover in covers for name in cover.parts} - whole
    mounted = {mount.special for mount in seen if mount.type == "zfs"}
    wanted = [
        each.name
        for each in observed.datasets
        if each.name in mounted and each.jailed == observed.in_jail and each.backup != "off"
    ]
    bare = [name for name in wanted if name not in whole | parts]
    kept = {*whole, *parts, *mounted, *(name for run in runs for name in run.captured)}
    return [
        *_bare(bare),
        *_in_part([name for name in wanted if name in parts]),
        *_dropped(observed, [each for each in _not_boot(observed, seen) if each.name not in kept]),
        *_without_pools(observed, now),
    ]


def _not_boot(observed: Observations, seen: Sequence[Mount]) -> list[Dataset]:
    """Return the datasets but for boot environments that are not in use: each was / once."""
    root = next((each.special for each in seen if each.point == "/"), "")
    return [each for each in observed.datasets if not is_beside_root(each.name, root)]


def _dropped(observed: Observations, others: Sequence[Dataset]) -> list[Finding]:
    """Find what is not mounted, as a volume is not, and was in a good backup once."""
    good = [run for history in observed.jobs for run in history.runs if run.succeeded]
    once = {name for run in good for name in run.captured}
    names = [each.name for each in others if each.name in once and each.backup != "off"]
    many = "1 dataset was" if len(names) == 1 else f"{len(names)} datasets were"
    return _about(
        "dropped", names, f"{many} in a backup once, and no job has it now",
        "mount it, or name it in a job, with --volumes or --jailed where it came along by these; "
        f"or, if {_NEEDS_NONE}",
    )  # fmt: skip


def _without_pools(observed: Observations, now: float) -> list[Finding]:
    """Find what came along in a backup not long ago and is in a pool that is not imported now."""
    jobs = ((each.runs, last) for each in observed.jobs if (last := _speaks(each, observed, now)))
    names = away(jobs, observed.datasets, now - STILL_COUNTS)
    pool = quote([zfs.pool_of(names[0])]) if names else ""
    many = "1 dataset was" if len(names) == 1 else f"{len(names)} datasets were"
    return _about(
        "dropped", names, f"{many} in a backup, and the pool is not imported now",
        f"import it: zpool import {pool}; or, if it needs no backup any more: -x {pool} in the job",
    )  # fmt: skip


def _bare(names: Sequence[str]) -> list[Finding]:
    many = "1 dataset is" if len(names) == 1 else f"{len(names)} datasets are"
    return _about("uncovered", names, f"{many} in no job", f"add it to a job; or, if {_NEEDS_NONE}")


def _in_part(names: Sequence[str]) -> list[Finding]:
    many = "1 dataset" if len(names) == 1 else f"{len(names)} datasets"
    return _about(
        "partial", names, f"of {many} only directories are in a job",
        "name the dataset or its mount point as well; or, if nothing else in it and nothing in "
        "the datasets below it needs a backup: "
        f"zfs set {zfs.BACKUP_PROPERTY}=off DATASET, with which a job goes on to back up what "
        "it names",
    )  # fmt: skip


def _about(kind: str, names: Sequence[str], text: str, remedy: str) -> list[Finding]:
    """Return what is found of datasets, if there are any; it is about no single job."""
    return [Finding(kind, None, f"{text}: {_some(names)}", remedy)] if names else []


class _Cover(Record):
    """What a job covers: datasets as a ``whole``, and those of which it has ``parts``."""

    whole: frozenset[str]
    parts: frozenset[str]


def _covered_by(
    run: PastRun, datasets: Sequence[Dataset], seen: Sequence[Mount], in_jail: bool
) -> _Cover:
    """Return what the job of a run would capture of today's datasets, or leave out on purpose.

    Of an entry that does not tell what was chosen, what was captured counts, and so it does
    where the next run would be refused, which that run will tell by itself.
    """
    captured = {name for name in run.captured if name not in run.parts}
    before = _Cover(frozenset({*captured, *run.excluded}), frozenset(run.parts))
    if run.job is None:
        return before
    try:
        names = name_run(Place(run.job.program, run.job.name))
        sight = Sight(preflight.look, in_jail)
        chosen = select(preflight.resolve(run.job), datasets, seen, names, sight)
    except Refusal:
        return before
    meant = (EXCLUDED, PROPERTY, INACTIVE)
    wanted = {each.name for each in chosen.left_out if each.kind in meant}
    members = (*chosen.captured, *chosen.volumes)
    found = [each for each in members if each.dataset not in run.unmatched]
    parts = frozenset(each.dataset for each in found if each.directories)
    return _Cover(frozenset({*(each.dataset for each in found), *wanted}) - parts, parts)


def _speaks(history: JobHistory, observed: Observations, now: float) -> PastRun | None:
    """Return the run that says what a job covers; None if there is none, or it is long ago."""
    run = history.last_kept
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
    for place, things in described_by_job(leftovers):
        text = f"{place.label}: left behind by an earlier run: {'; '.join(things)}"
        remedy = f"to remove it: {place.sweep_command}"
        found.append(Finding("leftover", place.label, text, remedy))
    return found


def _copied(copies: Sequence[str]) -> list[Finding]:
    """Find copies of our snapshots, which no run will ever destroy: they may be anybody's by now.

    A run destroys what it has made itself, and the original is gone by then.
    """
    if not copies:
        return []
    clones = [each for each in copies if "@" not in each]
    things = "snapshots and dataset" if clones else "snapshot"
    things = "dataset" if len(clones) == len(copies) else things
    many = f"1 {things} is a copy" if len(copies) == 1 else f"{len(copies)} {things}s are copies"
    what = "snapshots and clones" if clones else "snapshots"
    return [
        Finding(
            "copy", None,
            f"{many} of {what} for backups, which a replication took along and nothing here "
            f"removes: {_some(copies)}",
            "if no replication begins from it any more: "
            f"{quote(['zfs', 'destroy', copies[0]])}; let the replication leave out what is "
            "called @restomic-* and @kopiatomic-*",
        )
    ]  # fmt: skip


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
