"""Datasets that jobs have backed up and whose pools are not imported now. Pure: nothing acts.

What is chosen by name is refused where it is not there, and so told by its run. What comes along
with -a, or below a directory with -r, is just not found any more.
"""

from collections.abc import Iterable, Iterator, Sequence

from kopiatomic.backup.selection import is_excluded
from kopiatomic.job import Job
from kopiatomic.monitoring.history import PastRun
from kopiatomic.system import zfs
from kopiatomic.system.machine import Dataset, lies_in


def away(
    jobs: Iterable[tuple[Sequence[PastRun], PastRun]], datasets: Sequence[Dataset], since: float
) -> list[str]:
    """Return the datasets that were in a good backup since a moment and have no pool now.

    ``jobs`` are the runs of each job with the one that says what it chooses. What one of these
    has captured was imported for the time of the backup.
    """
    pools = {zfs.pool_of(each.name) for each in datasets}
    jobs = tuple(jobs)
    newest = {name for _, run in jobs for name in run.captured}
    once: dict[str, None] = {}
    for runs, last in jobs:
        for run in runs:
            if last.job is not None and run.succeeded and (run.when or 0.0) >= since:
                once |= dict.fromkeys(_come_along(last.job, run))
    # Where there is no dataset at all, they could not be listed.
    gone = [each for each in once if each not in newest and zfs.pool_of(each) not in pools]
    return gone if pools else []


def _come_along(job: Job, run: PastRun) -> Iterator[str]:
    """Return what a run has captured that a job would take along if it were there."""
    for name, point in zip(run.captured, run.points, strict=False):
        below = job.recursive and any(
            target.startswith("/") and lies_in(point, target) for target in job.targets
        )
        if (job.everything or below) and not is_excluded(job, name):
            yield name
