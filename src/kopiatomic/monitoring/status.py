"""The state of the jobs: past runs, runs under way, and what killed runs have left behind."""

import os
from dataclasses import dataclass

from kopiatomic.formatting import age, clock, duration, iso, size, when
from kopiatomic.monitoring.history import JobHistory, PastRun, last_failure, nights, read_histories
from kopiatomic.monitoring.leftovers import Leftover, described_by_job, find_leftovers
from kopiatomic.state import Place
from kopiatomic.system.command import CommandFailed, Door, printable

MARKS = {"success": "+", "incomplete": "~", "failed": "x", "none": "."}
LEGEND = "nights, oldest first: + successful   ~ incomplete   x failed   . no backup (yet)"


@dataclass(frozen=True)
class Overview:
    """All that --status shows; ``trouble`` says why leftovers may be missing from it.

    ``job`` is the one that was asked for, or None for all of the program.
    """

    program: str
    job: str | None
    host: str
    now: float
    jobs: tuple[JobHistory, ...]
    leftovers: tuple[Leftover, ...] = ()
    trouble: str | None = None


def observe(door: Door, program: str, job: str | None, now: float) -> Overview:
    """Return the overview of a program's jobs, or of one of them; raises Refusal."""

    def wanted(place: Place) -> bool:
        return place.program == program and job in (None, place.job)

    jobs = tuple(history for history in read_histories() if wanted(history.place))
    host = os.uname().nodename
    try:
        left = tuple(each for each in find_leftovers(door) if wanted(each.place))
    except CommandFailed as error:
        trouble = f"cannot find out what killed runs have left behind: {error}"
        return Overview(program, job, host, now, jobs, trouble=trouble)
    return Overview(program, job, host, now, jobs, left)


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
        lines += [*_table(overview), "", LEGEND]
    else:
        lines += _no_history(overview.program, overview.job)
    lines += _running(overview)
    lines += _failures(overview)
    lines += _leftovers(overview)
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
    return ["", "Left behind by killed runs:", *lines] if lines else []


# As data


def as_dict(overview: Overview) -> dict[str, object]:
    """Return the overview as plain data, for --json."""
    return {
        "program": overview.program,
        "host": overview.host,
        "now": iso(overview.now),
        "jobs": [_past_as_dict(history, overview.now) for history in overview.jobs],
        "left_over": [
            {"job": each.place.job, "kind": each.kind, "name": each.name}
            for each in overview.leftovers
        ],
        "trouble": overview.trouble,
    }


def _past_as_dict(history: JobHistory, now: float) -> dict[str, object]:
    return {
        "job": history.place.job,
        "newest_success": _run_as_dict(history.last_success, now),
        "newest_failure": _run_as_dict(last_failure(history.runs, now), now),
        "nights": nights(history.runs, now),
        "running": history.running,
        "running_since": _optional_iso(history.since),
    }


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
        "added": run.added,
        "new_or_changed": run.new_or_changed,
        "problems": list(run.problems),
    }


def _optional_iso(moment: float | None) -> str | None:
    return None if moment is None else iso(moment)
