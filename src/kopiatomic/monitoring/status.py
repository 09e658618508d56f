"""The state of the jobs: past runs, what runs now, and what runs that died have left."""

import os
from dataclasses import dataclass

from kopiatomic.formatting import age, clock, duration, iso, size, when
from kopiatomic.monitoring.history import Past, Run, newest_failure, nights, read_pasts
from kopiatomic.monitoring.leftovers import Leftover, described, find_leftovers
from kopiatomic.state import Place
from kopiatomic.system.command import CommandFailed, Door, printable

MARKS = {"success": "+", "incomplete": "~", "failed": "x", "none": "."}
LEGEND = "nights, oldest first: + good   ~ incomplete   x failed   . none (yet)"


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


# As data


def as_dict(account: Account) -> dict[str, object]:
    """Return the account as plain data, for --json."""
    return {
        "program": account.program,
        "host": account.host,
        "now": iso(account.now),
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
        "running_since": _optional_iso(past.since),
    }


def _run_as_dict(run: Run | None, now: float) -> dict[str, object] | None:
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
