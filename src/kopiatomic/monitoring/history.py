"""What the histories tell of each job.

A history may be damaged, or written by an older version: what is not there or
makes no sense counts as unknown, and nothing in it can stop --status or --check.
"""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime

from kopiatomic import state
from kopiatomic.backup import choice
from kopiatomic.backup.selection import NO_SNAPSHOT
from kopiatomic.client_rows import FILES, Row, rows_of
from kopiatomic.clients import programs
from kopiatomic.errors import EX_OSERR, Refusal
from kopiatomic.formatting import OUTCOMES
from kopiatomic.job import Job
from kopiatomic.monitoring.care import DRILL, UPKEEP, PastCare, Work, named, works
from kopiatomic.state import Place

DAY = 86400
NIGHTS = 7

# The outcome of a run that had no newer snapshot to take: no new backup, and no failure.
UNCHANGED = "unchanged"


@dataclass(frozen=True)
class PastRun:
    """One entry of a history, as far as it could be read; moments as time(3) has them.

    ``job`` chooses what the run did, where the entry says it; ``captured`` are datasets, in
    the order of their mount ``points``, ``unmounted`` those of them that were mounted nowhere,
    with the reasons, and ``parts`` the directories of those that are only in part in it;
    ``omitted`` are the names of what was left out, with reasons, ``left_out``
    is how many, None where the entry has lost its lists, and
    ``excluded`` are the datasets among them that -x left out; ``live`` are places that
    were not frozen. ``client`` is the first word
    of the client's command, ``env_files`` the paths given with -e, ``hooks`` the
    programs of its hooks. ``rows`` are its client runs. Where existing snapshots were taken,
    ``snapshots`` are these, in the order of ``captured``, ``oldest`` is when the first of them,
    ``oldest_name``, was created, and ``unmatched`` are datasets that have none.
    """

    outcome: str
    began: float | None = None
    moment: float | None = None
    seconds: float | None = None
    job: Job | None = None
    captured: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    unmounted: tuple[tuple[str, str], ...] = ()
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    omitted: tuple[tuple[str, str], ...] = ()
    excluded: tuple[str, ...] = ()
    left_out: int | None = None
    live: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    added: int | None = None
    new_or_changed: int | None = None
    problems: tuple[str, ...] = ()
    client: str | None = None
    env_files: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    snapshots: tuple[str, ...] = ()
    oldest: float | None = None
    oldest_name: str = ""
    unmatched: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()

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
        """How the run shows in a row of nights: success, unchanged, incomplete or failed."""
        if self.succeeded:
            return "success"
        return "failed" if self.outcome == "interrupted" else self.outcome

    @property
    def is_well(self) -> bool:
        """Whether nothing went wrong: there is a complete backup, or no new one was needed."""
        return self.outcome in ("success", UNCHANGED)

    @property
    def oldest_moment(self) -> float | None:
        """The moment of what is oldest in the backup."""
        return self.when if self.oldest is None else self.oldest

    @property
    def succeeded(self) -> bool:
        """Whether the run made a complete backup, whatever failed after it."""
        return self.outcome in state.GOOD

    @property
    def is_in_part(self) -> bool:
        """Whether one of several client runs made a complete backup of the files."""
        return len(self.rows) > 1 and any(
            row.is_good and row.key[0] == FILES for row in self.rows
        )


@dataclass(frozen=True)
class JobHistory:
    """A job, its runs, and its upkeep and drills, oldest first.

    ``since`` is when the run that is under way began.
    """

    place: Place
    runs: tuple[PastRun, ...] = ()
    running: bool = False
    since: float | None = None
    care: tuple[PastCare, ...] = ()

    @property
    def last_success(self) -> PastRun | None:
        """The last run that made a complete backup, or None."""
        return next((run for run in reversed(self.runs) if run.succeeded), None)

    @property
    def repositories(self) -> dict[str, str]:
        """The env files by the names of the repositories that the last backup went to.

        There are none where that is one.
        """
        run = self.last_kept
        rows = [row for row in run.rows if row.key[0] == FILES] if run else []
        found = {row.repository: row.key[2] or "" for row in rows if row.repository}
        return found if len(found) > 1 else {}

    @property
    def works(self) -> list[Work]:
        """Each kind of work between backups, in each repository."""
        return works(self.care, self.repositories)

    @property
    def last_kept(self) -> PastRun | None:
        """The same, or one that was complete in one of several repositories."""
        return next((run for run in reversed(self.runs) if run.succeeded or run.is_in_part), None)


# Reading them


def read_histories() -> list[JobHistory]:
    """Return every job that has a history of any kind, an unfinished run, or a run under way.

    Raises Refusal if the state cannot be read.
    """
    found = {*_places(state.STATE_DIRECTORY, ".history"), *find_unfinished()}
    found |= {*_places(state.STATE_DIRECTORY, ".upkeep")}
    for program in programs():
        found |= find_running(program)
    return [_read(place) for place in sorted(found, key=lambda each: (each.program, each.job))]


def find_running(program: str) -> set[Place]:
    """Return the jobs of a program with a run under way; raises Refusal."""
    return set(filter(state.is_locked, _places(Place(program, "").root, ".lock", program)))


def find_unfinished() -> list[Place]:
    """Return the jobs with the marker of a run that is unfinished, or was killed."""
    return _places(state.STATE_DIRECTORY, ".unfinished")


def find_holding() -> list[Place]:
    """Return the jobs with a note of holds that a run has made, or a killed one has left."""
    return _places(state.STATE_DIRECTORY, ".holds")


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
            place = place_of(owner, job)
            if place is not None:
                found.append(place)
    return found


def place_of(program: str, job: str) -> Place | None:
    """Return the place of a job, or None if there can be no such job."""
    if program not in programs():
        return None
    try:
        return Place(program, state.check_job_name(job))
    except Refusal:
        return None


def _read(place: Place) -> JobHistory:
    try:
        entries = state.read_history(place)
    except (OSError, RecursionError) as error:
        entries = [{"problems": [f"the history {place.history} cannot be read: {error}"]}]
    runs = tuple(run_of(entry) for entry in entries)
    running = state.is_locked(place)
    since = _lock_time(place) if running else None
    past = JobHistory(place, runs, running, since)
    return replace(past, care=tuple(named(_read_care(place), past.repositories)))


def _read_care(place: Place) -> tuple[PastCare, ...]:
    try:
        entries = state.read_upkeep(place)
    except (OSError, RecursionError) as error:
        problem = f"the history {place.upkeep} cannot be read: {error}"
        entries = [{"kind": kind, "problems": [problem]} for kind in (UPKEEP, DRILL)]
    known = (entry for entry in entries if entry.get("kind") in (UPKEEP, DRILL))
    return tuple(each for entry in known for each in cares_of(entry))


def _lock_time(place: Place) -> float | None:
    try:
        with open(place.lock, "rb") as file:
            return number(float(file.read(100).split()[1]))
    except (OSError, ValueError, IndexError):
        return None


def run_of(entry: dict[str, object]) -> PastRun:
    """Return what an entry of a history says, as far as it makes sense."""
    client = entry.get("client")
    told: dict[str, object] = client if isinstance(client, dict) else {}
    words = (*_texts(entry.get("command")), *_texts(told.get("command")))
    env_file, existing = entry.get("env_file"), entry.get("existing")
    taken: dict[str, object] = existing if isinstance(existing, dict) else {}
    older = (env_file,) if isinstance(env_file, str) else ()
    return PastRun(
        outcome=_outcome(entry),
        began=_seconds(entry.get("began")),
        moment=_seconds(entry.get("moment")),
        seconds=number(entry.get("seconds")),
        job=choice.job_of(entry),
        captured=_members(entry.get("captured"), "dataset"),
        points=_members(entry.get("captured"), "mountpoint"),
        unmounted=_unmounted(entry.get("captured")),
        parts=_parts(entry.get("captured")),
        omitted=_named(entry.get("left_out")),
        excluded=_members(entry.get("left_out"), "name", _is_excluded),
        left_out=_length(entry.get("left_out")),
        live=_texts(entry.get("not_frozen")),
        notes=_texts(entry.get("notes")),
        added=_sum(entry, "added"),
        # Each volume is a new file every time.
        new_or_changed=_sum(entry, "new_or_changed", FILES),
        problems=_texts(entry.get("problems")),
        client=words[0] if words else None,
        env_files=_texts(entry.get("env_files")) or older,
        hooks=_texts(entry.get("hooks")),
        lists=_texts(entry.get("lists")),
        snapshots=_members(entry.get("captured"), "snapshot"),
        oldest=_seconds(taken.get("oldest")),
        oldest_name=str(taken.get("oldest_snapshot", "")),
        unmatched=_members(entry.get("left_out"), "name", _is_unmatched),
        rows=tuple(rows_of(entry)),
    )


def _sum(entry: dict[str, object], name: str, kind: str = "") -> int | None:
    """Return a figure of all client runs together, or of those of one kind; None if unknown.

    An entry from before there could be several has one client.
    """
    listed = entry.get("client_runs")
    runs = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    meant = [each for each in runs if each.get("kind") == kind or not kind] if runs else [entry]
    told = [each.get("client") for each in meant]
    figures = [_count(each.get(name)) for each in told if isinstance(each, dict)]
    known = [each for each in figures if each is not None]
    return sum(known) if known else None


def cares_of(entry: dict[str, object]) -> list[PastCare]:
    """Return what an entry about upkeep or a drill says, for each repository of several."""
    parts, steps = entry.get("repositories"), entry.get("steps")
    named = [each for each in parts if isinstance(each, dict)] if isinstance(parts, list) else []
    rows = [each for each in steps if isinstance(each, dict)] if isinstance(steps, list) else []
    whole = care_of(entry)
    if not named:
        return [whole]
    return [
        replace(
            care_of({"kind": whole.kind, **part, "steps": [
                row for row in rows if row.get("repository") == part.get("name")
            ]}),
            repository=str(part.get("name")), run=whole.began,
        )
        for part in named
    ]  # fmt: skip


def care_of(entry: dict[str, object]) -> PastCare:
    """Return what an entry about upkeep or a drill says, as far as it makes sense."""
    return PastCare(
        kind=str(entry.get("kind")),
        outcome=_outcome(entry),
        began=_seconds(entry.get("began")),
        ended=_seconds(entry.get("ended")),
        steps=tuple(_steps(entry.get("steps"))),
        problems=_texts(entry.get("problems")),
        files=_count(entry.get("files")),
        restored=_count(entry.get("restored")),
        points=_texts(entry.get("mountpoints")),
        env_file=str(entry["env_file"]) if isinstance(entry.get("env_file"), str) else None,
    )


def _steps(value: object) -> Iterator[tuple[str, str]]:
    """Yield what each step of upkeep was for, with its outcome; older entries have a name alone."""
    for row in value if isinstance(value, list) else ():
        if isinstance(row, dict):
            for what in (row.get("kind") or row.get("name"), *_texts(row.get("also"))):
                yield str(what), str(row.get("outcome"))


def _is_unmatched(left_out: dict[str, object]) -> bool:
    return left_out.get("kind") == NO_SNAPSHOT


def _outcome(entry: dict[str, object]) -> str:
    outcome = entry.get("outcome")
    return outcome if isinstance(outcome, str) and outcome in OUTCOMES else "failed"


def _seconds(value: object) -> float | None:
    """Return a moment in ISO 8601 as time(3) has it."""
    try:
        moment = datetime.fromisoformat(str(value)).timestamp()
        time.localtime(moment)
    except (ValueError, OverflowError, OSError):
        return None
    return moment


def number(value: object) -> float | None:
    """Return a number that can be one of seconds."""
    if not isinstance(value, (int, float)):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) and found >= 0 else None


def _count(value: object) -> int | None:
    """Return a number that can be one of bytes or files."""
    found = number(value)
    return None if found is None else int(found)


def _length(value: object) -> int | None:
    return len(value) if isinstance(value, list) else None


def _texts(value: object) -> tuple[str, ...]:
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _members(
    value: object, key: str, wanted: Callable[[dict[str, object]], bool] | None = None
) -> tuple[str, ...]:
    """Return one member of each dictionary in a list, or of those that are wanted."""
    rows = [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
    return tuple(
        str(each[key]) for each in rows if key in each and (wanted is None or wanted(each))
    )


def _parts(value: object) -> dict[str, tuple[str, ...]]:
    """Return the directories of the datasets in a list of which not all was captured."""
    rows = [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
    found = ((row.get("dataset"), _texts(row.get("directories"))) for row in rows)
    return {str(dataset): paths for dataset, paths in found if dataset and paths}


def _named(value: object) -> tuple[tuple[str, str], ...]:
    """Return the names of a list of what is left out, with the reasons."""
    rows = [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
    return tuple((str(e["name"]), str(e.get("reason", ""))) for e in rows if "name" in e)


def _unmounted(value: object) -> tuple[tuple[str, str], ...]:
    """Return of a list of what was captured what was mounted nowhere, with the reasons."""
    rows = [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
    bare = [each for each in rows if "dataset" in each and "unmounted" in each]
    return tuple((str(each["dataset"]), str(each["unmounted"])) for each in bare)


def _is_excluded(left_out: dict[str, object]) -> bool:
    """Say whether -x left a dataset out; older entries say so in their reason alone."""
    if "kind" in left_out:
        return left_out["kind"] == "excluded"
    return str(left_out.get("reason", "")).startswith("excluded by ")


# What they come to


def nights(runs: Sequence[PastRun], now: float) -> list[str]:
    """Return how the last seven nights went, the oldest first; the last one is today's.

    A night goes by the date on which its run began. Of several runs on a date
    the last one counts: one that mends an earlier one as well as one that fails. One that
    found nothing new says nothing of those before it.
    """
    dated = [(time.localtime(run.start)[:3], run.night) for run in runs if run.start is not None]
    outcomes = {day: night for day, night in dated if night == UNCHANGED}
    outcomes |= {day: night for day, night in dated if night != UNCHANGED}
    today = date(*time.localtime(now)[:3]).toordinal()
    days = [date.fromordinal(today - back) for back in reversed(range(NIGHTS))]
    return [outcomes.get((day.year, day.month, day.day), "none") for day in days]


def last_failure(runs: Sequence[PastRun], now: float) -> PastRun | None:
    """Return the newest run that had a problem, if it was lately or nothing came after it."""
    for index, run in enumerate(reversed(runs)):
        if not run.is_well:
            lately = run.start is not None and now - run.start < NIGHTS * DAY
            return run if lately or index == 0 else None
    return None
