"""What the programs show without changing anything: past runs, and what endangers backups.

``options`` are those of the command line, in the order in which they were given.
"""

import os
import sys
import time
from collections.abc import Sequence

from kopiatomic import formatting
from kopiatomic.backup import jail
from kopiatomic.commands import common
from kopiatomic.errors import EX_OSERR, PERIODIC_INFORMATION, PERIODIC_TROUBLE
from kopiatomic.job import Job
from kopiatomic.monitoring import check, home, metrics, status
from kopiatomic.system.command import Door


def show_status(job: Job, door: Door, options: Sequence[tuple[str, str]]) -> int:
    """Show past runs, and what killed ones have left behind."""
    values = dict(options)
    common.need_root(job)
    name = job.name if "-j" in values else None
    if "--metrics" in values:
        common.show(metrics.as_text(job.program, metrics.observe(job.program, name)))
        return 0
    door = jail.entered(door)
    overview = status.observe(door, job.program, name, time.time(), "--full" in values)
    as_json, periodic = "--json" in values, "--periodic" in values
    told = formatting.as_json(status.as_dict(overview)) if as_json else status.as_text(overview)
    common.show(told)
    if overview.trouble is None:
        return 0 if overview.is_well or not periodic else PERIODIC_INFORMATION
    print(f"{job.program}: {overview.trouble}", file=sys.stdout if periodic else sys.stderr)
    return PERIODIC_TROUBLE if periodic else EX_OSERR


def check_all(job: Job, door: Door, options: Sequence[tuple[str, str]]) -> int:
    """Print what endangers the backups of all programs; nothing if nothing does.

    What there is to know beside that is no danger: a mail has it only where it can be
    the reason for what was found.
    """
    expect, max_age = check.wishes(options)
    values = dict(options)
    common.need_root(job)
    observed = check.observe(jail.entered(door), expect, max_age)
    found = check.findings(observed, time.time())
    note = home.note(observed.table)
    if "--json" in values:
        notes = [note] if note else []
        common.show(formatting.as_json({**check.as_dict(found), "notes": notes}))
    else:
        told = note and (os.isatty(1) or home.may_explain(each.kind for each in found))
        common.show(check.as_text(found) + (f"{note}\n" if told else ""))
    trouble = PERIODIC_TROUBLE if "--periodic" in values else 1
    return trouble if found else 0
