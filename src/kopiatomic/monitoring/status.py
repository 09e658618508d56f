"""The state of the jobs: past runs, runs under way, and what earlier runs have left behind."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kopiatomic.backup.selection import shown
from kopiatomic.formatting import age, clock, duration, iso, section, size, table, when
from kopiatomic.monitoring import care, runs
from kopiatomic.monitoring.care import PastCare, Work
from kopiatomic.monitoring.history import JobHistory, PastRun, last_failure, nights, read_histories
from kopiatomic.monitoring.leftovers import Leftover, described_by_job, find_leftovers
from kopiatomic.monitoring.runs import LastGood
from kopiatomic.record import TYPE_CHECKING
from kopiatomic.state import Place
from kopiatomic.system.command import CommandFailed, Door, printable

if TYPE_CHECKING:
    from kopiatomic.backup.keeping import Kept

MARKS = {"success": "+", "unchanged": "=", "incomplete": "~", "failed": "x", "none": "."}

# How many datasets of a drill are named.
NAMED = 3

NOTHING_NEW = "   = nothing new"

LEGEND = "nights, oldest first: + successful   ~ incomplete   x failed   . no backup (yet)"


@dataclass(frozen=True)
class Overview:
    """All that --status shows; ``trouble`` says why leftovers may be missing from it.

    ``job`` is the one that was asked for, or None for all of the program; ``full`` says that
    all that the last good backups captured and left out is wanted as well, and ``layouts``
    tells then of the layouts of the pools that are saved.
    """

    program: str
    job: str | None
    host: str
    now: float
    jobs: tuple[JobHistory, ...]
    leftovers: tuple[Leftover, ...] = ()
    trouble: str | None = None
    full: bool = False
    layouts: Mapping[Place, Kept] = field(default_factory=dict)

    @property
    def is_well(self) -> bool:
        """Whether the last of everything went well, and nothing was left behind."""
        bad = [history for history in self.jobs if _is_bad(history)]
        return not (bad or self.leftovers or self.trouble)


def _is_bad(history: JobHistory) -> bool:
    if history.runs and not history.runs[-1].is_well:
        return True
    return any(work.failed for work in history.works)


def observe(
    door: Door, program: str, job: str | None, now: float, full: bool = False
) -> Overview:
    """Return the overview of a program's jobs, or of one of them; raises Refusal."""

    def wanted(place: Place) -> bool:
        return place.program == program and job in (None, place.job)

    jobs = tuple(history for history in read_histories() if wanted(history.place))
    host = os.uname().nodename
    layouts = _kept(jobs) if full else {}
    try:
        left = tuple(each for each in find_leftovers(door) if wanted(each.place))
    except CommandFailed as error:
        trouble = f"cannot find out what earlier runs have left behind: {error}"
        return Overview(program, job, host, now, jobs, (), trouble, full, layouts)
    return Overview(program, job, host, now, jobs, left, None, full, layouts)


def _kept(jobs: Sequence[JobHistory]) -> dict[Place, Kept]:
    from kopiatomic.backup.keeping import last_kept  # which little else that is shown needs

    kept = {each.place: last_kept(each.place) for each in jobs}
    return {place: layouts for place, layouts in kept.items() if layouts}


def running_since(history: JobHistory, now: float) -> str:
    """Say since when a job has been running, or nothing where that is not known."""
    if history.since is None:
        return ""
    return f", since {when(history.since)} ({duration(max(0.0, now - history.since))})"


# As text


def as_text(overview: Overview) -> str:
    """Return the overview for a person."""
    lines = [f"{overview.program} on {printable(overview.host)}, {clock(overview.now)}", ""]
    if overview.jobs:
        rows = _table(overview)
        told = any("=" in nights for row in rows[1:] for nights in row.split()[-1:])
        lines += [*rows, "", LEGEND + (NOTHING_NEW if told else "")]
    else:
        lines += _no_history(overview.program, overview.job)
    lines += _client_runs(overview)
    lines += _care(overview)
    lines += _running(overview)
    lines += _failures(overview)
    lines += _leftovers(overview)
    if overview.full:
        for history in overview.jobs:
            lines += _in_full(history)
            lines += _layouts(history, overview)
    return "\n".join(lines) + "\n"


def _no_history(program: str, job: str | None) -> list[str]:
    if job is not None:
        return [f"Job {job} has not run on this machine yet. Without -j, all jobs are shown."]
    return [
        f"{program} has made no backup on this machine yet. To see what a backup would do:",
        f"    {program} -n -a",
        f"Without -n, the backup is made. {program}(8) shows how to make one every night.",
    ]


def _table(overview: Overview) -> list[str]:
    head = ("job", "last successful backup", "age", "datasets", "added", "took", "nights")
    rows = [head, *(_row(history, overview.now) for history in overview.jobs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(_pad, row, widths, range(len(row)))).rstrip() for row in rows]


def _pad(text: str, width: int, column: int) -> str:
    return text.rjust(width) if column in (3, 4, 5) else text.ljust(width)


def _row(history: JobHistory, now: float) -> tuple[str, ...]:
    marks = "".join(MARKS[night] for night in nights(history.runs, now))
    run = history.last_success
    if run is None:
        return (history.place.job, "never", "-", "-", "-", "-", marks)
    return (
        history.place.job,
        when(run.when),
        "unknown" if run.when is None else age(now - run.when),
        str(len(run.captured)) if run.captured else "-",
        _added(run),
        "-" if run.seconds is None else duration(run.seconds),
        marks,
    )


def _added(run: PastRun) -> str:
    """Say what the backup added: bytes, or files where the client tells only these."""
    if run.added is not None:
        return size(run.added)
    if run.new_or_changed is not None:
        return f"{run.new_or_changed} files"
    return "-"


def _client_runs(overview: Overview) -> list[str]:
    """Return a line for each client run of the jobs that have several."""
    rows = [
        (history.place.job if number == 0 else "", printable(each.name), line)
        for history in overview.jobs
        for number, each in enumerate(runs.several(history))
        for line in _last_good(each, overview.now)
    ]
    return section("Client runs, and their last good backups:", _in_columns(rows))


def _last_good(each: LastGood, now: float) -> list[str]:
    if each.when is None:
        good = "never" if each.run is None else "unknown"
    else:
        good = f"{when(each.when)}, {care.ago(now - each.when)}"
    if each.row.is_good:
        return [good]
    return [good, f"  {each.row.outcome} {when(each.tried.start)}"]


def _care(overview: Overview) -> list[str]:
    """Return a line for each kind of work between backups that a job has seen."""
    rows = [
        (history.place.job if number == 0 else "", work.name, line)
        for history in overview.jobs
        for number, work in enumerate(history.works)
        for line in _worked(history, work, overview.now)
    ]
    return section("Upkeep and drills, and when they last worked:", _in_columns(rows))


def _in_columns(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """Return rows of a job, a name, and what there is to be told of that, as lines."""
    if not rows:
        return []
    job_width, name_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = []
    for job, name, line in rows:
        # What is more to be told of it stands below.
        left = (job, name) if not line.startswith(" ") else ("", "")
        lines.append(f"{left[0]:<{job_width}}  {left[1]:<{name_width}}  {line}")
    return lines


def _worked(history: JobHistory, work: Work, now: float) -> list[str]:
    lines = [care.moment(work.worked, now)]
    if work.worked is not None and work.worked.files is not None:
        lines.append(f"  {_restored(history, work.worked)}")
    if work.failed is not None:
        lines.append(f"  {care.failure(work.failed)}")
    return lines


def _restored(history: JobHistory, drill: PastCare) -> str:
    """Say how many files a drill restored, and of which datasets."""
    run = history.last_success
    known = dict(zip(run.points, run.captured, strict=False)) if run else {}
    names = [printable(known.get(point, point)) for point in drill.points]
    files = f"{drill.restored} of {drill.files} files"
    if not names:
        return files
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{files}, of {', '.join(names[:NAMED])}{more}"


def _in_full(history: JobHistory) -> list[str]:
    """Return all that the last good backup of a job captured and left out."""
    run, job = history.last_success, history.place.job
    if run is None:
        return ["", f"{job} has no successful backup, so there is nothing to list."]
    return [
        "",
        f"Captured by {job}, {when(run.when)}:",
        *table(_captured(run)),
        *(["", f"Not mounted, captured by {job}:", *table(run.unmounted)] if run.unmounted else []),
        *(["", f"Left out by {job}:", *table(run.omitted)] if run.omitted else []),
        *section(f"Live, not frozen, in {job}:", run.live),
        *section(f"Noted by {job}:", run.notes),
    ]


def _layouts(history: JobHistory, overview: Overview) -> list[str]:
    """Say when the layout of the pools was last saved, in each repository."""
    kept = overview.layouts.get(history.place)
    rows = [
        " ".join(filter(None, [
            f"saved {care.moment_of(each.when, overview.now)}",
            f"to {name}" if name else "",
            f"as {each.backup}" if each.backup else "",
        ]))
        for name, each in (sorted(kept.saved.items()) if kept else ())
    ]  # fmt: skip
    return section(f"Layout of the pools of {history.place.job}:", rows)


def _captured(run: PastRun) -> list[tuple[str, str]]:
    """Return rows of what a run captured, with the existing snapshots that it took."""
    rows = [
        (name, shown(point, run.parts.get(name, ())))
        for name, point in zip(run.captured, run.points, strict=False)
    ]
    if len(run.snapshots) != len(rows):
        return rows
    taken = [f"@{name.partition('@')[2]}" for name in run.snapshots]
    return [
        (name, f"{point}  ({short})")
        for (name, point), short in zip(rows, taken, strict=True)
    ]  # fmt: skip


def _running(overview: Overview) -> list[str]:
    lines = [
        f"  {history.place.job}{running_since(history, overview.now)}"
        for history in overview.jobs
        if history.running
    ]
    return ["", "Running now:", *lines] if lines else []


def _failures(overview: Overview) -> list[str]:
    lines = []
    for history in overview.jobs:
        run = last_failure(history.runs, overview.now)
        if run is not None:
            problem = printable(run.problems[0]) if run.problems else "the reason is not known"
            how = "" if run.outcome == "failed" else f", {run.outcome}"
            lines.append(f"  {history.place.job}, {when(run.when)}{how}: {problem}")
    return ["", "Last failures:", *lines] if lines else []


def _leftovers(overview: Overview) -> list[str]:
    lines = []
    for place, own in described_by_job(overview.leftovers):
        lines += [f"  {each}" for each in own]
        lines.append(f"    to remove it: {place.sweep_command}")
    return ["", "Left behind by earlier runs:", *lines] if lines else []


# As data


def as_dict(overview: Overview) -> dict[str, object]:
    """Return the overview as plain data, for --json."""
    return {
        "program": overview.program,
        "host": overview.host,
        "now": iso(overview.now),
        "jobs": [_past_as_dict(history, overview) for history in overview.jobs],
        "left_over": [
            {"job": each.place.job, "kind": each.kind, "name": each.name}
            for each in overview.leftovers
        ],
        "trouble": overview.trouble,
    }


def _past_as_dict(history: JobHistory, overview: Overview) -> dict[str, object]:
    now = overview.now
    return {
        "job": history.place.job,
        "newest_success": _run_as_dict(history.last_success, now),
        "newest_failure": _run_as_dict(last_failure(history.runs, now), now),
        "nights": nights(history.runs, now),
        "running": history.running,
        "running_since": _optional_iso(history.since),
        "care": [_care_as_dict(work) for work in history.works],
        "client_runs": [_client_run_as_dict(each, now) for each in runs.several(history)],
        **(_lists_as_dict(history.last_success) if overview.full else {}),
        **(_layouts_as_dict(history.place, overview) if overview.full else {}),
    }


def _layouts_as_dict(place: Place, overview: Overview) -> dict[str, object]:
    kept = overview.layouts.get(place)
    return {
        "layouts": [
            {"repository": name or None, "saved": iso(each.when), "backup": each.backup or None}
            for name, each in (sorted(kept.saved.items()) if kept else ())
        ]
    }


def _client_run_as_dict(each: LastGood, now: float) -> dict[str, object]:
    """Return one of several client runs; a job that makes one has none here."""
    kind, of, env_file = each.row.key
    return {
        "name": each.name,
        "kind": kind,
        "of": of or None,
        "repository": each.row.repository or None,
        "env_file": env_file,
        "newest_success": _optional_iso(each.when),
        "age_seconds": None if each.when is None else round(now - each.when),
        "tried": _optional_iso(each.tried.start),
        "outcome": each.row.outcome,
    }


def _care_as_dict(work: Work) -> dict[str, object]:
    worked, failed = work.worked, work.failed
    return {
        "what": work.what,
        **({"repository": work.repository} if work.repository else {}),
        "worked": None if worked is None else _optional_iso(worked.began),
        "failed": None if failed is None else _optional_iso(failed.began),
        "problems": [] if failed is None else list(failed.problems),
        "files": None if worked is None else worked.files,
        "restored": None if worked is None else worked.restored,
        "mountpoints": [] if worked is None else list(worked.points),
    }


def _lists_as_dict(run: PastRun | None) -> dict[str, object]:
    rows = zip(run.captured, run.points, strict=False) if run else iter(())
    bare = dict(run.unmounted) if run else {}
    return {
        "captured": [
            _captured_as_dict(run, name, point)
            | ({"unmounted": bare[name]} if name in bare else {})
            for name, point in rows
        ] if run else [],
        "left_out": [{"name": n, "reason": why} for n, why in (run.omitted if run else ())],
        "not_frozen": list(run.live) if run else [],
        "notes": list(run.notes) if run else [],
    }


def _captured_as_dict(run: PastRun, dataset: str, point: str) -> dict[str, object]:
    parts = run.parts.get(dataset, ())
    row: dict[str, object] = {"dataset": dataset, "mountpoint": point}
    return row | {"directories": list(parts)} if parts else row


def _run_as_dict(run: PastRun | None, now: float) -> dict[str, object] | None:
    if run is None:
        return None
    return {
        "outcome": run.outcome,
        "began": _optional_iso(run.began),
        "moment": _optional_iso(run.moment),
        "age_seconds": None if run.when is None else round(now - run.when),
        "seconds": run.seconds,
        "datasets": len(run.captured),
        "datasets_in_part": len(run.parts),
        "added": run.added,
        "new_or_changed": run.new_or_changed,
        "problems": list(run.problems),
    }


def _optional_iso(moment: float | None) -> str | None:
    return None if moment is None else iso(moment)
