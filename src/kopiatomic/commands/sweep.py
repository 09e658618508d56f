"""Removing what runs that were killed have left behind: of one job, or of all of a program.

``values`` are the command line's options by their names.
"""

import sys
import time
from collections.abc import Mapping, Sequence

from kopiatomic import formatting, state
from kopiatomic.backup import jail, routine
from kopiatomic.backup.report import Report
from kopiatomic.commands import common
from kopiatomic.errors import EX_OSERR, PERIODIC_TROUBLE, Refusal
from kopiatomic.job import Job
from kopiatomic.monitoring.history import find_running
from kopiatomic.monitoring.leftovers import find_leftovers
from kopiatomic.state import Place, Wait
from kopiatomic.system.command import Door, printable


def sweep(job: Job, door: Door, values: Mapping[str, str]) -> int:
    """Sweep one job, or with -a all jobs of the program that have anything left."""
    wait = common.wait_of(job, values)
    common.need_root(job)
    door = jail.entered(door)
    if job.everything:
        return _sweep_all(job.program, door, values, wait)
    done = _swept(Place(job.program, job.name), door, wait)
    if "--json" in values:
        common.show(formatting.as_json({"removed": done.swept, "notes": done.notes}))
    else:
        lines = [f"removed {each}" for each in done.swept] or ["nothing was left behind"]
        common.show("".join(f"{line}\n" for line in lines))
    return _tell(job.program, [("", note) for note in done.notes], EX_OSERR, values)


def _swept(place: Place, door: Door, wait: Wait) -> Report:
    """Sweep a job under its lock; raises Refusal if that is not to be had, or if a mount stays."""
    done = Report(place.program, place.job, "", began=time.time())
    with state.lock(place, wait):
        routine.sweep(place, door, done, thoroughly=True)
    return done


def _sweep_all(program: str, door: Door, values: Mapping[str, str], wait: Wait) -> int:
    """Sweep one job after the other; what cannot be removed of one is no matter to the next."""
    running = {place.job for place in find_running(program)}
    left = find_leftovers(door, thoroughly=True)
    found = {each.place for each in left if each.place.program == program}
    reports: list[Report] = []
    problems: list[tuple[str, str]] = []
    status = EX_OSERR
    for place in sorted(found, key=lambda each: each.job):
        try:
            reports.append(_swept(place, door, wait))
        except Refusal as refusal:
            if refusal.status > 128:
                raise  # a signal, which is meant for all of it
            if state.is_locked(place):
                running.add(place.job)  # by now: it sweeps itself
                continue
            status = status if problems else refusal.status
            problems.append((place.job, str(refusal)))
    problems += [(done.job, note) for done in reports for note in done.notes]
    if "--json" in values:
        common.show(formatting.as_json(_as_dict(reports, sorted(running), problems)))
    else:
        common.show(_as_text(reports, sorted(running), "--periodic" in values or bool(problems)))
    return _tell(program, problems, status, values)


def _as_text(reports: Sequence[Report], running: Sequence[str], quiet: bool) -> str:
    """Return what was done, a line each; in periodic(8)'s name nothing for nothing."""
    lines = [f"job {done.job}: removed {each}" for done in reports for each in done.swept]
    lines += [f"job {job} runs now and was passed over" for job in running]
    if not (lines or quiet):
        lines = ["nothing was left behind"]
    return "".join(f"{printable(line)}\n" for line in lines)


def _as_dict(
    reports: Sequence[Report], running: Sequence[str], problems: Sequence[tuple[str, str]]
) -> dict[str, object]:
    return {
        "jobs": [{"job": done.job, "removed": done.swept} for done in reports],
        "running": list(running),
        "problems": [{"job": job, "problem": problem} for job, problem in problems],
    }


def _tell(
    program: str, problems: Sequence[tuple[str, str]], status: int, values: Mapping[str, str]
) -> int:
    """Say what could not be removed, of which job, and return the exit status."""
    periodic = "--periodic" in values
    for job, problem in problems:
        of = f" (job {job})" if job else ""
        line = f"{program}{of}: {printable(problem)}"
        print(line, file=sys.stdout if periodic else sys.stderr)
    if not problems:
        return 0
    return PERIODIC_TROUBLE if periodic else status
