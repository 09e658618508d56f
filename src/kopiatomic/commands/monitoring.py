"""What the programs show without changing anything: past runs, and what endangers backups.

``options`` are those of the command line, in the order in which they were given.
"""

import sys
import time
from collections.abc import Sequence

from kopiatomic import formatting
from kopiatomic.commands import common
from kopiatomic.errors import EX_OSERR, PERIODIC_TROUBLE
from kopiatomic.job import Job
from kopiatomic.monitoring import check, metrics, status
from kopiatomic.system.command import Door


def show_status(job: Job, door: Door, options: Sequence[tuple[str, str]]) -> int:
    """Show past runs, and what killed ones have left behind."""
    values = dict(options)
    common.need_root(job)
    name = job.name if "-j" in values else None
    if "--metrics" in values:
        common.show(metrics.as_text(job.program, metrics.observe(job.program, name)))
        return 0
    overview = status.observe(door, job.program, name, time.time())
    as_json, periodic = "--json" in values, "--periodic" in values
    told = formatting.as_json(status.as_dict(overview)) if as_json else status.as_text(overview)
    common.show(told)
    if overview.trouble is None:
        return 0
    print(f"{job.program}: {overview.trouble}", file=sys.stdout if periodic else sys.stderr)
    return PERIODIC_TROUBLE if periodic else EX_OSERR


def check_all(job: Job, door: Door, options: Sequence[tuple[str, str]]) -> int:
    """Print what endangers the backups of all programs; nothing if nothing does."""
    expect, max_age = check.wishes(options)
    values = dict(options)
    common.need_root(job)
    found = check.findings(check.observe(door, expect, max_age), time.time())
    as_json = "--json" in values
    common.show(formatting.as_json(check.as_dict(found)) if as_json else check.as_text(found))
    trouble = PERIODIC_TROUBLE if "--periodic" in values else 1
    return trouble if found else 0
