"""What was in the last good backup and is not in this one: the run tells it as a problem."""

from collections.abc import Sequence

from kopiatomic.backup.calling import last_entry
from kopiatomic.backup.selection import is_excluded, with_advice
from kopiatomic.backup.work import Work
from kopiatomic.errors import EX_CANTCREAT, EX_NOINPUT
from kopiatomic.system import zfs
from kopiatomic.system.command import CommandFailed, Door, quote
from kopiatomic.system.machine import lies_in, nearest


def miss_named(work: Work) -> None:
    """Tell of what the user named and cannot be captured.

    Of what may be named for the sake of those below it that is so if it was last time; of
    existing snapshots taking.py tells.
    """
    if work.task.job.snapshot is None:
        tell_missed(work)
    missed = [
        each for each in work.plan.left_out if each.is_obstacle and each.named and not each.missed
    ]
    # The history is read only where there is something to look up.
    names = {row.get("dataset") for row in (_captured_before(work) if missed else ())}
    for each in missed:
        if each.name in names:
            work.report.fail(
                f"{each.name} was in the last successful backup and is not in this one: "
                f"{each.reason}",
                EX_NOINPUT,
                "incomplete",
            )


def tell_missed(work: Work) -> None:
    """Tell of what is left out although a run is to say so each time."""
    for each in work.plan.left_out:
        if each.missed:
            message = f"{each.name} is not in this backup: {with_advice(each)}"
            work.report.fail(message, EX_NOINPUT, "incomplete")


def miss_replaced(work: Work) -> None:
    """Tell of directories that lay in another dataset last time, which is not there now.

    What lies beneath its mount point is in the backup instead. Of a dataset that was destroyed
    while its pool is there it is known that this is meant, and what is new tells it.
    """
    parts = [(path, each) for each in work.plan.captured for path in each.directories]
    rows = _captured_before(work) if parts else ()
    before = {str(row.get("mountpoint")): str(row.get("dataset")) for row in rows}
    for path, each in parts:
        point = nearest(path, before)
        if point is None or not lies_in(point, each.point) or point == each.point:
            continue
        if is_away(work.task.door, before[point]):
            work.report.fail(
                f"{path} was in the last successful backup as part of {before[point]}, which is "
                f"not mounted; what lies beneath it in {each.dataset} is in this one instead",
                EX_NOINPUT,
                "incomplete",
            )


def miss_renamed(work: Work, lost: Sequence[str], moved: Sequence[str]) -> None:
    """Tell of datasets that have another name since, and had it before they were shown.

    ``lost`` are the snapshots that are not where the run has made them, ``moved`` what they are
    now. Which is which is not known; of those that were shown before, each may be among them.
    """
    shown = {each.dataset for each in work.plan.members}
    without = [name for each in lost if (name := each.partition("@")[0]) not in shown]
    if without and len(moved) > len(lost) - len(without):
        work.report.fail(
            f"{', '.join(without)}: not in this backup, as a dataset was renamed, or promoted from "
            "a clone, before its snapshot was shown",
            EX_CANTCREAT,
            "incomplete",
        )


def miss_matched(work: Work) -> None:
    """Tell of datasets in which patterns of a list matched last time, and which are not mounted.

    What a pattern does not match any more, nobody has named. To be without one of them, the
    user says so by -x.
    """
    job = work.task.job
    now = {each.dataset for each in work.plan.captured}
    for row in _captured_before(work) if job.patterns else ():
        name = str(row.get("dataset"))
        # What -r takes along is what there is.
        wanted = bool(row.get("directories")) or not job.recursive
        wanted = wanted and name not in now and not is_excluded(job, name)
        if wanted and is_away(work.task.door, name, mounted=False):
            work.report.fail(
                f"{name} was in the last successful backup, as a list had patterns that matched "
                f"in it, and is not mounted; if it is not wanted any more, add -x {quote([name])}",
                EX_NOINPUT,
                "incomplete",
            )


def _captured_before(work: Work) -> list[dict[str, object]]:
    """Return what the history says of each dataset in the last good backup."""
    captured = (last_entry(work.place) or {}).get("captured")
    rows = captured if isinstance(captured, list) else []
    return [row for row in rows if isinstance(row, dict)]


def is_away(door: Door, dataset: str, mounted: bool = True) -> bool:
    """Say whether a dataset may come back: it is there, or its pool is not, or nobody knows.

    One that is mounted is that only if ``mounted`` says so.
    """
    try:
        if zfs.pool_of(dataset) not in zfs.pools(door):
            return True
        found = zfs.list_datasets(door, [dataset])
        return any(mounted or not each.mounted for each in found)
    except CommandFailed as error:
        return "dataset does not exist" not in str(error)
