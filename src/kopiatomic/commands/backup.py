"""What the programs do with snapshots, one function for each: prepare, run, tell, exit status.

``values`` are the command line's options by their names.
"""

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace

from kopiatomic import formatting, redact, state
from kopiatomic.backup import preflight, report, routine
from kopiatomic.clients import base
from kopiatomic.commands import common
from kopiatomic.errors import EX_OSERR, PERIODIC_INFORMATION, PERIODIC_TROUBLE
from kopiatomic.job import Job
from kopiatomic.system import nullfs, process
from kopiatomic.system.command import Door


def back_up(job: Job, door: Door, values: Mapping[str, str]) -> int:
    """Run a backup and tell what it came to."""
    job = preflight.with_environment(job)
    door = replace(door, nmount=nullfs.find_nmount())
    done = routine.run(job, door, common.streams(values), os.environ)
    if "--json" in values:
        common.show(formatting.as_json(report.as_dict(done)))
    elif "--periodic" in values:
        common.show(report.as_mail(done))
    else:
        common.show("\n" + report.as_text(done))
    return common.tell(job, done, values, PERIODIC_INFORMATION if done.noteworthy else 0)


def dry_run(job: Job, door: Door, values: Mapping[str, str]) -> int:
    """Say what a backup would do; needs no rights."""
    job, notes = preflight.with_environment_if_allowed(job)
    environment = base.client_environment(job, os.environ, None)
    needs = routine.find_needs(job, environment)
    names = routine.name_run(state.Place(job.program, job.name))
    plan = routine.draw_plan(job, door, names, needs)
    plan = replace(plan, notes=(*plan.notes, *notes))
    words = base.client_command(job, plan, None, None, not process.on_terminal())
    if "--json" in values:
        text = formatting.as_json(report.plan_as_dict(plan, words))
    else:
        text = report.plan_as_text(plan, words)
    common.show(redact.redactor(environment, [*job.command, *job.options], needs.program)(text))
    return 0


def sweep(job: Job, door: Door, values: Mapping[str, str]) -> int:
    """Remove what runs that were killed have left behind."""
    preflight.need_root(job)
    place = state.Place(job.program, job.name)
    with state.lock(place):
        done = report.Report(job.program, job.name, "", began=time.time())
        routine.sweep(place, door, done, thoroughly=True)
    if "--json" in values:
        common.show(formatting.as_json({"removed": done.swept, "notes": done.notes}))
    else:
        lines = [f"removed {each}" for each in done.swept] or ["nothing was left behind"]
        common.show("".join(f"{line}\n" for line in lines))
    periodic = "--periodic" in values
    for note in done.notes:
        print(f"{job.program}: {note}", file=sys.stdout if periodic else sys.stderr)
    if not done.notes:
        return 0
    return PERIODIC_TROUBLE if periodic else EX_OSERR
